//! What a running gate is doing, as the API's JSON: written by the gate, read by the command line.
//!
//! The gate may be of another version than the command that asks it: the command ignores fields that it does not know, and
//! says so when it misses one. So fields are added, and none changes its name or its unit.

use super::outbox::SinkView;
use super::peer::{PeerView, RedisView};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The address of the API at which a gate tells its [`Status`].
pub const PATH: &str = "/-/api/v1/status";

/// The answer at [`PATH`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// The gate's version.
    pub version: String,
    /// The version of the git that it runs.
    pub git: String,
    /// Its process.
    pub pid: u32,
    /// Whether requests are served.
    pub ready: bool,
    /// Time since its start.
    pub uptime_seconds: u64,
    /// Open client connections.
    pub connections: usize,
    /// How many there may be.
    pub connections_max: usize,
    /// Open push records, by state.
    pub pushes: BTreeMap<String, u64>,
    /// Its lanes of git workers.
    pub lanes: Vec<LaneRow>,
    /// The processes that run now.
    pub children: Vec<ChildRow>,
    /// The sweeper's table.
    pub jobs: Vec<JobRow>,
    /// What waits to be published.
    #[serde(default)]
    pub sinks: Vec<SinkView>,
    /// The other gates that are listened to.
    #[serde(default)]
    pub peers: Vec<PeerView>,
    /// The server that all gates of the fleet tell of their changes.
    #[serde(default)]
    pub redis: Option<RedisView>,
}

/// A lane of git workers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LaneRow {
    /// The lane's name.
    pub name: String,
    /// Workers that it has.
    pub workers: usize,
    /// Workers that have a job.
    pub busy: usize,
    /// Jobs that wait for a worker.
    pub waiting: usize,
    /// Of these, the approved pushes that are to be forwarded.
    #[serde(default)]
    pub waiting_forwards: usize,
    /// Of these, what nobody waits for but the schedule.
    #[serde(default)]
    pub waiting_scheduled: usize,
}

/// A process group that runs now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ChildRow {
    /// Its leader.
    pub pid: i32,
    /// The lane whose worker it occupies.
    pub lane: String,
    /// What it is, for people.
    pub what: String,
    /// Time since it was started.
    pub age_ms: u64,
    /// Until the group is ended; 0 when that is under way.
    pub deadline_ms: u64,
}

/// A job of the sweeper.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct JobRow {
    /// The job's name in `[sweeper]`.
    pub name: String,
    /// How often it runs.
    pub every_seconds: f64,
    /// Runs that went well.
    pub succeeded: u64,
    /// Runs that did not.
    pub failed: u64,
    /// Since the end of the last run, if there was one.
    pub last_seconds_ago: Option<u64>,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
}
