//! Tidegate: a gate and mirror between git clients and the forges they push to, as one synchronous process.
//!
//! The rooms below stand on floors, highest first; a room imports only from floors below its own
//! (`tests/tidy.rs` holds that):
//!
//! | floor | rooms |
//! |---|---|
//! | 8 | `main`: the program |
//! | 7 | [`daemon`]: the composition root |
//! | 6 | [`cli`], [`http`], [`sweeper`]: the doors |
//! | 5 | [`gate`]: the verbs; [`peers`]: the other gates' door |
//! | 4 | [`mirror`]: upstreams and the copies of their repositories; [`outbox`]: what is published, and where |
//! | 3 | [`git`], [`store`], [`client`]: the tools |
//! | 2 | [`supervise`]: the only room that starts, signals and waits for processes; [`bus`]: events within the process |
//! | 1 | [`sys`], [`config`]: the operating system, the settings |
//! | 0 | [`model`]: the nouns; no I/O, no clock, no environment |

pub mod bus;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod gate;
pub mod git;
pub mod http;
pub mod mirror;
pub mod model;
pub mod outbox;
pub mod peers;
pub mod store;
pub mod supervise;
pub mod sweeper;
pub mod sys;
