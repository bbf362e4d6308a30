//! The road of a push through the gate with the real git at both ends: taken into a staging repository, forwarded to the
//! target.
//!
//! A test binary of its own: the reaper takes every wait of its process, so each git here is a child of the one reaper.
//! The requests are those of a real client: it pushes into a copy of the target, and what it sent is kept. So the copy
//! also shows what the target looks like after the same push without a gate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod forwarding;
mod killing;
mod large;
mod racing;
mod staging;
mod support;
