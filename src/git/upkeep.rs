//! Maintenance after a push: what `git receive-pack` would start behind our back (`receive.autogc`), as a job of the lane
//! `upkeep`, in the foreground and under a deadline.
//!
//! It does not enter the repository by the lease: git's maintenance is made to run beside pushes, and a push that waits
//! for a cleaning must not wait for an hour of maintenance. Only a run that was ended tells the leases what to clean.

use crate::git::command::Git;
use crate::git::footprint::Footprint;
use crate::git::layout::Repository;
use crate::git::lease::{Leases, Record};
use crate::git::leftovers::Window;
use crate::git::pool::{Kind, Lane};
use crate::supervise::{Deadline, Exit, Outcome, Reaper, Why};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long one run may take: a full repack of a repository of some gigabytes.
const LIMIT: Duration = Duration::from_secs(3600);

/// More than maintenance says when it is told to be quiet.
const OUTPUT_MAX: usize = 64 * 1024;

/// The repositories whose maintenance waits or runs: each once, however many pushes ask for it. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Upkeep(Arc<Mutex<HashSet<PathBuf>>>);

/// What a run needs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Who starts and ends it.
    pub reaper: Reaper,
    /// The git program and its environment.
    pub git: Git,
    /// Who cleans after a run that was ended.
    pub leases: Leases,
}

impl Upkeep {
    /// Queues the maintenance of `repository` unless it is queued. A full lane is no loss: the next push asks again.
    ///
    /// `note` makes a durable note of a job that may leave this footprint, at the start of the run; without one there is
    /// no run. It is dropped when nothing of the run is left.
    pub fn request<N>(&self, lane: &Lane, tools: Tools, repository: &Repository, note: N)
    where
        N: FnOnce(&Footprint) -> Option<Record> + Send + 'static,
    {
        if !self.lock().insert(repository.git_dir.clone()) {
            return;
        }
        let run = Run { upkeep: self.clone(), repository: repository.clone(), tools };
        match lane.submit(move || run.maintain(note)) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => log::debug!("no maintenance of {:?} now: {reason}", repository.git_dir),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run, queued or going on. Its place in the set is given back when it ends or is dropped unrun.
struct Run {
    upkeep: Upkeep,
    repository: Repository,
    tools: Tools,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.upkeep.lock().remove(&self.repository.git_dir);
    }
}

impl Run {
    fn maintain(self, note: impl FnOnce(&Footprint) -> Option<Record>) {
        let footprint = Footprint::of_maintenance();
        let Some(note) = note(&footprint) else { return };
        let from = SystemTime::now();
        let Some(outcome) = self.git() else { return };
        let ended_by_itself = outcome.ended.is_none() && matches!(outcome.exit, Exit::Code(_));
        if !ended_by_itself {
            let window = Window { from, until: SystemTime::now() };
            if let Err(error) = self.tools.leases.remember(&self.repository, window, footprint, note) {
                log::warn!("{:?}: {error}", self.repository.git_dir);
            }
        }
    }

    fn git(&self) -> Option<Outcome> {
        let what = format!("maintenance {}", self.repository.git_dir.display());
        let deadline = Deadline::starting(Instant::now(), LIMIT, "the deadline of maintenance");
        let Tools { reaper, git, .. } = &self.tools;
        let spec = git.maintain(&self.repository.git_dir).spec(what.clone(), Kind::Upkeep.name(), deadline);
        let outcome = match reaper.spawn(spec) {
            Ok(child) => child.collect(OUTPUT_MAX, None).0,
            Err(error) => {
                log::warn!("{error}");
                return None;
            }
        };
        if outcome.exit == Exit::Code(0) || outcome.ended == Some(Why::Stopping) {
            log::debug!("{what}: {outcome} after {} ms", outcome.wall.as_millis());
        } else {
            log::warn!("{what}: {outcome}: {}", outcome.stderr);
        }
        Some(outcome)
    }
}
