//! Other gates that this one listens to: their names, and how each listener is, as the API shows it: written by the gate,
//! read by the command line, as [`super::status`] is.

use super::name::{self, NameError};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// The address of the API of peers.
pub const PATH: &str = "/-/api/v1/peers";

/// What the operator calls another gate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(String);

/// A text that is no name of a peer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("is no name for a peer, which is made as a segment of a repository's name: {0}")]
pub struct PeerNameError(#[from] NameError);

impl PeerName {
    /// Reads a name: one segment of a repository's name, see [`RepoName`](name::RepoName).
    ///
    /// # Errors
    /// When the text is outside that grammar.
    pub fn parse(text: &str) -> Result<Self, PeerNameError> {
        name::check_segment(text)?;
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It asks, and has no answer yet.
    Connecting,
    /// It follows the events of the other gate.
    Listening,
    /// It could not, or not any longer, and asks again in a moment.
    Waiting,
    /// The other gate says no. It asks again when the configuration is read again.
    Refused,
    /// It failed in a way that it should not, several times. It begins again when the configuration is read again.
    Parked,
}

impl PeerState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Connecting, Self::Listening, Self::Waiting, Self::Refused, Self::Parked];

    /// Its name in the API and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listening => "listening",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Parked => "parked",
        }
    }
}

/// One peer, as the API shows it. Times are in the form of RFC 3339.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PeerView {
    /// What the operator calls it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The word for its [`PeerState`].
    pub state: String,
    /// Since when its events are followed, if they are.
    pub connected: Option<String>,
    /// When the last event came.
    pub last_event: Option<String>,
    /// Which one that was: where the stream goes on after a break.
    pub last_event_id: Option<String>,
    /// Why the last connection ended, or there was none, until there is one again.
    pub error: Option<String>,
    /// Attempts since the last connection on which anything was heard.
    pub retries: u32,
    /// When the next one is made, of a peer that is waited for.
    pub next_attempt: Option<String>,
}

/// The server that all gates of a fleet tell of their changes, as one who listens to it sees it. Times are in the form of
/// RFC 3339.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RedisView {
    /// Where it is.
    pub url: String,
    /// The word for its [`PeerState`].
    pub state: String,
    /// Since when changes are heard, if they are.
    pub connected: Option<String>,
    /// When the last one was.
    pub last_event: Option<String>,
    /// Why the last connection ended, or there was none, until there is one again; then, that another gate goes by the name
    /// of this one, where it does.
    pub error: Option<String>,
}

/// The answer at [`PATH`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Peers {
    /// By name.
    pub peers: Vec<PeerView>,
    /// What is heard beside them, where there is such a server.
    #[serde(default)]
    pub redis: Option<RedisView>,
}
