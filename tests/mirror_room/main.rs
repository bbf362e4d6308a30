//! Mirrors and their upstreams: real gits against nginx with `git http-backend`, servers that fail, and directories.
//!
//! A test binary of its own: the reaper takes every wait of its process, so each git and server here is a child of the one
//! reaper.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod approaching;
mod asking;
mod bringing;
mod deaf;
mod ending;
#[path = "../it/support/forge_nginx.rs"]
mod forge_nginx;
mod forgetting;
mod landing;
#[path = "../it/support/port.rs"]
mod port;
mod pushing;
mod server;
mod support;
mod upkeep;
