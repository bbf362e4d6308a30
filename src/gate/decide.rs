//! What people may do to a push and see of it: the one decision function behind the API, the pages and the command line.
//!
//! Whoever may not know of a push (see [`Sight`]) does not learn of it: it is [`DecideError::Unknown`] to him.
//! [`permit`] says who may do what, without I/O; a [`Desk`] reads the record, asks it, and moves the record by
//! compare-and-set, so that of several decisions at once one holds and the others learn where the push stands.

use super::sight::Sight;
use super::waiters::Waiters;
use crate::mirror::upstreams::Upstreams;
use crate::model::access::{Caller, Right, Rules, Verdict};
use crate::model::name::UserName;
use crate::model::push::{
    Actor, CancelCause, Decision, DecisionError, Event, Push, PushId, PushState, PushView, REASON_BYTES_MAX,
    Ruling, Target, next,
};
use crate::model::role::Role;
use crate::store::pushes::{Filter, PAGE_MAX, Page, Step, TransitionError};
use crate::store::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// How long the request that waits for a push may take to begin its forward after a decision, before the sweeper does:
/// a request that is alive is awake within milliseconds.
const TAKEOVER: SignedDuration = SignedDuration::from_secs(10);
/// How many parts of a list are read to fill one page for a caller who may see few of the repositories.
const SCANS_MAX: usize = 10;
/// How often a cancelation follows a push that moves on meanwhile: there are fewer states before the forward.
const FOLLOWS_MAX: usize = 6;

/// What somebody wants to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Forward it.
    Approve,
    /// Do not.
    Reject,
    /// Withdraw it.
    Cancel,
    /// Forward it again.
    Retry,
}

/// As whom somebody may act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What the record calls him.
    pub actor: Actor,
    /// Whether it takes an administrator's right to go past a rule.
    pub is_override: bool,
    /// Whether the push is his own.
    pub is_own: bool,
}

/// Why somebody may not act.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Denied {
    /// Pushers and readers.
    #[error("only a reviewer or an admin decides on pushes")]
    NotAReviewer,
    /// A reviewer's own push.
    #[error("nobody approves his own push: ask another reviewer")]
    OwnPush,
    /// An admin's own push, without a reason.
    #[error("this push is your own: an admin may approve it all the same, with a reason for the record")]
    OverrideNeedsReason,
    /// Somebody else's push.
    #[error("only its pusher or an admin cancels a push: a reviewer rejects it")]
    NotThePusher,
    /// Somebody else's push, or no right to push any more.
    #[error("only a reviewer, an admin, or its pusher as long as he may push forwards a push again")]
    MayNotRetry,
    /// Somebody else's push.
    #[error("what a push changes is shown to its pusher and to those with the role reviewer or admin")]
    MayNotSeeChanges,
}

/// Why nothing was done or shown.
#[derive(Debug, Error)]
pub enum DecideError {
    /// Who asks has not said who he is.
    #[error("a user name and a token are needed here")]
    NeedsCredential,
    /// There is none, or none that the caller may know of.
    #[error("there is no push {0}: `tidegate push list` shows all")]
    Unknown(PushId),
    /// Not this caller.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not without a reason, or with this one.
    #[error(transparent)]
    Reason(#[from] DecisionError),
    /// The push is past it, or not there yet.
    #[error("push {id} is {state}: {why}")]
    Conflict {
        /// Which push.
        id: PushId,
        /// Where it stands.
        state: PushState,
        /// Why that will not do.
        why: &'static str,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where decisions are made.
#[derive(Clone, Copy, Debug)]
pub struct Desk<'a> {
    /// The records.
    pub store: &'a Store,
    /// The rules in force.
    pub rules: &'a Rules,
    /// Who knows who may read what the rules do not.
    pub upstreams: &'a Upstreams,
    /// Who waits for decisions.
    pub waiters: &'a Waiters,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Approve, Self::Reject, Self::Cancel, Self::Retry];

    /// The word for it in addresses and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }

    /// What it is to the record, whoever wants it.
    const fn event(self) -> Event {
        match self {
            Self::Approve => Event::Approved,
            Self::Reject => Event::Rejected,
            Self::Cancel => Event::Canceled(CancelCause::Admin),
            Self::Retry => Event::Retried,
        }
    }

    /// Why a push that stands in `state` does not take it. Only said where the table of the record refused.
    const fn why_not(self, state: PushState) -> &'static str {
        let is_early = matches!(state, PushState::Received | PushState::Checking);
        match self {
            Self::Approve | Self::Reject if is_early => "it is decided on after its checks",
            Self::Approve | Self::Reject => "it does not wait for a decision",
            Self::Cancel if state.is_open() => "it is on its way and cannot be called back",
            Self::Cancel => "it has ended",
            Self::Retry => "only a push whose forward failed is forwarded again, as long as it is kept",
        }
    }
}

/// Whether `caller`, who may read the repository, may do `verb` to `push`; `has_reason` when he says why.
///
/// # Errors
/// The sentence for somebody who may not.
pub fn permit(
    verb: Verb,
    push: &Push,
    caller: &Caller,
    rules: &Rules,
    has_reason: bool,
) -> Result<Permit, DecideError> {
    let (name, role) = match caller {
        Caller::Anonymous | Caller::Guest { .. } => return Err(DecideError::NeedsCredential),
        // Whoever holds the socket may be the pusher himself: what he does is past the rules and is recorded so.
        Caller::Local => {
            let is_override = verb == Verb::Approve;
            return Ok(Permit { actor: Actor::Operator, is_override, is_own: false });
        }
        Caller::User { name, role } => (name, *role),
    };
    let actor = Actor::User(name.clone());
    let is_own = push.pusher.is(&actor);
    let is_override = match verb {
        Verb::Approve if is_own => {
            let certifies = rules.may_self_certify(&push.repo, name, role);
            approve_own(certifies, role, has_reason)?
        }
        Verb::Approve | Verb::Reject if role >= Role::Reviewer => false,
        Verb::Approve | Verb::Reject => return Err(Denied::NotAReviewer.into()),
        Verb::Cancel if is_own || role == Role::Admin => false,
        Verb::Cancel => return Err(Denied::NotThePusher.into()),
        Verb::Retry if role >= Role::Reviewer || (is_own && may_push(push, caller, rules)) => false,
        Verb::Retry => return Err(Denied::MayNotRetry.into()),
    };
    Ok(Permit { actor, is_override, is_own })
}

/// Whether approving his own push is an override; it is refused to all but those whom a rule names, and admins who say
/// why.
fn approve_own(certifies: bool, role: Role, has_reason: bool) -> Result<bool, Denied> {
    if certifies {
        return Ok(false);
    }
    match role {
        Role::Admin if has_reason => Ok(true),
        Role::Admin => Err(Denied::OverrideNeedsReason),
        Role::Reviewer => Err(Denied::OwnPush),
        Role::Reader | Role::Pusher => Err(Denied::NotAReviewer),
    }
}

fn may_push(push: &Push, caller: &Caller, rules: &Rules) -> bool {
    rules.judge(&push.repo, Right::Push, caller) == Verdict::Allowed
}

impl Desk<'_> {
    fn may_read(&self, push: &Push, caller: &Caller) -> bool {
        let is_upstream = || match push.target {
            Target::Hosted { .. } => false,
            Target::Upstream { .. } => true,
        };
        let is_own = |name: &UserName| push.pusher.is(&Actor::User(name.clone()));
        let sight = Sight { rules: self.rules, upstreams: self.upstreams };
        sight.may_know(caller, &push.repo, is_upstream, is_own)
    }

    /// Does `verb` to a push in the name of `caller`, wakes whoever waits for it, and answers how it stands then.
    ///
    /// # Errors
    /// See [`DecideError`]; then nothing has changed.
    pub fn decide(
        &self,
        caller: &Caller,
        id: PushId,
        verb: Verb,
        reason: &str,
        now: Timestamp,
    ) -> Result<PushView, DecideError> {
        let push = self.find(caller, id)?;
        let reason = reason.trim();
        let permit = permit(verb, &push, caller, self.rules, !reason.is_empty())?;
        let actor = permit.actor.to_string();
        match verb {
            Verb::Approve => self.rule(&push, Ruling::Approve, permit, reason, now)?,
            Verb::Reject => self.rule(&push, Ruling::Reject, permit, reason, now)?,
            Verb::Cancel => self.cancel(push, &permit, reason, now)?,
            Verb::Retry => self.retry(&push, &permit, reason, now)?,
        }
        self.waiters.notify(id);
        let view = self.view(caller, id)?;
        log::info!("push {id} of {}: {} by {actor}, now {}", view.repo, verb.as_str(), view.state);
        Ok(view)
    }

    /// One record with everything that is known about it.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn view(&self, caller: &Caller, id: PushId) -> Result<PushView, DecideError> {
        self.find(caller, id)?;
        self.store.pushes().view(id)?.ok_or(DecideError::Unknown(id))
    }

    /// One record, to make its diff. What waits for review may hold what must not become known: its pusher and
    /// those who decide see it.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn for_diff(&self, caller: &Caller, id: PushId) -> Result<Push, DecideError> {
        let push = self.find(caller, id)?;
        let is_own = caller_name(caller).is_some_and(|name| push.pusher.is(&Actor::User(name.clone())));
        match caller {
            Caller::Local | Caller::User { role: Role::Reviewer | Role::Admin, .. } => Ok(push),
            Caller::User { .. } if is_own => Ok(push),
            Caller::User { role: Role::Reader | Role::Pusher, .. } => Err(Denied::MayNotSeeChanges.into()),
            Caller::Anonymous | Caller::Guest { .. } => Err(DecideError::NeedsCredential),
        }
    }

    /// What the caller may do to a push as it stands now.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn open_to(&self, caller: &Caller, id: PushId) -> Result<Vec<Verb>, DecideError> {
        let push = self.find(caller, id)?;
        let is_open = |verb: &Verb| {
            next(push.state, verb.event()).is_ok() && permit(*verb, &push, caller, self.rules, true).is_ok()
        };
        Ok(Verb::ALL.into_iter().filter(is_open).collect())
    }

    /// The records that the caller may know of, the newest first. A page may hold fewer than were asked for although
    /// there are more: [`Page::next`] tells.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn list(&self, caller: &Caller, filter: &Filter) -> Result<Page, DecideError> {
        if *caller == Caller::Anonymous {
            return Err(DecideError::NeedsCredential);
        }
        let mut rest = Filter { limit: filter.limit.clamp(1, PAGE_MAX), ..filter.clone() };
        let mut found = Page { pushes: Vec::new(), next: None };
        for _ in 0..SCANS_MAX {
            let Page { pushes, next } = self.store.pushes().list(&rest)?;
            let visible = pushes.into_iter().filter(|push| self.may_read(push, caller));
            for push in visible {
                found.pushes.push(push);
                rest.limit -= 1;
            }
            found.next = next;
            rest.before = next;
            if next.is_none() || rest.limit == 0 {
                break;
            }
        }
        Ok(found)
    }

    fn find(&self, caller: &Caller, id: PushId) -> Result<Push, DecideError> {
        if *caller == Caller::Anonymous {
            return Err(DecideError::NeedsCredential);
        }
        let push = self.store.pushes().get(id)?;
        push.filter(|push| self.may_read(push, caller)).ok_or(DecideError::Unknown(id))
    }

    fn rule(
        &self,
        push: &Push,
        ruling: Ruling,
        permit: Permit,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), DecideError> {
        let (verb, default) = match ruling {
            Ruling::Approve => (Verb::Approve, format!("approved by {}", permit.actor)),
            Ruling::Reject => (Verb::Reject, String::new()),
        };
        let reason = if reason.is_empty() { &default } else { reason };
        let decision = Decision::new(ruling, permit.actor, reason, permit.is_override, now)?;
        let deadline = match ruling {
            Ruling::Approve => Some(self.forward_by(push.id, now)),
            Ruling::Reject => None,
        };
        let moved = self.store.pushes().decide(push.id, &decision, deadline);
        moved.map(drop).map_err(|error| refused(push.id, verb, error))
    }

    /// A push that moves on by itself between the look and the move is looked at again: its pusher cancels it, wherever
    /// it stands.
    fn cancel(&self, push: Push, permit: &Permit, reason: &str, now: Timestamp) -> Result<(), DecideError> {
        let cause = if permit.is_own { CancelCause::Pusher } else { CancelCause::Admin };
        let default = format!("canceled by {}", permit.actor);
        let why = reason_or(reason, &default)?;
        let mut state = push.state;
        for _ in 0..FOLLOWS_MAX {
            let step = Step::new(state, Event::Canceled(cause), &permit.actor, why);
            match self.store.pushes().transition(push.id, &step, now) {
                Ok(_) => return Ok(()),
                Err(TransitionError::Lost { now_in }) if next(now_in, step.event).is_ok() => state = now_in,
                Err(error) => return Err(refused(push.id, Verb::Cancel, error)),
            }
        }
        Err(DecideError::Conflict { id: push.id, state, why: "it moves on too fast: try again" })
    }

    fn retry(&self, push: &Push, permit: &Permit, reason: &str, now: Timestamp) -> Result<(), DecideError> {
        let default = format!("to be forwarded again, says {}", permit.actor);
        let why = reason_or(reason, &default)?;
        let step = Step {
            deadline: Some(self.forward_by(push.id, now)),
            ..Step::new(PushState::Failed, Event::Retried, &permit.actor, why)
        };
        let moved = self.store.pushes().transition(push.id, &step, now);
        moved.map(drop).map_err(|error| refused(push.id, Verb::Retry, error))
    }

    /// When the sweeper begins the forward if the request that waits has not; at once where nobody waits.
    fn forward_by(&self, id: PushId, now: Timestamp) -> Timestamp {
        if self.waiters.is_awaited(id) { now.saturating_add(TAKEOVER).unwrap_or(now) } else { now }
    }
}

fn caller_name(caller: &Caller) -> Option<&UserName> {
    match caller {
        Caller::User { name, .. } => Some(name),
        Caller::Anonymous | Caller::Local | Caller::Guest { .. } => None,
    }
}

fn reason_or<'a>(reason: &'a str, default: &'a str) -> Result<&'a str, DecisionError> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(DecisionError::ReasonTooLong);
    }
    Ok(if reason.is_empty() { default } else { reason })
}

fn refused(id: PushId, verb: Verb, error: TransitionError) -> DecideError {
    let conflict = |state| DecideError::Conflict { id, state, why: verb.why_not(state) };
    match error {
        TransitionError::NotAllowed(no) => conflict(no.state),
        TransitionError::Lost { now_in } => conflict(now_in),
        TransitionError::NothingKept => conflict(PushState::Failed),
        TransitionError::Unknown(id) => DecideError::Unknown(id),
        TransitionError::Store(error) => DecideError::Store(error),
    }
}

#[cfg(test)]
mod tests;
