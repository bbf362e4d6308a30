//! Push records: one row each, moved by compare-and-set, with everything that happened to them.
//!
//! Whoever moves a record says where he believes it to stand. Of all who try at once one wins, and the others
//! learn where it stands now. A move, its event, its decision, what checks found and what the target answered are one
//! transaction.
//! Events are only ever added (triggers of the schema refuse the rest) and go with the whole record.

mod entered;
mod rows;

pub(super) use entered::Entered;

use super::versions::{self, Standing};
use super::{Store, StoreError, Sync};
use crate::model::check::CheckResult;
use crate::model::fleet::{EventName, RefDigest};
use crate::model::name::RepoName;
use crate::model::push::{
    Actor, Decision, Event, NewPush, NoTransition, Owner, Push, PushEvent, PushId, PushState, PushView,
    RefAnswer, RefName, Ruling, next,
};
use crate::sys::fault;
use jiff::Timestamp;
use rusqlite::Transaction;
use std::collections::BTreeMap;
use thiserror::Error;

/// The most records of one page.
pub const PAGE_MAX: u32 = 100;
/// The most records that one look for due ones answers: the sweeper comes back soon.
const DUE_MAX: u32 = 100;
/// The most records that one pruning removes: no other writer waits longer than for this many.
const PRUNED_MAX: u32 = 200;

/// The push records of a store.
#[derive(Clone, Copy, Debug)]
pub struct Pushes<'a>(&'a Store);

/// What is to happen to a record.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Where the record is believed to stand.
    pub expected: PushState,
    /// What happens.
    pub event: Event,
    /// Who makes it happen.
    pub actor: &'a Actor,
    /// Why, for people.
    pub why: &'a str,
    /// The new deadline. Without one an open record keeps the one it has. A push that fails after it was
    /// approved may be retried until then, and not at all without; other ends have none.
    pub deadline: Option<Timestamp>,
    /// What the target said, or git about the pack.
    pub answer: Option<&'a Answer>,
    /// What the checks found, in place of what was kept before.
    pub checks: Option<&'a [CheckResult]>,
    /// The refs of the repository as the forward left them, where they are known.
    pub refs_after: Option<&'a RefDigest>,
}

/// What the target said about a forward, or git about a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its words, line by line.
    pub words: String,
    /// What came of the refs; those that are not named keep what they had.
    pub refs: Vec<(RefName, RefAnswer)>,
}

/// Another owner for an open record.
#[derive(Clone, Copy, Debug)]
pub struct Adoption<'a> {
    /// Where the record is believed to stand.
    pub expected: PushState,
    /// Who is believed to own it.
    pub from: &'a Owner,
    /// Who is to own it.
    pub to: &'a Owner,
    /// The new deadline; without one it keeps the one it has.
    pub deadline: Option<Timestamp>,
    /// Why, for people.
    pub why: &'a str,
}

/// A record that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it stood.
    pub from: PushState,
    /// Where it stands.
    pub to: PushState,
    /// The number of the event.
    pub event: i64,
}

/// Why a record was not moved. Nothing of it has changed.
#[derive(Debug, Error)]
pub enum TransitionError {
    /// The table does not know it.
    #[error(transparent)]
    NotAllowed(#[from] NoTransition),
    /// Somebody else was first: the record, or its owner, is not what the caller believed.
    #[error("the push is {now_in} meanwhile")]
    Lost {
        /// Where it stands now.
        now_in: PushState,
    },
    /// What was pushed is gone.
    #[error("what was pushed is not kept any more: push again")]
    NothingKept,
    /// There is no such record.
    #[error("there is no push {0}: `tidegate push list` shows all")]
    Unknown(PushId),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which records to list; what is not set does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those that stand there.
    pub state: Option<PushState>,
    /// Those of this repository.
    pub repo: Option<RepoName>,
    /// Those of the pusher of this name.
    pub user: Option<String>,
    /// How many, from 1 to [`PAGE_MAX`]; what is outside is moved to the nearer end.
    pub limit: u32,
    /// Those that are older than this one.
    pub before: Option<PushId>,
}

/// A part of a list, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub pushes: Vec<Push>,
    /// What [`Filter::before`] has to be for the next part, if there is one.
    pub next: Option<PushId>,
}

impl<'a> Step<'a> {
    /// A step that leaves the deadline and tells nothing of the target and of checks.
    #[must_use]
    pub const fn new(expected: PushState, event: Event, actor: &'a Actor, why: &'a str) -> Self {
        Self { expected, event, actor, why, deadline: None, answer: None, checks: None, refs_after: None }
    }
}

impl Store {
    /// The push records.
    #[must_use]
    pub fn pushes(&self) -> Pushes<'_> {
        Pushes(self)
    }
}

impl Pushes<'_> {
    /// Records a push that was received, on the disk when this returns; `None` when `open_max` records are open already.
    /// Counted and recorded in one step, so that however many come at once, no more than that are ever open.
    ///
    /// # Errors
    /// When the record cannot be written: then the push must be refused.
    pub fn create(
        &self,
        push: &NewPush,
        open_max: usize,
        now: Timestamp,
    ) -> Result<Option<PushId>, StoreError> {
        let insert = |db: &Transaction<'_>| {
            if rows::open_count(db)? >= open_max {
                return Ok(None);
            }
            let id = rows::insert(db, push, now)?;
            let birth = rows::NewEvent {
                cause: None,
                to: PushState::Received,
                actor: &push.pusher.actor(),
                why: rows::RECEIVED,
            };
            rows::add_event(db, id, &birth, now)?;
            self.tell(db, id, now)?;
            Ok(Some(id))
        };
        let made = fault::around(PushState::Received, || self.0.write("recording a push", insert))?;
        if made.is_some() {
            self.0.0.entered.note(PushState::Received);
        }
        Ok(made)
    }

    /// Moves a record; on the disk when this returns, unless it is an interim step ([`Event::is_interim`]).
    ///
    /// # Errors
    /// See [`TransitionError`]; then nothing has changed.
    pub fn transition(&self, id: PushId, step: &Step<'_>, now: Timestamp) -> Result<Moved, TransitionError> {
        let to = next(step.expected, step.event)?;
        let sync = if step.event.is_interim() { Sync::WithTheNext } else { Sync::Now };
        self.move_to(to, sync, "moving a push", |db| self.advance(db, id, step, None, now))
    }

    /// The one transaction by which a record comes into the state `to`.
    fn move_to(
        &self,
        to: PushState,
        sync: Sync,
        doing: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> Result<Moved, TransitionError>,
    ) -> Result<Moved, TransitionError> {
        let moved = fault::around(to, || self.0.write_by(sync, doing, change))?;
        self.0.0.entered.note(to);
        Ok(moved)
    }

    /// Records a decision on a pending push and moves it; whether somebody may decide is asked before.
    ///
    /// # Errors
    /// See [`TransitionError`]; then nothing has changed.
    pub fn decide(
        &self,
        id: PushId,
        decision: &Decision,
        deadline: Option<Timestamp>,
    ) -> Result<Moved, TransitionError> {
        let event = match decision.ruling {
            Ruling::Approve => Event::Approved,
            Ruling::Reject => Event::Rejected,
        };
        let step = Step { deadline, ..Step::new(PushState::Pending, event, &decision.by, &decision.reason) };
        let record = |db: &Transaction<'_>| {
            let moved = self.advance(db, id, &step, None, decision.at)?;
            rows::insert_decision(db, id, decision)?;
            Ok(moved)
        };
        let to = next(step.expected, step.event)?;
        self.move_to(to, Sync::Now, "recording a decision", record)
    }

    /// Gives an open record another owner: this life of the gate at its start, nobody's session when the client
    /// of a push that is kept has left.
    ///
    /// # Errors
    /// See [`TransitionError`]; then nothing has changed.
    pub fn adopt(
        &self,
        id: PushId,
        adoption: &Adoption<'_>,
        now: Timestamp,
    ) -> Result<Moved, TransitionError> {
        let step = Step {
            deadline: adoption.deadline,
            ..Step::new(adoption.expected, Event::Adopted, &Actor::Gate, adoption.why)
        };
        let owners = Some((adoption.from, adoption.to));
        self.0.write("adopting a push", |db| self.advance(db, id, &step, owners, now))
    }

    /// Ends the time in which a failed push may be retried, if it has passed; answers whether it did. Only then
    /// may what was pushed be removed: a retry that comes first wins.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn release(&self, id: PushId, now: Timestamp) -> Result<bool, StoreError> {
        self.0.write("letting go of a failed push", |db| rows::release(db, id, now))
    }

    /// One record.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn get(&self, id: PushId) -> Result<Option<Push>, StoreError> {
        self.0.snapshot("reading a push", |db| rows::push(db, id))
    }

    /// One record with its checks and events, as others see it, all of one moment.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn view(&self, id: PushId) -> Result<Option<PushView>, StoreError> {
        self.0.snapshot("reading a push", |db| {
            let Some(push) = rows::push(db, id)? else {
                return Ok(None);
            };
            Ok(Some(PushView::full(&push, rows::checks(db, id)?, &rows::events(db, id)?)))
        })
    }

    /// A part of the records, the newest first.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn list(&self, filter: &Filter) -> Result<Page, StoreError> {
        let limit = filter.limit.clamp(1, PAGE_MAX);
        let mut pushes = self.0.snapshot("listing pushes", |db| rows::list(db, filter, limit + 1))?;
        let one_more = usize::try_from(limit).is_ok_and(|limit| pushes.len() > limit);
        if one_more {
            pushes.pop();
        }
        let next = pushes.last().filter(|_| one_more).map(|last| last.id);
        Ok(Page { pushes, next })
    }

    /// What happened to a push, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn events(&self, id: PushId) -> Result<Vec<PushEvent>, StoreError> {
        self.0.snapshot("reading the events of a push", |db| rows::events(db, id))
    }

    /// What the checks of a push found, in the order in which they were kept.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn checks(&self, id: PushId) -> Result<Vec<CheckResult>, StoreError> {
        self.0.snapshot("reading what checks found", |db| rows::checks(db, id))
    }

    /// The open records of other lives of the gate than `boot`, the oldest first. As many as may be open at all.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn open_elsewhere(&self, boot: &str) -> Result<Vec<Push>, StoreError> {
        self.0.snapshot("looking for pushes of an earlier start", |db| rows::open_elsewhere(db, boot))
    }

    /// An open record of the repository `repo`, if there is one.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn open_of(&self, repo: &RepoName) -> Result<Option<Push>, StoreError> {
        self.0.snapshot("looking for the pushes of a repository", |db| rows::open_of(db, repo))
    }

    /// How many records stand in each open state that has any.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn open_states(&self) -> Result<BTreeMap<PushState, u64>, StoreError> {
        self.0.snapshot("counting open pushes", rows::open_states)
    }

    /// How many records have come into a state since this store was opened.
    #[must_use]
    pub fn entered(&self, state: PushState) -> u64 {
        self.0.0.entered.get(state)
    }

    /// Records whose deadline has passed, the longest overdue first; no more than a hundred at a time.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn due(&self, now: Timestamp) -> Result<Vec<Push>, StoreError> {
        self.0.snapshot("looking for pushes that are due", |db| rows::due(db, now, DUE_MAX))
    }

    /// Removes records to which nothing has happened since `before` and nothing can happen, with all that hangs
    /// on them; answers how many. It removes two hundred at a time at most: call it again until it answers 0.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn prune(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.0.write("removing old pushes", |db| rows::prune(db, before, PRUNED_MAX))
    }

    /// The one way by which a state changes. With the change goes what everybody is told of it; and with the forward of a
    /// push, the new version of its repository.
    fn advance(
        &self,
        db: &Transaction<'_>,
        id: PushId,
        step: &Step<'_>,
        owners: Option<(&Owner, &Owner)>,
        now: Timestamp,
    ) -> Result<Moved, TransitionError> {
        let (from, to) = (step.expected, next(step.expected, step.event)?);
        if !rows::compare_and_set(db, id, step, to, owners, now)? {
            return Err(why_not(db, id, step)?);
        }
        let event = rows::NewEvent { cause: Some((from, step.event)), to, actor: step.actor, why: step.why };
        let event = rows::add_event(db, id, &event, now)?;
        if let Some(answer) = step.answer {
            rows::keep_answers(db, id, answer)?;
        }
        if let Some(results) = step.checks {
            rows::replace_checks(db, id, results)?;
        }
        if from != to {
            let push = self.tell(db, id, now)?;
            if to == PushState::Forwarded {
                self.count(db, &push, step.refs_after, now)?;
            }
        }
        Ok(Moved { from, to, event })
    }

    /// Tells where a push stands, in the transaction that brought it there.
    fn tell(&self, db: &Transaction<'_>, id: PushId, now: Timestamp) -> Result<Push, StoreError> {
        let push = rows::push(db, id)?.ok_or(StoreError::Damaged("a push"))?;
        self.0.0.telling.tell_of_push(db, &push, now)?;
        Ok(push)
    }

    /// Counts what a push has changed.
    fn count(
        &self,
        db: &Transaction<'_>,
        push: &Push,
        digest: Option<&RefDigest>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let telling = &self.0.0.telling;
        let standing = Standing { repo: &push.repo, key: &telling.key_of(push), digest };
        versions::count(db, telling, &standing, EventName::RepoVersion, now)?;
        versions::know(db, &standing)
    }
}

/// Why a step that the table allows was not taken.
fn why_not(db: &Transaction<'_>, id: PushId, step: &Step<'_>) -> Result<TransitionError, StoreError> {
    Ok(match rows::state(db, id)? {
        None => TransitionError::Unknown(id),
        Some(PushState::Failed) if step.event == Event::Retried => TransitionError::NothingKept,
        Some(now_in) => TransitionError::Lost { now_in },
    })
}

#[cfg(test)]
mod race;
#[cfg(test)]
mod tests;
