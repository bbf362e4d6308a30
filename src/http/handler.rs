//! One request from its head to its log line: who asks, what for, may he, and how it ended.

use super::api::require_own_site;
use super::app::App;
use super::auth;
use super::events::{self, Viewer};
use super::exchange::{Exchange, Handler};
use super::message::{Headers, Method, Peer, Response, escaped};
use super::metrics::Finished;
use super::refusal::Refusal;
use super::route::{self, Answer, Asked, BODY_MAX, Found, GitTarget, Needs, Page, Target, Way};
use super::served::Served;
use super::smart::{self, Client};
use super::spool::SpoolError;
use crate::config::ReadAccess;
use crate::git::command::Service;
use crate::mirror::upstreams::Place;
use crate::model::access::{Caller, Right, Verdict};
use crate::model::credential::UpstreamCredential;
use crate::model::role::Role;
use std::sync::Arc;

/// How much a log line shows of a path, a method or a name that came from a client, in characters.
const LOGGED_MAX: usize = 200;

/// Fields by which a proxy gives itself away: each of the common ones sends at least one of them.
const FORWARDING_FIELDS: [&str; 6] =
    ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host", "x-forwarded-proto"];

/// What is asked for, in metrics and the log, where it is no service of git's: a page, which includes the API ...
const PAGE: &str = "page";

/// ... or the stream of events.
const EVENTS: &str = "events";

/// The public front's handler.
#[derive(Debug)]
pub struct Public(pub Arc<App>);

/// What is known of a request so far, for its log line.
#[derive(Debug, Default)]
struct Story {
    user: Option<String>,
    service: Option<&'static str>,
}

impl Handler for Public {
    fn handle(&self, exchange: &mut Exchange) {
        let mut story = Story::default();
        let served = answer(&self.0, exchange, &mut story).unwrap_or_else(|refusal| {
            self.0.metrics.refused(refusal.label());
            story.user = story.user.take().or_else(|| refusal.claimed_user().map(|user| format!("{user}?")));
            refuse(exchange, &refusal)
        });
        finish(&self.0, exchange, &story, &served);
    }
}

fn answer(app: &Arc<App>, exchange: &mut Exchange, story: &mut Story) -> Result<Served, Refusal> {
    let request = exchange.request();
    let query = request.query.as_deref().unwrap_or_default();
    match route::find(request.method.as_str(), &request.path, query)? {
        Target::Page(found) => answer_page(app, exchange, found, story),
        Target::Git(target) => {
            story.service = Some(target.service.command());
            let client = client(app, exchange, &target, story)?;
            authorise_git(app, &target, &client.caller)?;
            smart::serve(app, exchange, &client, &target)
        }
    }
}

fn answer_page(
    app: &App,
    exchange: &mut Exchange,
    found: Found,
    story: &mut Story,
) -> Result<Served, Refusal> {
    let caller = authorise_page(app, exchange, found.page, story)?;
    match found.page.answer {
        Answer::Look(_) | Answer::Ask(_) | Answer::Await(_) => {}
        Answer::Stream => return stream(app, exchange, caller, story),
    }
    let body = match found.page.way {
        Way::Read | Way::Remove => Vec::new(),
        Way::Write => read_body(exchange)?,
    };
    let (request, socket) = (exchange.request(), exchange.socket());
    let query = request.query.as_deref().unwrap_or_default();
    let asked = Asked {
        caller: &caller,
        push: found.push,
        mirror: found.mirror.clone(),
        query,
        headers: &request.headers,
        body,
        client: socket.fd(),
    };
    let response = found.answer(app, &asked)?;
    send(exchange, &response);
    Ok(Served::response(if response.status < 400 { "ok" } else { "unavailable" }, &response))
}

/// A page of another site could open streams in the name of whoever looks at it, and fill the places, but not read them.
fn stream(app: &App, exchange: &mut Exchange, caller: Caller, story: &mut Story) -> Result<Served, Refusal> {
    story.service = Some(EVENTS);
    require_own_site(&exchange.request().headers)?;
    let field = authorization(exchange)?.ok_or(Refusal::Credential)?;
    let credential =
        auth::Credential::parse(field).map_err(|error| Refusal::BadRequest(error.to_string().into()))?;
    events::serve(app, exchange, Viewer::new(credential, caller))
}

/// The whole body of a page.
fn read_body(exchange: &mut Exchange) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::TooLarge(format!("a body has at most {BODY_MAX} bytes here").into());
    if exchange.announced().is_some_and(|len| len > BODY_MAX as u64) {
        return Err(too_large());
    }
    let (mut body, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let count =
            exchange.read_body(&mut buffer).map_err(|error| Refusal::from(SpoolError::Body(error)))?;
        body.extend_from_slice(&buffer[..count]);
        match count {
            0 => return Ok(body),
            _ if body.len() > BODY_MAX => return Err(too_large()),
            _ => {}
        }
    }
}

fn caller(app: &App, exchange: &Exchange, story: &mut Story) -> Result<Caller, Refusal> {
    let field = authorization(exchange)?;
    let caller = auth::log_in(&app.store, &app.throttle, field, exchange.request().peer.address)?;
    story.user = caller.name().map(str::to_owned);
    Ok(caller)
}

/// Who sends a request for a repository: a user of ours, or whoever an upstream says that he is.
fn client(app: &App, exchange: &Exchange, target: &GitTarget, story: &mut Story) -> Result<Client, Refusal> {
    let place = app.road.upstreams().find(&target.repo);
    let is_judged_there = place.is_some_and(|place| match target.service {
        Service::UploadPack => place.judges_readers(),
        Service::ReceivePack => place.judges_pushers(),
    });
    if let Some(place) = place.filter(|_| is_judged_there) {
        return guest(app, exchange, target.service, place, story);
    }
    let caller = caller(app, exchange, story)?;
    let needs_user = target.service == Service::UploadPack
        && place.is_some_and(|place| place.upstream.access == ReadAccess::Users);
    if needs_user && caller == Caller::Anonymous {
        return Err(Refusal::Credential);
    }
    Ok(Client { caller, credential: None })
}

/// Whoever shows the same credential is the same guest; nothing else is known of him.
fn guest(
    app: &App,
    exchange: &Exchange,
    service: Service,
    place: Place<'_>,
    story: &mut Story,
) -> Result<Client, Refusal> {
    let Some(field) = authorization(exchange)? else {
        return match service {
            Service::UploadPack => Ok(Client { caller: Caller::Anonymous, credential: None }),
            Service::ReceivePack => Err(Refusal::Credential),
        };
    };
    let shown =
        auth::Credential::parse(field).map_err(|error| Refusal::BadRequest(error.to_string().into()))?;
    let auth::Credential::Basic { user, token } = shown else {
        let why = "an upstream is shown a user name and a password or token: use Basic";
        return Err(Refusal::BadRequest(why.into()));
    };
    let credential = UpstreamCredential { username: user.clone(), secret: token };
    let print = app.store.fingerprint(Some(&credential.authorization()));
    let name = format!("{}:{}", place.upstream.name, print.short());
    story.user = Some(name.clone());
    let claimed = Some(user).filter(|user| !user.is_empty());
    Ok(Client { caller: Caller::Guest { name, claimed }, credential: Some(credential) })
}

fn authorization(exchange: &Exchange) -> Result<Option<&str>, Refusal> {
    let field = exchange.request().headers.get("authorization");
    field.map_err(|error| Refusal::BadRequest(error.to_string().into()))
}

/// The rule for a name is asked before the disk, so the answer is the same whether the repository exists or not.
fn authorise_git(app: &App, target: &GitTarget, caller: &Caller) -> Result<(), Refusal> {
    let right = match target.service {
        Service::UploadPack => Right::Read,
        Service::ReceivePack => Right::Push,
    };
    match app.rules.get().judge(&target.repo, right, caller) {
        Verdict::Allowed => Ok(()),
        Verdict::NeedsCredential => Err(Refusal::Credential),
        Verdict::Hidden => Err(Refusal::NotFound),
        Verdict::Forbidden => {
            Err(Refusal::Forbidden("you may read this repository but not push to it".into()))
        }
    }
}

fn authorise_page(app: &App, exchange: &Exchange, page: &Page, story: &mut Story) -> Result<Caller, Refusal> {
    let request = exchange.request();
    match page.needs {
        Needs::Nothing => Ok(Caller::Anonymous),
        Needs::LoopbackOrUser if is_near(&request.headers, &request.peer) => Ok(Caller::Anonymous),
        Needs::LoopbackOrUser | Needs::User => match caller(app, exchange, story)? {
            Caller::Anonymous | Caller::Guest { .. } => Err(Refusal::Credential),
            known @ (Caller::User { .. } | Caller::Local) => Ok(known),
        },
        Needs::Admin => match caller(app, exchange, story)? {
            Caller::Anonymous | Caller::Guest { .. } => Err(Refusal::Credential),
            admin @ (Caller::User { role: Role::Admin, .. } | Caller::Local) => Ok(admin),
            Caller::User { role: Role::Reader | Role::Pusher | Role::Reviewer, .. } => {
                Err(Refusal::Forbidden("only an admin may see this".into()))
            }
        },
    }
}

/// Whether the client itself is on this machine. Behind a proxy everyone may seem to be, and the fields that proxies add
/// give that away; a trusted proxy's `X-Forwarded-For` may be missing or in no form that can be read, so its clients are
/// not near either. The other end of a unix listener has no address: a proxy sits there as often as a neighbour.
fn is_near(headers: &Headers, peer: &Peer) -> bool {
    let forwarded = FORWARDING_FIELDS.iter().any(|name| headers.all(name).next().is_some());
    peer.address.is_some_and(|address| address.to_canonical().is_loopback()) && !peer.proxied && !forwarded
}

fn refuse(exchange: &mut Exchange, refusal: &Refusal) -> Served {
    let is_api = exchange.request().path.starts_with("/-/api/");
    let response = if is_api { refusal.json() } else { refusal.response() };
    if *refusal == Refusal::ClientGone {
        exchange.abandon();
    } else {
        send(exchange, &response);
    }
    Served::response(refusal.label(), &response)
}

fn send(exchange: &mut Exchange, response: &Response) {
    if let Err(error) = exchange.respond(response) {
        log::debug!("answering {}: {error}", exchange.request().peer);
    }
}

/// Counts the request and writes its one line of the log.
fn finish(app: &App, exchange: &Exchange, story: &Story, served: &Served) {
    let request = exchange.request();
    let time = exchange.arrived().elapsed();
    let bytes_in = exchange.received();
    let service = story.service.unwrap_or(PAGE);
    // How long somebody listened is not how long anybody waited.
    let waited = (service != EVENTS).then_some(time);
    let Served { status, outcome, bytes_out, detail } = served;
    app.metrics.finished(Finished { service, outcome, time: waited, bytes_in, bytes_out: *bytes_out });
    let user = escaped(story.user.as_deref().unwrap_or("-"), LOGGED_MAX);
    let method = escaped(request.method.as_str(), LOGGED_MAX);
    let path = escaped(&request.path, LOGGED_MAX);
    let is_look = request.method == Method::Get || request.method == Method::Head;
    // Health checks and scrapes that went well would drown the rest.
    let is_routine = service == PAGE && is_look && *status < 400;
    let level = if is_routine { log::Level::Debug } else { log::Level::Info };
    log::log!(
        level,
        "{} {user} {method} {path} {service} {status} {outcome} in={bytes_in} out={bytes_out} ms={} {detail}",
        request.peer,
        time.as_millis(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(address: Option<&str>, proxied: bool, fields: &[&str]) -> bool {
        let headers: Headers = fields.iter().map(|name| (*name, &b"192.0.2.1"[..])).collect();
        is_near(&headers, &Peer { address: address.map(|text| text.parse().unwrap()), proxied })
    }

    #[test]
    fn a_caller_on_loopback_is_near_and_nobody_else() {
        assert!(near(Some("127.0.0.1"), false, &["accept"]) && near(Some("::1"), false, &[]));
        assert!(!near(Some("192.0.2.1"), false, &[]));
        assert!(!near(None, false, &[]), "who comes over a unix listener may come from anywhere");
    }

    #[test]
    fn whatever_field_a_proxy_adds_its_clients_are_not_near() {
        let common = "x-forwarded-for forwarded via x-real-ip x-forwarded-host x-forwarded-proto";
        for name in common.split(' ') {
            assert!(!near(Some("127.0.0.1"), false, &[name]), "{name}");
        }
    }

    #[test]
    fn the_clients_of_a_trusted_proxy_are_not_near_whatever_it_says_of_them() {
        for name in ["x-forwarded-for", "accept"] {
            assert!(!near(Some("127.0.0.1"), true, &[name]), "{name}");
        }
    }
}
