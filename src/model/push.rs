//! The record of a push: what was asked, by whom, where it stands, what happened to it.
//!
//! The state machine is [`next`]. A record is bound to its repository, target, pusher and every ref with its old
//! and new value; none of these ever changes, so an approval holds for nothing else.

mod people;
mod refs;
mod state;
mod view;

pub use people::{Actor, Decision, DecisionError, Pusher, REASON_BYTES_MAX, Ruling};
pub use refs::{RefAnswer, RefKind, RefName, RefNameError, RefUpdate, RefUpdates, RefUpdatesError};
pub use state::{Approval, CancelCause, Event, NoTransition, PushState, StateError, next};
pub use view::{DecisionView, EventView, PushView, PusherView, RefView, TargetView};

use crate::model::name::RepoName;
use jiff::Timestamp;
use std::fmt;
use std::path::PathBuf;
use thiserror::Error;

/// A push's number, shown to people; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(i64);

/// A text that is no push id.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not the id of a push: write its number, as `tidegate push list` shows it")]
pub struct PushIdError(String);

/// Where a push goes when it is approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A repository on this machine, by its git directory.
    Hosted {
        /// The directory, absolute.
        directory: PathBuf,
    },
    /// A repository of an upstream, which is the one that the first segment of the push's repository names.
    Upstream {
        /// The repository's own address as it was found, with or without `.git`: the text of an
        /// [`UpstreamUrl`](super::upstream::UpstreamUrl).
        url: String,
    },
}

/// What becomes of a push that waits when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDisconnect {
    /// It is withdrawn.
    Cancel,
    /// It stays, survives restarts, and is forwarded when approved.
    Keep,
}

/// Who must see to it that an open record ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The life of the gate.
    pub boot: String,
    /// The session in that life whose client waits for the outcome; nobody does when there is none.
    pub session: Option<i64>,
}

/// A push that was just received.
#[derive(Clone, Debug)]
pub struct NewPush {
    /// The repository's canonical name.
    pub repo: RepoName,
    /// Where it goes.
    pub target: Target,
    /// Who pushes.
    pub pusher: Pusher,
    /// What is asked.
    pub refs: RefUpdates,
    /// The push options in their order, as they were sent.
    pub options: Vec<String>,
    /// What a lost client means.
    pub on_disconnect: OnDisconnect,
    /// Who takes care of it.
    pub owner: Owner,
    /// By when the pack must have been unpacked.
    pub deadline: Timestamp,
}

/// A push record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Its number.
    pub id: PushId,
    /// Where it stands.
    pub state: PushState,
    /// The repository's canonical name.
    pub repo: RepoName,
    /// Where it goes.
    pub target: Target,
    /// Who pushes.
    pub pusher: Pusher,
    /// What is asked.
    pub refs: RefUpdates,
    /// What came of each ref, in the order of `refs`, once that is known.
    pub answers: Vec<Option<RefAnswer>>,
    /// The push options, as they were sent.
    pub options: Vec<String>,
    /// What a lost client means.
    pub on_disconnect: OnDisconnect,
    /// When the command list was read.
    pub created: Timestamp,
    /// When something last happened to it.
    pub updated: Timestamp,
    /// While open: when the gate acts by itself, see [`next`]. Failed: until when it may be retried. Else none.
    pub deadline: Option<Timestamp>,
    /// Who takes care of it, or did last.
    pub owner: Owner,
    /// Forwards that were begun since it was approved or retried.
    pub attempts: u32,
    /// Why it is where it is, for people.
    pub message: String,
    /// What the target said, or git about the pack.
    pub upstream: Option<String>,
    /// What a reviewer decided.
    pub decision: Option<Decision>,
}

/// Something that happened to a push; never changed, and gone only with the whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushEvent {
    /// Rises with every event of any push.
    pub number: i64,
    /// When.
    pub at: Timestamp,
    /// Who made it happen.
    pub actor: Actor,
    /// Where the push stood and what happened; none where it was received.
    pub cause: Option<(PushState, Event)>,
    /// Where it stands since.
    pub to: PushState,
    /// Why, for people.
    pub why: String,
}

impl PushId {
    /// The id of that number, if it can be one.
    #[must_use]
    pub const fn new(number: i64) -> Option<Self> {
        if number > 0 { Some(Self(number)) } else { None }
    }

    /// Reads an id as people write it: digits without sign or leading zero.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, PushIdError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|_| digits);
        number.and_then(Self::new).ok_or_else(|| PushIdError(text.to_owned()))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl OnDisconnect {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cancel, Self::Keep];

    /// The setting that is written `word`, if there is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.as_str() == word)
    }

    /// The word for it in the configuration and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Keep => "keep",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_positive_number() {
        assert_eq!(PushId::parse("42").unwrap().to_string(), "42");
        assert_eq!(PushId::parse(&i64::MAX.to_string()).unwrap().get(), i64::MAX);
        for text in ["", "0", "-1", "+1", "007", "1 ", "0x1", "١", "9223372036854775808"] {
            assert_eq!(PushId::parse(text), Err(PushIdError(text.to_owned())));
        }
        assert_eq!(PushId::new(0), None);
    }

    #[test]
    fn the_settings_for_a_lost_client_are_read_back() {
        for setting in OnDisconnect::ALL {
            assert_eq!(OnDisconnect::parse(setting.as_str()), Some(setting));
        }
        assert_eq!(OnDisconnect::parse("wait"), None);
    }
}
