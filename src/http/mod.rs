//! The people's door: HTTP/1.1 over sockets, threads and deadlines of our own.
//!
//! From a socket to a request: [`front`] accepts and bounds connections; a `connection` reads one request after the other
//! off its `wire` (`head`, [`body`]) and hands each to the handler as an [`exchange`]; a [`writer`] sends the answer, from
//! whichever thread has it. [`house`] is what connections share, [`limits`] what they are held to, `pace` what "too slow"
//! means; [`message`] holds the nouns.
//!
//! From a request to its answer: [`handler`] takes each from its head to its log line; [`auth`] says who asks, [`route`]
//! what for. [`smart`] serves git: [`spool`] puts a request body into a file for it (within a [`budget`]), [`relay`]
//! passes on what it says. [`status`] says how the gate is, [`metrics`] counts; [`api`] shows held pushes and takes
//! decisions on them, [`pages`] do the same for browsers, [`events`] tells of what happens; all read parameters by
//! [`form`]. Every reason not to serve is a [`refusal`], what a request came to is [`served`]; [`app`] is what all of them
//! may use. [`control`] answers the same pages on the operator's own socket.
//!
//! Parsing and the decoding of chunks are `http-net`'s. What goes beyond the standard's strictness, and every limit
//! in bytes and in time, is here. Only HTTP/1.0 and 1.1 are spoken: no TLS, no upgrade, no compression of answers;
//! those belong to a proxy before us.

pub mod api;
pub mod app;
pub mod auth;
pub mod body;
pub mod budget;
mod connection;
pub mod control;
pub mod events;
pub mod exchange;
pub mod fleet;
pub mod form;
pub mod front;
pub mod handler;
mod head;
pub mod house;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod mirrors;
mod pace;
pub mod pages;
pub mod refusal;
pub mod relay;
pub mod route;
pub mod served;
pub mod smart;
pub mod spool;
pub mod status;
mod wire;
pub mod writer;
