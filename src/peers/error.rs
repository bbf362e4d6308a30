//! Why a peer is not listened to, and what that means for the next attempt.

use super::stream::StreamError;
use crate::client::Fault;
use crate::client::secrets::SecretError;
use crate::model::peer::PeerName;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why a connection to a peer ended, or why there was none.
#[derive(Debug, Error)]
pub(super) enum PeerError {
    /// There is nothing to show there.
    #[error(transparent)]
    Token(#[from] SecretError),
    /// The authorities that are trusted about it cannot be read.
    #[error("{0}")]
    Authorities(io::Error),
    /// It has answered, and will answer the same again.
    #[error("it answers {status}{}", cure(*status))]
    No {
        /// The status.
        status: u16,
    },
    /// It has answered, and may answer something else in a moment.
    #[error("it answers {status}")]
    NotNow {
        /// The status.
        status: u16,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It wants another one to be asked.
    #[error("it answers {status}: redirects are not followed, so write the address of the gate itself")]
    Elsewhere {
        /// The status.
        status: u16,
    },
    /// It is no gate, or something before it is not.
    #[error("it answers with {found:?} and not with events: is that the address of a gate?")]
    NoStream {
        /// What it says that its answer is.
        found: String,
    },
    /// There is no way to it, it does not prove to be the one that is meant, or the connection is gone.
    #[error("it {0}")]
    Away(Fault),
    /// It may be gone: it sends a sign of life more often.
    #[error("it has said nothing for {0:?}")]
    Silent(Duration),
    /// What came is no stream of events.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It does not say who it is.
    #[error("its greeting does not say which gate it is")]
    Nameless,
    /// It says that it is we.
    #[error(
        "it goes by this gate's own name in the fleet, and nothing is heard of it: it is this gate, or runs on a copy of its \
         data directory"
    )]
    Ourselves,
    /// It says that it is somebody who is listened to already.
    #[error(
        "it goes by the name of peer {other} in the fleet, and nothing is heard of it: they are one gate, or run on copies of \
         one data directory"
    )]
    Another {
        /// Who.
        other: PeerName,
    },
    /// It has ended its answer, as a gate does that stops.
    #[error("it has ended the stream")]
    Closed,
    /// A defect of ours.
    #[error("listening to it failed within this gate; the log says more")]
    Defect,
}

impl PeerError {
    /// What an answer with this status means, which is none of success.
    pub(super) fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            408 | 429 => Self::NotNow { status, retry_after },
            300..=399 => Self::Elsewhere { status },
            400..=499 => Self::No { status },
            _ => Self::NotNow { status, retry_after },
        }
    }

    /// Whether asking again would be answered the same, until an operator has changed something.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::No { .. })
    }

    /// Whether it may be over in a while without anybody mending anything here.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::NotNow { .. } | Self::Silent(_) | Self::Closed => true,
            Self::Away(fault) => fault.may_pass(),
            Self::Token(_)
            | Self::Authorities(_)
            | Self::No { .. }
            | Self::Elsewhere { .. }
            | Self::NoStream { .. }
            | Self::Stream(_)
            | Self::Nameless
            | Self::Ourselves
            | Self::Another { .. }
            | Self::Defect => false,
        }
    }

    /// Whether what it has said is not to be asked for again.
    pub(super) const fn is_malformed(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// How long it wants to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::NotNow { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::Token(_)
            | Self::Authorities(_)
            | Self::No { .. }
            | Self::Elsewhere { .. }
            | Self::NoStream { .. }
            | Self::Away(_)
            | Self::Silent(_)
            | Self::Stream(_)
            | Self::Nameless
            | Self::Ourselves
            | Self::Another { .. }
            | Self::Closed
            | Self::Defect => Duration::ZERO,
        }
    }
}

/// What an operator can do about a status, where that is known.
const fn cure(status: u16) -> &'static str {
    match status {
        401 => ": it does not know the token in token_file",
        403 => ": the user of the token in token_file may not listen",
        404 => ": has it no events, or is the address wrong?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_final_where_asking_again_is_in_vain() {
        let is_final = |status| PeerError::of_status(status, None).is_final();
        assert!([400, 401, 403, 404, 410].into_iter().all(is_final));
        assert!(![204, 301, 307, 408, 429, 500, 502, 503].into_iter().any(is_final));
        let told = PeerError::of_status(503, Some(Duration::from_secs(7))).retry_after();
        assert_eq!(told, Duration::from_secs(7));
    }
}
