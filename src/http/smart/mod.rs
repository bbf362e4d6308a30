//! Smart HTTP for hosted repositories and the mirrors of upstreams (gitprotocol-http(5)): the same answers as `git http-backend`, byte for byte,
//! with every git supervised and every body bounded.
//!
//! The order is always: find the repository, spool the whole bounded request, check its form, and only then take a
//! place in a lane. So neither a slow client nor a malformed request ever holds a worker.

mod cold;
mod door;
mod fetch;
mod held;
mod known;
mod push;
pub mod recovery;
mod shared;
mod stale;
mod stay;
mod under_way;
mod upstream;
mod verdicts;
mod wants;
mod work;

pub use door::Door;
pub use upstream::Grants;

use super::app::App;
use super::exchange::Exchange;
use super::message::{Headers, Request, UNCACHED};
use super::refusal::Refusal;
use super::route::{GitTarget, Phase};
use super::served::Served;
use super::spool::Room;
use crate::git::command::{Identity, Protocol, Service};
use crate::git::layout::{LayoutError, Repository};
use crate::model::access::Caller;
use crate::model::credential::UpstreamCredential;
use crate::model::mirror::STALE;
use crate::sys::space;
use std::sync::Arc;
use upstream::Beyond;

/// A request that is well addressed and allowed, with everything that is known before its body is read.
#[derive(Debug)]
struct Call<'a> {
    app: &'a Arc<App>,
    target: &'a GitTarget,
    /// The hosted repository, or the mirror of an upstream's.
    repository: Repository,
    /// The upstream's, where it is a mirror.
    beyond: Option<Beyond>,
    protocol: Protocol,
    caller: &'a Caller,
    identity: Identity,
}

/// Who sends a request.
#[derive(Debug)]
pub struct Client {
    /// As the rules know him.
    pub caller: Caller,
    /// What he has shown, where that is for an upstream to judge.
    pub credential: Option<UpstreamCredential>,
}

/// Serves one allowed request.
///
/// # Errors
/// The refusal to answer with; nothing has been sent then.
pub fn serve(
    app: &Arc<App>,
    exchange: &mut Exchange,
    client: &Client,
    target: &GitTarget,
) -> Result<Served, Refusal> {
    let protocol = protocol(exchange.request())?.settled(target.service);
    let (repository, beyond) = match app.road.upstreams().find(&target.repo) {
        None => {
            let repository = find(app, target)?;
            app.changes.watch(&target.repo);
            (repository, None)
        }
        Some(place) => {
            if !place.is_served() {
                log::info!("{} is not served: repos and deny of the upstream say so", target.repo);
            }
            match upstream::open(app, exchange, client, target, place) {
                Ok((mirror, beyond)) => (mirror, Some(beyond)),
                Err(refusal) => return under_way::tell(app, exchange, target, refusal),
            }
        }
    };
    let request = exchange.request();
    let caller = &client.caller;
    let call = Call {
        app,
        target,
        repository,
        beyond,
        protocol,
        caller,
        identity: Identity { user: caller.name().map(str::to_owned), address: request.peer.address },
    };
    door::knock(&call, exchange)?;
    match (target.phase, target.service) {
        (Phase::Advertise, _) => work::advertise(&call, exchange),
        (Phase::Exchange, Service::UploadPack) => fetch::fetch(&call, exchange)
            .or_else(|refusal| under_way::tell_of_search(app, exchange, target, refusal)),
        (Phase::Exchange, Service::ReceivePack) => push::push(&call, exchange),
    }
}

fn find(app: &App, target: &GitTarget) -> Result<Repository, Refusal> {
    app.root.find(&target.repo).map_err(|error: LayoutError| {
        if error.is_fault() {
            log::error!("looking for {}: {error}", target.repo);
            return Refusal::Internal;
        }
        log::info!("{} is not served: {error}", target.repo);
        Refusal::NotFound
    })
}

fn protocol(request: &Request) -> Result<Protocol, Refusal> {
    let bad = |error: &dyn std::error::Error| Refusal::BadRequest(error.to_string().into());
    match request.headers.get("git-protocol").map_err(|error| bad(&error))? {
        Some(value) => Protocol::from_header(value.as_bytes()).map_err(|error| bad(&error)),
        None => Ok(Protocol::default()),
    }
}

/// The head of every answer of git's: its type, and never to be cached.
fn headers(content_type: &'static str) -> Headers {
    [("Content-Type", content_type)].into_iter().chain(UNCACHED).collect()
}

impl Call<'_> {
    /// The same, with the age in seconds of a mirror that could not be brought up to date.
    fn headers(&self, content_type: &'static str) -> Headers {
        let mut headers = headers(content_type);
        if let Some(stale) = self.beyond.as_ref().and_then(|beyond| beyond.stale) {
            headers.push(STALE, stale.age.as_secs().to_string());
        }
        headers
    }

    /// The type of what answers it.
    const fn content_type(&self) -> &'static str {
        match self.target.phase {
            Phase::Advertise => self.target.service.advertisement_type(),
            Phase::Exchange => self.target.service.result_type(),
        }
    }

    /// Refuses a body that is not of the service's type.
    fn check_type(&self, exchange: &Exchange) -> Result<(), Refusal> {
        let expected = self.target.service.request_type();
        let given = exchange.request().headers.get("content-type");
        match given.map_err(|error| Refusal::BadRequest(error.to_string().into()))? {
            Some(given) if given == expected => Ok(()),
            Some(_) | None => Err(Refusal::MediaType(format!("the body must be of type {expected}").into())),
        }
    }

    /// Where the bodies of requests are kept, with those of other fetches or pushes.
    fn room(&self) -> Room<'_> {
        let budget = match self.target.service {
            Service::UploadPack => Some(&self.app.fetch_bodies),
            Service::ReceivePack => None,
        };
        let settings = &self.app.settings;
        Room {
            tmp: settings.data_dir.join("tmp"),
            floor: settings.limits.disk_floor,
            free: space::available,
            budget,
        }
    }
}
