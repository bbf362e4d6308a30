//! The checks of a push against real gits and real pushes, each in the view that the gate gives it.
//!
//! A test binary of its own: the reaper takes every wait of its process, so each git here, also one that only prepares a
//! test, is a child of the one reaper. Every git of this machine takes part.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod commands;
mod history;
mod lines;
mod objects;
mod rights;
mod support;
