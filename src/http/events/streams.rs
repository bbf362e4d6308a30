//! How many streams of events there are, and why some were ended by the gate.

use super::turn::{Turn, Turns};
use crate::http::metrics::Page;
use crate::model::name::UserName;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One user has no more than this part of the places, as its divisor: whoever lost count of his streams keeps nobody else out.
const SHARE: usize = 4;

/// Why the gate let go of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It took nothing for `limits.write_stall`.
    Stalled,
    /// It read so slowly that it fell behind what is kept for everybody.
    Behind,
    /// Its machine acknowledges nothing any more.
    Silent,
    /// Its token was removed, or has expired.
    Revoked,
}

impl Dropped {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Stalled, Self::Behind, Self::Silent, Self::Revoked];

    /// The name in metrics and the log, and where a client is told.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Behind => "behind",
            Self::Silent => "silent",
            Self::Revoked => "revoked",
        }
    }
}

/// The places for streams of events; clones share them.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    /// Whose streams are open, and how many.
    open: Mutex<BTreeMap<Option<UserName>, usize>>,
    serial: AtomicU64,
    turns: Turns,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// A stream's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Streams,
    serial: u64,
    user: Option<UserName>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// The user has as many as one may have.
    Share,
}

impl Streams {
    /// Places for `max` of them.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let (open, serial, turns, dropped) = Default::default();
        Self(Arc::new(Shared { max, open, serial, turns, dropped }))
    }

    /// How many there may be.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// How many one user may have.
    #[must_use]
    pub fn share(&self) -> usize {
        (self.0.max / SHARE).max(1)
    }

    /// A place for a stream of `user`, unless all are taken, or as many of his as he may have.
    pub(super) fn enter(&self, user: Option<UserName>) -> Result<Place, NoPlace> {
        let mut open = self.lock();
        if open.values().sum::<usize>() >= self.0.max {
            return Err(NoPlace::Full);
        }
        let own = open.entry(user.clone()).or_default();
        if *own >= self.share() {
            return Err(NoPlace::Share);
        }
        *own += 1;
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        Ok(Place { streams: self.clone(), serial, user })
    }

    /// The turn to read what a stream has missed, once all have had theirs who asked before.
    pub(super) fn turn(&self) -> Turn {
        self.0.turns.take()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<UserName>, usize>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one that was ended so.
    pub(super) fn count(&self, why: Dropped) {
        self.0.dropped[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes how many there are, and were dropped.
    pub(in crate::http) fn write(&self, page: &mut Page) {
        page.single("sse_streams", "gauge", "Open streams of events.", self.lock().values().sum::<usize>());
        page.family("sse_dropped_total", "counter", "Streams of events that the gate ended, by reason.");
        for why in Dropped::ALL {
            let count = self.0.dropped[why as usize].load(Ordering::Relaxed);
            page.sample("sse_dropped_total", &[("why", why.label())], count);
        }
    }
}

impl Place {
    /// Its number among all that there were.
    pub(super) const fn serial(&self) -> u64 {
        self.serial
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut own) = self.streams.lock().entry(self.user.take()) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_places_than_there_are_and_each_is_given_back() {
        let (streams, of) = (Streams::new(2), |name: &str| Some(UserName::parse(name).unwrap()));
        let (one, two) = (streams.enter(of("alice")).unwrap(), streams.enter(of("rita")).unwrap());
        assert!(streams.enter(of("bob")).is_err() && one.serial() != two.serial());
        drop(one);
        let again = streams.enter(of("bob"));
        assert!(again.is_ok() && streams.enter(None).is_err_and(|why| why == NoPlace::Full));
        streams.count(Dropped::Behind);
        let mut page = Page::default();
        streams.write(&mut page);
        let text = page.into_text();
        for line in ["tidegate_sse_streams 2", "tidegate_sse_dropped_total{why=\"behind\"} 1"] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn one_user_has_a_quarter_of_the_places_at_most() {
        let streams = Streams::new(9);
        let enter = |name: &str| streams.enter(Some(UserName::parse(name).unwrap()));
        let mut own: Vec<Place> = (0..2).map(|_| enter("alice").unwrap()).collect();
        assert!(enter("alice").is_err_and(|why| why == NoPlace::Share));
        let _other = enter("bob").unwrap();
        own.pop();
        own.push(enter("alice").unwrap());
        drop(own);
        assert_eq!(streams.lock().len(), 1, "nobody is remembered who has none");
    }

    #[test]
    fn reasons_stand_where_they_are_counted() {
        for (place, why) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place, "{}", why.label());
        }
    }
}
