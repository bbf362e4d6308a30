//! Searches: what a client wants, and the mirror lacks, is looked for upstream at once, however fresh the mirror is.
//!
//! A sync comes first, since a new branch or tag is what most of them are about; then the objects themselves are fetched by
//! their ids. Either is under way once for all who want anything of the repository, and goes on when whoever began it leaves.
//! One that found nothing is the last of its kind for a while ([`PAUSE`]): whoever names what is nowhere costs the upstream
//! no more than that.

use super::flight::{Lead, Place as Seat};
use super::{BringError, Flight, Keeper, KeeperParts, Need, Shares, SyncError, Waiter};
use crate::git::ask::Asker;
use crate::git::pool::{Claim, Class};
use crate::git::tools::Tools;
use crate::mirror::upstreams::Place;
use crate::mirror::{Approach, Remote, Told};
use crate::model::credential::UpstreamCredential;
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing is looked for after a search that found nothing, unless `fresh_for` is shorter. Long enough that clients
/// cannot keep an upstream busy; short enough that a wrong name hides no new commit from the others for long.
const PAUSE: Duration = Duration::from_secs(10);

/// Searches that are remembered; one takes about 150 bytes.
const SEARCHES_MAX: usize = 10_000;

/// How many objects are fetched by their ids at a time. What is wanted is one commit, as a rule.
const OBJECTS_MAX: usize = 64;

/// What somebody had in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It was made for him.
    Led,
    /// He waited for another one's, which may have begun too early for him, or looked for something else.
    Joined,
    /// There was none: nothing more can be found, or not now.
    None,
}

/// The two ways of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Sync,
    Objects,
}

/// The last search of each kind in each repository.
#[derive(Debug, Default)]
pub(super) struct Searches(Mutex<HashMap<(RepoName, Way), Search>>);

#[derive(Clone, Copy, Debug)]
struct Search {
    begun: Instant,
    has_found: bool,
}

impl Searches {
    /// Notes that a search begins, unless one has found nothing within `pause`.
    fn may_begin(&self, repo: &RepoName, way: Way, now: Instant, pause: Duration) -> bool {
        let mut known = self.lock();
        let key = (repo.clone(), way);
        let is_vain = |search: &Search| !search.has_found && now < search.begun + pause;
        if known.get(&key).is_some_and(is_vain) {
            return false;
        }
        if known.len() >= SEARCHES_MAX {
            known.retain(|_, search| now < search.begun + PAUSE);
        }
        if known.len() >= SEARCHES_MAX {
            return false;
        }
        known.insert(key, Search { begun: now, has_found: false });
        true
    }

    /// The search that is under way, if there is one, has found something.
    pub(super) fn succeed(&self, repo: &RepoName, way: Way) {
        if let Some(search) = self.lock().get_mut(&(repo.clone(), way)) {
            search.has_found = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RepoName, Way), Search>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Looks for something that a mirror lacks by a sync that is no older than the need, whatever `fresh_for` says. `is_there`
    /// is asked, without a process, before one begins: another one may have ended just now.
    ///
    /// # Errors
    /// See [`BringError`].
    pub fn search(
        &self,
        need: Need<'_>,
        is_there: impl Fn() -> bool,
        waiter: &Waiter<'_>,
    ) -> Result<Part, BringError> {
        let Need { repo, place, credential, seen, cause, since, shares } = need;
        if self.is_fresh(repo, since) {
            return Ok(Part::None);
        }
        let may_lead = || !is_there() && self.may_begin(repo, Way::Sync, place);
        let seat = self.0.flights.join_if(repo, cause, may_lead);
        match seat.map_err(|error| SyncError::Descriptor(Arc::new(error)))? {
            None => Ok(Part::None),
            Some(Seat::Guest(flight)) => self.join(&flight, shares, waiter),
            Some(Seat::Lead(lead)) => {
                let flight = lead.flight();
                // Whoever leaves while the upstream is asked would take the others' only search with him.
                self.run(lead, place, credential, seen, &Waiter { client: None, ..*waiter });
                self.wait(&flight, waiter)??;
                Ok(Part::Led)
            }
        }
    }

    /// Looks for these objects upstream by their ids. An upstream that has not all of them gives none. It is readers who say
    /// which: at the quota of mirrors none are fetched, so that nobody fills the disk with what no branch or tag reaches.
    ///
    /// # Errors
    /// See [`BringError`].
    pub fn search_objects(
        &self,
        need: &Need<'_>,
        oids: &[Oid],
        waiter: &Waiter<'_>,
    ) -> Result<Part, BringError> {
        let &Need { repo, place, credential, cause, shares, .. } = need;
        let told = self.0.parts.upstreams.mirrors().told(&place.upstream.url, place.path);
        let Some(told) = told.filter(|_| (1..=OBJECTS_MAX).contains(&oids.len())) else {
            return Ok(Part::None);
        };
        self.room()?;
        let may_lead = || self.may_begin(repo, Way::Objects, place);
        let seat = self.0.fetches.join_if(repo, cause, may_lead);
        match seat.map_err(|error| SyncError::Descriptor(Arc::new(error)))? {
            None => Ok(Part::None),
            Some(Seat::Guest(flight)) => self.join(&flight, shares, waiter),
            Some(Seat::Lead(lead)) => {
                let flight = lead.flight();
                self.send_for(lead, told, oids, place, credential);
                self.wait(&flight, waiter)??;
                Ok(Part::Led)
            }
        }
    }

    /// What a sync was begun for by [`Keeper::search`] is there: the next search need not wait.
    pub fn found(&self, repo: &RepoName) {
        self.0.searches.succeed(repo, Way::Sync);
    }

    fn may_begin(&self, repo: &RepoName, way: Way, place: Place<'_>) -> bool {
        let pause = place.upstream.mirror.fresh_for.min(PAUSE);
        self.0.searches.may_begin(repo, way, Instant::now(), pause)
    }

    fn join(&self, flight: &Flight, shares: Shares, waiter: &Waiter<'_>) -> Result<Part, BringError> {
        match self.wait(flight, waiter)? {
            Err(error) if error.is_client_gone() => {}
            // It was said to another credential.
            Err(error) if error.is_no() && shares != Shares::All => {}
            Err(error) => return Err(error.into()),
            Ok(()) => {}
        }
        Ok(Part::Joined)
    }

    /// Lets a worker fetch objects. What the upstream has not is no failure: git says so to whoever wants it.
    fn send_for(
        &self,
        lead: Lead,
        told: Told,
        oids: &[Oid],
        place: Place<'_>,
        credential: Option<&UpstreamCredential>,
    ) {
        let deadline = self.deadline(lead.repo(), place);
        let (keeper, oids, credential) = (self.clone(), oids.to_vec(), credential.cloned());
        let (url, route) = (place.upstream.url.clone(), place.upstream.route.clone());
        let job = move || {
            let begun = Instant::now();
            let KeeperParts { upstreams, approach, memory, stop, .. } = &keeper.0.parts;
            let Approach { reaper, git, grace, lane, .. } = approach;
            let asker = Asker { reaper, deadline, grace: *grace, client: None };
            let tools = Tools { git, asker, lane: lane.kind().name(), memory: *memory, stop };
            let (mirrors, repo) = (upstreams.mirrors(), lead.repo().clone());
            let remote = Remote { url: &url, route: &route, credential: credential.as_ref() };
            let fetched = mirrors.fetch_objects(&repo, &told.url, &oids, &remote, &tools);
            let ms = begun.elapsed().as_millis();
            match fetched {
                Ok(()) => {
                    keeper.0.searches.succeed(&repo, Way::Objects);
                    lead.end(Ok(()));
                    log::info!("mirror {repo} fetched objects={} ms={ms}", oids.len());
                    keeper.0.states.set_bytes(&repo, mirrors.bytes(&repo));
                }
                Err(error) => {
                    log::info!("mirror {repo} fetched no objects ms={ms}: {error}");
                    if !error.is_no() {
                        return lead.end(Ok(()));
                    }
                    keeper.heed_no(&repo, lead.cause());
                    lead.end(Err(error.into()));
                }
            }
        };
        let claim = Claim::on(place.upstream.url.origin(), Class::Demand);
        match self.0.parts.approach.lane.submit_for(claim, job) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => log::warn!("a fetch of objects had no worker: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_search_in_vain_there_is_none_for_a_while_and_after_another_there_is() {
        let (searches, repo) = (Searches::default(), RepoName::parse("forge/app").unwrap());
        let now = Instant::now();
        let may = |way, seconds| searches.may_begin(&repo, way, now + Duration::from_secs(seconds), PAUSE);
        assert!(may(Way::Sync, 0) && !may(Way::Sync, 9), "one that is refused is not counted");
        assert!(may(Way::Objects, 9), "the other kind");
        assert!(may(Way::Sync, 10) && !may(Way::Sync, 19));
        searches.succeed(&repo, Way::Sync);
        assert!(may(Way::Sync, 11) && !may(Way::Sync, 12) && !may(Way::Objects, 12));
        let other = RepoName::parse("forge/other").unwrap();
        assert!(searches.may_begin(&other, Way::Sync, now, PAUSE));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_over_makes_room() {
        let (searches, now) = (Searches::default(), Instant::now());
        let may = |number: usize, at| {
            let repo = RepoName::parse(&format!("forge/{number}")).unwrap();
            searches.may_begin(&repo, Way::Sync, at, PAUSE)
        };
        assert!((0..SEARCHES_MAX).all(|number| may(number, now)));
        assert!(!may(SEARCHES_MAX, now));
        assert!(may(SEARCHES_MAX, now + PAUSE));
        assert_eq!(searches.lock().len(), 1);
    }
}
