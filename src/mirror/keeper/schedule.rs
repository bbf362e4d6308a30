//! Syncs that nobody waits for: mirrors that are to be there from the start, and all of an upstream whose `sync_every` is set.
//!
//! They take what the others leave: a quarter of the lane's workers at most, and one for each upstream, so that a dead one
//! keeps nothing but itself from being asked.

use super::flight::{Cause, Lead, Place as Seat};
use super::states::Moment;
use super::{Keeper, KeeperParts, SyncError};
use crate::git::pool::Class;
use crate::mirror::upstreams::{Place, Upstreams};
use crate::mirror::{Question, Side};
use crate::model::name::RepoName;
use crate::model::pause::Doubling;
use crate::model::upstream::Origin;
use crate::sys::random;
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The pause after the first failure; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(10);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The upstreams that scheduled syncs are under way to; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Errands(Arc<Mutex<HashSet<Origin>>>);

/// One of them, until it is dropped.
pub(super) struct Errand {
    errands: Errands,
    to: Origin,
}

impl Errands {
    /// An errand, unless there is one to the same upstream.
    fn begin(&self, to: Origin) -> Option<Errand> {
        let is_first = self.lock().insert(to.clone());
        is_first.then(|| Errand { errands: self.clone(), to })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Origin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.errands.lock().remove(&self.to);
    }
}

impl Keeper {
    /// Begins the syncs whose time has come, one an upstream. What fails is noted with its mirror.
    pub fn sync_due(&self) {
        let upstreams = &self.0.parts.upstreams;
        for repo in self.0.states.due(Timestamp::now()) {
            let Some(place) = served(upstreams, &repo) else {
                self.0.states.set_due(&repo, None);
                continue;
            };
            let Some(errand) = self.0.errands.begin(place.upstream.url.origin()) else { continue };
            // One that is under way for somebody else says itself when the next is due.
            if let Ok(Seat::Lead(lead)) = self.0.flights.join(&repo, Cause::Schedule) {
                self.send(lead, place, Class::Schedule, errand);
            }
        }
    }

    /// Lets the upstream be asked, and a worker fetch what differs. What is `held` is dropped as that ends.
    pub(super) fn send(&self, lead: Lead, place: Place<'_>, class: Class, held: impl Send + 'static) {
        let KeeperParts { upstreams, approach, .. } = &self.0.parts;
        let began = Moment::now();
        let shown = || upstreams.own(place.upstream).map_err(|error| SyncError::Token(Arc::new(error)));
        let credential = match self.require_room(lead.repo()).and_then(|()| shown()) {
            Ok(credential) => credential,
            Err(error) => return self.end(lead, began, Err(error)),
        };
        let question = Question {
            url: place.upstream.url.clone(),
            path: place.path.to_owned(),
            side: Side::Fetch,
            route: place.upstream.route.clone(),
            credential: credential.clone(),
        };
        let keeper = self.clone();
        approach.send(question, class, move |answer| {
            // The question waits for its turn: what it heard is newer than its beginning.
            let began = answer.as_ref().map_or(began, |seen| Moment::now().of(seen));
            let outcome = answer.map_err(SyncError::from).and_then(|seen| {
                lead.set_answered();
                let place = served(&keeper.0.parts.upstreams, lead.repo()).ok_or(SyncError::NoWorker)?;
                let deadline = keeper.deadline(lead.repo(), place);
                keeper.fetch(lead.repo(), &seen, credential.as_ref(), lead.cause(), deadline)
            });
            // First, so that the next look finds room.
            drop(held);
            keeper.end(lead, began, outcome);
        });
    }

    /// What is due at the start, and what is not any more. Mirrors that are kept on a schedule are spread over its first
    /// round.
    pub(super) fn plan(&self, now: Timestamp) {
        let Self(shared) = self;
        let upstreams = &shared.parts.upstreams;
        for upstream in upstreams.list() {
            let listed = upstream.mirror.repos.iter().filter_map(|path| upstream.repo(path));
            listed.for_each(|repo| drop(shared.states.expect(&repo, now)));
        }
        for repo in shared.states.names() {
            let place = served(upstreams, &repo);
            let every = place.and_then(|place| place.upstream.mirror.sync_every);
            let due = match (self.find(&repo), every) {
                (None, _) if self.is_listed(&repo) => Some(now),
                (Some(_), Some(every)) => {
                    let planned = shared.states.find(&repo).and_then(|state| state.row.due);
                    // None is further off than a round or a pause, unless a clock was ahead when it was planned.
                    let latest = later(now, every.mul_f64(1.1).max(PAUSE_MAX));
                    let planned = planned.filter(|due| *due <= latest);
                    Some(planned.unwrap_or_else(|| later(now, every.mul_f64(random::fraction()))))
                }
                (None, _) | (Some(_), None) => None,
            };
            shared.states.set_due(&repo, due);
        }
    }

    /// When the schedule comes to a mirror whose last sync began at `began`.
    pub(super) fn next(&self, repo: &RepoName, began: Timestamp) -> Option<Timestamp> {
        let place = served(&self.0.parts.upstreams, repo)?;
        let every = place.upstream.mirror.sync_every;
        let failed = self.0.states.find(repo)?.row.failed;
        match failed {
            None => every.map(|every| later(began, every.mul_f64(0.9 + 0.2 * random::fraction()))),
            Some(failed) => {
                let is_kept = match self.find(repo) {
                    Some(_) => every.is_some(),
                    None => self.is_listed(repo),
                };
                is_kept.then(|| later(Timestamp::now(), pause(failed.times)))
            }
        }
    }

    /// Whether the mirror of `repo` is to be there without anybody asking.
    pub(super) fn is_listed(&self, repo: &RepoName) -> bool {
        let place = served(&self.0.parts.upstreams, repo);
        place.is_some_and(|place| place.upstream.mirror.repos.iter().any(|path| path.as_str() == place.path))
    }
}

/// Where a repository is that is served.
pub(super) fn served<'a>(upstreams: &'a Upstreams, repo: &'a RepoName) -> Option<Place<'a>> {
    upstreams.find(repo).filter(Place::is_served)
}

/// How long after the `times`th failure in a row the schedule tries again.
pub(super) fn pause(times: u32) -> Duration {
    Doubling { first: PAUSE, most: PAUSE_MAX }.after(times)
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upstream::UpstreamUrl;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds = [1, 2, 3, 9, 10, u32::MAX].map(|times| pause(times).as_secs());
        assert_eq!(seconds, [10, 20, 40, 2560, 3600, 3600]);
    }

    #[test]
    fn an_upstream_has_one_errand_at_a_time() {
        let to = |text: &str| UpstreamUrl::parse(text).unwrap().origin();
        let errands = Errands::default();
        let first = errands.begin(to("https://a/x")).unwrap();
        assert!(errands.begin(to("https://a/y")).is_none());
        assert!(errands.begin(to("https://a:444")).is_some());
        drop(first);
        assert!(errands.begin(to("https://a/y")).is_some());
    }
}
