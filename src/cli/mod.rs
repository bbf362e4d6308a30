//! The operator's door.
pub mod client;
