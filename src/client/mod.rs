//! Our own HTTP client, and what other clients have in common with it: how the gate itself, without a git, reaches servers
//! that it does not run.
//!
//! Owns the connections, the limits of making one, the lookups of names, what a proxy in between is told, and the files of
//! secrets that are shown to others. Every wait for a server ends when the gate stops. What is asked, what an answer means,
//! and how often to try again is for the rooms above.

mod agents;
mod fault;
mod names;
pub mod proxy;
pub mod secrets;
mod socket;

pub use agents::{Agents, IDLE};
pub use fault::{Fault, Sight, Unreached, is_timeout, tls_words};
pub use names::Names;
