//! The API of mirrors.
//!
//! Whoever may read a repository may see how its mirror is. Where the upstream judges its readers, the gate does not know
//! who that is, and shows it to reviewers alone.

use super::api::{require_json, require_own_site};
use super::app::App;
use super::message::Response;
use super::refusal::Refusal;
use super::route::Asked;
use super::status::json;
use crate::mirror::keeper::State;
use crate::mirror::upstreams::Place;
use crate::mirror::{ForgetError, TurnError};
use crate::model::access::{Caller, Right, Rules, Verdict};
use crate::model::mirror::{Demanded, Forgotten, MirrorView, Mirrors};
use crate::model::name::RepoName;
use crate::model::push::PushState;
use crate::model::role::Role;
use jiff::Timestamp;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long a mirror that is to be forgotten may be busy: a sync that takes longer is asked about again.
const FORGET_LIMIT: Duration = Duration::from_secs(10);

/// The body of a demand.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Demand {
    /// A sync that began at this time or later will do; now, where it is left out.
    requested_at: Option<String>,
}

/// `GET mirrors`: all that the caller may see.
pub fn list(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let rules = app.rules.get();
    let states =
        app.keeper.states().into_iter().filter(|state| may_see(app, &rules, asked.caller, &state.row.repo));
    Ok(json(&Mirrors { mirrors: states.map(|state| view(app, state)).collect() }).uncached())
}

/// `GET mirrors/NAME`.
pub fn show(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    Ok(json(&view(app, find(app, asked)?)).uncached())
}

/// `POST mirrors/NAME/sync {"requested_at"}`: begins a sync unless one has ended that began then or later, also of a
/// repository that nobody has read yet. Answers how the mirror was before: whoever waits asks again with the same time, and
/// whoever tries again with a new one.
pub fn sync(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    require_json(asked.headers)?;
    require_own_site(asked.headers)?;
    if !is_reviewer(asked.caller) {
        return Err(Refusal::Forbidden("only a reviewer may have a mirror synced".into()));
    }
    let demand: Demand = serde_json::from_slice(&asked.body).map_err(|error| {
        Refusal::BadRequest(format!("the body is not {{\"requested_at\": TIME}}: {error}").into())
    })?;
    let repo = asked.mirror.as_ref().ok_or(Refusal::NotFound)?;
    let place = app.road.upstreams().find(repo).filter(Place::is_served).ok_or(Refusal::NotFound)?;
    if place.judges_readers() {
        let why =
            "its upstream is asked with the credentials of its readers, and you are not asked for one here";
        return Err(Refusal::Forbidden(why.into()));
    }
    let requested = match &demand.requested_at {
        Some(text) => {
            text.parse().map_err(|error| Refusal::BadRequest(format!("requested_at: {error}").into()))?
        }
        None => Timestamp::now(),
    };
    let state = app.keeper.expect(repo);
    let is_met = state.row.succeeded.is_some_and(|synced| synced >= requested);
    let has_failed = state.row.failed.is_some() && state.row.attempted >= requested;
    if !is_met && !has_failed {
        app.keeper.begin(repo);
    }
    Ok(json(&Demanded { requested_at: requested.to_string(), mirror: view(app, state) }).uncached())
}

/// `DELETE mirrors/NAME`: removes the mirror for good, unless a push is held for it.
pub fn forget(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    require_own_site(asked.headers)?;
    let repo = asked.mirror.as_ref().ok_or(Refusal::NotFound)?;
    let held = app.store.pushes().open_of(repo);
    if let Some(push) = held.map_err(|error| Refusal::internal("looking for pushes", &error))? {
        let why = format!("push {} is held for it: decide on it first", push.id).into();
        return Err(Refusal::Conflict { state: push.state, why });
    }
    let forgotten = app.keeper.forget(repo, Instant::now() + FORGET_LIMIT).map_err(unforgotten)?;
    if !forgotten {
        return Err(Refusal::NotFound);
    }
    Ok(json(&Forgotten { repo: repo.to_string() }).uncached())
}

fn unforgotten(error: ForgetError) -> Refusal {
    match error {
        // No open one is: it has failed, and is kept for another try.
        ForgetError::Held => Refusal::Conflict { state: PushState::Failed, why: error.to_string().into() },
        ForgetError::Turn(TurnError::Stopping) => Refusal::Stopping,
        ForgetError::Turn(TurnError::Deadline | TurnError::ClientGone | TurnError::Full) => {
            Refusal::Busy { at_door: false }
        }
        ForgetError::Store(_) | ForgetError::Io { .. } => Refusal::internal("forgetting a mirror", &error),
    }
}

fn find(app: &App, asked: &Asked<'_>) -> Result<State, Refusal> {
    let repo = asked.mirror.as_ref().ok_or(Refusal::NotFound)?;
    let is_visible = may_see(app, &app.rules.get(), asked.caller, repo);
    app.keeper.state(repo).filter(|_| is_visible).ok_or(Refusal::NotFound)
}

fn may_see(app: &App, rules: &Rules, caller: &Caller, repo: &RepoName) -> bool {
    let Some(place) = app.road.upstreams().find(repo) else { return false };
    let is_judged_here = place.is_served() && !place.judges_readers();
    is_reviewer(caller) || (is_judged_here && rules.judge(repo, Right::Read, caller) == Verdict::Allowed)
}

fn is_reviewer(caller: &Caller) -> bool {
    match caller {
        Caller::Local | Caller::User { role: Role::Reviewer | Role::Admin, .. } => true,
        Caller::User { role: Role::Reader | Role::Pusher, .. } | Caller::Guest { .. } | Caller::Anonymous => {
            false
        }
    }
}

fn view(app: &App, state: State) -> MirrorView {
    let age = state.age(Instant::now(), Timestamp::now());
    let is_there = app.keeper.find(&state.row.repo).is_some();
    let (condition, backoff) = (app.keeper.condition(&state), state.backoff(Timestamp::now()));
    let row = state.row;
    let (failures, error) = row.failed.map_or((0, None), |failed| (failed.times, Some(failed.why)));
    MirrorView {
        repo: row.repo.to_string(),
        state: condition.name().to_owned(),
        moved_to: state.moved_to,
        is_there,
        age_seconds: age.map(|age| age.as_secs()),
        synced: row.succeeded.map(|time| time.to_string()),
        attempted: row.attempted.to_string(),
        failures,
        error,
        due: row.due.map(|time| time.to_string()),
        backoff_until: backoff.map(|time| time.to_string()),
        bytes: row.bytes,
    }
}
