//! What other gates have said: a mirror that may lack something is doubted at once, so that the next read asks its upstream,
//! and synced a moment later without a reader.
//!
//! Nothing of what was heard is believed but that there may be news. Whoever hears waits for nothing: what is to be synced is
//! a wish, and a thread of its own (`heard`) begins each after a moment that differs from gate to gate. One sync of a mirror
//! is under way at a time, and what is heard meanwhile is one wish, which comes to nothing where that sync asked late enough.
//! A sync that fails leaves the doubt and no wish.

use super::Keeper;
use super::flight::{Cause, Flight, Place as Seat};
use super::schedule::served;
use crate::config::{CredentialSettings, UpstreamSettings};
use crate::git::pool::Class;
use crate::model::fleet::{Incarnation, RefDigest, Version};
use crate::model::name::RepoName;
use crate::model::upstream::{HttpUrl, Origin};
use crate::sys::poll::{self, Interest, Watch};
use crate::sys::stop::{Level, Stop};
use crate::sys::{random, thread};
use jiff::Timestamp;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest moment before a sync: all gates hear at once, and are not to ask at once.
const JITTER: Duration = Duration::from_millis(200);

/// How long after a failure the next sync begins at the earliest, however much is heard.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long after the start of a sync the next one begins at the earliest: who is told of a change every millisecond asks the
/// upstream no more often than that, unless somebody reads.
const BETWEEN: Duration = Duration::from_secs(1);

/// Syncs that are under way at one upstream for what was heard: the others of its share of the lane are for readers.
const AT_ONCE: usize = 2;

/// How long the thread sleeps at most.
const LOOK: Duration = Duration::from_secs(60);

/// What another gate has said.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Of which repository, and how it is now.
    pub version: &'a Version,
    /// Where the gate is, if the way on which it was heard tells: its own repositories are there.
    pub origin: Option<&'a HttpUrl>,
}

/// What is to be synced for what was heard; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Written to when there is something to look at; there once anybody looks.
    woken: OnceLock<EventFd>,
}

#[derive(Debug, Default)]
struct State {
    wishes: HashMap<RepoName, Wish>,
    /// Syncs that are under way, by upstream.
    under_way: HashMap<Origin, usize>,
}

/// A sync that is to be.
#[derive(Clone, Debug)]
struct Wish {
    /// The refs that were heard of last, if any were told: with them there is nothing to be wished any more.
    digest: Option<RefDigest>,
    wait: Wait,
}

/// What a wish waits for.
#[derive(Clone, Debug)]
enum Wait {
    /// Its time.
    Until(Instant),
    /// A sync of the same mirror that is under way, whoever began that.
    Behind(Arc<Flight>),
    /// One of the syncs that are under way at its upstream.
    Crowded(Origin),
}

/// What there is to do, and what to wait for.
struct Look {
    ready: Vec<(RepoName, Option<RefDigest>)>,
    next: Option<Instant>,
    behind: Vec<Arc<Flight>>,
}

/// One sync that is under way, until it is dropped.
struct Share {
    wishes: Wishes,
    at: Origin,
}

impl Wishes {
    /// Wants a sync, at `due` where none is wanted already.
    fn add(&self, repo: RepoName, digest: Option<RefDigest>, due: Instant) {
        match self.lock().wishes.entry(repo) {
            Entry::Occupied(mut wish) => wish.get_mut().digest = digest,
            Entry::Vacant(free) => drop(free.insert(Wish { digest, wait: Wait::Until(due) })),
        }
        self.wake();
    }

    /// Puts back what could not be granted. What has been wished since is newer, and may as well wait for this.
    fn put_back(&self, repo: RepoName, digest: Option<RefDigest>, wait: Wait) {
        match self.lock().wishes.entry(repo) {
            Entry::Occupied(mut wish) => wish.get_mut().wait = wait,
            Entry::Vacant(free) => drop(free.insert(Wish { digest, wait })),
        }
    }

    /// Takes out what can be looked at now.
    fn look(&self, now: Instant) -> Look {
        let mut state = self.lock();
        let State { wishes, under_way } = &mut *state;
        let mut look = Look { ready: Vec::new(), next: None, behind: Vec::new() };
        wishes.retain(|repo, wish| {
            let stays = match &wish.wait {
                Wait::Until(due) => {
                    let is_ahead = *due > now;
                    look.next =
                        is_ahead.then_some(look.next.map_or(*due, |next| next.min(*due))).or(look.next);
                    is_ahead
                }
                Wait::Crowded(at) => under_way.get(at).is_some_and(|count| *count >= AT_ONCE),
                Wait::Behind(flight) => match flight.outcome() {
                    None => {
                        look.behind.push(Arc::clone(flight));
                        true
                    }
                    Some(Ok(())) => false,
                    // The doubt stays; the upstream is not asked again for what was heard before.
                    Some(Err(_)) => return false,
                },
            };
            if !stays {
                look.ready.push((repo.clone(), wish.digest.take()));
            }
            stays
        });
        look
    }

    /// A share of what may be under way at an upstream.
    fn begin(&self, at: &Origin) -> Option<Share> {
        let mut state = self.lock();
        let under_way = state.under_way.entry(at.clone()).or_default();
        (*under_way < AT_ONCE).then(|| {
            *under_way += 1;
            Share { wishes: self.clone(), at: at.clone() }
        })
    }

    /// Waits for the first of these, for a new wish, or for the stop.
    fn wait(&self, woken: &EventFd, look: &Look, stop: &Stop) {
        let read = |fd| Some((fd, Interest::Read));
        let behind = look.behind.iter().map(|flight| read(flight.fd()));
        let watches: Vec<Watch<'_>> =
            [read(woken.as_fd()), read(stop.fd(Level::Draining))].into_iter().chain(behind).collect();
        let left = look.next.map(|next| next.saturating_duration_since(Instant::now()));
        let limit = left.map_or(LOOK, |left| left.min(LOOK));
        // A failed wait is as good as none: the next look is taken anyway.
        let _ = poll::wait_for_any(&watches, &mut vec![false; watches.len()], Some(limit));
        let _ = woken.read();
    }

    /// A full counter is already readable, which is all that is needed.
    fn wake(&self) {
        let _ = self.0.woken.get().map(|woken| woken.write(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.wishes.lock();
        if let Entry::Occupied(mut under_way) = state.under_way.entry(self.at.clone()) {
            *under_way.get_mut() -= 1;
            if *under_way.get() == 0 {
                under_way.remove();
            }
        }
        drop(state);
        self.wishes.wake();
    }
}

impl Keeper {
    /// Notes what was heard where it can matter here: of a repository that an upstream of this gate has, or that its publisher
    /// hosts. Doubts the mirrors that may lack it. They are synced in a moment, unless their upstream is
    /// shown the credentials of readers alone. What this gate has said itself, what was heard before, and what a mirror has
    /// already, is no news.
    pub fn hear(&self, heard: &Heard<'_>) {
        let (store, version) = (&self.0.parts.store, heard.version);
        if version.incarnation == *store.publisher() {
            return;
        }
        let (hosted, names) = (version.repo.as_hosted(), self.names_of(heard));
        let is_its_own = hosted.as_ref().is_some_and(|(host, _)| *host == version.incarnation);
        if names.is_empty() && !is_its_own {
            return;
        }
        // What was heard on a way that does not tell where another gate's own repositories are has reached no mirror.
        let is_placed = heard.origin.is_some() && hosted.is_some();
        // A peer tells of nothing but what it did itself.
        let is_himself = heard.origin.is_some();
        match store.versions().hear(version, is_himself, Timestamp::now()) {
            Ok(false) if !is_placed => return,
            Ok(true | false) => {}
            // What could not be noted is heard again, and is news all the same.
            Err(error) => log::error!("noting a version of {}: {error}", version.repo),
        }
        for repo in names.into_iter().filter(|repo| self.find(repo).is_some()) {
            if self.has(&repo, version.digest.as_ref()) {
                continue;
            }
            self.0.parts.upstreams.mirrors().doubt(&repo);
            if served(&self.0.parts.upstreams, &repo).is_some_and(|place| is_synced_unasked(place.upstream)) {
                let due = Instant::now() + JITTER.mul_f64(random::fraction());
                self.0.wishes.add(repo, version.digest.clone(), due);
            }
        }
    }

    /// The fleet's name for this publisher.
    #[must_use]
    pub fn publisher(&self) -> &Incarnation {
        self.0.parts.store.publisher()
    }

    /// Anything may have happened that was not heard: each mirror asks its upstream at the next read.
    pub fn doubt_all(&self) {
        let mirrors = self.0.parts.upstreams.mirrors();
        self.0.states.names().iter().for_each(|repo| mirrors.doubt(repo));
    }

    /// Starts the thread that begins what is wished, until the stop begins to drain.
    ///
    /// # Errors
    /// When the thread cannot be started, or has no descriptor to wait on.
    pub fn attend(&self) -> io::Result<JoinHandle<()>> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let keeper = self.clone();
        thread::spawn("heard", move || {
            let (wishes, stop) = (&keeper.0.wishes, &keeper.0.parts.stop);
            let woken = wishes.0.woken.get_or_init(|| event);
            while stop.is_running() {
                let look = wishes.look(Instant::now());
                // What is put back is looked at first.
                if look.ready.is_empty() {
                    wishes.wait(woken, &look, stop);
                }
                for (repo, digest) in look.ready {
                    if let Some(wait) = keeper.grant(&repo, digest.as_ref()) {
                        wishes.put_back(repo, digest, wait);
                    }
                }
            }
        })
    }

    /// The names of a repository here: one for each upstream that has it below its address, and serves it.
    fn names_of(&self, heard: &Heard<'_>) -> Vec<RepoName> {
        let key = &heard.version.repo;
        let address = match (key.as_hosted(), heard.origin) {
            (Some((_, repo)), Some(origin)) => format!("{origin}/{repo}"),
            (Some(_), None) => return Vec::new(),
            (None, _) => key.as_str().to_owned(),
        };
        let upstreams = &self.0.parts.upstreams;
        let names = upstreams.list().iter().filter_map(|upstream| {
            let path = address.strip_prefix(&upstream.url.as_text())?.strip_prefix('/')?;
            RepoName::parse(&format!("{}/{path}", upstream.name)).ok()
        });
        names.filter(|repo| served(upstreams, repo).is_some()).collect()
    }

    /// Whether a mirror is known to have just these refs.
    fn has(&self, repo: &RepoName, digest: Option<&RefDigest>) -> bool {
        let refs = self.0.parts.upstreams.mirrors().refs(repo);
        refs.zip(digest).is_some_and(|(refs, digest)| RefDigest::of(refs.iter()) == *digest)
    }

    /// Begins a sync if it is still wanted; answers what is left to be wished.
    fn grant(&self, repo: &RepoName, digest: Option<&RefDigest>) -> Option<Wait> {
        let place = served(&self.0.parts.upstreams, repo)?;
        if !self.is_doubted(repo) || self.has(repo, digest) {
            return None;
        }
        if let Some(pause) = self.pause(repo) {
            return Some(Wait::Until(Instant::now() + pause));
        }
        let at = place.upstream.url.origin();
        let Some(share) = self.0.wishes.begin(&at) else { return Some(Wait::Crowded(at)) };
        match self.0.flights.join(repo, Cause::Event) {
            Ok(Seat::Lead(lead)) => self.send(lead, place, Class::Schedule, share),
            Ok(Seat::Guest(flight)) => return Some(Wait::Behind(flight)),
            Err(error) => log::warn!("mirror {repo}: no sync for what was heard: {error}"),
        }
        None
    }

    /// How long an upstream that was asked a moment ago, or has failed, is left alone.
    fn pause(&self, repo: &RepoName) -> Option<Duration> {
        let row = self.0.states.find(repo)?.row;
        let pause = if row.failed.is_some() { AFTER_FAILURE } else { BETWEEN };
        let passed = Duration::try_from(Timestamp::now().duration_since(row.attempted)).unwrap_or_default();
        pause.checked_sub(passed).filter(|left| !left.is_zero())
    }
}

/// Whether an upstream is shown something of the gate's own, or needs nothing: otherwise nobody but a reader can ask it.
pub(super) fn is_synced_unasked(upstream: &UpstreamSettings) -> bool {
    match upstream.credential {
        CredentialSettings::None | CredentialSettings::Service => true,
        CredentialSettings::Passthrough => upstream.service.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::flight::{Flights, Lead};
    use super::*;
    use crate::mirror::keeper::SyncError;
    use crate::model::upstream::UpstreamUrl;

    fn repo() -> RepoName {
        RepoName::parse("forge/app").unwrap()
    }

    fn digest(digit: char) -> Option<RefDigest> {
        RefDigest::parse(&digit.to_string().repeat(64)).ok()
    }

    fn origin() -> Origin {
        UpstreamUrl::parse("https://forge").unwrap().origin()
    }

    fn lead(flights: &Flights) -> Lead {
        match flights.join(&repo(), Cause::Read).unwrap() {
            Seat::Lead(lead) => lead,
            Seat::Guest(_) => panic!("one is under way"),
        }
    }

    #[test]
    fn many_wishes_are_one_which_is_due_with_the_first_and_knows_the_last() {
        let (wishes, now) = (Wishes::default(), Instant::now());
        wishes.add(repo(), digest('a'), now + JITTER);
        wishes.add(repo(), digest('b'), now + 2 * JITTER);
        let early = wishes.look(now);
        assert!(early.ready.is_empty() && early.next == Some(now + JITTER));
        assert_eq!(wishes.look(now + JITTER).ready, [(repo(), digest('b'))]);
        assert!(wishes.look(now + 2 * JITTER).ready.is_empty(), "it was taken out");
    }

    #[test]
    fn a_wish_behind_a_sync_comes_with_its_success_and_goes_with_its_failure() {
        let (wishes, flights, now) = (Wishes::default(), Flights::default(), Instant::now());
        for (outcome, ready) in [(Ok(()), 1), (Err(SyncError::NoWorker), 0)] {
            let lead = lead(&flights);
            wishes.put_back(repo(), None, Wait::Behind(lead.flight()));
            wishes.add(repo(), digest('a'), now);
            let look = wishes.look(now);
            assert!(look.ready.is_empty() && look.behind.len() == 1, "what comes meanwhile waits, too");
            lead.end(outcome);
            assert_eq!(wishes.look(now).ready.len(), ready);
        }
        assert!(wishes.lock().wishes.is_empty());
    }

    #[test]
    fn so_many_are_under_way_at_an_upstream_and_the_end_of_one_makes_room() {
        let (wishes, now) = (Wishes::default(), Instant::now());
        let mut shares: Vec<Share> = (0..AT_ONCE).map(|_| wishes.begin(&origin()).unwrap()).collect();
        assert!(wishes.begin(&origin()).is_none());
        wishes.put_back(repo(), digest('a'), Wait::Crowded(origin()));
        assert!(wishes.look(now).ready.is_empty());
        shares.pop();
        assert_eq!(wishes.look(now).ready, [(repo(), digest('a'))]);
        drop(shares);
        assert!(wishes.lock().under_way.is_empty());
    }
}
