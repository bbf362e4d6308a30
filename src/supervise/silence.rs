//! A limit on how long a child may be silent before its work shows.

use super::outcome::Deadline;
use std::fmt;
use std::time::{Duration, Instant};

/// The limit, from the last sign of life on.
pub(super) struct Silence {
    until: Deadline,
    has_begun: Box<dyn Fn() -> bool + Send>,
}

impl Silence {
    /// Of a child that is started at `now`.
    pub(super) fn starting(
        now: Instant,
        limit: Duration,
        name: &'static str,
        has_begun: Box<dyn Fn() -> bool + Send>,
    ) -> Self {
        Self { until: Deadline::starting(now, limit, name), has_begun }
    }

    /// When it is to be looked at again, and what people are told if it has passed.
    pub(super) const fn until(&self) -> Deadline {
        self.until
    }

    /// The child was heard of at `now`.
    pub(super) fn hear(&mut self, now: Instant) {
        self.until = Deadline::starting(now, self.until.limit, self.until.name);
    }

    /// Whether the work shows: then it may be silent.
    pub(super) fn is_over(&self) -> bool {
        (self.has_begun)()
    }
}

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "silent for {}", self.until)
    }
}
