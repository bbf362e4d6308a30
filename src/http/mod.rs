//! The people's door: HTTP/1.1 over sockets, threads and deadlines of our own.
//!
//! [`front`] accepts and bounds connections; a [`connection`] reads one request after the other (`head`, [`body`])
//! and hands each to the handler as an [`exchange`]; a [`writer`] sends the answer, from whichever thread has it;
//! [`spool`] puts a request body into a file for git. [`message`] holds the nouns, `pace` what "too slow" means.
//!
//! Parsing and the decoding of chunks are `http-net`'s. What goes beyond the standard's strictness, and every limit
//! in bytes and in time, is here. Only HTTP/1.0 and 1.1 are spoken: no TLS, no upgrade, no compression of answers;
//! those belong to a proxy before us.

pub mod app;
pub mod auth;
pub mod body;
pub mod connection;
pub mod control;
pub mod exchange;
pub mod front;
pub mod handler;
mod head;
pub mod house;
pub mod limits;
pub mod message;
pub mod metrics;
mod pace;
pub mod refusal;
pub mod relay;
pub mod route;
pub mod served;
pub mod smart;
pub mod spool;
pub mod status;
mod wire;
pub mod writer;
