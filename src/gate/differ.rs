//! The diffs of held pushes, made by git in the staging repository, which sees the objects of both sides.

use super::diff::{DIFF_BYTES_MAX, DiffError, Differ};
use super::road::{Parts, Road};
use super::staging::Staging;
use crate::git::ask::Asker;
use crate::git::command::Invocation;
use crate::git::pool::Lane;
use crate::model::oid::Oid;
use crate::model::push::{Push, PushState, RefUpdate};
use crate::supervise::{Deadline, Why};
use std::time::{Duration, Instant};

/// How long a diff may take to be made: whoever asked is waiting for a page.
const DIFF_LIMIT: Duration = Duration::from_secs(30);

/// The most that git answers when it is asked for one commit, in bytes.
const COMMIT_MAX: usize = 1024;

/// The tree without any file, which every git knows by its id; by the length of ids.
const EMPTY_TREES: [&str; 2] = [
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
];

/// Makes diffs in a lane of its own choice.
#[derive(Debug)]
pub struct GitDiffer {
    /// Where the pushes are.
    pub road: Road,
    /// Whose workers run git.
    pub lane: Lane,
}

impl Differ for GitDiffer {
    fn diff(&self, push: &Push) -> Result<Vec<u8>, DiffError> {
        if push.state == PushState::Received {
            return Err(DiffError::NotYet);
        }
        let Parts { held, stop, .. } = self.road.parts();
        if !held.has(push.id) {
            return Err(DiffError::NotKept);
        }
        let (road, wanted) = (self.road.clone(), push.clone());
        let lane = self.lane.kind().name();
        let ticket = self.lane.submit(move || make(&road, &wanted, lane)).map_err(|_| DiffError::Busy)?;
        ticket.wait(None, DIFF_LIMIT, stop).map_err(|_| DiffError::Busy)?
    }
}

fn make(road: &Road, push: &Push, lane: &'static str) -> Result<Vec<u8>, DiffError> {
    let Parts { held, reaper, git_settings, .. } = road.parts();
    let basis = road.goal(push).map_err(DiffError::Git)?.basis;
    let deadline = Deadline::starting(Instant::now(), DIFF_LIMIT, "time to make a diff");
    let asker = Asker { reaper, deadline, grace: git_settings.kill_grace, client: None };
    let worker = Worker { road, staging: held.find(push.id, &basis), asker, lane };
    let mut diff = Vec::new();
    for update in push.refs.iter() {
        diff.extend(format!("{} {}..{}\n", update.name, update.old, update.new).bytes());
        if update.new.is_zero() {
            diff.extend(b"it is deleted\n\n");
            continue;
        }
        let is_whole = worker.changes(update, &mut diff)?;
        diff.push(b'\n');
        if !is_whole || diff.len() >= DIFF_BYTES_MAX {
            diff.extend(format!("the rest is cut off: a diff has at most {DIFF_BYTES_MAX} bytes\n").bytes());
            break;
        }
    }
    Ok(diff)
}

struct Worker<'a> {
    road: &'a Road,
    staging: Staging,
    asker: Asker<'a>,
    lane: &'static str,
}

impl Worker<'_> {
    /// Appends what changes for one ref; answers whether that is all of it.
    fn changes(&self, update: &RefUpdate, diff: &mut Vec<u8>) -> Result<bool, DiffError> {
        let from = if update.old.is_zero() { self.origin(update)? } else { update.old.to_string() };
        let git = &self.road.parts().git;
        let room = DIFF_BYTES_MAX.saturating_sub(diff.len());
        let (ended, bytes) =
            self.run(git.show_changes(self.staging.git_dir(), &from, update.new.as_str()), room)?;
        diff.extend(bytes);
        match ended {
            Ended::Well => Ok(true),
            Ended::Cut => Ok(false),
            Ended::Badly(why) => Err(DiffError::Git(why)),
        }
    }

    /// What a new ref is compared with: where it left the main line of the target, or nothing.
    fn origin(&self, update: &RefUpdate) -> Result<String, DiffError> {
        let git = &self.road.parts().git;
        let empty = EMPTY_TREES.iter().find(|id| id.len() == update.new.as_str().len());
        let empty = empty.map(|id| (*id).to_owned()).unwrap_or_default();
        let Some(head) = self.commit(git.head_commit(&self.staging.target().git_dir))? else {
            return Ok(empty);
        };
        let base = self.commit(git.merge_base(self.staging.git_dir(), head.as_str(), update.new.as_str()))?;
        Ok(base.map_or(empty, |base| base.to_string()))
    }

    /// The commit that git answers; none where it has none.
    fn commit(&self, invocation: Invocation) -> Result<Option<Oid>, DiffError> {
        let (_, answer) = self.run(invocation, COMMIT_MAX)?;
        Ok(Oid::parse(answer.trim_ascii()))
    }

    fn run(&self, invocation: Invocation, limit: usize) -> Result<(Ended, Vec<u8>), DiffError> {
        let what = format!("diff {}", self.staging.git_dir().display());
        let mut spec = invocation.spec(what, self.lane, self.asker.deadline);
        spec.grace = self.asker.grace;
        spec.memory = Some(self.road.parts().git_settings.memory);
        let child = self.asker.reaper.spawn(spec).map_err(|error| {
            if error.is_busy() { DiffError::Busy } else { DiffError::Git(error.to_string()) }
        })?;
        let (outcome, bytes) = child.collect(limit, None);
        let ended = match outcome.ended {
            Some(Why::Overflow) => Ended::Cut,
            _ if outcome.is_success() => Ended::Well,
            _ => Ended::Badly(format!("{outcome}: {}", outcome.stderr.trim_end())),
        };
        Ok((ended, bytes))
    }
}

/// How a git ended.
enum Ended {
    Well,
    Cut,
    Badly(String),
}
