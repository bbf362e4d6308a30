//! The nouns: no I/O, no clock, no environment.

pub mod access;
pub mod address;
pub mod block;
pub mod check;
pub mod credential;
pub mod filetype;
pub mod fleet;
pub mod histogram;
pub mod mirror;
pub mod mirrored;
pub mod name;
pub mod net;
pub mod oid;
pub mod outbox;
pub mod peer;
pub mod push;
pub mod redis;
pub mod role;
pub mod route;
pub mod secret;
pub mod status;
pub mod text;
pub mod throttle;
pub mod units;
pub mod upstream;
pub mod webhook;
