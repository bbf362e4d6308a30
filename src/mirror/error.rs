//! Why an upstream could not be asked, or a mirror not be brought up to date.
//!
//! Sentences name the upstream's server and never a credential; a directory of this machine is not named, since they are
//! shown to clients.

use super::refs::RefsError;
use super::turns::TurnError;
use crate::git::advertisement::AdvertisementError;
use crate::git::ask::AskError;
use crate::git::layout::LayoutError;
use crate::git::pool::NotRun;
use crate::git::transport_fault::TransportFault;
use crate::model::push::RefName;
use crate::model::text::{clip, sanitize};
use crate::model::upstream::Origin;
use crate::store::StoreError;
use crate::supervise::{Deadline, Outcome, SpawnError, Why};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Longest part of what git said that is repeated, in bytes.
const WORDS_MAX: usize = 300;

/// The name of the deadline that silence has.
pub(super) const IDLE_LIMIT: &str = "idle_limit";

/// Why an upstream did not give what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// 401.
    #[error("{at} wants a credential, or does not take the one it was shown")]
    Unauthorized {
        /// The server.
        at: Origin,
    },
    /// 403.
    #[error("{at} refuses access to this repository")]
    Forbidden {
        /// The server.
        at: Origin,
    },
    /// 404 for both spellings, or no such directory.
    #[error("{at} has no such repository, or shows it to others only")]
    NotFound {
        /// The server.
        at: Origin,
    },
    /// A redirect. It is followed nowhere, for it would take a credential along.
    #[error(
        "{at} says that the repository has moved{}: write the new address into the configuration",
        shown(to)
    )]
    Moved {
        /// The server.
        at: Origin,
        /// The new address, without user and query, if it was told.
        to: Option<String>,
    },
    /// Nobody answers there.
    #[error("{at} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        at: Origin,
        /// What the system says.
        why: String,
    },
    /// No answer within one of the limits.
    #[error("{at} did not answer in time: {limit} has passed")]
    TimedOut {
        /// The server.
        at: Origin,
        /// Which limit.
        limit: String,
    },
    /// 429, 5xx, or a status that means nothing here.
    #[error("{at} answered with status {status}")]
    Status {
        /// The server.
        at: Origin,
        /// The status.
        status: u16,
    },
    /// TLS could not be agreed on, or its certificate is not trusted.
    #[error("no trusted connection to {at}: {why}")]
    Tls {
        /// The server.
        at: Origin,
        /// What the library says.
        why: String,
    },
    /// The connection ended in the middle.
    #[error("{at} broke off: {why}")]
    BrokenOff {
        /// The server.
        at: Origin,
        /// What was seen of it.
        why: String,
    },
    /// It answers, but not as a git server does: a page of a proxy, another protocol.
    #[error("{at} does not answer like a git server: {why}")]
    Malformed {
        /// The server.
        at: Origin,
        /// What is wrong with the answer.
        why: String,
    },
    /// It answers as a git server does, with an error in its own words.
    #[error("{at} says: {what}")]
    Said {
        /// The server.
        at: Origin,
        /// Its words.
        what: String,
    },
    /// It has not all of the history itself.
    #[error("{at} has only a part of this history (a shallow repository), which cannot be mirrored")]
    Shallow {
        /// The server.
        at: Origin,
    },
    /// A fetch went on, and was not over within the time for all of it.
    #[error("the fetch from {at} was not over in time: {limit} has passed")]
    Unfinished {
        /// The server.
        at: Origin,
        /// Which limit.
        limit: String,
    },
    /// The place of a directory upstream cannot be looked at.
    #[error(transparent)]
    Layout(LayoutError),
    /// Another one works on the mirror for too long, or there are too many.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// No worker was to be had for it.
    #[error("no worker spoke with the upstream: {0}")]
    NotRun(NotRun),
    /// A short question to git failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Git was ended, or failed for a reason of its own.
    #[error("git failed at {what}: {outcome}: {}", words(&outcome.stderr))]
    Git {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// A file could not be written.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Where something failed that concerns an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// On the way there, or it is not at work.
    Away,
    /// It answers, and not with what is wanted.
    Answer,
    /// Here: a disk, a git, too much to do.
    Ours,
}

/// What an error says of the server that was to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answers, whatever it says.
    Life,
    /// It does not: a git would wait in vain, too.
    Silence,
    /// Neither.
    None,
}

impl UpstreamError {
    /// The upstream says no: what is known of the repository must not be shown any more.
    #[must_use]
    pub const fn is_no(&self) -> bool {
        match self {
            Self::Unauthorized { .. } | Self::Forbidden { .. } | Self::NotFound { .. } => true,
            Self::Moved { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::Tls { .. }
            | Self::BrokenOff { .. }
            | Self::Malformed { .. }
            | Self::Said { .. }
            | Self::Shallow { .. }
            | Self::Unfinished { .. }
            | Self::Layout(_)
            | Self::Turn(_)
            | Self::NotRun(_)
            | Self::Ask(_)
            | Self::Spawn(_)
            | Self::Git { .. }
            | Self::Io { .. } => false,
        }
    }

    /// The upstream says that the repository is elsewhere; and where, if it does.
    #[must_use]
    pub fn moved_to(&self) -> Option<Option<&str>> {
        if let Self::Moved { to, .. } = self { Some(to.as_deref()) } else { None }
    }

    /// The upstream, or the way to it, is down: what is known of the repository may be shown a while longer.
    #[must_use]
    pub fn is_down(&self) -> bool {
        !self.is_no()
    }

    /// No answer came, or no end of one, for as long as somebody waited.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Whether the same may go well in a while, as [`TransportFault::is_passing`] says of what git reports.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. } => false,
            Self::Status { status, .. } => TransportFault::Status(*status).is_passing(),
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Tls { .. }
            | Self::BrokenOff { .. }
            | Self::Malformed { .. }
            | Self::Said { .. }
            | Self::Shallow { .. }
            | Self::Unfinished { .. }
            | Self::Layout(_)
            | Self::Turn(_)
            | Self::NotRun(_)
            | Self::Ask(_)
            | Self::Spawn(_)
            | Self::Git { .. }
            | Self::Io { .. } => true,
        }
    }

    /// A client that waited for the answer left.
    #[must_use]
    pub fn is_client_gone(&self) -> bool {
        match self {
            Self::Turn(error) => *error == TurnError::ClientGone,
            Self::Ask(error) => error.is_client_gone(),
            Self::Git { outcome, .. } => outcome.ended == Some(Why::ClientGone),
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::Tls { .. }
            | Self::BrokenOff { .. }
            | Self::Malformed { .. }
            | Self::Said { .. }
            | Self::Shallow { .. }
            | Self::Unfinished { .. }
            | Self::Layout(_)
            | Self::NotRun(_)
            | Self::Spawn(_)
            | Self::Io { .. } => false,
        }
    }

    /// Where it failed.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Layout(_)
            | Self::Turn(_)
            | Self::NotRun(_)
            | Self::Ask(_)
            | Self::Spawn(_)
            | Self::Git { .. }
            | Self::Io { .. } => Fault::Ours,
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::Tls { .. }
            | Self::BrokenOff { .. } => Fault::Away,
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. }
            | Self::Malformed { .. }
            | Self::Said { .. }
            | Self::Shallow { .. }
            | Self::Unfinished { .. } => Fault::Answer,
        }
    }

    /// Nothing was heard of the upstream, for whatever reason: there is nothing for a git to do.
    #[must_use]
    pub const fn is_unheard(&self) -> bool {
        match self.sign() {
            Sign::Life => false,
            Sign::Silence | Sign::None => true,
        }
    }

    /// What this says of the server.
    #[must_use]
    pub(super) const fn sign(&self) -> Sign {
        match self {
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. }
            | Self::Status { .. }
            | Self::Malformed { .. }
            | Self::Said { .. }
            | Self::Shallow { .. }
            | Self::Unfinished { .. } => Sign::Life,
            Self::Unreachable { .. } | Self::TimedOut { .. } => Sign::Silence,
            Self::Tls { .. }
            | Self::BrokenOff { .. }
            | Self::Layout(_)
            | Self::Turn(_)
            | Self::NotRun(_)
            | Self::Ask(_)
            | Self::Spawn(_)
            | Self::Git { .. }
            | Self::Io { .. } => Sign::None,
        }
    }

    /// The same for another who asked an upstream that answers nobody; `None` for all other errors.
    pub(super) fn shared(&self) -> Option<Self> {
        if let Self::Unreachable { at, why } = self {
            Some(Self::Unreachable { at: at.clone(), why: why.clone() })
        } else if let Self::TimedOut { at, limit } = self {
            Some(Self::TimedOut { at: at.clone(), limit: limit.clone() })
        } else {
            None
        }
    }

    /// What the failure of a git means that spoke with the upstream.
    pub(super) fn of_outcome(at: &Origin, what: &'static str, outcome: Outcome) -> Self {
        let at = at.clone();
        match (outcome.ended, TransportFault::find(&outcome.stderr)) {
            (Some(Why::Deadline), _) => Self::of_deadline(at, &outcome.deadline),
            (Some(_), _) | (None, None) => Self::Git { what, outcome: Box::new(outcome) },
            (None, Some(fault)) => Self::of_fault(at, fault, words(&outcome.stderr)),
        }
    }

    /// Silence, or too much to do.
    fn of_deadline(at: Origin, deadline: &Deadline) -> Self {
        let limit = format!("the {deadline}");
        match deadline.name {
            IDLE_LIMIT => Self::TimedOut { at, limit },
            _ => Self::Unfinished { at, limit },
        }
    }

    fn of_fault(at: Origin, fault: TransportFault, why: String) -> Self {
        match fault {
            TransportFault::Unauthorized => Self::Unauthorized { at },
            TransportFault::Forbidden => Self::Forbidden { at },
            TransportFault::NotFound => Self::NotFound { at },
            TransportFault::Moved(_) => Self::Moved { at, to: None },
            TransportFault::Status(status) => Self::Status { at, status },
            TransportFault::Unreachable => Self::Unreachable { at, why },
            TransportFault::TimedOut => Self::TimedOut { at, limit: why },
            TransportFault::Tls => Self::Tls { at, why },
            TransportFault::HungUp => Self::BrokenOff { at, why },
            TransportFault::NotGit => Self::Malformed { at, why },
        }
    }

    /// What an answer with this status means that is none of success.
    pub(super) fn of_status(at: Origin, status: u16, location: Option<&str>) -> Self {
        let fault = TransportFault::of_status(status);
        if let TransportFault::Moved(_) = fault {
            return Self::Moved { at, to: location.map(address) };
        }
        Self::of_fault(at, fault, String::new())
    }

    /// Refs that came from there, or are in its mirror, could not be read or changed.
    pub(super) fn of_refs(at: &Origin, error: RefsError) -> Self {
        match error {
            RefsError::Ask(error) => Self::Ask(error),
            RefsError::Spawn(error) => Self::Spawn(error),
            RefsError::Git { what, outcome } => Self::Git { what, outcome },
            RefsError::Wrong(why) => Self::Malformed { at: at.clone(), why },
            RefsError::Io { doing, path, source } => Self::Io { doing, path, source },
        }
    }

    pub(super) fn of_advertisement(at: Origin, error: &AdvertisementError) -> Self {
        let why = error.to_string();
        if let AdvertisementError::Said(what) = error {
            return Self::Said { at, what: what.clone() };
        }
        if error.is_broken_off() { Self::BrokenOff { at, why } } else { Self::Malformed { at, why } }
    }
}

/// Why what a push brought upstream is not in the mirror yet. None of these is a failure of the push: the next sync brings it.
#[derive(Debug, thiserror::Error)]
pub enum LandError {
    /// The mirror is being worked on, or there is no turn to be had.
    #[error("{0}; the next sync brings what was pushed")]
    Turn(#[from] TurnError),
    /// The refs of the mirror have moved on by themselves.
    #[error("the mirror has moved on since at {}", names(.0))]
    Moved(Vec<RefName>),
    /// The refs of the mirror cannot be these.
    #[error("{0}; the next sync brings what was pushed")]
    Wrong(String),
    /// A question to git failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Git was ended, or failed.
    #[error("git failed at {what}: {outcome}: {}", words(&outcome.stderr))]
    Git {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// A pack or the refs could not be moved.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl From<RefsError> for LandError {
    fn from(error: RefsError) -> Self {
        match error {
            RefsError::Ask(error) => Self::Ask(error),
            RefsError::Spawn(error) => Self::Spawn(error),
            RefsError::Git { what, outcome } => Self::Git { what, outcome },
            RefsError::Wrong(why) => Self::Wrong(why),
            RefsError::Io { doing, path, source } => Self::Io { doing, path, source },
        }
    }
}

/// Why a mirror was not removed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It is being made, and goes on.
    #[error("its first clone is under way, and can be forgotten when it is over; try again in {} s", left.as_secs())]
    FirstClone {
        /// How long it will take, as far as that can be told.
        left: Duration,
    },
    /// A push is held for it, which borrows its objects.
    #[error("a push is held that borrows from the mirror: decide on it first (tidegate push list)")]
    Held,
    /// The mirror is being worked on.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// What is known of it could not be removed; the mirror itself has been.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be looked at or moved.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Why the upkeep of a mirror failed. The mirror is whole, and served as it was.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Git took too long, or failed for a reason of its own.
    #[error("git failed at {what}: {outcome}: {}", words(&outcome.stderr))]
    Git {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// The mirror's files could not be looked at or changed.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

fn names(names: &[RefName]) -> String {
    names.iter().map(RefName::as_str).collect::<Vec<_>>().join(", ")
}

fn shown(to: &Option<String>) -> String {
    to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default()
}

/// The first reason that git gives, without what stands before the address.
fn words(stderr: &str) -> String {
    let own = |line: &str| {
        let line = line.rsplit("\\r").next()?.to_owned();
        ["fatal: ", "error: "].into_iter().find_map(|start| line.strip_prefix(start).map(str::to_owned))
    };
    let words = stderr.lines().find_map(own).unwrap_or_else(|| "it gave no reason".to_owned());
    clip(&sanitize(&words), WORDS_MAX)
}

/// The address of the repository that a redirect names, without what may be secret in it.
fn address(location: &str) -> String {
    let plain = location.split(['?', '#']).next().unwrap_or_default();
    let plain = plain.strip_suffix("/info/refs").unwrap_or(plain);
    let plain = match plain.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..end].rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}", &rest[end..])
        }
        None => plain.to_owned(),
    };
    clip(&sanitize(&plain), WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upstream::UpstreamUrl;

    fn at() -> Origin {
        UpstreamUrl::parse("https://forge.example/x").unwrap().origin()
    }

    #[test]
    fn a_no_is_told_from_a_fault() {
        let of = |status| UpstreamError::of_status(at(), status, None);
        for status in [401, 403, 404, 410] {
            assert!(of(status).is_no() && !of(status).is_down(), "{status}");
        }
        for status in [302, 400, 429, 500, 503] {
            assert!(of(status).is_down() && !of(status).is_no(), "{status}");
        }
        assert_eq!(of(503).to_string(), "https://forge.example answered with status 503");
    }

    #[test]
    fn a_redirect_is_named_without_what_may_be_secret() {
        let location = "https://bot:s3cret@other.example/a.git/info/refs?token=s3cret#x\u{1b}";
        let moved = UpstreamError::of_status(at(), 301, Some(location)).to_string();
        assert!(moved.contains("moved to https://other.example/a.git:"), "{moved}");
        assert!(!moved.contains("s3cret"), "{moved}");
        assert_eq!(address("/elsewhere?x"), "/elsewhere");
    }

    #[test]
    fn the_reason_is_found_behind_progress() {
        let stderr = "remote: Counting\\rReceiving objects:  3%\\rfatal: early EOF\nfatal: other";
        assert_eq!(words(stderr), "early EOF");
    }
}
