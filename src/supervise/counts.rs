//! What supervision counts.

use super::outcome::Why;
use std::sync::atomic::AtomicU64;

/// What has been counted since the start, and what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Children started.
    pub spawned: u64,
    /// Children reaped, adopted ones not among them.
    pub reaped: u64,
    /// Adopted processes reaped.
    pub orphans_reaped: u64,
    /// Escaped processes of ours that were told to go.
    pub orphans_ended: u64,
    /// Children whose status somebody else had taken.
    pub lost: u64,
    /// Groups told to go, by reason.
    pub killed: Vec<(Why, u64)>,
    /// Groups that did not go.
    pub leaked_total: u64,
    /// Groups that have not gone to this day.
    pub leaked: u64,
    /// Children that have ended and wait to be reaped at this moment.
    pub zombies: u64,
}

/// What is counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) spawned: AtomicU64,
    pub(super) reaped: AtomicU64,
    pub(super) orphans_reaped: AtomicU64,
    pub(super) orphans_ended: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) leaked_total: AtomicU64,
    pub(super) killed: [AtomicU64; Why::ALL.len()],
}
