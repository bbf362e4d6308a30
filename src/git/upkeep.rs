//! Maintenance after a push: what `git receive-pack` would start behind our back (`receive.autogc`), as a job of the lane
//! `upkeep`, in the foreground and under a deadline.
//!
//! It does not take the repository's lease: git's maintenance is made to run beside pushes, and a hosted repository's
//! owner may run it at any time himself.

use crate::git::command::Git;
use crate::git::layout::Repository;
use crate::git::pool::{Kind, Lane};
use crate::supervise::{Deadline, Reaper};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one run may take: a full repack of a repository of some gigabytes.
const LIMIT: Duration = Duration::from_secs(3600);

/// More than maintenance says when it is told to be quiet.
const OUTPUT_MAX: usize = 64 * 1024;

/// The repositories whose maintenance waits or runs: each once, however many pushes ask for it. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Upkeep(Arc<Mutex<HashSet<PathBuf>>>);

impl Upkeep {
    /// Queues the maintenance of `repository` unless it is queued. A full lane is no loss: the next push asks again.
    pub fn request(&self, lane: &Lane, reaper: &Reaper, git: &Git, repository: &Repository) {
        if !self.lock().insert(repository.git_dir.clone()) {
            return;
        }
        let entry = Entry { upkeep: self.clone(), place: repository.git_dir.clone() };
        let (reaper, git) = (reaper.clone(), git.clone());
        match lane.submit(move || entry.maintain(&reaper, &git)) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => log::debug!("no maintenance of {:?} now: {reason}", repository.git_dir),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the set, given back when the job ends or is dropped unrun.
struct Entry {
    upkeep: Upkeep,
    place: PathBuf,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.upkeep.lock().remove(&self.place);
    }
}

impl Entry {
    fn maintain(self, reaper: &Reaper, git: &Git) {
        let what = format!("maintenance {}", self.place.display());
        let deadline = Deadline::starting(Instant::now(), LIMIT, "the deadline of maintenance");
        let spec = git.maintain(&self.place).spec(what.clone(), Kind::Upkeep.name(), deadline);
        let (outcome, _) = match reaper.spawn(spec) {
            Ok(child) => child.collect(OUTPUT_MAX, None),
            Err(error) => return log::warn!("{error}"),
        };
        if outcome.is_success() {
            log::debug!("{what}: done in {} ms", outcome.wall.as_millis());
        } else {
            log::warn!("{what}: {outcome}: {}", outcome.stderr);
        }
    }
}
