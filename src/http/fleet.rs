//! The API of the fleet: who is listened to, what is yet to be published, and which version of a repository this gate knows.

use super::app::App;
use super::message::Response;
use super::metrics::Page;
use super::mirrors;
use super::refusal::Refusal;
use super::route::Asked;
use super::status::json;
use crate::model::access::{Right, Verdict};
use crate::model::fleet::{RefDigest, RepoKey, Version};
use crate::model::name::RepoName;
use crate::model::outbox::{Outbox, SinkView, VersionView};
use crate::model::peer::{PeerState, Peers};
use crate::outbox::SinkState;
use crate::outbox::redis::source::SourceStates;
use crate::store::outbox::Depth;
use jiff::{Timestamp, Unit};
use std::collections::BTreeMap;
use std::time::Duration;

/// `GET peers`: the other gates that are listened to, and the server that all of them tell of their changes.
pub fn peers(app: &App) -> Response {
    let redis = app.redis.get().map(SourceStates::view);
    json(&Peers { peers: app.peers.views(), redis }).uncached()
}

/// `GET outbox`: what waits to be published, by sink.
pub fn outbox(app: &App) -> Response {
    json(&Outbox { sinks: sink_views(app) }).uncached()
}

/// `GET versions/NAME`: which changes of a repository are known here, for whoever may read it.
pub fn version(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let repo = asked.mirror.as_ref().ok_or(Refusal::NotFound)?;
    if !may_see(app, asked, repo) {
        return Err(Refusal::NotFound);
    }
    let key = key_of(app, repo);
    let known = app.store.versions().of(&key);
    let known = known.map_err(|error| Refusal::internal("reading versions", &error))?;
    if known.is_empty() && !is_there(app, repo) {
        return Err(Refusal::NotFound);
    }
    let versions: BTreeMap<String, u64> =
        known.iter().map(|version| (version.incarnation.to_string(), version.seq)).collect();
    let view = VersionView {
        repo: key,
        name: repo.to_string(),
        incarnation: app.store.publisher().clone(),
        version: versions.values().fold(0, |sum, seq| sum.saturating_add(*seq)),
        versions,
        digest: digest_of(app, repo, &known),
    };
    Ok(json(&view).uncached())
}

fn may_see(app: &App, asked: &Asked<'_>, repo: &RepoName) -> bool {
    let rules = app.rules.get();
    match app.road.upstreams().find(repo) {
        Some(_) => mirrors::may_see(app, &rules, asked.caller, repo),
        None => rules.judge(repo, Right::Read, asked.caller) == Verdict::Allowed,
    }
}

fn is_there(app: &App, repo: &RepoName) -> bool {
    app.keeper.find(repo).is_some() || app.root.find(repo).is_ok()
}

fn key_of(app: &App, repo: &RepoName) -> RepoKey {
    match app.road.upstreams().find(repo) {
        Some(place) => place.key(),
        None => RepoKey::hosted(app.store.publisher(), repo),
    }
}

/// What a mirror is remembered to have: what was heard is told nobody, so it may be newer than what this gate has said.
fn digest_of(app: &App, repo: &RepoName, known: &[Version]) -> Option<RefDigest> {
    let remembered = app.road.upstreams().mirrors().refs(repo);
    let own = || known.iter().find(|version| version.incarnation == *app.store.publisher());
    remembered.map(|refs| RefDigest::of(refs.iter())).or_else(|| own()?.digest.clone())
}

/// How every sink is, and how every one that is not told any more was, while anything waits for it.
pub(super) fn sink_views(app: &App) -> Vec<SinkView> {
    let depths = app.store.outbox().depths().unwrap_or_else(|error| {
        log::error!("{error}");
        Vec::new()
    });
    let states = app.sinks.all();
    let is_told = |depth: &&Depth| states.iter().any(|state| state.sink == depth.sink);
    let left = depths.iter().filter(|depth| !is_told(depth)).map(left_view);
    let mut views: Vec<SinkView> = states
        .iter()
        .map(|state| sink_view(state, depths.iter().find(|depth| depth.sink == state.sink)))
        .chain(left)
        .collect();
    views.sort_by(|one, other| one.sink.cmp(&other.sink));
    views
}

fn sink_view(state: &SinkState, depth: Option<&Depth>) -> SinkView {
    let SinkState { sink, delivered, failures, error, again, is_disabled, given_up } = state.clone();
    SinkView {
        sink: sink.to_string(),
        depth: depth.map_or(0, |depth| depth.rows),
        oldest_seconds: depth.map(|depth| age(depth).as_secs()),
        delivered,
        failures,
        error: error.or_else(|| depth?.error.clone()),
        next_attempt: again.map(|time| time.round(Unit::Millisecond).unwrap_or(time).to_string()),
        disabled: is_disabled,
        given_up,
    }
}

/// Of a sink that is not in the configuration any more.
fn left_view(depth: &Depth) -> SinkView {
    SinkView {
        sink: depth.sink.to_string(),
        depth: depth.rows,
        oldest_seconds: Some(age(depth).as_secs()),
        delivered: 0,
        failures: 0,
        error: depth.error.clone(),
        next_attempt: None,
        disabled: true,
        given_up: 0,
    }
}

/// A clock that was set back makes nothing younger than new.
fn age(depth: &Depth) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(depth.oldest)).unwrap_or_default()
}

/// The metrics of it.
pub(super) fn write(app: &App, page: &mut Page) {
    page.family("listeners", "gauge", "Peers and the Redis server, by how the listener to each is.");
    let redis = app.redis.get().map(|redis| redis.now().state);
    for state in PeerState::ALL {
        let count = app.peers.count(state) + usize::from(redis == Some(state));
        page.sample("listeners", &[("state", state.as_str())], count);
    }
    let sinks = sink_views(app);
    page.family("outbox_depth", "gauge", "Events that wait to be published, by sink.");
    for sink in &sinks {
        page.sample("outbox_depth", &[("sink", &sink.sink)], sink.depth);
    }
    page.family("outbox_age_seconds", "gauge", "Since when the oldest of them waits, by sink.");
    for sink in &sinks {
        page.sample("outbox_age_seconds", &[("sink", &sink.sink)], sink.oldest_seconds.unwrap_or(0));
    }
}
