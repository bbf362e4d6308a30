//! Named threads: the only way to start one.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Stack of an ordinary thread of ours, in bytes. SQLite and formatting stay far below it; only touched pages
/// cost memory.
pub const STACK: usize = 1 << 20;

/// Starts a thread called `name` with the ordinary stack.
///
/// The kernel shows the first 15 bytes of the name in `/proc/PID/task/TID/comm`.
///
/// # Errors
/// What `clone(2)` answers when the machine has no room for one more thread (`EAGAIN`).
pub fn spawn<T, F>(name: impl Into<String>, body: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new().name(name.into()).stack_size(STACK).spawn(body)
}
