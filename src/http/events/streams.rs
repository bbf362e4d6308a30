//! How many streams of events there are, and why some were ended by the gate.

use crate::http::metrics::Page;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
    open: AtomicUsize,
    serial: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// A stream's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Streams,
    serial: u64,
}

impl Streams {
    /// Places for `max` of them.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let (open, serial) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Shared { max, open, serial, dropped: Default::default() }))
    }

    /// How many there may be.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// A place, unless all are taken.
    pub(super) fn enter(&self) -> Option<Place> {
        let one_more = |open: usize| (open < self.0.max).then_some(open + 1);
        self.0.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        Some(Place { streams: self.clone(), serial })
    }

    /// Counts one that was ended so.
    pub(super) fn count(&self, why: Dropped) {
        self.0.dropped[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes how many there are, and were dropped.
    pub(in crate::http) fn write(&self, page: &mut Page) {
        page.single("sse_streams", "gauge", "Open streams of events.", self.0.open.load(Ordering::Acquire));
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
        self.streams.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_places_than_there_are_and_each_is_given_back() {
        let streams = Streams::new(2);
        let (one, two) = (streams.enter().unwrap(), streams.enter().unwrap());
        assert!(streams.enter().is_none() && one.serial() != two.serial());
        drop(one);
        let again = streams.enter();
        assert!(again.is_some() && streams.enter().is_none());
        streams.count(Dropped::Behind);
        let mut page = Page::default();
        streams.write(&mut page);
        let text = page.into_text();
        for line in ["tidegate_sse_streams 2", "tidegate_sse_dropped_total{why=\"behind\"} 1"] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn reasons_stand_where_they_are_counted() {
        for (place, why) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place, "{}", why.label());
        }
    }
}
