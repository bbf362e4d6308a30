//! What all connections share: the limits, the stop, the counters, and the crowd with its places.
//!
//! It stands below them: it neither accepts nor serves, and knows no handler.

use crate::http::limits::FrontLimits;
use crate::sys::proxies::TrustedProxies;
use crate::sys::stop::Stop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What all connections share.
#[derive(Debug)]
pub(super) struct House {
    pub(super) limits: FrontLimits,
    pub(super) proxies: TrustedProxies,
    pub(super) stop: Stop,
    pub(super) counters: Counters,
    crowd: Crowd,
}

impl House {
    /// A house without anybody in it.
    pub(super) fn new(limits: FrontLimits, proxies: TrustedProxies, stop: Stop) -> Arc<Self> {
        let (counters, crowd) = (Counters::default(), Crowd::default());
        Arc::new(Self { limits, proxies, stop, counters, crowd })
    }

    /// Counts a connection that was accepted, and gives it a place unless all are taken.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Place> {
        self.counters.accept();
        self.crowd.enter(self.limits.connections).then(|| Place(Arc::clone(self)))
    }

    /// Whether connections may be kept for another request.
    pub(super) fn may_keep(&self) -> bool {
        self.stop.is_running() && self.crowd.count() <= self.limits.connections - self.limits.connections / 4
    }

    /// Connections at the moment.
    pub(super) fn connections(&self) -> usize {
        self.crowd.count()
    }

    /// Waits until nobody is left or `until`; answers how many are.
    pub(super) fn wait_until_empty(&self, until: Instant) -> usize {
        self.crowd.wait(until)
    }
}

/// A connection's place in the crowd, given back when its thread ends however it ends.
#[derive(Debug)]
pub(super) struct Place(Arc<House>);

impl Place {
    /// The house that it is in.
    pub(super) fn house(&self) -> &Arc<House> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.crowd.leave();
    }
}

/// Why a client was turned away by the front itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// All connections are taken.
    Full,
    /// The process had no descriptor left.
    NoDescriptor,
    /// The machine had no room for a thread.
    NoThread,
    /// The request's head was refused, for whatever reason.
    BadHead,
    /// Its head did not come in time; counted besides [`TurnedAway::BadHead`].
    SlowHead,
}

impl TurnedAway {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::NoDescriptor, Self::NoThread, Self::BadHead, Self::SlowHead];

    /// The name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "connections",
            Self::NoDescriptor => "descriptors",
            Self::NoThread => "threads",
            Self::BadHead => "bad_request",
            Self::SlowHead => "slow_head",
        }
    }
}

/// What the front has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    requests: AtomicU64,
    turned_away: [AtomicU64; TurnedAway::ALL.len()],
}

impl Counters {
    /// Connections accepted, those included that were turned away.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests handed to the handler.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Clients turned away.
    #[must_use]
    pub fn turned_away(&self, why: TurnedAway) -> u64 {
        self.turned_away[why as usize].load(Ordering::Relaxed)
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turn_away(&self, why: TurnedAway) {
        self.turned_away[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// How many connections there are, and a way to wait until there are none.
#[derive(Debug, Default)]
struct Crowd {
    count: Mutex<usize>,
    left: Condvar,
}

impl Crowd {
    fn count(&self) -> usize {
        *self.lock()
    }

    fn enter(&self, most: usize) -> bool {
        let mut count = self.lock();
        let room = *count < most;
        *count += usize::from(room);
        room
    }

    fn leave(&self) {
        *self.lock() -= 1;
        self.left.notify_all();
    }

    /// Waits until nobody is left or `until`; answers how many are.
    fn wait(&self, until: Instant) -> usize {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.left.wait_timeout_while(self.lock(), left, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_crowd_has_a_limit_and_can_be_waited_for() {
        let crowd = Crowd::default();
        assert!(crowd.enter(2) && crowd.enter(2) && !crowd.enter(2));
        crowd.leave();
        assert_eq!(crowd.wait(Instant::now()), 1);
        crowd.leave();
        assert_eq!(crowd.wait(Instant::now() + Duration::from_secs(60)), 0);
    }

    #[test]
    fn labels_stand_where_they_are_counted() {
        for (place, why) in TurnedAway::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place, "{}", why.label());
        }
    }
}
