//! A count that only grows and can be waited for: "something happened since I looked".

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rung after an event. A waiter reads [`Bell::count`], looks at the world, and waits for the count to move: what happens
/// between the look and the wait ends the wait at once.
#[derive(Debug, Default)]
pub(super) struct Bell {
    count: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    /// Counts one event and wakes every waiter.
    pub(super) fn ring(&self) {
        *self.lock() += 1;
        self.rung.notify_all();
    }

    /// How many events there have been.
    pub(super) fn count(&self) -> u64 {
        *self.lock()
    }

    /// Waits until there have been more than `seen` events, at most `limit`.
    pub(super) fn wait_after(&self, seen: u64, limit: Duration) {
        let guard = self.lock();
        // Both answers, rung and timed out, mean the same to the caller: look again.
        let _ = self.rung.wait_timeout_while(guard, limit, |count| *count <= seen);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
