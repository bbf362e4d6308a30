//! By which names of the fleet peers go that are listened to: two of one name are one gate at two addresses, or two that run on
//! copies of one data directory.

use crate::model::fleet::Incarnation;
use crate::model::peer::PeerName;
use crate::sys::stop::{Level, Stop};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All of them; clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Speakers(Arc<Mutex<Vec<Row>>>);

#[derive(Debug)]
struct Row {
    incarnation: Incarnation,
    peer: PeerName,
    /// Of which listener.
    generation: u64,
    stop: Stop,
}

/// The right of one listener to believe what is said in a name, until it is dropped.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) incarnation: Incarnation,
    generation: u64,
    all: Speakers,
}

impl Speakers {
    /// The peer goes by this name, unless another one does, which is answered. A listener that was stopped believes nothing
    /// any more.
    pub(super) fn enter(
        &self,
        incarnation: Incarnation,
        peer: &PeerName,
        generation: u64,
        stop: &Stop,
    ) -> Result<Speaker, PeerName> {
        let mut rows = self.lock();
        rows.retain(|row| row.generation != generation && row.stop.level() != Level::Killing);
        if let Some(other) = rows.iter().find(|row| row.incarnation == incarnation) {
            return Err(other.peer.clone());
        }
        let row =
            Row { incarnation: incarnation.clone(), peer: peer.clone(), generation, stop: stop.clone() };
        rows.push(row);
        Ok(Speaker { incarnation, generation, all: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.all.lock().retain(|row| row.generation != self.generation);
    }
}
