//! What the store of answers counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a request came by its answer, where that can be somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// It was kept.
    Hit,
    /// It is being made for somebody else.
    Follower,
    /// It was made for this one.
    Miss,
}

impl Source {
    /// The label in metrics and in the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Follower => "follower",
            Self::Miss => "miss",
        }
    }
}

/// Why an answer was kept no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its time was over.
    Age,
    /// Others needed the room that all of them have.
    Bytes,
    /// There were as many as there may be.
    Entries,
    /// The volume came to its floor.
    Floor,
    /// Its repository has not the objects any more.
    Gone,
}

impl Cause {
    /// Every cause, in the order in which people are shown them.
    pub const ALL: [Self; 5] = [Self::Age, Self::Bytes, Self::Entries, Self::Floor, Self::Gone];

    /// The label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::Entries => "entries",
            Self::Floor => "floor",
            Self::Gone => "gone",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    evictions: [AtomicU64; Cause::ALL.len()],
    pub(super) generated: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl Counts {
    pub(super) fn eviction(&self, cause: Cause) -> &AtomicU64 {
        &self.evictions[cause as usize]
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
