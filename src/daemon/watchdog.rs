//! The service manager's watchdog: when it is to be fed, and whether there is reason to.

use std::time::{Duration, Instant};

/// When the service manager wants to hear of us, and what was seen the last time.
#[derive(Debug)]
pub(super) struct Watchdog {
    every: Duration,
    next: Instant,
    beats: u64,
}

impl Watchdog {
    /// `interval` is the manager's patience; it hears of us twice within it.
    pub(super) fn new(interval: Duration) -> Self {
        Self { every: interval / 2, next: Instant::now(), beats: 0 }
    }

    pub(super) fn is_due(&mut self) -> bool {
        let due = self.next <= Instant::now();
        if due {
            self.next = Instant::now() + self.every;
        }
        due
    }

    /// Whether a counter that rises with every round of the sweeper has not risen since the last time.
    pub(super) fn has_stalled(&mut self, beats: u64) -> bool {
        std::mem::replace(&mut self.beats, beats) == beats
    }
}
