//! Publishing: what the outbox has is delivered to its sinks, each by a thread of its own, until it is acknowledged.
//!
//! A sink that is down, slow or hung delays no request, no other sink and no stop: nobody waits for its thread but the end
//! of the gate, and that no longer than [`LAST_PASS`]. Rows outlive the process; what a sink has taken without its answer
//! having come is delivered again, with the same delivery id.

mod drain;
pub mod redis;
mod sinks;
pub mod webhook;

pub use drain::{Outbox, OutboxError, SinkState, SinkStates};
pub use sinks::publishers;

use crate::store::events::Subscription;
use crate::store::outbox::Row;
use crate::sys::stop::Stop;
use std::fmt;
use std::time::{Duration, Instant};

/// How long sinks may take, all together, to be given what is left when the gate stops.
pub const LAST_PASS: Duration = Duration::from_secs(2);

/// A place that events are published to. Its name and its wishes are in its
/// [`Subscription`](crate::store::events::Subscription).
pub trait Sink: Send {
    /// Delivers one row, and comes back by `limits`, whatever the other side does.
    fn deliver(&mut self, row: &Row, limits: &Limits<'_>) -> Delivered;

    /// Why it wants nothing, where that is known before anything is delivered.
    fn disabled(&self) -> Option<&str> {
        None
    }

    /// The operator wants it to be tried again, whatever it has said.
    fn enable(&mut self) {}
}

/// A sink with what it is to be told.
pub struct Publisher {
    /// Its name, and what it is told.
    pub subscription: Subscription,
    /// The sink itself.
    pub sink: Box<dyn Sink>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// What ends a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// When it is given up. The sink's own limits are within this one.
    pub until: Instant,
    /// Ends every wait, once deliveries are to end at all.
    pub stop: &'a Stop,
}

/// What came of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The sink has it.
    Acknowledged,
    /// It has not, for this reason, and is to be tried again; after this time at the earliest, if it said so.
    Again {
        /// Why.
        why: String,
        /// What it asked for.
        after: Option<Duration>,
    },
    /// It has not, since it cannot take what is told of this repository, for this reason; others are told of meanwhile.
    Held(String),
    /// It will never take this row: the row is dropped.
    GivenUp(String),
    /// It wants nothing any more: all that waits for it is dropped, and what comes.
    Disabled(String),
}
