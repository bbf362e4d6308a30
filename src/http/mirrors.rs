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
use crate::mirror::keeper::{self, DemandError, State, Waiter};
use crate::mirror::upstreams::Place;
use crate::mirror::{ForgetError, TurnError};
use crate::model::access::{Caller, Right, Rules, Verdict};
use crate::model::mirror::{Demanded, Failure, Forgotten, MirrorView, Mirrors};
use crate::model::name::RepoName;
use crate::model::push::PushState;
use crate::model::role::Role;
use crate::model::units::{format_duration, parse_duration};
use jiff::Timestamp;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long a mirror that is to be forgotten may be busy: a sync that takes longer is asked about again.
const FORGET_LIMIT: Duration = Duration::from_secs(10);

/// How long a demand is waited for at most. A first clone may take longer; but whatever stands between the client and the
/// gate has given up on the connection long before.
pub const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// The code of the error of a sync that was waited for.
const NOT_SYNCED: &str = "not-synced";

/// The body of a demand.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Demand {
    /// A sync that began at this time or later will do; now, where it is left out.
    requested_at: Option<String>,
    /// Whether the answer waits for the end of the sync, and how long at most.
    wait: Option<Patience>,
}

/// How long somebody waits.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Patience {
    /// As long as the gate lets him, or not.
    Flag(bool),
    /// A duration with its unit.
    Limit(String),
}

/// `GET mirrors`: all that the caller may see.
pub fn list(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let rules = app.rules.get();
    let states = app
        .keeper
        .all_shown()
        .into_iter()
        .filter(|state| may_see(app, &rules, asked.caller, &state.row.repo));
    Ok(json(&Mirrors { mirrors: states.map(|state| view(app, state)).collect() }).uncached())
}

/// `GET mirrors/NAME`.
pub fn show(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    Ok(json(&view(app, find(app, asked)?)).uncached())
}

/// `POST mirrors/NAME/sync {"requested_at", "wait"}`: begins a sync unless one has ended that began then or later, also of a
/// repository that nobody has read yet, and answers how the mirror was. With `wait` it is answered when that is over: 200, or
/// 502 where it failed; or else 202 when the wait is, and whoever waits on asks again with the same time.
pub fn sync(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    require_json(asked.headers)?;
    require_own_site(asked.headers)?;
    if !is_reviewer(asked.caller) {
        return Err(Refusal::Forbidden("only a reviewer may have a mirror synced".into()));
    }
    let demand: Demand = serde_json::from_slice(&asked.body).map_err(|error| {
        Refusal::BadRequest(
            format!("the body is not {{\"requested_at\": TIME, \"wait\": true}}: {error}").into(),
        )
    })?;
    let (requested, wait) = (demand.moment(Timestamp::now())?, demand.limit()?);
    let repo = asked.mirror.as_ref().ok_or(Refusal::NotFound)?;
    let place = to_demand(app, repo)?;
    let before = app.keeper.expect(repo);
    let waiter = wait.map(|wait| Waiter { client: Some(asked.client), until: Instant::now() + wait });
    let demanded = app.keeper.demand(repo, place, requested, waiter.as_ref()).map_err(unawaited)?;
    let state = waiter.and_then(|_| app.keeper.state(repo)).unwrap_or(before);
    Ok(demand_answer(app, requested, state, &demanded, wait.is_some()))
}

/// Where a repository is that a reviewer wants synced.
fn to_demand<'a>(app: &'a App, repo: &'a RepoName) -> Result<Place<'a>, Refusal> {
    let place = app.road.upstreams().find(repo);
    let place =
        place.ok_or_else(|| Refusal::Unknown(format!("{repo} is of no upstream of this gate").into()))?;
    if !place.is_served() {
        let why =
            format!("{repo} is not among the repositories that are served of its upstream (repos, deny)");
        return Err(Refusal::Unknown(why.into()));
    }
    if place.judges_readers() {
        let why =
            "its upstream is asked with the credentials of its readers, and you are not asked for one here";
        return Err(Refusal::Forbidden(why.into()));
    }
    Ok(place)
}

/// Who does not wait is not told by the status: what he asked for has been begun.
fn demand_answer(
    app: &App,
    requested: Timestamp,
    state: State,
    demanded: &keeper::Demanded,
    has_waited: bool,
) -> Response {
    let (is_met, failed) = match demanded {
        keeper::Demanded::Met => (true, None),
        keeper::Demanded::UnderWay => (false, None),
        keeper::Demanded::Failed(why) => (false, Some(why.clone())),
    };
    let status = match demanded {
        keeper::Demanded::Met => 200,
        _ if !has_waited => 200,
        keeper::Demanded::UnderWay => 202,
        keeper::Demanded::Failed(_) => 502,
    };
    let error = failed.filter(|_| has_waited).map(|message| Failure { code: NOT_SYNCED.to_owned(), message });
    let mirror = view(app, state);
    let answer = json(&Demanded { requested_at: requested.to_string(), is_met, mirror, error });
    Response { status, ..answer.uncached() }
}

fn unawaited(error: DemandError) -> Refusal {
    match error {
        DemandError::Crowded => Refusal::Busy { at_door: false },
        DemandError::ClientGone => Refusal::ClientGone,
        DemandError::Stopping => Refusal::Stopping,
        DemandError::Descriptor(_) => {
            log::warn!("waiting for a mirror: {error}");
            Refusal::Exhausted
        }
    }
}

impl Demand {
    /// Since when a sync has to begin. A moment that has not come yet by the gate's clock is now: no sync begins then.
    fn moment(&self, now: Timestamp) -> Result<Timestamp, Refusal> {
        let Some(text) = &self.requested_at else { return Ok(now) };
        let moment: Timestamp = text.parse().map_err(|error| {
            log::debug!("requested_at {text:?}: {error}");
            Refusal::BadRequest("requested_at: it is no moment such as 2026-01-31T12:00:00Z".into())
        })?;
        Ok(moment.min(now))
    }

    /// How long the end is waited for, if it is.
    fn limit(&self) -> Result<Option<Duration>, Refusal> {
        let text = match &self.wait {
            None | Some(Patience::Flag(false)) => return Ok(None),
            Some(Patience::Flag(true)) => return Ok(Some(WAIT_MAX)),
            Some(Patience::Limit(text)) => text,
        };
        let limit =
            parse_duration(text).map_err(|error| Refusal::BadRequest(format!("wait: {error}").into()))?;
        if limit > WAIT_MAX {
            let why =
                format!("wait: {} at most; ask again with the same requested_at", format_duration(WAIT_MAX));
            return Err(Refusal::BadRequest(why.into()));
        }
        Ok(Some(limit))
    }
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
        return Err(Refusal::Unknown(format!("there is no mirror of {repo}").into()));
    }
    Ok(json(&Forgotten { repo: repo.to_string() }).uncached())
}

fn unforgotten(error: ForgetError) -> Refusal {
    match error {
        // No open one is: it has failed, and is kept for another try.
        ForgetError::Held => Refusal::Conflict { state: PushState::Failed, why: error.to_string().into() },
        ForgetError::FirstClone { left } => Refusal::UnderWay { why: error.to_string().into(), retry: left },
        ForgetError::Turn(TurnError::Stopping) => Refusal::Stopping,
        ForgetError::Turn(TurnError::Deadline | TurnError::ClientGone | TurnError::Full) => {
            Refusal::Busy { at_door: false }
        }
        ForgetError::Store(_) | ForgetError::Io { .. } => Refusal::internal("forgetting a mirror", &error),
    }
}

fn find(app: &App, asked: &Asked<'_>) -> Result<State, Refusal> {
    let repo = asked.mirror.as_ref().ok_or(Refusal::NotFound)?;
    if !may_see(app, &app.rules.get(), asked.caller, repo) {
        return Err(Refusal::NotFound);
    }
    app.keeper.shown(repo).ok_or_else(|| Refusal::Unknown(format!("there is no mirror of {repo}").into()))
}

pub(super) fn may_see(app: &App, rules: &Rules, caller: &Caller, repo: &RepoName) -> bool {
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
    let progress = app.keeper.first_clone(&state.row.repo);
    let row = state.row;
    let (failures, error, moved) = match row.failed {
        Some(failed) => (failed.times, Some(failed.why), failed.moved.flatten()),
        None => (0, None, None),
    };
    MirrorView {
        repo: row.repo.to_string(),
        state: condition.name().to_owned(),
        moved_to: moved,
        is_there,
        age_seconds: age.map(|age| age.as_secs()),
        synced: row.succeeded.map(|time| time.to_string()),
        attempted: row.attempted.to_string(),
        failures,
        error,
        due: row.due.map(|time| time.to_string()),
        backoff_until: backoff.map(|time| time.to_string()),
        bytes: progress.map_or(row.bytes, |progress| progress.bytes),
        progress: progress.and_then(|progress| progress.step).map(|step| step.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(text: &str) -> Demand {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_wait_is_yes_no_or_a_duration_and_has_a_limit() {
        let limit = |text: &str| demand(text).limit().map_err(|refusal| refusal.status());
        for none in ["{}", r#"{"wait": false}"#, r#"{"wait": null}"#] {
            assert_eq!(limit(none), Ok(None), "{none}");
        }
        assert_eq!(limit(r#"{"wait": true}"#), Ok(Some(WAIT_MAX)));
        assert_eq!(limit(r#"{"wait": "20s"}"#), Ok(Some(Duration::from_secs(20))));
        assert_eq!(limit(r#"{"wait": "10m"}"#), Ok(Some(WAIT_MAX)));
        for bad in [r#"{"wait": "11m"}"#, r#"{"wait": "0s"}"#, r#"{"wait": "soon"}"#] {
            assert_eq!(limit(bad), Err(400), "{bad}");
        }
        assert!(serde_json::from_str::<Demand>(r#"{"wait": 20}"#).is_err(), "twenty what");
    }

    #[test]
    fn a_moment_to_come_is_now() {
        let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let moment = |text: &str| demand(&format!("{{\"requested_at\": {text:?}}}")).moment(now);
        assert_eq!(moment("2026-05-01T12:00:01Z"), Ok(now));
        assert_eq!(moment("2026-05-01T11:59:59Z").map(|it| it < now), Ok(true));
        assert_eq!(demand("{}").moment(now), Ok(now));
        assert_eq!(moment("noon").map_err(|refusal| refusal.status()), Err(400));
    }
}
