//! The git room against the real git: command lines, places, settings, and what a killed push leaves.
//!
//! A test binary of its own: the reaper takes every wait of its process, so each git here, also one that only prepares a
//! test, is a child of the one reaper. Every git of this machine takes part (Debian's 2.39 and a newer one, where both
//! are there).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod leftovers;
mod serving;
mod settings;
mod support;
