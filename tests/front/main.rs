//! The public front over real sockets, with raw bytes: what it refuses, what it bounds, and how it ends.
//!
//! Times in here are limits of hanging, not measurements; the front's own limits are lowered where a test waits for
//! one of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod answers;
mod bodies;
mod ending;
mod heads;
mod limits;
mod speed;
mod support;
