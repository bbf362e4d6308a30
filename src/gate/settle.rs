//! What came of a forward is written down, however long the database does not take it.
//!
//! After some seconds the worker goes on, and whoever waits is told that nobody knows yet: the target is asked again, after
//! growing pauses, until the database takes what it says.

use super::road::Road;
use crate::model::pause::Doubling;
use crate::model::push::PushId;
use crate::store::pushes::Step;
use crate::sys::stop::Level;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The pauses between attempts to write down what became of a forward, in ms: a disk that is full for a moment.
const PAUSES: [u64; 5] = [250, 500, 1000, 2000, 4000];

/// The pauses between questions to the target after that.
const REST: Doubling = Doubling { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// Forwards of which this life of the gate could not write down what became of them: how often, and when their targets are
/// asked again.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Mutex<HashMap<PushId, (u32, Instant)>>);

impl Unsettled {
    pub(super) fn has(&self, id: PushId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Those whose targets are to be asked again by now.
    pub(super) fn due(&self, now: Instant) -> Vec<PushId> {
        self.lock().iter().filter(|(_, (_, due))| *due <= now).map(|(id, _)| *id).collect()
    }

    fn add(&self, id: PushId, now: Instant) {
        let mut all = self.lock();
        let (times, due) = all.entry(id).or_insert((0, now));
        *times = times.saturating_add(1);
        *due = now + REST.after(*times);
    }

    fn forget(&self, id: PushId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PushId, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Road {
    /// Whether a push was forwarded, and what came of that could not be written down yet.
    #[must_use]
    pub fn is_unsettled(&self, id: PushId) -> bool {
        self.unsettled().has(id)
    }

    /// As [`Road::take`], at the end of a forward; where the database does not take it, it is tried again for some seconds,
    /// once only where that was in vain before, and not while the gate stops.
    pub(super) fn take_patiently(&self, id: PushId, step: &Step<'_>) {
        let pauses = if self.is_unsettled(id) { &[] } else { &PAUSES[..] };
        let mut pauses = pauses.iter().map(|ms| Duration::from_millis(*ms));
        loop {
            let error = match self.try_take(id, step) {
                Ok(_) => {
                    self.unsettled().forget(id);
                    return self.tidy(id);
                }
                Err(error) => error,
            };
            let Some(pause) = pauses.next().filter(|_| self.parts().stop.is_running()) else {
                log::error!("push {id}: {}: {error}; its target is asked again later", step.event);
                return self.unsettled().add(id, Instant::now());
            };
            log::warn!("push {id}: {}: {error}; it is tried again", step.event);
            // Where the gate stops meanwhile, one more attempt is the last.
            let _ = self.parts().stop.sleep(pause, Level::Draining);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_asked_after_pauses_that_grow_until_what_it_says_is_written_down() {
        let (unsettled, id, now) = (Unsettled::default(), PushId::new(7).unwrap(), Instant::now());
        for pause in [1, 2, 4] {
            unsettled.add(id, now);
            assert_eq!(unsettled.due(now + Duration::from_secs(pause)), [id]);
            assert_eq!(unsettled.due(now + Duration::from_secs(pause) / 2), []);
        }
        unsettled.forget(id);
        assert!(!unsettled.has(id) && unsettled.due(now + REST.most).is_empty());
    }
}
