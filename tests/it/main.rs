//! The end-to-end tests: the real `tidegate`, the real `git`, and a verdict from `/proc`, the disk and the database.
//!
//! Nothing here stands in for a part of the server. The one substitute is a small compiled program
//! (`support/fake_git.rs`) that misbehaves where git would have to be broken on purpose. Every wait has a
//! limit that is a limit of hanging, about tenfold of what a quiet machine needs, so that a loaded one
//! fails nothing.
//!
//! Environment: `TIDEGATE_TEST_SEED` repeats a run (the seed is printed), `TIDEGATE_TEST_BIG_MIB` sizes the
//! repository of the memory tests, `TIDEGATE_TEST_ABORTS` counts the aborted clones, `TIDEGATE_TEST_ROUNDS` the refs that are
//! moved under a client that asks for them.
#![expect(
    clippy::disallowed_methods,
    reason = "a test stands outside of the server: it starts, kills and waits for it as an ordinary process"
)]
#![expect(
    clippy::unwrap_used,
    reason = "in a test an unexpected None or Err is the finding, and unwrap names the line"
)]
#![expect(clippy::print_stderr, reason = "seeds and the log of a gate belong to the output of a failed test")]

mod support;

mod abort;
mod access;
mod clone;
mod crash;
mod demo;
mod empty_root;
mod environ;
mod fleet;
mod front;
mod hold;
mod hostile;
mod known;
mod lanes;
mod memory;
mod mirror;
mod misbehave;
mod operate;
mod pages;
mod parity;
mod proxy;
mod push;
mod responses;
mod silence;
mod slow;
mod socket;
mod stop;
mod upstream;
