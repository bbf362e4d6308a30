//! Keeps mirrors fresh: for whoever reads one, and for whoever pushes through one.
//!
//! A sync asks the upstream what it has and lets a worker of the upstream lane fetch what differs. A client's own thread asks,
//! where it may; a sync that nobody waits for takes the way of [`Approach`]. One is under way in a repository at a time, and
//! it belongs to the repository: all who come meanwhile share how it ends, and a fetch goes on when whoever began it leaves.
//! How long each of them waits is his own affair.
//!
//! A mirror is fresh from the start of a sync that succeeded, since what upstream got later need not be in it.

mod chores;
mod condition;
mod demand;
mod flight;
mod heard;
mod patience;
mod repair;
mod schedule;
mod search;
mod states;

pub use chores::Chore;
pub use condition::Condition;
pub use demand::{DemandError, Demanded};
pub use flight::Cause;
pub use heard::Heard;
pub use search::Part;
pub use states::{Ending, State};

use super::doors::ENOUGH;
use super::upstreams::{Place, Upstreams};
use super::{Advertisement, Approach, Fault, ForgetError, Progress, Remote, Side, UpstreamError};
use crate::client::secrets::SecretError;
use crate::config::UpstreamSettings;
use crate::git::ask::Asker;
use crate::git::layout::Repository;
use crate::git::pool::{Claim, Class, Lane};
use crate::git::tools::Tools;
use crate::model::credential::UpstreamCredential;
use crate::model::fleet::RepoKey;
use crate::model::name::RepoName;
use crate::model::units::format_size;
use crate::store::versions::{Intent, Standing};
use crate::store::{Store, StoreError};
use crate::supervise::Deadline;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use chores::Chores;
use demand::Waits;
use flight::{Flight, Flights, Lead, Outcome};
use heard::Wishes;
use jiff::Timestamp;
use schedule::Errands;
use search::{Searches, Way};
use states::{Moment, Noted, States};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an upstream may take to say what it has.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// What a keeper works with.
#[derive(Debug)]
pub struct KeeperParts {
    /// What is known of mirrors.
    pub store: Store,
    /// The upstreams, and their mirrors.
    pub upstreams: Upstreams,
    /// The way to them.
    pub approach: Approach,
    /// The most address space that a fetch may have, in bytes.
    pub memory: u64,
    /// Whose workers repack.
    pub upkeep: Lane,
    /// What all mirrors may take before no further one is made, in bytes.
    pub mirror_bytes_max: Option<u64>,
    /// The end of it all.
    pub stop: Stop,
}

/// Keeps all mirrors; clones share it.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: KeeperParts,
    /// Syncs.
    flights: Flights,
    /// Fetches of objects by their ids.
    fetches: Flights,
    searches: Searches,
    states: States,
    errands: Errands,
    chores: Chores,
    waits: Waits,
    wishes: Wishes,
}

/// What somebody needs of a mirror.
#[derive(Debug)]
pub struct Need<'a> {
    /// Its name.
    pub repo: &'a RepoName,
    /// Where its repository is.
    pub place: Place<'a>,
    /// What the upstream is shown.
    pub credential: Option<&'a UpstreamCredential>,
    /// What the upstream has said, if it was asked before.
    pub seen: Option<Advertisement>,
    /// What for, should nobody have asked before him.
    pub cause: Cause,
    /// The mirror will do if it has all that upstream had then.
    pub since: Instant,
    /// What he takes from a sync that another one began.
    pub shares: Shares,
}

/// What is taken from a sync that another one began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    /// Whatever comes of it: the upstream is shown the same by both.
    All,
    /// Whatever comes of it except a no, which was said to another credential.
    AllButNo,
    /// Nothing but that it is over: it may have begun too early.
    Nothing,
}

/// Who waits for a sync.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<'a> {
    /// His connection, whose end ends the wait.
    pub client: Option<BorrowedFd<'a>>,
    /// How long he waits at most.
    pub until: Instant,
}

/// Why a sync failed; clones are one failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// The upstream, or the way to it.
    #[error(transparent)]
    Upstream(Arc<UpstreamError>),
    /// Mirrors take all the space that there is for them, and this would add what none of them follows.
    #[error("nothing more is mirrored: all mirrors take {} of the {} of limits.mirror_bytes_max",
        format_size(*taken), format_size(*most))]
    Quota {
        /// What they take, in bytes.
        taken: u64,
        /// What they may take.
        most: u64,
    },
    /// The gate's own credential.
    #[error(transparent)]
    Token(Arc<SecretError>),
    /// What it may change could not be announced.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// No worker was to be had, or it failed; the log says more.
    #[error("the gate had no worker for the sync: try again in a moment")]
    NoWorker,
    /// No descriptor was left to wait on.
    #[error("the gate has no descriptor left: {0}")]
    Descriptor(Arc<io::Error>),
}

/// Why a mirror was not brought to where it is needed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BringError {
    /// The sync failed.
    #[error(transparent)]
    Failed(#[from] SyncError),
    /// It goes on, and whoever waited did so long enough.
    #[error("the mirror is still being brought up to date: try again in a moment")]
    Late,
    /// Whoever waited left.
    #[error("the client left while it waited for the mirror")]
    ClientGone,
    /// The gate stops.
    #[error("the gate is stopping")]
    Stopping,
}

impl From<UpstreamError> for SyncError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(Arc::new(error))
    }
}

impl SyncError {
    /// The upstream says no: what is known of the repository must not be shown any more.
    #[must_use]
    pub fn is_no(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_no(),
            Self::Quota { .. } | Self::Token(_) | Self::Store(_) | Self::NoWorker | Self::Descriptor(_) => {
                false
            }
        }
    }

    /// The upstream says that the repository is elsewhere; and where, if it does.
    #[must_use]
    pub fn moved_to(&self) -> Option<Option<&str>> {
        match self {
            Self::Upstream(error) => error.moved_to(),
            Self::Quota { .. } | Self::Token(_) | Self::Store(_) | Self::NoWorker | Self::Descriptor(_) => {
                None
            }
        }
    }

    /// Where it failed.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Upstream(error) => error.fault(),
            Self::Quota { .. } | Self::Token(_) | Self::NoWorker | Self::Descriptor(_) | Self::Store(_) => {
                Fault::Ours
            }
        }
    }

    /// The upstream was waited for in vain.
    fn is_timeout(&self) -> bool {
        matches!(self, Self::Upstream(error) if error.is_timeout())
    }

    /// Whoever began it left before the upstream was asked: it has not been tried.
    fn is_client_gone(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_client_gone(),
            Self::Quota { .. } | Self::Token(_) | Self::Store(_) | Self::NoWorker | Self::Descriptor(_) => {
                false
            }
        }
    }
}

impl Keeper {
    /// Of these parts, with what earlier lives have noted.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn new(parts: KeeperParts) -> Result<Self, StoreError> {
        let states = States::load(parts.store.clone())?;
        let (flights, fetches, searches) = (Flights::default(), Flights::default(), Searches::default());
        let (errands, chores) = (Errands::default(), Chores::default());
        let (waits, wishes) = (Waits::default(), Wishes::default());
        let shared = Shared { parts, flights, fetches, searches, states, errands, chores, waits, wishes };
        let keeper = Self(Arc::new(shared));
        keeper.plan(Timestamp::now());
        Ok(keeper)
    }

    /// The mirror of `repo` as it is, if there is one.
    #[must_use]
    pub fn find(&self, repo: &RepoName) -> Option<Repository> {
        self.0.parts.upstreams.mirrors().find(repo)
    }

    /// What is known of it.
    #[must_use]
    pub fn state(&self, repo: &RepoName) -> Option<State> {
        self.0.states.find(repo)
    }

    /// What is known of one that is demanded: where nothing is, how the sync ends is kept from now on, for this life of
    /// the gate, unless the upstream has no such repository. The caller sees to it that not everybody demands.
    #[must_use]
    pub fn expect(&self, repo: &RepoName) -> State {
        self.0.states.expect(repo, Timestamp::now())
    }

    /// What is known of all mirrors, by name.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        self.0.states.all()
    }

    /// How many syncs ended so, in this life of the gate.
    #[must_use]
    pub fn ended(&self, ending: Ending) -> u64 {
        self.0.states.ended(ending)
    }

    /// What all mirrors take on the disk, in bytes, each as it was after the last sync or upkeep.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.states.bytes()
    }

    /// How much upkeep ended so, in this life of the gate.
    #[must_use]
    pub fn tended(&self, ending: Chore) -> u64 {
        self.0.chores.ended(ending)
    }

    /// Removes a mirror for good, with all that is known of it; one that is listed is made anew at the next start, every one
    /// at the next read. Waits until `until` for whoever writes to it. Answers whether there was anything to remove.
    ///
    /// # Errors
    /// See [`ForgetError`].
    pub fn forget(&self, repo: &RepoName, until: Instant) -> Result<bool, ForgetError> {
        let Shared { parts, states, .. } = &*self.0;
        let begun = Instant::now();
        let was_there = parts.upstreams.mirrors().forget(repo, until, &parts.stop)?;
        let was_known = states.forget(repo)?;
        if let Some(place) = parts.upstreams.find(repo) {
            let key = place.key();
            parts.store.versions().remove(repo, &key, Timestamp::now())?;
        }
        if was_there {
            log::info!("mirror {repo} forgotten ms={}", begun.elapsed().as_millis());
        }
        Ok(was_there || was_known)
    }

    /// The time since the start of its last sync that succeeded; `None` where none is known to have.
    #[must_use]
    pub fn age(&self, repo: &RepoName) -> Option<Duration> {
        self.state(repo)?.age(Instant::now(), Timestamp::now())
    }

    /// The upstream may think otherwise of it by now, and is asked before it is shown again.
    pub fn doubt(&self, repo: &RepoName) {
        self.0.parts.upstreams.mirrors().doubt(repo);
    }

    /// How far it is, if it is being made.
    #[must_use]
    pub fn progress(&self, repo: &RepoName) -> Option<Progress> {
        self.0.parts.upstreams.mirrors().progress(repo)
    }

    /// Whether it is there and has all that upstream had at `since`.
    #[must_use]
    pub fn is_fresh(&self, repo: &RepoName, since: Instant) -> bool {
        self.0.parts.upstreams.mirrors().is_fresh(repo, since) && self.find(repo).is_some()
    }

    fn is_doubted(&self, repo: &RepoName) -> bool {
        self.0.parts.upstreams.mirrors().is_doubted(repo)
    }

    /// Asks an upstream for a repository, in the caller's thread, for 30 s at most, and no longer than he waits unless
    /// that is less than a connection may take.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn ask(
        &self,
        place: Place<'_>,
        side: Side,
        credential: Option<&UpstreamCredential>,
        waiter: &Waiter<'_>,
    ) -> Result<Advertisement, UpstreamError> {
        let KeeperParts { upstreams, approach: Approach { reaper, git, grace, .. }, .. } = &self.0.parts;
        let now = Instant::now();
        let limit = waiter.until.saturating_duration_since(now).clamp(ENOUGH, ASK_LIMIT);
        let deadline = Deadline::starting(now, limit, "time to ask an upstream");
        let asker = Asker { reaper, deadline, grace: *grace, client: waiter.client };
        let UpstreamSettings { url, route, .. } = place.upstream;
        let remote = Remote { url, route, credential };
        upstreams.mirrors().ask(&remote, place.path, side, git, &asker)
    }

    /// Brings a mirror to where it is needed, or waits until another one has.
    ///
    /// # Errors
    /// See [`BringError`]; the mirror, if there is one, is what it was.
    pub fn bring(&self, need: Need<'_>, waiter: &Waiter<'_>) -> Result<(), BringError> {
        let Need { repo, place, credential, mut seen, cause, since, shares } = need;
        while !self.is_fresh(repo, since) {
            let is_silent = self.is_silent(repo, place, shares);
            let wait = if is_silent { Self::wait_a_moment } else { Self::wait };
            let joined = self.0.flights.join(repo, cause);
            let joined = joined.map_err(|error| SyncError::Descriptor(Arc::new(error)))?;
            let flight = match joined {
                flight::Place::Lead(lead) => {
                    let flight = lead.flight();
                    if is_silent {
                        self.send(lead, place, Class::Demand, ());
                    } else {
                        self.run(lead, place, credential, seen.take(), waiter);
                    }
                    return match wait(self, &flight, waiter)? {
                        Err(error) if error.is_client_gone() => Err(BringError::ClientGone),
                        outcome => Ok(outcome?),
                    };
                }
                flight::Place::Guest(flight) => flight,
            };
            match (wait(self, &flight, waiter)?, shares) {
                (Err(error), _) if error.is_client_gone() => {}
                // It began before a push that has been forwarded since, which he may have been told of.
                (Ok(()), Shares::All | Shares::AllButNo) if self.is_doubted(repo) => {}
                (Ok(()), Shares::All | Shares::AllButNo) => return Ok(()),
                (Err(error), Shares::All) => return Err(error.into()),
                (Err(error), Shares::AllButNo) if !error.is_no() => return Err(error.into()),
                (Err(_), Shares::AllButNo) | (_, Shares::Nothing) => {}
            }
        }
        Ok(())
    }

    /// Runs a sync up to the fetch, which a worker runs. Until the upstream is being asked, whoever waits may leave.
    fn run(
        &self,
        lead: Lead,
        place: Place<'_>,
        credential: Option<&UpstreamCredential>,
        seen: Option<Advertisement>,
        waiter: &Waiter<'_>,
    ) {
        let repo = lead.repo().clone();
        let began = Moment::now();
        let ask = || Ok(self.ask(place, Side::Fetch, credential, waiter)?);
        let seen = match self.require_room(&repo).and_then(|()| seen.map_or_else(ask, Ok)) {
            Ok(seen) => seen,
            Err(error) if error.is_client_gone() => return lead.end(Err(error)),
            Err(error) => return self.end(lead, began, Err(error)),
        };
        lead.set_answered();
        // What was asked before this sync was is as old as that.
        let began = began.of(&seen);
        let deadline = self.deadline(&repo, place);
        let (keeper, credential) = (self.clone(), credential.cloned());
        let job = move || {
            let outcome = keeper.fetch(&repo, &seen, credential.as_ref(), lead.cause(), deadline);
            keeper.end(lead, began, outcome);
        };
        let claim = Claim::on(place.upstream.url.origin(), Class::Demand);
        match self.0.parts.approach.lane.submit_for(claim, job) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => log::warn!("a sync had no worker: {reason}"),
        }
    }

    /// A mirror that is there may grow on; one that is not has to find room. How much it will take nobody knows before.
    fn require_room(&self, repo: &RepoName) -> Result<(), SyncError> {
        if self.find(repo).is_some() { Ok(()) } else { self.room() }
    }

    /// Whether there is room for more than what mirrors follow.
    fn room(&self) -> Result<(), SyncError> {
        let Some(most) = self.0.parts.mirror_bytes_max else { return Ok(()) };
        let taken = self.bytes();
        if taken < most { Ok(()) } else { Err(SyncError::Quota { taken, most }) }
    }

    /// By when a fetch has to be over.
    fn deadline(&self, repo: &RepoName, place: Place<'_>) -> Deadline {
        let mirror = &place.upstream.mirror;
        match self.find(repo) {
            Some(_) => Deadline::starting(Instant::now(), mirror.fetch_deadline, "fetch_deadline"),
            None => Deadline::starting(Instant::now(), mirror.first_clone_deadline, "first_clone_deadline"),
        }
    }

    fn fetch(
        &self,
        repo: &RepoName,
        seen: &Advertisement,
        credential: Option<&UpstreamCredential>,
        cause: Cause,
        deadline: Deadline,
    ) -> Outcome {
        let KeeperParts { store, upstreams, approach, memory, stop, .. } = &self.0.parts;
        let Approach { reaper, git, grace, lane, .. } = approach;
        let asker = Asker { reaper, deadline, grace: *grace, client: None };
        let tools = Tools { git, asker, lane: lane.kind().name(), memory: *memory, stop };
        let place = upstreams.find(repo).ok_or(SyncError::NoWorker)?;
        let UpstreamSettings { url, route, .. } = place.upstream;
        let mirrors = upstreams.mirrors();
        if mirrors.is_like(repo, seen) {
            return Ok(());
        }
        let before = mirrors.refs(repo);
        // Where the sync fails, what it has done is found out later.
        let intent =
            store.announce(repo, Timestamp::now()).map_err(|error| SyncError::Store(Arc::new(error)))?;
        let mirror = mirrors.bring(repo, seen, &Remote { url, route, credential }, &tools)?;
        if before.is_some_and(|before| mirrors.refs(repo) != Some(before)) {
            self.0.searches.succeed(repo, Way::Sync);
        }
        let key = place.key();
        if let Err(error) = self.tell_of(intent, cause, repo, &key, &mirror, &tools) {
            log::error!("mirror {repo}: what has changed is not told yet: {error}");
        }
        Ok(())
    }

    /// Tells what a sync has changed. What came of an event the fleet knows already, and so it does where somebody read just
    /// after one: told again, gates would chase each other.
    fn tell_of(
        &self,
        intent: Intent,
        cause: Cause,
        repo: &RepoName,
        key: &RepoKey,
        mirror: &Repository,
        tools: &Tools<'_>,
    ) -> Result<(), StoreError> {
        let (store, now) = (&self.0.parts.store, Timestamp::now());
        // An announcement that is dropped is taken up when the refs can be listed.
        let Some(digest) = self.0.parts.upstreams.mirrors().digest(repo, mirror, tools) else {
            return Ok(());
        };
        let standing = Standing { repo, key, digest: Some(&digest) };
        let is_of_event = match cause {
            Cause::Event => true,
            Cause::Read | Cause::Search | Cause::Push | Cause::Schedule | Cause::Demand | Cause::Repair => {
                false
            }
        };
        if is_of_event || store.versions().is_last(key, &digest)? {
            intent.told(&standing, now)?;
        } else {
            intent.settle(&standing, now)?;
        }
        store.events().tell_of_mirror(repo, key, None, now)
    }

    /// Notes how a sync ended, tells those who wait, and only then writes it down.
    fn end(&self, lead: Lead, began: Moment, outcome: Outcome) {
        let Shared { parts, states, .. } = &*self.0;
        let (repo, cause) = (lead.repo().clone(), lead.cause());
        let has_mirror = self.find(&repo).is_some();
        let is_first =
            outcome.is_ok() && states.find(&repo).is_none_or(|state| state.row.succeeded.is_none());
        let noted = states.note(&repo, began, &outcome, has_mirror);
        if outcome.as_ref().is_err_and(SyncError::is_no) {
            self.heed_no(&repo, cause);
        }
        states.set_due(&repo, self.next(&repo, began.time));
        if outcome.as_ref().is_err_and(SyncError::is_no) && !has_mirror && !self.is_listed(&repo) {
            // Whoever demanded it hears so, and there is nothing to keep.
            states.give_up(&repo);
        }
        lead.end(outcome.clone());
        if has_mirror {
            states.set_bytes(&repo, parts.upstreams.mirrors().bytes(&repo));
        }
        tell(&repo, cause, began, &outcome, &noted);
        if has_mirror || self.is_listed(&repo) {
            self.tell_of_end(&repo, &outcome, &noted);
        }
        match noted {
            Noted::After(_) if has_mirror || self.is_listed(&repo) => states.save(&repo),
            Noted::After(_) | Noted::Unknown => {}
        }
        if is_first {
            self.tend_soon(&repo);
        }
    }

    /// Tells of a sync that failed as none did before, and of one that succeeds after others had failed.
    fn tell_of_end(&self, repo: &RepoName, outcome: &Outcome, noted: &Noted) {
        let Noted::After(before) = noted else { return };
        let words = outcome.as_ref().err().map(ToString::to_string);
        let is_news = match (before, &words) {
            (None, None) => false,
            (before, words) => before != words,
        };
        let Some(place) = self.0.parts.upstreams.find(repo).filter(|_| is_news) else { return };
        let key = place.key();
        let told = self.0.parts.store.events().tell_of_mirror(repo, &key, words.as_deref(), Timestamp::now());
        if let Err(error) = told {
            log::error!("mirror {repo}: {error}");
        }
    }

    /// The upstream has said no in a sync for `cause`: it has to be asked anew before the mirror is shown, in the next life of
    /// the gate as well. A no to what a client has shown himself is his alone.
    fn heed_no(&self, repo: &RepoName, cause: Cause) {
        let is_for_a_client = match cause {
            Cause::Read | Cause::Search | Cause::Push => true,
            Cause::Schedule | Cause::Demand | Cause::Event | Cause::Repair => false,
        };
        let place = self.0.parts.upstreams.find(repo);
        if !(is_for_a_client && place.is_some_and(|place| place.judges_pushers())) {
            self.doubt(repo);
            // Before anybody hears of it: a gate that is killed now must not forget what it has told.
            if self.0.states.deny(repo) && self.find(repo).is_some() {
                self.0.states.save(repo);
            }
        }
    }

    fn wait(&self, flight: &Flight, waiter: &Waiter<'_>) -> Result<Outcome, BringError> {
        self.wait_below(flight, waiter, Level::Killing)
    }

    /// Waits for a sync, and no longer than the stop is below `level`.
    fn wait_below(&self, flight: &Flight, waiter: &Waiter<'_>, level: Level) -> Result<Outcome, BringError> {
        loop {
            if let Some(outcome) = flight.outcome() {
                return Ok(outcome);
            }
            let left = waiter.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BringError::Late);
            }
            let watches = [
                Some((flight.fd(), Interest::Read)),
                waiter.client.map(|fd| (fd, Interest::HangUp)),
                Some((self.0.parts.stop.fd(level), Interest::Read)),
            ];
            match poll::wait(watches, Some(left)) {
                Ok([false, true, _]) => return Err(BringError::ClientGone),
                Ok([false, false, true]) | Err(_) => return Err(BringError::Stopping),
                Ok([true, _, _] | [false, false, false]) => {}
            }
        }
    }
}

/// The one line of the log for a sync. An upstream that stays down, or keeps saying no, is told of once.
fn tell(repo: &RepoName, cause: Cause, began: Moment, outcome: &Outcome, noted: &Noted) {
    let (cause, ms) = (cause.name(), began.instant.elapsed().as_millis());
    let level = match (outcome, noted) {
        (Ok(()), _) => log::Level::Info,
        (Err(error), Noted::After(before)) if before.as_deref() != Some(&error.to_string()) => {
            log::Level::Warn
        }
        (Err(_), Noted::After(_) | Noted::Unknown) => log::Level::Debug,
    };
    match outcome {
        Ok(()) => log::log!(level, "mirror {repo} synced cause={cause} ms={ms}"),
        Err(error) => log::log!(level, "mirror {repo} not synced cause={cause} ms={ms}: {error}"),
    }
}
