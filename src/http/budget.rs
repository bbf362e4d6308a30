//! What request bodies of one kind may take together, however many connections send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the bodies of all fetches may take together, in memory and on disk, beyond [`SHARE_FREE`] each: sixteen of the
/// largest that the settings allow by themselves. Anybody may send them, and gzip makes them a thousand times cheaper to
/// send than to keep.
pub const FETCHES_MAX: u64 = 256 << 20;

/// So many bytes of each body count for nothing: the negotiations of ordinary fetches go on when a few slow clients have
/// filled the budget, and a thousand connections come to no more than 64 MiB by this.
const SHARE_FREE: u64 = 64 << 10;

/// Bytes that bodies of one kind may take together.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64,
}

impl Budget {
    /// A budget of `bytes`, of which nothing is taken.
    #[must_use]
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(bytes) })
    }

    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// What one body has of a budget; dropping it gives that back, so it is kept for as long as the body's file.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    taken: u64,
}

impl Share {
    /// Nothing of `budget` yet.
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), taken: 0 }
    }

    /// Makes the share large enough for a body of `len` bytes; `false` when the budget does not have it.
    pub(super) fn reach(&mut self, len: u64) -> bool {
        let more = len.saturating_sub(SHARE_FREE).saturating_sub(self.taken);
        let is_granted = self.budget.take(more);
        if is_granted {
            self.taken += more;
        }
        is_granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_come_to_more_than_the_budget() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (Share::of(&budget), Share::of(&budget));
        assert!(one.reach(SHARE_FREE + 60) && two.reach(SHARE_FREE + 40));
        assert!(!one.reach(SHARE_FREE + 61) && one.reach(SHARE_FREE + 60) && one.reach(1));
        drop(two);
        assert!(one.reach(SHARE_FREE + 100) && !one.reach(SHARE_FREE + 101));
    }
}
