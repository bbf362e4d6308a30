//! The operating system behind small safe types: threads, stop, sockets, signals, limits, `/proc`.
//!
//! Owns every system call that is not about a child process. `unsafe` is allowed here and in `supervise` only.

pub mod current;
pub mod fault;
pub mod limits;
pub mod local;
pub mod logging;
pub mod machine;
pub mod memory_file;
pub mod net;
pub mod poll;
pub mod private;
pub mod probe;
pub mod procfs;
pub mod proxies;
pub mod random;
pub mod signals;
pub mod space;
pub mod stop;
pub mod systemd;
pub mod thread;
pub mod timetable;
