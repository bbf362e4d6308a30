//! The pages that say how the gate is: alive, ready, measured, and what it is doing now.

use super::app::App;
use super::fleet;
use super::front::View;
use super::house::TurnedAway;
use super::message::Response;
use super::metrics::Page;
use super::refusal::Refusal;
use super::route::Asked;
use crate::git::pool::{Class, Lane, Load};
use crate::git::responses::{Cause, Responses};
use crate::mirror::keeper::{Chore, Condition, Ending};
use crate::model::push::PushState;
use crate::model::status::{ChildRow, JobRow, LaneRow, Status};
use crate::outbox::redis::source::SourceStates;
use crate::supervise::Running;
use crate::sys::space;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// `/-/healthz`: the process answers.
pub fn healthz(_: &App) -> Response {
    Response::text(200, "ok")
}

/// `/-/readyz`: requests are served; 503 with the reason while starting or draining, and while what is served or taken in
/// has no place. Volumes that hang are waited for here. Anybody may ask, so no path is named.
pub fn readyz(app: &App, _: &Asked<'_>) -> Result<Response, Refusal> {
    let response = match unreadiness(app) {
        None => Response::text(200, "ready"),
        Some(why) => Response::text(503, &format!("not ready: {why}")),
    };
    Ok(response.uncached())
}

fn unreadiness(app: &App) -> Option<&'static str> {
    if !app.is_ready() {
        return Some("the gate is starting or stopping");
    }
    if let Err(error) = app.root.check() {
        log::debug!("the root cannot be read: {error}");
        return Some("the repositories in root cannot be read");
    }
    let places = [Some(app.settings.data_dir.as_path()), app.root.is_there().then(|| app.root.path())];
    let has_room = |place| space::available(place).is_ok_and(|free| free >= app.settings.limits.disk_floor);
    (!places.into_iter().flatten().all(has_room)).then_some("the disk has no room above limits.disk_floor")
}

/// `/-/api/v1/status`: everything that `tidegate status` shows.
pub fn status(app: &App) -> Response {
    json(&Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git: app.git.version().to_string(),
        pid: std::process::id(),
        ready: app.is_ready(),
        uptime_seconds: app.started.elapsed().as_secs(),
        connections: connections(app),
        connections_max: app.settings.limits.connections,
        pushes: open_pushes(app).into_iter().map(|(state, count)| (state.to_string(), count)).collect(),
        lanes: app.lanes.all().into_iter().map(lane_row).collect(),
        children: child_rows(app),
        jobs: job_rows(app),
        sinks: fleet::sink_views(app),
        peers: app.peers.views(),
        redis: app.redis.get().map(SourceStates::view),
    })
}

/// `/-/api/v1/children`: the processes that run now.
pub fn children(app: &App) -> Response {
    json(&serde_json::json!({ "children": child_rows(app) }))
}

/// `/-/api/v1/jobs`: the sweeper's table.
pub fn jobs(app: &App) -> Response {
    json(&serde_json::json!({ "jobs": job_rows(app) }))
}

/// `/-/metrics`: Prometheus text.
pub fn metrics(app: &App) -> Response {
    let mut page = Page::default();
    app.metrics.write(&mut page);
    processes(app, &mut page);
    lanes(app, &mut page);
    pushes(app, &mut page);
    sweeper(app, &mut page);
    page.family(
        "cache_bytes",
        "gauge",
        "Bytes of what is remembered: lists in memory, and packs on the disk.",
    );
    page.sample("cache_bytes", &[("kind", "ls-refs")], app.remembered.refs.bytes());
    page.sample("cache_bytes", &[("kind", "pack")], app.responses.bytes());
    mirrors(app, &mut page);
    sinks(app, &mut page);
    fleet::write(app, &mut page);
    app.streams.write(&mut page);
    packs(&app.responses, &mut page);
    if let Some(front) = app.front.get() {
        page.family(
            "front_refused_total",
            "counter",
            "Clients turned away before a request was read, by reason.",
        );
        for why in TurnedAway::ALL {
            page.sample("front_refused_total", &[("why", why.label())], front.counters().turned_away(why));
        }
    }
    page.single("connections", "gauge", "Open client connections.", connections(app));
    page.single("uptime_seconds", "gauge", "Time since the start.", app.started.elapsed().as_secs());
    Response::new(200)
        .with("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        .with_body(page.into_text())
}

fn processes(app: &App, page: &mut Page) {
    let running = app.reaper.children();
    page.family("git_children", "gauge", "Processes that run now, by lane.");
    for lane in app.lanes.all() {
        let name = lane.kind().name();
        let count = running.iter().filter(|child| child.lane == name).count();
        page.sample("git_children", &[("lane", name)], count);
    }
    let counters = app.reaper.counters();
    page.family("git_killed_total", "counter", "Process groups that were ended, by reason.");
    for (why, count) in counters.killed {
        page.sample("git_killed_total", &[("why", why.name())], count);
    }
    page.single("zombies", "gauge", "Dead children that are not reaped yet.", counters.zombies);
    page.single(
        "orphans_reaped_total",
        "counter",
        "Orphans that were adopted and reaped.",
        counters.orphans_reaped,
    );
    page.single("leaked_total", "counter", "Process groups that outlived SIGKILL.", counters.leaked);
}

fn lanes(app: &App, page: &mut Page) {
    page.family("queue_depth", "gauge", "Jobs that wait for a worker, by lane.");
    for lane in app.lanes.all() {
        page.sample("queue_depth", &[("lane", lane.kind().name())], lane.load().waiting);
    }
    page.family("upstream_queue_depth", "gauge", "Jobs that wait to speak with an upstream, by who waits.");
    for (class, waiting) in Class::ALL.into_iter().zip(app.lanes.upstream.load().waiting_by_class) {
        page.sample("upstream_queue_depth", &[("class", class.name())], waiting);
    }
    page.family("workers_busy", "gauge", "Workers that have a job, by lane.");
    for lane in app.lanes.all() {
        page.sample("workers_busy", &[("lane", lane.kind().name())], lane.load().busy);
    }
    page.family("queue_wait_seconds", "histogram", "Time that jobs waited for a worker, by lane.");
    for lane in app.lanes.all() {
        page.buckets("queue_wait_seconds", &[("lane", lane.kind().name())], lane.waits());
    }
}

fn pushes(app: &App, page: &mut Page) {
    page.family("pushes", "gauge", "Open push records, by state.");
    for (state, count) in open_pushes(app) {
        page.sample("pushes", &[("state", state.as_str())], count);
    }
    page.family("push_transitions_total", "counter", "Push records that came into a state.");
    for state in PushState::ALL {
        page.sample("push_transitions_total", &[("to", state.as_str())], app.store.pushes().entered(state));
    }
    page.single("held_bytes", "gauge", "Bytes of what was pushed and waits.", app.road.held_bytes());
}

/// How many records stand in each open state.
fn open_pushes(app: &App) -> Vec<(PushState, u64)> {
    let found = app.store.pushes().open_states().unwrap_or_else(|error| {
        log::error!("{error}");
        BTreeMap::new()
    });
    PushState::open().map(|state| (state, found.get(&state).copied().unwrap_or(0))).collect()
}

fn sweeper(app: &App, page: &mut Page) {
    page.family("sweeper_runs_total", "counter", "Runs of the sweeper's jobs.");
    for (name, runs) in app.sweeps.jobs() {
        page.sample("sweeper_runs_total", &[("job", name), ("outcome", "ok")], runs.succeeded);
        page.sample("sweeper_runs_total", &[("job", name), ("outcome", "failed")], runs.failed);
    }
}

/// The oldest mirror of each upstream tells whether any lags behind.
fn mirrors(app: &App, page: &mut Page) {
    page.family("mirror_age_seconds", "gauge", "Time since the last sync of the oldest mirror, by upstream.");
    let (states, now) = (app.keeper.all_shown(), (Instant::now(), Timestamp::now()));
    for upstream in app.road.upstreams().list() {
        let name = upstream.name.as_str();
        let own =
            states.iter().filter(|state| state.row.repo.upstream_split().is_some_and(|(of, _)| of == name));
        if let Some(age) = own.filter_map(|state| state.age(now.0, now.1)).max() {
            page.sample("mirror_age_seconds", &[("upstream", name)], age.as_secs_f64());
        }
    }
    page.family("mirrors", "gauge", "Mirrors, by how they are.");
    for condition in Condition::ALL {
        let count = states.iter().filter(|state| app.keeper.condition(state) == condition).count();
        page.sample("mirrors", &[("state", condition.name())], count);
    }
    let paused = states.iter().filter(|state| state.backoff(now.1).is_some()).count();
    page.single(
        "mirrors_in_backoff",
        "gauge",
        "Mirrors that the schedule leaves alone after a failure.",
        paused,
    );
    page.family("mirror_sync_total", "counter", "Syncs of mirrors, by how they ended.");
    for ending in Ending::ALL {
        page.sample("mirror_sync_total", &[("outcome", ending.name())], app.keeper.ended(ending));
    }
    page.family("mirror_upkeep_total", "counter", "Upkeep of mirrors that was due, by how it ended.");
    for ending in Chore::ALL {
        page.sample("mirror_upkeep_total", &[("outcome", ending.name())], app.keeper.tended(ending));
    }
    page.single("mirror_bytes", "gauge", "Bytes that all mirrors take on the disk.", app.keeper.bytes());
}

fn sinks(app: &App, page: &mut Page) {
    let sinks = app.sinks.all();
    page.family("outbox_delivered_total", "counter", "Events that a sink has taken.");
    for sink in &sinks {
        page.sample("outbox_delivered_total", &[("sink", sink.sink.as_str())], sink.delivered);
    }
    page.family("outbox_dropped_total", "counter", "Events that a sink was never told, though it was to be.");
    for sink in &sinks {
        page.sample("outbox_dropped_total", &[("sink", sink.sink.as_str())], sink.given_up);
    }
}

/// What clients get from each other's packs.
fn packs(responses: &Responses, page: &mut Page) {
    page.family("cache_evictions_total", "counter", "Answers that were kept no longer, by reason.");
    for cause in Cause::ALL {
        page.sample(
            "cache_evictions_total",
            &[("kind", "pack"), ("cause", cause.label())],
            responses.evictions(cause),
        );
    }
    page.family("cache_entries", "gauge", "Answers that are kept.");
    page.sample("cache_entries", &[("kind", "pack")], responses.entries());
    page.family(
        "cache_bytes_total",
        "counter",
        "Bytes of answers that git has made, and that were sent of them.",
    );
    page.sample("cache_bytes_total", &[("kind", "pack"), ("direction", "generated")], responses.generated());
    page.sample("cache_bytes_total", &[("kind", "pack"), ("direction", "sent")], responses.sent());
}

fn lane_row(lane: &Lane) -> LaneRow {
    let load = lane.load();
    let name = lane.kind().name().to_owned();
    let [waiting_forwards, _, waiting_scheduled] = load.waiting_by_class;
    let Load { workers, busy, waiting, .. } = load;
    LaneRow { name, workers, busy, waiting, waiting_forwards, waiting_scheduled }
}

fn child_rows(app: &App) -> Vec<ChildRow> {
    let now = Instant::now();
    let row = |child: Running| ChildRow {
        pid: child.pid.as_raw(),
        lane: child.lane.to_owned(),
        what: child.what,
        age_ms: millis(now.saturating_duration_since(child.started)),
        deadline_ms: millis(child.deadline.at.saturating_duration_since(now)),
    };
    app.reaper.children().into_iter().map(row).collect()
}

fn job_rows(app: &App) -> Vec<JobRow> {
    let jobs = app.sweeps.jobs().into_iter();
    jobs.map(|(name, runs)| JobRow {
        name: name.to_owned(),
        every_seconds: runs.every.as_secs_f64(),
        succeeded: runs.succeeded,
        failed: runs.failed,
        last_seconds_ago: runs.last.map(|at| at.elapsed().as_secs()),
        last_error: runs.last_error,
    })
    .collect()
}

fn connections(app: &App) -> usize {
    app.front.get().map_or(0, View::connections)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An answer of the API.
pub(super) fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec_pretty(value).expect("rows of numbers and strings are JSON");
    Response::new(200)
        .with("Content-Type", "application/json")
        .with("X-Content-Type-Options", "nosniff")
        .with_body(body)
}
