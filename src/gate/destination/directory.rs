//! A repository in a directory of this machine: a hosted one, or one of an upstream that is a directory.

use super::{Destination, Parcel, Pushed, Said};
use crate::git::ask::{self, Asker};
use crate::git::footprint::{Footprint, RefTrace};
use crate::git::held::{Onward, Update};
use crate::git::layout::Repository;
use crate::git::lease::{Lease, LeaseError, Leases};
use crate::git::porcelain::{self, Fate};
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use crate::model::text::{clip, sanitize};
use crate::store::Store;
use crate::store::writes::Note;
use crate::supervise::{Exit, Outcome, Why};
use crate::sys::stop::Level;
use std::collections::BTreeMap;

/// How much git may say about the refs, in bytes: the longest lines of a thousand of them, several times.
const ANSWER_MAX: usize = 4 << 20;

/// Longest reason that is repeated, in bytes.
const WORDS_MAX: usize = 500;

/// What git says when it is not the push that is wrong but the moment: another git holds a lock, or the machine lacks
/// something that comes back.
const PASSING: [&str; 6] = [
    "File exists.",
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Too many open files",
];

/// The repository. Its own git takes the push, with its owner's hooks and settings. The push enters it under
/// its lease, so that whatever a killed one leaves is cleaned.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    /// Which.
    pub repository: &'a Repository,
    /// Who lets a push into it.
    pub leases: &'a Leases,
    /// Where the push is noted while it is under way.
    pub store: &'a Store,
}

impl Destination for Directory<'_> {
    fn values(&self, tools: &Tools<'_>, names: &[&str]) -> Result<BTreeMap<String, Oid>, String> {
        ask::ref_values(tools.git, &self.repository.git_dir, names, &tools.asker)
            .map_err(|error| self.conceal(&error.to_string()))
    }

    fn push(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<Pushed, String> {
        let lease = self.enter(tools, parcel)?;
        let updates: Vec<Update<'_>> = parcel.updates.iter().map(|update| leased(update)).collect();
        let to = &self.repository.git_dir;
        let Parcel { from, options, pusher: identity, .. } = *parcel;
        let invocation = tools.git.push_onward(&Onward { from, to, updates: &updates, options, identity });
        let mut child =
            match tools.asker.reaper.spawn(tools.spec(invocation, format!("push {}", to.display()))) {
                Ok(child) => child,
                Err(error) => {
                    lease.settle();
                    return Err(error.to_string());
                }
            };
        child.hold(Box::new(lease.hold()));
        let (outcome, answer) = child.collect(ANSWER_MAX, None);
        if is_clean(&outcome) {
            lease.settle();
        }
        // Otherwise it is cleaned here, before the refs are looked at.
        let names: Vec<&str> = parcel.updates.iter().map(|update| update.name.as_str()).collect();
        let said = self.said(&outcome, &answer, &names);
        log::debug!("forward of {}: {outcome}", parcel.from.display());
        Ok(Pushed { said, remarks: remarks(&outcome.stderr) })
    }
}

impl Directory<'_> {
    /// What git's lines about each ref come to.
    fn said(&self, outcome: &Outcome, answer: &[u8], names: &[&str]) -> Said {
        if let Some(why) = outcome.ended {
            return Said::Passing(ended(why, outcome));
        }
        if outcome.leaked || !matches!(outcome.exit, Exit::Code(_)) {
            return Said::Passing(format!("the forward ended with {outcome}"));
        }
        let is_passing = PASSING.iter().any(|words| outcome.stderr.contains(words));
        let words = || {
            self.last_words(&outcome.stderr).unwrap_or_else(|| format!("git push failed: {}", outcome.exit))
        };
        match porcelain::parse(answer, names) {
            Ok(fates) if !outcome.is_success() && fates.iter().all(|fate| *fate == Fate::Done) => {
                Said::Passing(words())
            }
            Ok(fates) => Said::Each { fates, passing: is_passing.then(words) },
            Err(error) => {
                log::debug!("forward to {}: {error}", self.repository.git_dir.display());
                if is_passing { Said::Passing(words()) } else { Said::No(words()) }
            }
        }
    }

    /// People are not told where repositories lie on the disk.
    fn conceal(&self, words: &str) -> String {
        words.replace(&*self.repository.git_dir.to_string_lossy(), "the target")
    }

    /// The first reason that git gives, from whichever side.
    fn last_words(&self, stderr: &str) -> Option<String> {
        first_reason(stderr).map(|words| clip(&sanitize(&self.conceal(words)), WORDS_MAX))
    }

    /// Notes the push and enters the repository with it.
    fn enter(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<Lease, String> {
        let trace = |update: &&RefUpdate| RefTrace {
            name: update.name.as_str().as_bytes().to_vec(),
            new: update.new.clone(),
        };
        let footprint =
            Footprint { refs: parcel.updates.iter().map(trace).collect(), ..Footprint::default() };
        let note = Note::make(self.store.clone(), &self.repository.git_dir, &footprint.notes())
            .map_err(|error| error.to_string())?;
        let Tools { asker: Asker { deadline, .. }, stop, .. } = tools;
        let is_over = || stop.level() == Level::Killing;
        let entered = self.leases.enter(self.repository, footprint, Box::new(note), deadline.at, is_over);
        entered.map_err(|error| match error {
            LeaseError::ClientGone => "the gate is stopping".to_owned(),
            LeaseError::Deadline | LeaseError::Full => error.to_string(),
        })
    }
}

/// Git removes its own traces on every way out but a signal.
fn is_clean(outcome: &Outcome) -> bool {
    outcome.ended.is_none() && !outcome.leaked && matches!(outcome.exit, Exit::Code(_))
}

/// The update of a ref, for git's command line.
fn leased(update: &RefUpdate) -> Update<'_> {
    let value = |oid| if Oid::is_zero(oid) { None } else { Some(oid.as_str()) };
    Update { name: update.name.as_str(), old: value(&update.old), new: value(&update.new) }
}

fn ended(why: Why, outcome: &Outcome) -> String {
    match why {
        Why::Deadline => format!("the {} has passed", outcome.deadline),
        Why::Stopping => "the gate is stopping".to_owned(),
        Why::ClientGone | Why::GaveWay | Why::Overflow | Why::Internal => {
            format!("the forward ended with {outcome}")
        }
    }
}

/// What the target's side said. The kept end of the stream may begin inside of a line.
fn remarks(stderr: &str) -> Vec<String> {
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("remote: "));
    lines.map(sanitize).filter(|line| !line.is_empty()).collect()
}

fn first_reason(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| {
        let line = line.strip_prefix("remote: ").unwrap_or(line);
        let words = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: "))?;
        let is_summary = words.starts_with("failed to push some refs");
        (!is_summary).then_some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_s_words_are_found_whoever_says_them() {
        let stderr = "…half a line\nremote: policy: no\t\u{1b}[1m        \nremote: \nremote: error: cannot lock\n\
                      fatal: '/srv/a.git' does not appear to be a git repository\nerror: failed to push some refs to '/srv/a.git'";
        assert_eq!(remarks(stderr), ["policy: no ?[1m", "error: cannot lock"]);
        assert_eq!(first_reason(stderr), Some("cannot lock"));
        let fatal = stderr.split_once("lock\n").unwrap().1;
        assert_eq!(first_reason(fatal), Some("'/srv/a.git' does not appear to be a git repository"));
        assert_eq!(first_reason("error: failed to push some refs to 'x'"), None);
    }
}
