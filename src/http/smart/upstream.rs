//! Requests for the repositories of upstreams: the upstream is asked, its mirror is brought up to date where it differs, and
//! the mirror is what is served and what pushes are taken in for.
//!
//! Who is judged by the upstream is asked about at each request; a yes holds for [`GRANT`], so that the requests of one
//! clone or push ask once.

use super::Client;
use crate::gate::upstreams::Place;
use crate::git::ask::Asker;
use crate::git::command::Service;
use crate::git::layout::Repository;
use crate::git::pool::{Claim, Class};
use crate::git::tools::Tools;
use crate::git::upstream::PushOffers;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::route::{GitTarget, Phase};
use crate::mirror::{Advertisement, Remote, Side, UpstreamError};
use crate::model::credential::UpstreamCredential;
use crate::model::name::RepoName;
use crate::model::upstream::UpstreamUrl;
use crate::store::Fingerprint;
use crate::supervise::Deadline;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a yes of an upstream holds.
const GRANT: Duration = Duration::from_secs(10);

/// The most grants that are remembered: they go within seconds.
const GRANTS_MAX: usize = 10_000;

/// How long an upstream may take to say what it has.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// How long a fetch may take, and the first one, which brings everything.
const FETCH_LIMIT: Duration = Duration::from_secs(120);
const FIRST_FETCH_LIMIT: Duration = Duration::from_secs(3600);

/// The upstream's side of a request.
#[derive(Clone, Debug)]
pub(super) struct Beyond {
    /// Where the repository is.
    pub(super) url: UpstreamUrl,
    /// What can be pushed there.
    pub(super) offers: PushOffers,
    /// What the client has shown, where that is for the upstream to judge.
    pub(super) credential: Option<UpstreamCredential>,
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

    fn add(&self, key: (RepoName, Side, Fingerprint), seen: &Advertisement) {
        let mut grants = self.lock();
        let now = Instant::now();
        if grants.len() >= GRANTS_MAX {
            grants.retain(|_, grant| grant.until > now);
        }
        if grants.len() < GRANTS_MAX {
            let (url, offers) = (seen.url.clone(), seen.push_offers());
            grants.insert(key, Grant { until: now + GRANT, url, offers });
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
    let credential = app.road.upstreams().shown(place.upstream, client.credential.clone());
    let credential = credential.map_err(|error| {
        log::error!("{}: {error}", target.repo);
        Refusal::Upstream("the gate cannot read its own credential for the upstream; its log says why".into())
    })?;
    let side = match target.service {
        Service::UploadPack => Side::Fetch,
        Service::ReceivePack => Side::Push,
    };
    let socket = exchange.socket();
    let shown = app.store.fingerprint(credential.as_ref().map(|it| it.authorization()).as_ref());
    let visit = Visit { app, repo: &target.repo, place, side, credential, shown, client: socket.fd() };
    let is_granted = match (target.phase, target.service) {
        (Phase::Advertise, _) => None,
        // What a clone was shown at its first request it is served at the next.
        (Phase::Exchange, Service::UploadPack) if !place.judges_readers() => visit.unasked(),
        (Phase::Exchange, _) => visit.granted(),
    };
    is_granted.map_or_else(|| visit.bring(), Ok).map(|(repository, url, offers)| {
        (repository, Beyond { url, offers, credential: client.credential.clone() })
    })
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
        | UpstreamError::Malformed { .. } => error.to_string(),
    }
}

/// One request's dealings with an upstream.
struct Visit<'a> {
    app: &'a Arc<App>,
    repo: &'a RepoName,
    place: Place<'a>,
    side: Side,
    credential: Option<UpstreamCredential>,
    shown: Fingerprint,
    client: BorrowedFd<'a>,
}

type Found = (Repository, UpstreamUrl, PushOffers);

impl Visit<'_> {
    fn mirror(&self) -> Option<Repository> {
        self.app.road.upstreams().mirrors().find(self.repo)
    }

    /// The mirror as it is.
    fn unasked(&self) -> Option<Found> {
        let url = self.place.upstream.url.repository(self.place.path, true);
        Some((self.mirror()?, url, PushOffers { has_atomic: false, has_push_options: false }))
    }

    /// The mirror as it is, if the upstream has said yes a moment ago.
    fn granted(&self) -> Option<Found> {
        let grant = self.app.grants.find(&(self.repo.clone(), self.side, self.shown))?;
        Some((self.mirror()?, grant.url, grant.offers))
    }

    /// Asks the upstream, and brings the mirror up to date.
    fn bring(&self) -> Result<Found, Refusal> {
        let seen = match self.ask() {
            Ok(seen) => seen,
            Err(error) => return self.without(&error),
        };
        self.app.grants.add((self.repo.clone(), self.side, self.shown), &seen);
        let (url, offers) = (seen.url.clone(), seen.push_offers());
        match self.fetch(seen)? {
            Ok(repository) => Ok((repository, url, offers)),
            Err(error) => self.without(&error),
        }
    }

    fn ask(&self) -> Result<Advertisement, UpstreamError> {
        let git = &self.app.git;
        let asker = self.asker(Deadline::starting(Instant::now(), ASK_LIMIT, "time to ask an upstream"));
        let remote = Remote { url: &self.place.upstream.url, credential: self.credential.as_ref() };
        self.app.road.upstreams().mirrors().ask(&remote, self.place.path, self.side, git, &asker)
    }

    /// As long as the client waits for the answer.
    fn asker(&self, deadline: Deadline) -> Asker<'_> {
        let App { reaper, settings, .. } = &**self.app;
        Asker { reaper, deadline, grace: settings.git.kill_grace, client: Some(self.client) }
    }

    /// Lets a worker bring the mirror up to date, when no other one does. The worker goes on when the client leaves: others
    /// may wait for the same.
    fn fetch(&self, seen: Advertisement) -> Result<Result<Repository, UpstreamError>, Refusal> {
        let lane = &self.app.lanes.upstream;
        let limit = if self.mirror().is_some() { FETCH_LIMIT } else { FIRST_FETCH_LIMIT };
        let deadline = Deadline::starting(Instant::now(), limit, "time to fetch");
        let mirrors = self.app.road.upstreams().mirrors();
        if let Err(error) = mirrors.wait(self.repo, &self.asker(deadline), &self.app.stop) {
            return Ok(Err(error));
        }
        let (app, repo, credential) = (Arc::clone(self.app), self.repo.clone(), self.credential.clone());
        let name = lane.kind().name();
        let job = move || {
            let App { reaper, git, settings, stop, .. } = &*app;
            let asker = Asker { reaper, deadline, grace: settings.git.kill_grace, client: None };
            let tools = Tools { git, asker, lane: name, memory: settings.git.memory, stop };
            app.road.upstreams().mirrors().bring(&repo, &seen, credential.as_ref(), &tools)
        };
        let queue_wait = self.app.settings.git.queue_wait;
        let refused = |reason| Refusal::from_lane(reason, true, queue_wait);
        let claim = Claim::on(self.place.upstream.url.origin(), Class::Demand);
        let ticket = lane.submit_for(claim, job).map_err(refused)?;
        ticket.wait_beside(self.client, queue_wait, &self.app.stop).map_err(refused)
    }

    /// What follows when an upstream, or the way to it, does not help: a clone gets what is known, unless it was a no.
    fn without(&self, error: &UpstreamError) -> Result<Found, Refusal> {
        if error.is_client_gone() {
            return Err(Refusal::ClientGone);
        }
        if error.is_no() {
            self.app.grants.drop_all_of(self.repo, &self.shown);
            return Err(self.refusal_of_no(error));
        }
        if self.side == Side::Fetch
            && !self.place.judges_readers()
            && let Some(known) = self.unasked()
        {
            log::warn!("{} is served as it was: {error}", self.repo);
            return Ok(known);
        }
        log::warn!("{}: {error}", self.repo);
        Err(Refusal::Upstream(for_clients(error).into()))
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
            let why = "the upstream refuses the gate itself: tell whoever runs the gate, whose log says more";
            return Refusal::Upstream(why.into());
        }
        if let UpstreamError::Unauthorized { .. } = error {
            return Refusal::UpstreamLogin(error.to_string().into());
        }
        Refusal::Forbidden(error.to_string().into())
    }
}
