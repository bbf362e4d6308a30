//! The operator's door.
pub mod client;
pub mod demo;
pub mod status;
