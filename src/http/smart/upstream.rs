//! Requests for the repositories of upstreams: the upstream is asked, its mirror is brought up to date where it differs, and
//! the mirror is what is served and what pushes are taken in for.
//!
//! A read asks nobody while the mirror is fresh. Who is judged by the upstream is asked about by his own credential; a yes
//! holds for `access_cache`, so that the requests of one clone or push ask once, and a no ends it. An upstream that is down
//! says neither: who may read without it reads what the mirror has, and is told how old that is.

use super::Client;
use super::stale::{Reason, Stale};
use super::under_way;
use crate::config::UpstreamSettings;
use crate::git::command::Service;
use crate::git::layout::Repository;
use crate::git::upstream::PushOffers;
use crate::git::wants::Unadvertised;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::route::{GitTarget, Phase};
use crate::mirror::keeper::{BringError, Cause, Ending, Need, Shares, State, SyncError, Waiter};
use crate::mirror::upstreams::Place;
use crate::mirror::{Advertisement, Side, UpstreamError};
use crate::model::credential::UpstreamCredential;
use crate::model::name::RepoName;
use crate::model::upstream::UpstreamUrl;
use crate::store::Fingerprint;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most grants that are remembered: they go within seconds.
const GRANTS_MAX: usize = 10_000;

/// How long after a sync its mirror is served to the second request of a clone without another: longer than clients take
/// between the two, and an upstream that has said no meanwhile is asked again at the next first one.
const SECOND_REQUEST: Duration = Duration::from_secs(60);

/// The upstream's side of a request.
#[derive(Clone, Debug)]
pub(super) struct Beyond {
    /// Where the repository is.
    pub(super) url: UpstreamUrl,
    /// What can be pushed there.
    pub(super) offers: PushOffers,
    /// What it gives that its refs do not show.
    pub(super) unadvertised: Unadvertised,
    /// What the client has shown, where that is for the upstream to judge.
    pub(super) credential: Option<UpstreamCredential>,
    /// How old the mirror is and why, where it could not be brought up to date.
    pub(super) stale: Option<Stale>,
}

/// A yes of an upstream.
#[derive(Clone, Debug)]
struct Grant {
    until: Instant,
    url: UpstreamUrl,
    offers: PushOffers,
}

/// The yeses of all upstreams, each to what it was shown.
#[derive(Debug, Default)]
pub struct Grants(Mutex<HashMap<(RepoName, Side, Fingerprint), Grant>>);

impl Grants {
    fn find(&self, key: &(RepoName, Side, Fingerprint)) -> Option<Grant> {
        self.lock().get(key).filter(|grant| grant.until > Instant::now()).cloned()
    }

    fn add(&self, key: (RepoName, Side, Fingerprint), seen: &Advertisement, time: Duration) {
        let mut grants = self.lock();
        let now = Instant::now();
        if grants.len() >= GRANTS_MAX {
            grants.retain(|_, grant| grant.until > now);
        }
        if grants.len() < GRANTS_MAX {
            let (url, offers) = (seen.url.clone(), seen.push_offers());
            grants.insert(key, Grant { until: now + time, url, offers });
        }
    }

    /// What was shown is not taken any more, for whatever.
    fn drop_all_of(&self, repo: &RepoName, shown: &Fingerprint) {
        self.lock().retain(|(at, _, by), _| at != repo || by != shown);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RepoName, Side, Fingerprint), Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mirror that serves this request, as fresh as the request needs it.
///
/// # Errors
/// The refusal to answer with.
pub(super) fn open(
    app: &Arc<App>,
    exchange: &Exchange,
    client: &Client,
    target: &GitTarget,
    place: Place<'_>,
) -> Result<(Repository, Beyond), Refusal> {
    if !place.is_served() {
        return Err(Refusal::NotFound);
    }
    let socket = exchange.socket();
    let visit = Visit::new(app, target, place, client.credential.clone(), socket.fd())?;
    let found = match (target.service, target.phase) {
        (Service::UploadPack, phase) if place.judges_readers() => visit.read_as_guest(phase),
        // What a clone was shown at its first request it is served at the next.
        (Service::UploadPack, Phase::Exchange) => visit.unasked().map_or_else(|| visit.read(), Ok),
        (Service::UploadPack, Phase::Advertise) => visit.read(),
        (Service::ReceivePack, Phase::Exchange) => visit.granted().map_or_else(|| visit.push(), Ok),
        (Service::ReceivePack, Phase::Advertise) => visit.push(),
    };
    let Found { mirror, url, offers, stale } = found?;
    let stale = stale.or_else(|| visit.behind());
    if stale.is_some() {
        app.metrics.served_stale();
    }
    let told = app.road.upstreams().mirrors().told(&place.upstream.url, place.path);
    let unadvertised = told.map(|told| told.unadvertised).unwrap_or_default();
    Ok((mirror, Beyond { url, offers, unadvertised, credential: client.credential.clone(), stale }))
}

/// What is wrong on our side is the log's to explain.
fn for_clients(error: &UpstreamError) -> String {
    match error {
        UpstreamError::Layout(_)
        | UpstreamError::Turn(_)
        | UpstreamError::NotRun(_)
        | UpstreamError::Ask(_)
        | UpstreamError::Spawn(_)
        | UpstreamError::Git { .. }
        | UpstreamError::Io { .. } => "the gate failed to ask the upstream; its log says why".to_owned(),
        UpstreamError::Unauthorized { .. }
        | UpstreamError::Forbidden { .. }
        | UpstreamError::NotFound { .. }
        | UpstreamError::Moved { .. }
        | UpstreamError::Unreachable { .. }
        | UpstreamError::TimedOut { .. }
        | UpstreamError::Status { .. }
        | UpstreamError::Tls { .. }
        | UpstreamError::BrokenOff { .. }
        | UpstreamError::Malformed { .. }
        | UpstreamError::Said { .. }
        | UpstreamError::Shallow { .. }
        | UpstreamError::Unfinished { .. } => error.to_string(),
    }
}

/// One request's dealings with an upstream.
pub(super) struct Visit<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) repo: &'a RepoName,
    pub(super) place: Place<'a>,
    side: Side,
    pub(super) credential: Option<UpstreamCredential>,
    shown: Fingerprint,
    pub(super) client: BorrowedFd<'a>,
}

/// The mirror that serves a request, and what is known of its upstream.
struct Found {
    mirror: Repository,
    url: UpstreamUrl,
    offers: PushOffers,
    stale: Option<Stale>,
}

impl<'a> Visit<'a> {
    /// A visit by whoever has shown `credential`, where that is for the upstream to judge.
    pub(super) fn new(
        app: &'a Arc<App>,
        target: &'a GitTarget,
        place: Place<'a>,
        credential: Option<UpstreamCredential>,
        client: BorrowedFd<'a>,
    ) -> Result<Self, Refusal> {
        let credential = app.road.upstreams().shown(place.upstream, credential);
        let credential = credential.map_err(|error| {
            log::error!("{}: {error}", target.repo);
            let why = "the gate cannot read its own credential for the upstream; its log says why";
            Refusal::Upstream(why.into())
        })?;
        let side = match target.service {
            Service::UploadPack => Side::Fetch,
            Service::ReceivePack => Side::Push,
        };
        let shown = app.store.fingerprint(credential.as_ref().map(|it| it.authorization()).as_ref());
        Ok(Self { app, repo: &target.repo, place, side, credential, shown, client })
    }
}

impl Visit<'_> {
    fn settings(&self) -> &UpstreamSettings {
        self.place.upstream
    }

    /// The mirror as it is, for a reader.
    fn as_it_is(&self, stale: Option<Stale>) -> Option<Found> {
        let url = self.place.upstream.url.repository(self.place.path, true);
        let offers = PushOffers { has_atomic: false, has_push_options: false };
        Some(Found { mirror: self.app.keeper.find(self.repo)?, url, offers, stale })
    }

    /// The mirror as a first request was shown it a while ago.
    fn unasked(&self) -> Option<Found> {
        let state = self.app.keeper.state(self.repo)?;
        match state.last? {
            Ending::Refused => None,
            Ending::Synced if state.fresh?.elapsed() < SECOND_REQUEST => self.as_it_is(None),
            Ending::Synced => None,
            Ending::Moved => self.as_it_is(Some(Stale { age: self.bearable_age()?, reason: Reason::Moved })),
            Ending::Failed => {
                let reason = Reason::Failed(state.fault?);
                self.as_it_is(Some(Stale { age: self.bearable_age()?, reason }))
            }
        }
    }

    /// The mirror as it is, if the upstream has said yes a moment ago.
    fn granted(&self) -> Option<Found> {
        let grant = self.app.grants.find(&(self.repo.clone(), self.side, self.shown))?;
        let mirror = self.app.keeper.find(self.repo)?;
        Some(Found { mirror, url: grant.url, offers: grant.offers, stale: None })
    }

    /// The age of the mirror, if it may be served while its upstream is down.
    fn bearable_age(&self) -> Option<Duration> {
        let is_denied = self.app.keeper.state(self.repo).is_some_and(|state| state.row.is_denied);
        if is_denied && !self.place.judges_readers() {
            // Being down unsays no no.
            return None;
        }
        if !self.app.road.upstreams().mirrors().is_whole(self.repo) {
            // Somebody has made something else of it, which is nothing that the upstream ever showed.
            return None;
        }
        self.app.keeper.age(self.repo).filter(|age| *age <= self.settings().mirror.serve_stale_for)
    }

    /// How old what is read is by the word of an upstream that is a mirror itself.
    fn behind(&self) -> Option<Stale> {
        let state = self.app.keeper.state(self.repo)?;
        let is_behind = self.side == Side::Fetch && !state.row.behind.is_zero();
        is_behind.then_some(Stale { age: self.app.keeper.age(self.repo)?, reason: Reason::Behind })
    }

    /// For whom the upstream does not judge: fresh, or as it was where that cannot be had.
    fn read(&self) -> Result<Found, Refusal> {
        match self.bring(None, Shares::All) {
            Ok(()) => self.as_it_is(None).ok_or(Refusal::Internal),
            Err(error) => self.without(error),
        }
    }

    /// For whom the upstream judges, by what he has shown himself and nobody else.
    fn read_as_guest(&self, phase: Phase) -> Result<Found, Refusal> {
        if let Some(found) = self.granted()
            && (phase == Phase::Exchange || self.is_fresh())
        {
            return Ok(found);
        }
        // Who cannot be judged is not let in.
        let seen = self.ask().map_err(|error| self.refusal(&error))?;
        self.grant(&seen);
        match self.bring(Some(seen), Shares::AllButNo) {
            Ok(()) => self.granted().or_else(|| self.as_it_is(None)).ok_or(Refusal::Internal),
            Err(error) => self.without(error),
        }
    }

    /// For a push: what the upstream has at this moment.
    fn push(&self) -> Result<Found, Refusal> {
        let seen = self.ask().map_err(|error| self.refusal(&error))?;
        self.grant(&seen);
        let (url, offers) = (seen.url.clone(), seen.push_offers());
        match self.bring(Some(seen), Shares::Nothing) {
            Ok(()) => {
                let mirror = self.app.keeper.find(self.repo).ok_or(Refusal::Internal)?;
                Ok(Found { mirror, url, offers, stale: None })
            }
            Err(error) => Err(self.refusal_of(&error)),
        }
    }

    fn grant(&self, seen: &Advertisement) {
        let key = (self.repo.clone(), self.side, self.shown);
        self.app.grants.add(key, seen, self.settings().access_cache);
    }

    fn ask(&self) -> Result<Advertisement, UpstreamError> {
        self.app.keeper.ask(self.place, self.side, self.credential.as_ref(), &self.waiter(Instant::now()))
    }

    /// Nobody waits longer than for a worker.
    fn waiter(&self, now: Instant) -> Waiter<'_> {
        Waiter { client: Some(self.client), until: now + self.app.settings.git.queue_wait }
    }

    fn is_fresh(&self) -> bool {
        self.app.keeper.is_fresh(self.repo, self.since(Instant::now()))
    }

    /// When a mirror has to have been synced that a reader needs not wait for.
    fn since(&self, now: Instant) -> Instant {
        now.checked_sub(self.settings().mirror.fresh_for).unwrap_or(now)
    }

    /// Brings the mirror to where it is needed. Whoever has no older one to go with, and has waited for long enough, is told
    /// how far the first is.
    fn bring(&self, seen: Option<Advertisement>, shares: Shares) -> Result<(), BringError> {
        let now = Instant::now();
        let since = match (&seen, shares) {
            (Some(seen), Shares::Nothing) => seen.at,
            (Some(_) | None, Shares::All | Shares::AllButNo) | (None, Shares::Nothing) => self.since(now),
        };
        let cause = match self.side {
            Side::Fetch => Cause::Read,
            Side::Push => Cause::Push,
        };
        let waiter = self.waiter(now);
        let (repo, place, credential) = (self.repo, self.place, self.credential.as_ref());
        self.app.keeper.bring(Need { repo, place, credential, seen, cause, since, shares }, &waiter)
    }

    /// What follows when an upstream, or the way to it, does not help: a clone gets what is known, unless it was a no.
    fn without(&self, error: BringError) -> Result<Found, Refusal> {
        let reason = match &error {
            BringError::Failed(error) if error.is_no() => None,
            BringError::Failed(error) if error.moved_to().is_some() => Some(Reason::Moved),
            BringError::Failed(error) => Some(Reason::Failed(error.fault())),
            BringError::Late => Some(self.reason_of_wait()),
            BringError::ClientGone | BringError::Stopping => None,
        };
        if let Some(reason) = reason
            && let Some(age) = self.bearable_age()
            && let Some(found) = self.as_it_is(Some(Stale { age, reason }))
        {
            log::debug!("{} is served as it was {age:?} ago: {error}", self.repo);
            return Ok(found);
        }
        Err(self.refusal_of(&error))
    }

    /// Why somebody has waited for long enough.
    fn reason_of_wait(&self) -> Reason {
        match self.app.keeper.state(self.repo) {
            Some(State { is_silent: true, fault: Some(fault), .. }) => Reason::Failed(fault),
            Some(_) | None => Reason::Slow,
        }
    }

    pub(super) fn refusal_of(&self, error: &BringError) -> Refusal {
        match error {
            BringError::Failed(SyncError::Upstream(error)) => self.refusal(error),
            BringError::Failed(
                SyncError::Token(_) | SyncError::Store(_) | SyncError::NoWorker | SyncError::Descriptor(_),
            ) => {
                log::warn!("{}: {error}", self.repo);
                Refusal::Busy { at_door: true }
            }
            BringError::Failed(SyncError::Quota { .. }) => {
                log::warn!("{}: {error}", self.repo);
                Refusal::MirrorsFull
            }
            BringError::Late => {
                let is_there = self.app.keeper.find(self.repo).is_some();
                under_way::refusal(self.repo, is_there, self.app.keeper.progress(self.repo))
            }
            BringError::ClientGone => Refusal::ClientGone,
            BringError::Stopping => Refusal::Stopping,
        }
    }

    fn refusal(&self, error: &UpstreamError) -> Refusal {
        if error.is_client_gone() {
            return Refusal::ClientGone;
        }
        if error.is_no() {
            self.app.grants.drop_all_of(self.repo, &self.shown);
            if !self.place.judges_pushers() {
                // It was the gate's own credential, or none: the same as readers are served by.
                self.app.keeper.doubt(self.repo);
            }
            return self.refusal_of_no(error);
        }
        log::warn!("{}: {error}", self.repo);
        Refusal::Upstream(for_clients(error).into())
    }

    /// A no to the client's own credential is the client's to hear; one to the gate's is the operator's.
    fn refusal_of_no(&self, error: &UpstreamError) -> Refusal {
        let is_the_client_s = match self.side {
            Side::Fetch => self.place.judges_readers(),
            Side::Push => self.place.judges_pushers(),
        };
        if let UpstreamError::NotFound { .. } = error {
            log::info!("{}: {error}", self.repo);
            return Refusal::NotFound;
        }
        if !is_the_client_s {
            log::error!("{}: with the gate's own credential: {error}", self.repo);
            let why = match (self.side, &self.credential, error) {
                (Side::Push, Some(_), UpstreamError::Forbidden { .. }) => {
                    "the upstream does not let the gate's own credential push here"
                }
                (Side::Push, None, _) => {
                    "the upstream takes no push here from the gate, which shows it no credential"
                }
                (Side::Push, Some(_), _) | (Side::Fetch, ..) => "the upstream refuses the gate itself",
            };
            let why = format!("{why}: tell whoever runs the gate, whose log says more");
            return Refusal::Upstream(why.into());
        }
        if let UpstreamError::Unauthorized { .. } = error {
            return Refusal::UpstreamLogin(error.to_string().into());
        }
        Refusal::Forbidden(error.to_string().into())
    }
}
