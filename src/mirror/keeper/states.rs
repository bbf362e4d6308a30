//! How each mirror is: in memory for those who read it, in the store for the next life of the gate.

use super::SyncError;
use crate::mirror::{Advertisement, Fault};
use crate::model::name::RepoName;
use crate::store::mirrors::{Failed, MirrorRow};
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a clock is set back, at most, that another one keeps.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// The states of all mirrors.
#[derive(Debug)]
pub(super) struct States {
    known: Mutex<HashMap<RepoName, State>>,
    store: Store,
    /// Syncs by [`Ending`], in the order of [`Ending::ALL`].
    ended: [AtomicU64; Ending::ALL.len()],
    /// One at a time writes to the store, what is true then.
    writing: Mutex<()>,
}

/// What is known of a mirror.
#[derive(Clone, Debug)]
pub struct State {
    /// What outlives the gate.
    pub row: MirrorRow,
    /// When the last sync of this life began that succeeded.
    pub fresh: Option<Instant>,
    /// How the last sync of this life ended.
    pub last: Option<Ending>,
    /// Where it failed, if it did.
    pub fault: Option<Fault>,
    /// It did since the upstream was waited for in vain.
    pub is_silent: bool,
}

/// How a sync ended, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The mirror has what upstream had.
    Synced,
    /// The upstream does not show the repository.
    Refused,
    /// The upstream says that the repository is elsewhere.
    Moved,
    /// The upstream, the way to it, or the gate itself did not do its part.
    Failed,
}

impl Ending {
    /// Every ending, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Synced, Self::Refused, Self::Moved, Self::Failed];

    /// Its name in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "ok",
            Self::Refused => "refused",
            Self::Moved => "moved",
            Self::Failed => "failed",
        }
    }

    fn of(outcome: &Result<(), SyncError>) -> Self {
        match outcome {
            Ok(()) => Self::Synced,
            Err(error) if error.is_no() => Self::Refused,
            Err(error) if error.moved_to().is_some() => Self::Moved,
            Err(_) => Self::Failed,
        }
    }
}

/// The moment at which a sync began, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) time: Timestamp,
    /// How old what was heard then was.
    pub(super) behind: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), time: Timestamp::now(), behind: Duration::ZERO }
    }

    /// This moment, or that at which the upstream said this where that was before.
    pub(super) fn of(self, seen: &Advertisement) -> Self {
        let back = self.instant.saturating_duration_since(seen.at);
        let time = self.time.checked_sub(back).unwrap_or(self.time);
        Self { instant: self.instant - back, time, behind: seen.age }
    }
}

impl State {
    /// As an earlier life of the gate, or none, has left it.
    fn of(row: MirrorRow) -> Self {
        Self { row, fresh: None, last: None, fault: None, is_silent: false }
    }

    pub(super) fn unsynced(repo: &RepoName, now: Timestamp) -> Self {
        let row = MirrorRow {
            repo: repo.clone(),
            attempted: now,
            succeeded: None,
            behind: Duration::ZERO,
            failed: None,
            is_denied: false,
            due: None,
            bytes: 0,
        };
        Self::of(row)
    }

    /// The time since the start of the last sync that succeeded, in this life of the gate or an earlier one, with the age
    /// that the upstream told of what it showed then.
    #[must_use]
    pub fn age(&self, now: Instant, time: Timestamp) -> Option<Duration> {
        match self.fresh {
            Some(fresh) => Some(now.saturating_duration_since(fresh) + self.row.behind),
            None => {
                let succeeded = self.row.succeeded?;
                let latest = time.checked_add(CLOCK_STEP).unwrap_or(time);
                let age = Duration::try_from(time.duration_since(succeeded)).unwrap_or_default();
                // A clock that was set back a little makes nothing younger than new. What was written by one that was far
                // ahead says nothing of the age.
                (succeeded <= latest).then_some(age + self.row.behind)
            }
        }
    }

    fn note(&mut self, began: Moment, outcome: &Result<(), SyncError>) {
        self.row.attempted = began.time;
        self.last = Some(Ending::of(outcome));
        self.fault = outcome.as_ref().err().map(SyncError::fault);
        self.is_silent = outcome.as_ref().is_err_and(SyncError::is_timeout);
        match outcome {
            Ok(()) => {
                self.row.is_denied = false;
                (self.row.succeeded, self.row.behind) = (Some(began.time), began.behind);
                self.row.failed = None;
                self.fresh = Some(began.instant);
            }
            Err(error) => {
                let times = self.row.failed.as_ref().map_or(0, |failed| failed.times).saturating_add(1);
                let moved = error.moved_to().map(|to| to.map(str::to_owned));
                self.row.failed = Some(Failed { times, why: error.to_string(), moved });
            }
        }
    }
}

impl States {
    /// As the store has them.
    pub(super) fn load(store: Store) -> Result<Self, StoreError> {
        let rows = store.mirrors().all()?.into_iter();
        let known = rows.map(|row| (row.repo.clone(), State::of(row))).collect();
        Ok(Self { known: Mutex::new(known), store, ended: Default::default(), writing: Mutex::default() })
    }

    /// How many syncs ended so.
    pub(super) fn ended(&self, ending: Ending) -> u64 {
        self.ended[ending as usize].load(Ordering::Relaxed)
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<State> {
        let mut all: Vec<State> = self.lock().values().cloned().collect();
        all.sort_by(|one, other| one.row.repo.as_str().cmp(other.row.repo.as_str()));
        all
    }

    pub(super) fn find(&self, repo: &RepoName) -> Option<State> {
        self.lock().get(repo).cloned()
    }

    /// Notes how a sync ended that began at `began`, and answers how the one before had failed. The failure of one that is
    /// not known and has no mirror is not kept: anybody can ask for any name.
    pub(super) fn note(
        &self,
        repo: &RepoName,
        began: Moment,
        outcome: &Result<(), SyncError>,
        has_mirror: bool,
    ) -> Noted {
        self.ended[Ending::of(outcome) as usize].fetch_add(1, Ordering::Relaxed);
        let mut known = self.lock();
        if outcome.is_err() && !has_mirror && !known.contains_key(repo) {
            return Noted::Unknown;
        }
        let state = known.entry(repo.clone()).or_insert_with(|| State::unsynced(repo, began.time));
        let before = state.row.failed.as_ref().map(|failed| failed.why.clone());
        state.note(began, outcome);
        Noted::After(before)
    }

    /// What is known of a mirror, with a place for one that is to be made.
    pub(super) fn expect(&self, repo: &RepoName, now: Timestamp) -> State {
        self.lock().entry(repo.clone()).or_insert_with(|| State::unsynced(repo, now)).clone()
    }

    /// What all of them take on the disk, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().values().map(|state| state.row.bytes).sum()
    }

    /// The names of all.
    pub(super) fn names(&self) -> Vec<RepoName> {
        self.lock().keys().cloned().collect()
    }

    /// Those whose time has come, the longest due first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<RepoName> {
        let known = self.lock();
        let due = known.values().filter_map(|state| Some((state.row.due?, &state.row.repo)));
        let mut due: Vec<_> = due.filter(|(due, _)| *due <= now).collect();
        due.sort();
        due.into_iter().map(|(_, repo)| repo.clone()).collect()
    }

    /// The upstream does not show a mirror's repository to the gate any more; answers whether that is news.
    pub(super) fn deny(&self, repo: &RepoName) -> bool {
        let mut known = self.lock();
        known.get_mut(repo).is_some_and(|state| !std::mem::replace(&mut state.row.is_denied, true))
    }

    pub(super) fn set_due(&self, repo: &RepoName, due: Option<Timestamp>) {
        if let Some(state) = self.lock().get_mut(repo) {
            state.row.due = due;
        }
    }

    pub(super) fn set_bytes(&self, repo: &RepoName, bytes: u64) {
        if let Some(state) = self.lock().get_mut(repo) {
            state.row.bytes = bytes;
        }
    }

    /// Forgets what was to be made, and never has been.
    pub(super) fn give_up(&self, repo: &RepoName) {
        self.lock().retain(|name, state| name != repo || state.row.succeeded.is_some());
    }

    /// Forgets a mirror, here and in the store; answers whether it was known.
    pub(super) fn forget(&self, repo: &RepoName) -> Result<bool, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.mirrors().remove(repo)?;
        Ok(self.lock().remove(repo).is_some())
    }

    /// Writes what is known of a mirror now into the store.
    pub(super) fn save(&self, repo: &RepoName) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = self.find(repo) else { return };
        if let Err(error) = self.store.mirrors().put(&state.row) {
            log::error!("mirror {repo}: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RepoName, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It was not kept.
    Unknown,
    /// It was, and the sync before had failed for this reason, if it had.
    After(Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_by_a_clock_that_was_far_ahead_is_unknown_and_by_one_that_was_set_back_a_little_is_none() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut state = State::unsynced(&RepoName::parse("forge/app").unwrap(), now);
        let mut age = |seconds: i64| {
            state.row.succeeded = Some(Timestamp::from_second(now.as_second() + seconds).unwrap());
            state.age(Instant::now(), now).map(|age| age.as_secs())
        };
        assert_eq!([age(-30), age(0), age(60)], [Some(30), Some(0), Some(0)]);
        assert_eq!([age(61), age(86_400)], [None, None]);
    }
}
