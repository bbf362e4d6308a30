//! What a push record can be, what can happen to it, and the one table that says what becomes of it.
//!
//! Invariant: no state changes but by [`next`], and no end is ever left, except that a push whose forward failed
//! is forwarded again on request. Forwarding begins from `approved` alone.

use std::fmt;
use thiserror::Error;

/// Where a push record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PushState {
    /// The command list has been read; the pack is on its way or being unpacked.
    Received,
    /// The checks are running.
    Checking,
    /// It waits for a reviewer. No process and no worker is held.
    Pending,
    /// It may be forwarded, now or when a passing fault is over.
    Approved,
    /// It is being forwarded; only asking the target tells what came of it.
    Forwarding,
    /// End: the target has it.
    Forwarded,
    /// End: a check failed or could not run.
    Blocked,
    /// End: a reviewer refused it.
    Rejected,
    /// End: it was withdrawn, or nobody waits for it any more.
    Canceled,
    /// End: its time passed before it was decided on.
    Expired,
    /// End: the target's refs have moved on since.
    Stale,
    /// End: git refused the pack, the gate could not go on, or the forward failed for good.
    Failed,
}

/// Whether a push whose checks passed waits for a reviewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Approval {
    /// Somebody decides.
    Required,
    /// The checks decide.
    Auto,
}

/// Why a push was withdrawn before anybody approved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelCause {
    /// Its pusher said so.
    Pusher,
    /// Its pusher's git went away.
    ClientGone,
    /// An administrator said so.
    Admin,
    /// The gate stops, and nobody would wait any longer.
    GateStopping,
    /// Its owner is dead: a thread or a life of the gate that ended without closing it.
    Orphaned,
}

/// What can happen to a push record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The pack is in the staging repository, and its checks begin.
    CheckingBegan,
    /// `git receive-pack` did not take the pack into the staging repository.
    PackRefused,
    /// Every check passed.
    ChecksPassed {
        /// Who decides now.
        approval: Approval,
    },
    /// A check failed, or could not run.
    ChecksFailed,
    /// A reviewer said yes.
    Approved,
    /// A reviewer said no.
    Rejected,
    /// It was withdrawn.
    Canceled(CancelCause),
    /// Its deadline passed.
    Expired,
    /// Somebody took it upon himself to forward it.
    ForwardBegan,
    /// The target has every new value.
    ForwardSucceeded,
    /// The target said no, and would say so again.
    ForwardRefused,
    /// A passing fault: it is tried again later.
    ForwardDeferred,
    /// The last attempt is spent, or nobody can tell any more what came of it.
    ForwardAbandoned,
    /// The target's refs are neither at the old nor at the new values.
    UpstreamMoved,
    /// The gate itself could not go on: no space, no objects, an error of its own.
    Faulted,
    /// Somebody asks for another forward of one that failed.
    Retried,
    /// Another owner took it over; nothing else changes.
    Adopted,
}

impl Event {
    /// Whether the gate goes on at once and nobody is promised anything by this: should the machine crash before the next
    /// event, it may not have happened.
    #[must_use]
    pub const fn is_interim(self) -> bool {
        matches!(self, Self::CheckingBegan | Self::ChecksPassed { approval: Approval::Auto })
    }
}

/// What cannot happen in a state.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a push that is {state} cannot have the event {event}")]
pub struct NoTransition {
    /// Where the record stands.
    pub state: PushState,
    /// What was to happen.
    pub event: Event,
}

/// A word that names no state.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a state of pushes: write received, checking, pending, approved, forwarding, forwarded, blocked, \
     rejected, canceled, expired, stale or failed"
)]
pub struct StateError(String);

/// What becomes of a record in `state` to which `event` happens: the whole machine.
///
/// The deadline is [`Event::Expired`] while the push may still be withdrawn; an approved one is tried again at
/// its deadline, and a forward's own deadline ends as [`Event::ForwardDeferred`] or
/// [`Event::ForwardAbandoned`]. A stop of the gate is [`CancelCause::GateStopping`] as long as nobody has
/// approved; from then on the record stays and is [`Event::Adopted`] by the next life of the gate.
///
/// # Errors
/// When `event` cannot happen in `state`.
pub const fn next(state: PushState, event: Event) -> Result<PushState, NoTransition> {
    use Approval::{Auto, Required};
    use CancelCause::{Admin, ClientGone, GateStopping, Orphaned, Pusher};
    use Event as E;
    use PushState as S;

    let to = match (state, event) {
        (S::Received, E::CheckingBegan) => S::Checking,
        (S::Received, E::PackRefused | E::Faulted) => S::Failed,
        (S::Received, E::Canceled(Pusher | ClientGone | Admin | GateStopping | Orphaned)) => S::Canceled,
        (S::Received, E::Expired) => S::Expired,
        (S::Received, E::Adopted) => S::Received,
        (
            S::Received,
            E::ChecksPassed { approval: Required | Auto }
            | E::ChecksFailed
            | E::Approved
            | E::Rejected
            | E::ForwardBegan
            | E::ForwardSucceeded
            | E::ForwardRefused
            | E::ForwardDeferred
            | E::ForwardAbandoned
            | E::UpstreamMoved
            | E::Retried,
        ) => return Err(NoTransition { state, event }),

        (S::Checking, E::ChecksPassed { approval: Required }) => S::Pending,
        (S::Checking, E::ChecksPassed { approval: Auto }) => S::Approved,
        (S::Checking, E::ChecksFailed) => S::Blocked,
        (S::Checking, E::Canceled(Pusher | ClientGone | Admin | GateStopping | Orphaned)) => S::Canceled,
        (S::Checking, E::Expired) => S::Expired,
        (S::Checking, E::Faulted) => S::Failed,
        (S::Checking, E::Adopted) => S::Checking,
        (
            S::Checking,
            E::CheckingBegan
            | E::PackRefused
            | E::Approved
            | E::Rejected
            | E::ForwardBegan
            | E::ForwardSucceeded
            | E::ForwardRefused
            | E::ForwardDeferred
            | E::ForwardAbandoned
            | E::UpstreamMoved
            | E::Retried,
        ) => return Err(NoTransition { state, event }),

        (S::Pending, E::Approved) => S::Approved,
        (S::Pending, E::Rejected) => S::Rejected,
        (S::Pending, E::Canceled(Pusher | ClientGone | Admin | GateStopping | Orphaned)) => S::Canceled,
        (S::Pending, E::Expired) => S::Expired,
        (S::Pending, E::UpstreamMoved) => S::Stale,
        (S::Pending, E::Faulted) => S::Failed,
        (S::Pending, E::Adopted) => S::Pending,
        (
            S::Pending,
            E::CheckingBegan
            | E::PackRefused
            | E::ChecksPassed { approval: Required | Auto }
            | E::ChecksFailed
            | E::ForwardBegan
            | E::ForwardSucceeded
            | E::ForwardRefused
            | E::ForwardDeferred
            | E::ForwardAbandoned
            | E::Retried,
        ) => return Err(NoTransition { state, event }),

        // People may still call it back between two attempts; from here on neither a disconnect nor a stop does.
        (S::Approved, E::Canceled(Pusher | Admin)) => S::Canceled,
        (S::Approved, E::ForwardBegan) => S::Forwarding,
        (S::Approved, E::ForwardAbandoned | E::Faulted) => S::Failed,
        (S::Approved, E::UpstreamMoved) => S::Stale,
        (S::Approved, E::Adopted) => S::Approved,
        (
            S::Approved,
            E::CheckingBegan
            | E::PackRefused
            | E::ChecksPassed { approval: Required | Auto }
            | E::ChecksFailed
            | E::Approved
            | E::Rejected
            | E::Canceled(ClientGone | GateStopping | Orphaned)
            | E::Expired
            | E::ForwardSucceeded
            | E::ForwardRefused
            | E::ForwardDeferred
            | E::Retried,
        ) => return Err(NoTransition { state, event }),

        (S::Forwarding, E::ForwardSucceeded) => S::Forwarded,
        (S::Forwarding, E::ForwardDeferred) => S::Approved,
        (S::Forwarding, E::ForwardRefused | E::ForwardAbandoned) => S::Failed,
        (S::Forwarding, E::UpstreamMoved) => S::Stale,
        (S::Forwarding, E::Adopted) => S::Forwarding,
        (
            S::Forwarding,
            E::CheckingBegan
            | E::PackRefused
            | E::ChecksPassed { approval: Required | Auto }
            | E::ChecksFailed
            | E::Approved
            | E::Rejected
            | E::Canceled(Pusher | ClientGone | Admin | GateStopping | Orphaned)
            | E::Expired
            | E::ForwardBegan
            | E::Faulted
            | E::Retried,
        ) => return Err(NoTransition { state, event }),

        (S::Failed, E::Retried) => S::Approved,
        (S::Forwarded | S::Blocked | S::Rejected | S::Canceled | S::Expired | S::Stale, E::Retried)
        | (
            S::Forwarded | S::Blocked | S::Rejected | S::Canceled | S::Expired | S::Stale | S::Failed,
            E::CheckingBegan
            | E::PackRefused
            | E::ChecksPassed { approval: Required | Auto }
            | E::ChecksFailed
            | E::Approved
            | E::Rejected
            | E::Canceled(Pusher | ClientGone | Admin | GateStopping | Orphaned)
            | E::Expired
            | E::ForwardBegan
            | E::ForwardSucceeded
            | E::ForwardRefused
            | E::ForwardDeferred
            | E::ForwardAbandoned
            | E::UpstreamMoved
            | E::Faulted
            | E::Adopted,
        ) => return Err(NoTransition { state, event }),
    };
    Ok(to)
}

impl PushState {
    /// Every state, in the order of a push's life, the ends last.
    pub const ALL: [Self; 12] = [
        Self::Received,
        Self::Checking,
        Self::Pending,
        Self::Approved,
        Self::Forwarding,
        Self::Forwarded,
        Self::Blocked,
        Self::Rejected,
        Self::Canceled,
        Self::Expired,
        Self::Stale,
        Self::Failed,
    ];

    /// The states of an open record, in the order of a push's life.
    pub fn open() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|state| state.is_open())
    }

    /// The state that is written `word`.
    ///
    /// # Errors
    /// When `word` is none of them, in lower case.
    pub fn parse(word: &str) -> Result<Self, StateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| StateError(word.to_owned()))
    }

    /// The word for it in the database, the API and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Checking => "checking",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Forwarding => "forwarding",
            Self::Forwarded => "forwarded",
            Self::Blocked => "blocked",
            Self::Rejected => "rejected",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }

    /// Whether something is still to happen: the record has an owner and a deadline.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Received | Self::Checking | Self::Pending | Self::Approved | Self::Forwarding => true,
            Self::Forwarded
            | Self::Blocked
            | Self::Rejected
            | Self::Canceled
            | Self::Expired
            | Self::Stale
            | Self::Failed => false,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_end(self) -> bool {
        !self.is_open()
    }

    /// Whether an open record in this state was approved: should it fail from here, it may be tried again.
    #[must_use]
    pub const fn is_approved(self) -> bool {
        match self {
            Self::Approved | Self::Forwarding => true,
            Self::Received
            | Self::Checking
            | Self::Pending
            | Self::Forwarded
            | Self::Blocked
            | Self::Rejected
            | Self::Canceled
            | Self::Expired
            | Self::Stale
            | Self::Failed => false,
        }
    }
}

impl fmt::Display for PushState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 22] = [
        Self::CheckingBegan,
        Self::PackRefused,
        Self::ChecksPassed { approval: Approval::Required },
        Self::ChecksPassed { approval: Approval::Auto },
        Self::ChecksFailed,
        Self::Approved,
        Self::Rejected,
        Self::Canceled(CancelCause::Pusher),
        Self::Canceled(CancelCause::ClientGone),
        Self::Canceled(CancelCause::Admin),
        Self::Canceled(CancelCause::GateStopping),
        Self::Canceled(CancelCause::Orphaned),
        Self::Expired,
        Self::ForwardBegan,
        Self::ForwardSucceeded,
        Self::ForwardRefused,
        Self::ForwardDeferred,
        Self::ForwardAbandoned,
        Self::UpstreamMoved,
        Self::Faulted,
        Self::Retried,
        Self::Adopted,
    ];

    /// The event that is written `word`, if there is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// The word for it in the database and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CheckingBegan => "checking_began",
            Self::PackRefused => "pack_refused",
            Self::ChecksPassed { approval: Approval::Required } => "checks_passed",
            Self::ChecksPassed { approval: Approval::Auto } => "checks_passed_auto",
            Self::ChecksFailed => "checks_failed",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Canceled(CancelCause::Pusher) => "canceled_by_pusher",
            Self::Canceled(CancelCause::ClientGone) => "client_gone",
            Self::Canceled(CancelCause::Admin) => "canceled_by_admin",
            Self::Canceled(CancelCause::GateStopping) => "gate_stopping",
            Self::Canceled(CancelCause::Orphaned) => "orphaned",
            Self::Expired => "expired",
            Self::ForwardBegan => "forward_began",
            Self::ForwardSucceeded => "forward_succeeded",
            Self::ForwardRefused => "forward_refused",
            Self::ForwardDeferred => "forward_deferred",
            Self::ForwardAbandoned => "forward_abandoned",
            Self::UpstreamMoved => "upstream_moved",
            Self::Faulted => "faulted",
            Self::Retried => "retried",
            Self::Adopted => "adopted",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests;
