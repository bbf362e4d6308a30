//! Who pushes, who acts, and what was decided.

use crate::model::name::UserName;
use crate::model::text::{sanitize, sanitize_lines};
use jiff::Timestamp;
use std::fmt;
use thiserror::Error;

/// The longest reason of a decision, in bytes: a paragraph that a side band carries in one packet or two.
pub const REASON_BYTES_MAX: usize = 4096;
/// How the gate is called where its own acts are listed. No user is called so: their names have no spaces.
const GATE: &str = "the gate";
/// How the operator is called, who came through the socket in the data directory.
const OPERATOR: &str = "the operator";
/// What follows the name of somebody whom we cannot vouch for.
const UNVERIFIED: &str = " (unverified)";

/// Who pushes: known from the credential alone, never from what the commits say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pusher {
    /// The user's name; for others what distinguishes them.
    pub name: String,
    /// Whether this is a user whose token was checked.
    pub verified: bool,
    /// What somebody who is not verified calls himself.
    pub claimed: Option<String>,
}

/// Who makes something happen to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The gate itself: a step of the road, the sweeper, a start.
    Gate,
    /// Whoever runs the gate, through the socket that only he can open.
    Operator,
    /// A user whose token was checked.
    User(UserName),
    /// A pusher who is no user.
    Unverified(String),
}

/// What a reviewer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// Forward it.
    Approve,
    /// Do not.
    Reject,
}

/// A decision on a push. A push has one at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub ruling: Ruling,
    /// Who decided.
    pub by: Actor,
    /// Why; never blank for a refusal.
    pub reason: String,
    /// Whether an administrator's right overrode a rule, such as that nobody approves his own push.
    pub is_override: bool,
    /// When.
    pub at: Timestamp,
}

/// Why a decision is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecisionError {
    /// The pusher would not know what to do.
    #[error("a rejection needs a reason: the pusher is shown it")]
    NoReason,
    /// Too long to be shown.
    #[error("a reason has at most {REASON_BYTES_MAX} bytes")]
    ReasonTooLong,
}

impl Pusher {
    /// A user whose token was checked.
    #[must_use]
    pub fn user(name: &UserName) -> Self {
        Self { name: name.as_str().to_owned(), verified: true, claimed: None }
    }

    /// Somebody without a credential, where pushing needs none.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), verified: false, claimed: None }
    }

    /// Whether `actor` is this pusher, and verifiably so.
    #[must_use]
    pub fn is(&self, actor: &Actor) -> bool {
        match actor {
            Actor::User(name) => self.verified && name.is_spelling_of(&self.name),
            Actor::Gate | Actor::Operator | Actor::Unverified(_) => false,
        }
    }

    /// The pusher as the one who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match UserName::parse(&self.name) {
            Ok(name) if self.verified => Actor::User(name),
            Ok(_) | Err(_) => Actor::Unverified(sanitize(&self.name)),
        }
    }
}

impl Actor {
    /// Reads what [`fmt::Display`] wrote. Every kind is told from the others by what no user's name can hold.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            GATE => Some(Self::Gate),
            OPERATOR => Some(Self::Operator),
            _ => match text.strip_suffix(UNVERIFIED) {
                Some(name) => Some(Self::Unverified(name.to_owned())),
                None => UserName::parse(text).ok().map(Self::User),
            },
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate => f.write_str(GATE),
            Self::Operator => f.write_str(OPERATOR),
            Self::User(name) => f.write_str(name.as_str()),
            Self::Unverified(name) => write!(f, "{name}{UNVERIFIED}"),
        }
    }
}

impl Ruling {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Approve, Self::Reject];

    /// The ruling that is written `word`, if there is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ruling| ruling.as_str() == word)
    }

    /// The word for it in the database and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

impl Decision {
    /// A decision; its reason is cleaned of what a terminal would obey.
    ///
    /// # Errors
    /// When a rejection has no reason, or a reason is too long.
    pub fn new(
        ruling: Ruling,
        by: Actor,
        reason: &str,
        is_override: bool,
        at: Timestamp,
    ) -> Result<Self, DecisionError> {
        let reason = sanitize_lines(reason.trim());
        if reason.len() > REASON_BYTES_MAX {
            return Err(DecisionError::ReasonTooLong);
        }
        match ruling {
            Ruling::Reject if reason.is_empty() => Err(DecisionError::NoReason),
            Ruling::Approve | Ruling::Reject => Ok(Self { ruling, by, reason, is_override, at }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Actor {
        Actor::User(UserName::parse(name).unwrap())
    }

    #[test]
    fn every_actor_is_read_back_and_no_user_can_pass_for_another_kind() {
        let actors = [
            Actor::Gate,
            Actor::Operator,
            user("gate"),
            user("alice@example.com"),
            Pusher::anonymous().actor(),
        ];
        for actor in actors {
            assert_eq!(Actor::parse(&actor.to_string()), Some(actor));
        }
        for name in [GATE, OPERATOR, "alice (unverified)"] {
            assert!(UserName::parse(name).is_err(), "{name}");
        }
        assert_eq!(Actor::parse("nobody at all"), None);
    }

    #[test]
    fn only_a_verified_pusher_is_somebody() {
        let alice = Pusher::user(&UserName::parse("alice").unwrap());
        assert!(alice.is(&user("alice")) && alice.is(&user("Alice")), "no two users differ by case alone");
        assert!(!alice.is(&user("alice2")) && !alice.is(&Actor::Operator));
        let claims = Pusher { verified: false, ..alice.clone() };
        assert!(!claims.is(&user("alice")) && !claims.is(&claims.actor()));
        assert_eq!(alice.actor(), user("alice"));
        assert_eq!(claims.actor().to_string(), "alice (unverified)");
    }

    #[test]
    fn a_rejection_says_why_and_no_reason_is_endless_or_raw() {
        let decide = |ruling, reason: &str| {
            Decision::new(ruling, Actor::Operator, reason, false, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(decide(Ruling::Approve, " ").unwrap().reason, "");
        assert_eq!(decide(Ruling::Reject, " \n\t"), Err(DecisionError::NoReason));
        assert_eq!(decide(Ruling::Reject, "no\x1b[2J\nmore ").unwrap().reason, "no?[2J\nmore");
        let long = "x".repeat(REASON_BYTES_MAX + 1);
        assert_eq!(decide(Ruling::Approve, &long), Err(DecisionError::ReasonTooLong));
    }
}
