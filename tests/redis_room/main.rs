//! Telling a Redis server of changes and hearing of them, against real servers: the script, the connections, the mending.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test starts its own server and waits for it as an ordinary process"
)]
#![expect(clippy::print_stderr, reason = "the log of a server belongs to the output of a failed test")]

mod applying;
mod hearing;
#[path = "../it/support/port.rs"]
mod port;
#[path = "../it/support/redis.rs"]
mod redis;
mod storm;
mod support;
mod trouble;
