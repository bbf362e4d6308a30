//! The diffs of held pushes, made by git in the staging repository, which sees the objects of both sides.

use super::diff::{DIFF_BYTES_MAX, DiffError, Differ};
use super::new_commits::NewCommits;
use super::road::{Parts, Road};
use super::staging::Staging;
use super::view::View;
use crate::git::ask::Asker;
use crate::git::command::Invocation;
use crate::git::inspect::Sight;
use crate::git::pool::Lane;
use crate::model::oid::Oid;
use crate::model::push::{Push, PushState, RefUpdate};
use crate::supervise::{Child, Deadline, Outcome, Why};
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// How long a diff may take to be made: whoever asked is waiting for a page.
const DIFF_LIMIT: Duration = Duration::from_secs(30);

/// The most that git answers when it is asked for one commit, in bytes.
const COMMIT_MAX: usize = 1024;

/// The most that is shown of an annotated tag, in bytes.
const TAG_MAX: usize = 16 << 10;

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
    let staging = held.find(push.id, &basis);
    let view = View::new(&basis, staging.objects());
    let worker = Worker { road, staging, env: view.environment(), asker, lane };
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
    /// What makes git see the target with what the push brings.
    env: Vec<(OsString, OsString)>,
    asker: Asker<'a>,
    lane: &'static str,
}

impl Worker<'_> {
    /// Appends what one ref brings and what changes for it; answers whether that is all of it.
    fn changes(&self, update: &RefUpdate, diff: &mut Vec<u8>) -> Result<bool, DiffError> {
        let commits = self.new_commits(&update.new)?;
        diff.extend(commits.text().bytes());
        if update.name.as_str().starts_with("refs/tags/") {
            diff.extend(self.tag_message(&update.new)?.bytes());
        }
        diff.push(b'\n');
        let from =
            if update.old.is_zero() { self.origin(update, &commits)? } else { Some(update.old.to_string()) };
        let Some(from) = from else { return Ok(true) };
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

    /// What a new ref is compared with: where it left the target's history, or no file at all. Nothing where the target
    /// has all of it.
    fn origin(&self, update: &RefUpdate, commits: &NewCommits) -> Result<Option<String>, DiffError> {
        if let Some(left_at) = commits.left_at() {
            return Ok(Some(left_at.to_string()));
        }
        let git = &self.road.parts().git;
        // What leads to no commit is nowhere in a history.
        if commits.count() == 0 && self.run(git.commit_of(self.sight(), &update.new), COMMIT_MAX)?.0.is_well()
        {
            return Ok(None);
        }
        let empty = EMPTY_TREES.iter().find(|id| id.len() == update.new.as_str().len());
        Ok(empty.map(|id| (*id).to_owned()))
    }

    fn new_commits(&self, tip: &Oid) -> Result<NewCommits, DiffError> {
        let mut commits = NewCommits::default();
        let outcome = self.stream(self.road.parts().git.new_commits(self.sight(), tip), |bytes| {
            commits.feed(bytes);
            Ok(())
        })?;
        match Ended::of(&outcome) {
            Ended::Well => Ok(commits),
            Ended::Cut => Err(DiffError::Git(outcome.to_string())),
            Ended::Badly(why) => Err(DiffError::Git(why)),
        }
    }

    /// Who made an annotated tag and what he wrote; nothing of what is no tag.
    fn tag_message(&self, tag: &Oid) -> Result<String, DiffError> {
        let mut content = Vec::new();
        let outcome = self.stream(self.road.parts().git.tag_content(self.sight(), tag), |bytes| {
            let room = TAG_MAX - content.len();
            content.extend_from_slice(&bytes[..room.min(bytes.len())]);
            if bytes.len() <= room { Ok(()) } else { Err(Why::Overflow) }
        })?;
        let end = match Ended::of(&outcome) {
            Ended::Well => "",
            Ended::Cut => "    …\n",
            Ended::Badly(_) => return Ok(String::new()),
        };
        let content = String::from_utf8_lossy(&content);
        // The object and the name are known.
        let is_news = |line: &&str| !["object ", "type ", "tag "].iter().any(|word| line.starts_with(word));
        let (head, message) = content.split_once("\n\n").unwrap_or((&content, ""));
        let lines = head.lines().filter(is_news).chain(message.lines());
        Ok(lines.map(|line| format!("    {line}\n")).collect::<String>() + end)
    }

    fn sight(&self) -> Sight<'_> {
        Sight { git_dir: &self.staging.target().git_dir, env: &self.env }
    }

    fn run(&self, invocation: Invocation, limit: usize) -> Result<(Ended, Vec<u8>), DiffError> {
        let (outcome, bytes) = self.start(invocation)?.collect(limit, None);
        Ok((Ended::of(&outcome), bytes))
    }

    fn stream(
        &self,
        invocation: Invocation,
        sink: impl FnMut(&[u8]) -> Result<(), Why>,
    ) -> Result<Outcome, DiffError> {
        Ok(self.start(invocation)?.stream(None, sink))
    }

    fn start(&self, invocation: Invocation) -> Result<Child, DiffError> {
        let what = format!("diff {}", self.staging.git_dir().display());
        let mut spec = invocation.spec(what, self.lane, self.asker.deadline);
        spec.grace = self.asker.grace;
        spec.memory = Some(self.road.parts().git_settings.memory);
        self.asker.reaper.spawn(spec).map_err(|error| {
            if error.is_busy() { DiffError::Busy } else { DiffError::Git(error.to_string()) }
        })
    }
}

/// How a git ended.
enum Ended {
    Well,
    Cut,
    Badly(String),
}

impl Ended {
    fn of(outcome: &Outcome) -> Self {
        match outcome.ended {
            Some(Why::Overflow) => Self::Cut,
            _ if outcome.is_success() => Self::Well,
            _ => Self::Badly(format!("{outcome}: {}", outcome.stderr.trim_end())),
        }
    }

    fn is_well(&self) -> bool {
        match self {
            Self::Well => true,
            Self::Cut | Self::Badly(_) => false,
        }
    }
}
