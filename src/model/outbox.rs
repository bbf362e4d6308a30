//! What waits to be published and what is known of a repository in the fleet, as the API shows them: written by the gate,
//! read by the command line, as [`super::status`] is.

use super::fleet::{Incarnation, RefDigest, RepoKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The address of the API of the outbox.
pub const PATH: &str = "/-/api/v1/outbox";

/// What the sink is called that is the server of the fleet; every other one is a webhook.
pub const REDIS: &str = "redis";

/// One sink. Times are in the form of RFC 3339.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SinkView {
    /// Its name.
    pub sink: String,
    /// How much waits for it.
    pub depth: u64,
    /// Since how long the oldest of that waits.
    pub oldest_seconds: Option<u64>,
    /// What it acknowledged in this life of the gate.
    pub delivered: u64,
    /// Deliveries that failed since the last one that did not.
    pub failures: u32,
    /// Why the last one failed, until one does not.
    pub error: Option<String>,
    /// When it is tried again, if it failed.
    pub next_attempt: Option<String>,
    /// Whether it wants nothing any more.
    pub disabled: bool,
    /// What was dropped because it would never have taken it.
    pub given_up: u64,
}

/// The answer at [`PATH`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outbox {
    /// By name.
    pub sinks: Vec<SinkView>,
}

/// What is known here of a repository.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct VersionView {
    /// What the fleet calls it.
    pub repo: RepoKey,
    /// What it is called here.
    pub name: String,
    /// Whose answer this is.
    pub incarnation: Incarnation,
    /// The number of changes that it has seen, as far as this gate knows: the sum of what follows.
    pub version: u64,
    /// The number of the last change that each publisher has told of.
    pub versions: BTreeMap<String, u64>,
    /// The refs as they are here, where they are known.
    pub digest: Option<RefDigest>,
}
