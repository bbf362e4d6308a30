//! Redis or Valkey as the place where all gates of a fleet tell of their changes and hear of the others'.
//!
//! | key | what it holds |
//! |---|---|
//! | `tidegate:v:REPOSITORY` | a hash: `version`, the sum of all publishers' numbers, and for each publisher, by its incarnation, `SEQ DIGEST REMOVED` of its last change (`-` where the refs are not known; 0 or 1) |
//! | `tidegate:repos` | the set of all repositories that have such a hash |
//! | `tidegate:epoch` | 128 random bits, made by whoever found none |
//!
//! A change is applied by [`script`], at once with its publication on the channel `tidegate:events` (`tidegate:events:N` for
//! the database N, since channels belong to all of a server's databases). It is applied by its number, and never added: a
//! reply that was lost, a replay, and rows that were merged count nothing twice, and what a server has forgotten comes back
//! with the next number, or as soon as somebody notices.
//!
//! | for | rooms |
//! |---|---|
//! | publishing what the outbox has | [`sink`] |
//! | hearing, and mending what the server has lost | [`source`] |
//! | connections of which every wait ends | [`server`], [`connection`], [`line`] |
//! | when a server that failed is tried again | [`pauses`] |
//!
//! One primary server is spoken with; sentinels and clusters are not.

mod connection;
mod line;
mod pauses;
mod script;
mod server;
pub mod sink;
pub mod source;

pub use script::{Applied, Epoch};
pub use server::{Found, Server};

use crate::client::secrets::SecretError;
use crate::client::tls_words;
use crate::model::text::{clip, sanitize};
use line::Stopping;
use redis::ServerError;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};
use thiserror::Error;

/// What a server answers for a key that holds something of another kind.
const WRONG_TYPE: &str = "WRONGTYPE";

/// The most of a server's words that are repeated, in bytes.
const WORDS_BYTES_MAX: usize = 200;

/// Why the server could not be spoken with, or did not do what it was asked for.
#[derive(Debug, Error)]
pub enum RedisError {
    /// The password cannot be read.
    #[error(transparent)]
    Password(#[from] SecretError),
    /// The connection was not there, or is not any more.
    #[error("{doing}: {source}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// What the system or the other side said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{doing}: no answer within {after:.1?}")]
    Late {
        /// What was being done.
        doing: &'static str,
        /// How long that was waited for.
        after: Duration,
    },
    /// The server says no.
    #[error("{doing}: the server answers {code}{}{says}", if says.is_empty() { "" } else { " " })]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The first word of it, which programs go by: `READONLY`, `LOADING`, `OOM`, `NOAUTH`, `WRONGPASS`.
        code: String,
        /// The rest of it; empty where it could hold a secret.
        says: String,
    },
    /// What the server has under one of our keys is not ours.
    #[error(
        "{doing}: what the server has there was written by no gate: remove the keys tidegate:*, or name another database"
    )]
    Foreign {
        /// What was being done.
        doing: &'static str,
    },
    /// The server says something that is no answer.
    #[error("{doing}: the server's answer is not understood: is it Redis or Valkey?")]
    Odd {
        /// What was being done.
        doing: &'static str,
    },
    /// Whoever waited has been stopped.
    #[error("stopping")]
    Stopping,
}

impl RedisError {
    fn of(doing: &'static str, source: io::Error, begun: Instant) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<Stopping>()) {
            return Self::Stopping;
        }
        if source.kind() == ErrorKind::TimedOut {
            return Self::Late { doing, after: begun.elapsed() };
        }
        if source.kind() == ErrorKind::UnexpectedEof {
            let source = io::Error::new(source.kind(), "the server closed the connection");
            return Self::Broken { doing, source };
        }
        if source.kind() == ErrorKind::InvalidData {
            // What the TLS library has against the other side comes in this shape.
            let source = io::Error::new(source.kind(), tls_words(source.to_string()));
            return Self::Broken { doing, source };
        }
        Self::Broken { doing, source }
    }

    fn refused(doing: &'static str, error: &ServerError) -> Self {
        let shown = |text: &str| clip(&sanitize(text), WORDS_BYTES_MAX);
        Self::Refused { doing, code: shown(error.code()), says: shown(error.details().unwrap_or_default()) }
    }

    /// Whoever waited has been stopped: nothing is wrong with the server.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping)
    }

    /// Whether it may be over in a while without anybody mending anything here.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Broken { source, .. } => source.kind() != ErrorKind::InvalidData,
            Self::Late { .. } => true,
            Self::Password(_)
            | Self::Refused { .. }
            | Self::Foreign { .. }
            | Self::Odd { .. }
            | Self::Stopping => false,
        }
    }

    /// What the server has under a key of ours is of another kind: what is under others may be in order.
    fn is_of_one_key(&self) -> bool {
        // Older servers begin with where in the script it happened.
        matches!(self, Self::Refused { code, says, .. } if code == WRONG_TYPE || says.contains(WRONG_TYPE))
    }

    /// A connection that was kept has ended, as servers end idle ones: another may do.
    const fn is_broken(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }
}
