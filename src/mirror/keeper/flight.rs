//! Syncs under way, one a repository. A flight belongs to its repository and to nobody who waits for it: whoever leaves
//! takes nothing with him, and all who stay see one end.

use super::SyncError;
use crate::model::name::RepoName;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::collections::hash_map::{Entry, VacantEntry};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// How a sync ended.
pub(super) type Outcome = Result<(), SyncError>;

/// All that are under way; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<RepoName, Arc<Flight>>>>);

/// What a sync was begun for: who asked first. All who come meanwhile share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A clone or a fetch.
    Read,
    /// A fetch of something that the mirror lacks.
    Search,
    /// A push, which has to know what the upstream has at that moment.
    Push,
    /// The schedule.
    Schedule,
    /// A reviewer's demand.
    Demand,
    /// Another gate's word that there is something new.
    Event,
    /// A git that could not read the mirror.
    Repair,
}

impl Cause {
    /// Its name in the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Search => "search",
            Self::Push => "push",
            Self::Schedule => "schedule",
            Self::Demand => "demand",
            Self::Event => "event",
            Self::Repair => "repair",
        }
    }
}

/// One sync under way, for those who wait for it.
#[derive(Debug)]
pub(super) struct Flight {
    cause: Cause,
    begun: Instant,
    /// The upstream has said what it has: what is left is ours to do.
    is_answered: AtomicBool,
    outcome: OnceLock<Outcome>,
    /// Readable for ever once there is an outcome; nobody reads from it.
    done: EventFd,
}

/// Which place somebody has in a sync.
#[derive(Debug)]
pub(super) enum Place {
    /// It is his to run.
    Lead(Lead),
    /// Another one runs it.
    Guest(Arc<Flight>),
}

/// The duty to end a sync. Dropped without an end, as by a panic or a lane that takes no more jobs, it ends as one that no
/// worker took.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Flights,
    repo: RepoName,
    flight: Arc<Flight>,
}

impl Flights {
    /// Joins the sync of `repo` that is under way, or begins one for `cause`.
    ///
    /// # Errors
    /// When no descriptor is left to wait on.
    pub(super) fn join(&self, repo: &RepoName, cause: Cause) -> io::Result<Place> {
        match self.lock().entry(repo.clone()) {
            Entry::Occupied(taken) => Ok(Place::Guest(Arc::clone(taken.get()))),
            Entry::Vacant(free) => self.begin(repo, cause, free).map(Place::Lead),
        }
    }

    /// As [`Flights::join`]; where none is under way, one begins only if `may_lead`, which nobody else begins or ends one
    /// beside.
    ///
    /// # Errors
    /// As [`Flights::join`].
    pub(super) fn join_if(
        &self,
        repo: &RepoName,
        cause: Cause,
        may_lead: impl FnOnce() -> bool,
    ) -> io::Result<Option<Place>> {
        match self.lock().entry(repo.clone()) {
            Entry::Occupied(taken) => Ok(Some(Place::Guest(Arc::clone(taken.get())))),
            Entry::Vacant(free) if may_lead() => Ok(Some(Place::Lead(self.begin(repo, cause, free)?))),
            Entry::Vacant(_) => Ok(None),
        }
    }

    fn begin(
        &self,
        repo: &RepoName,
        cause: Cause,
        free: VacantEntry<'_, RepoName, Arc<Flight>>,
    ) -> io::Result<Lead> {
        let done = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (begun, is_answered, outcome) = (Instant::now(), AtomicBool::default(), OnceLock::new());
        let flight = Arc::new(Flight { cause, begun, is_answered, outcome, done });
        free.insert(Arc::clone(&flight));
        Ok(Lead { flights: self.clone(), repo: repo.clone(), flight })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RepoName, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// How it ended, if it has.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().cloned()
    }

    /// When it began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether the upstream has said what it has.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// A descriptor that is readable once it has ended.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

impl Lead {
    /// Whose it is.
    pub(super) fn repo(&self) -> &RepoName {
        &self.repo
    }

    /// What it was begun for.
    pub(super) fn cause(&self) -> Cause {
        self.flight.cause
    }

    /// What others see of it.
    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// The upstream has said what it has.
    pub(super) fn set_answered(&self) {
        self.flight.is_answered.store(true, Ordering::Relaxed);
    }

    /// Ends it. Who comes from now on begins another.
    pub(super) fn end(self, outcome: Outcome) {
        self.set(outcome);
    }

    fn set(&self, outcome: Outcome) {
        if self.flight.outcome.get().is_some() {
            return;
        }
        self.flights.lock().remove(&self.repo);
        let _ = self.flight.outcome.set(outcome);
        // A full counter is already readable, which is all that the waiters need.
        let _ = self.flight.done.write(1);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.set(Err(SyncError::NoWorker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(name: &str) -> RepoName {
        RepoName::parse(name).unwrap()
    }

    fn lead(flights: &Flights, name: &str) -> Lead {
        match flights.join(&repo(name), Cause::Push).unwrap() {
            Place::Lead(lead) => lead,
            Place::Guest(_) => panic!("{name} is under way"),
        }
    }

    #[test]
    fn who_comes_while_it_is_under_way_sees_the_same_end_and_who_comes_later_begins_another() {
        let flights = Flights::default();
        let first = lead(&flights, "forge/a");
        let other = lead(&flights, "forge/A");
        let Place::Guest(guest) = flights.join(&repo("forge/a"), Cause::Read).unwrap() else { panic!() };
        assert!(guest.outcome().is_none());
        assert_eq!(first.cause(), Cause::Push, "who came later changes nothing about that");
        first.end(Ok(()));
        assert!(matches!(guest.outcome(), Some(Ok(()))));
        drop(lead(&flights, "forge/a"));
        drop(other);
    }

    #[test]
    fn who_may_not_lead_joins_what_is_under_way_and_begins_nothing() {
        let flights = Flights::default();
        assert!(flights.join_if(&repo("forge/a"), Cause::Search, || false).unwrap().is_none());
        let first = lead(&flights, "forge/a");
        let joined =
            flights.join_if(&repo("forge/a"), Cause::Search, || panic!("nobody is asked for leave to join"));
        assert!(matches!(joined.unwrap(), Some(Place::Guest(_))));
        first.end(Ok(()));
        assert!(matches!(
            flights.join_if(&repo("forge/a"), Cause::Search, || true).unwrap(),
            Some(Place::Lead(_))
        ));
    }

    #[test]
    fn one_that_nobody_ends_ends_by_itself() {
        let flights = Flights::default();
        let lost = lead(&flights, "forge/a");
        let seen = lost.flight();
        drop(lost);
        assert!(matches!(seen.outcome(), Some(Err(SyncError::NoWorker))));
        drop(lead(&flights, "forge/a"));
    }
}
