//! A mirror as the API shows it: written by the gate, read by the command line, as [`super::status`] is.

use super::name::RepoName;
use serde::{Deserialize, Serialize};

/// The address of the API of mirrors.
pub const PATH: &str = "/-/api/v1/mirrors";

/// The field of an answer that tells how old a mirror is that could not be brought up to date, in seconds.
pub const STALE: &str = "Tidegate-Stale";

/// How a mirror is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MirrorView {
    /// Its name.
    pub repo: String,
    /// `never_synced`, `cloning` (for the first time), `fresh` (a read asks nobody), `stale` (a read asks the upstream first),
    /// `failing`, or `moved`.
    pub state: String,
    /// Where the upstream says that the repository is now, of one that has moved.
    pub moved_to: Option<String>,
    /// Whether it can be served: it was made once.
    pub is_there: bool,
    /// Time since the start of the last sync that succeeded, with the age that the upstream told of what it showed then.
    pub age_seconds: Option<u64>,
    /// When that began, in the form of RFC 3339, as all times here.
    pub synced: Option<String>,
    /// When the last sync began, however it ended; of one that was not synced yet, since when it is to be, and of a first
    /// clone, since when it is under way.
    pub attempted: String,
    /// Syncs that failed since the last success.
    pub failures: u32,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
    /// When the schedule comes to it, if it does.
    pub due: Option<String>,
    /// Until when nothing syncs it that no reader or reviewer asks for, since the last sync failed.
    pub backoff_until: Option<String>,
    /// What it takes on the disk; of a first clone, what has come.
    pub bytes: u64,
    /// How far a first clone is, once its upstream sends objects: `receiving 34%`, and then `resolving 7%` of their deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
}

/// The answer to a list.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Mirrors {
    /// By name.
    pub mirrors: Vec<MirrorView>,
}

/// The answer to a demand for a sync.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Demanded {
    /// Since when one has to begin to meet the demand, by the gate's clock.
    pub requested_at: String,
    /// Whether one has, and succeeded.
    pub is_met: bool,
    /// How the mirror was at this demand; how it is, where the end was waited for.
    pub mirror: MirrorView,
    /// Why it is not synced, where the end was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// An error, in the form of all of the API's.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Failure {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// The answer to the removal of a mirror.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Forgotten {
    /// Its name.
    pub repo: String,
}

/// The address of a mirror.
#[must_use]
pub fn path(repo: &RepoName) -> String {
    format!("{PATH}/{repo}")
}
