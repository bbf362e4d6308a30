//! How many records came into which state in this life of the gate.

use crate::model::push::PushState;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter for each state, in the order of [`PushState::ALL`].
#[derive(Debug, Default)]
pub(in crate::store) struct Entered([AtomicU64; PushState::ALL.len()]);

impl Entered {
    pub(super) fn note(&self, state: PushState) {
        for count in self.of(state) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, state: PushState) -> u64 {
        self.of(state).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn of(&self, state: PushState) -> impl Iterator<Item = &AtomicU64> {
        PushState::ALL.iter().zip(&self.0).filter(move |(at, _)| **at == state).map(|(_, count)| count)
    }
}
