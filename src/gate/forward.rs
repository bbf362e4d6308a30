//! The way on: one `git push` from the staging repository to the target, by oid, each ref under a lease of its old value.
//!
//! The target's own git takes it, with its owner's hooks and settings, and they see the pusher as if he had pushed there
//! himself. The push enters the target under its hosted lease, so that whatever a killed one leaves is cleaned.
//!
//! What came of it is read from git's lines about each ref. Where these leave a doubt (a kill, a deadline, a failed
//! lease, an answer of another form) the target is asked: its refs are the truth. Between two attempts nothing is
//! remembered here; [`Forward::resume`] asks first.

use super::staging::Staging;
use super::tools::Tools;
use crate::git::ask::{self, AskError, Asker};
use crate::git::command::Identity;
use crate::git::footprint::{Footprint, RefTrace};
use crate::git::held::{Onward, Update};
use crate::git::lease::{Lease, LeaseError, Leases};
use crate::git::porcelain::{self, Fate};
use crate::model::oid::Oid;
use crate::model::push::{RefAnswer, RefName, RefUpdate};
use crate::model::text::{clip, sanitize};
use crate::store::Store;
use crate::store::writes::Note;
use crate::supervise::{Deadline, Exit, Outcome, SpawnError, Why};
use crate::sys::stop::Level;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the target may take to tell its refs after a push. Not a part of the push's own deadline, which may be what
/// has passed.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// How much git may say about the refs, in bytes: the longest lines of a thousand of them, several times.
const ANSWER_MAX: usize = 4 << 20;

/// Longest reason of one ref, in bytes.
const REASON_MAX: usize = 500;

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

/// What a forward needs beside the tools of every step.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Under whose deadline; a lost client ends no forward, so that of the tools is not looked at.
    pub tools: Tools<'a>,
    /// Who lets it into the target.
    pub leases: &'a Leases,
    /// Where it is noted while it is under way.
    pub store: &'a Store,
}

/// An approved push.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Where its objects are, and where it goes.
    pub staging: &'a Staging,
    /// What was approved: exactly these values and no others.
    pub refs: &'a [RefUpdate],
    /// The push options, for the target's hooks.
    pub options: &'a [String],
    /// Who pushed, for the target's hooks and reflogs.
    pub pusher: &'a Identity,
}

/// What came of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The result.
    pub verdict: Verdict,
    /// The last lines that the target's git and hooks said to the pusher, sanitised; at most 4 KiB.
    pub remarks: Vec<String>,
}

/// The result of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every ref of the target is at its new value.
    Accepted,
    /// The target said no and would say so again: an answer for each ref, in the order of the push. Some may be
    /// accepted: git refuses hidden refs before it moves the others together.
    Refused(Vec<RefAnswer>),
    /// These refs of the target are neither at the old nor at the new value.
    Stale(Vec<RefName>),
    /// A passing fault, or nobody can tell yet: to be resumed later.
    Deferred {
        /// What was in the way, for people.
        why: String,
    },
}

/// Where the refs of the target stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All at the new values.
    New,
    /// All at the old values.
    Old,
    /// Each at its old or new value: a forward was ended while the refs moved.
    Between,
    /// These are somewhere else.
    Moved(Vec<RefName>),
}

/// Asks the target where the refs of a push stand.
///
/// # Errors
/// When the target does not answer within [`ASK_LIMIT`].
pub fn standing(tools: &Tools<'_>, staging: &Staging, refs: &[RefUpdate]) -> Result<Standing, AskError> {
    Ok(Standing::of(refs, &present(tools, staging, refs)?))
}

/// The values of the pushed refs in the target.
fn present(
    tools: &Tools<'_>,
    staging: &Staging,
    refs: &[RefUpdate],
) -> Result<BTreeMap<String, Oid>, AskError> {
    let names: Vec<&str> = refs.iter().map(|update| update.name.as_str()).collect();
    let deadline = Deadline::starting(Instant::now(), ASK_LIMIT, "the time to ask for refs");
    let asker = Asker { deadline, client: None, ..tools.asker };
    ask::ref_values(tools.git, &staging.target().git_dir, &names, &asker)
}

/// A ref that is not there has the value zero.
fn is_at(values: &BTreeMap<String, Oid>, name: &RefName, expected: &Oid) -> bool {
    values.get(name.as_str()).map_or(expected.is_zero(), |value| value == expected)
}

impl Standing {
    fn of(refs: &[RefUpdate], values: &BTreeMap<String, Oid>) -> Self {
        let is_new = |update: &RefUpdate| is_at(values, &update.name, &update.new);
        let is_old = |update: &RefUpdate| is_at(values, &update.name, &update.old);
        let elsewhere = refs.iter().filter(|update| !is_new(update) && !is_old(update));
        let moved: Vec<RefName> = elsewhere.map(|update| update.name.clone()).collect();
        if !moved.is_empty() {
            Self::Moved(moved)
        } else if refs.iter().all(is_new) {
            Self::New
        } else if refs.iter().all(is_old) {
            Self::Old
        } else {
            Self::Between
        }
    }
}

/// Why a push did not simply succeed.
#[derive(Debug)]
enum Trouble {
    /// A hook of the target said no; where its refs stand does not matter.
    Declined(Vec<RefAnswer>),
    /// Git said no, for each ref in its words.
    Refused(Vec<RefAnswer>),
    /// It may succeed another time.
    Passing(String),
}

impl Forward<'_> {
    /// Pushes, for the first time.
    #[must_use]
    pub fn push(&self, way: &Way<'_>) -> Forwarded {
        self.push_some(way, &self.refs.iter().collect::<Vec<_>>())
    }

    /// Pushes what an earlier attempt, of which nothing is known, may have left to do.
    #[must_use]
    pub fn resume(&self, way: &Way<'_>) -> Forwarded {
        let values = match present(&way.tools, self.staging, self.refs) {
            Ok(values) => values,
            Err(error) => return deferred(self.unknown(&error)),
        };
        match Standing::of(self.refs, &values) {
            Standing::New => Forwarded { verdict: Verdict::Accepted, remarks: Vec::new() },
            Standing::Moved(moved) => Forwarded { verdict: Verdict::Stale(moved), remarks: Vec::new() },
            Standing::Old => self.push(way),
            Standing::Between => {
                let is_left = |update: &&RefUpdate| !is_at(&values, &update.name, &update.new);
                self.push_some(way, &self.refs.iter().filter(is_left).collect::<Vec<_>>())
            }
        }
    }

    fn push_some(&self, way: &Way<'_>, updates: &[&RefUpdate]) -> Forwarded {
        let lease = match self.enter(way, updates) {
            Ok(lease) => lease,
            Err(why) => return deferred(why),
        };
        let (outcome, answer) = match self.run(way, updates, &lease) {
            Ok(ran) => ran,
            Err(error) => {
                lease.settle();
                return deferred(error.to_string());
            }
        };
        if is_clean(&outcome) {
            lease.settle();
        } else {
            // Cleaned here, before the target is asked.
            drop(lease);
        }
        let remarks = remarks(&outcome.stderr);
        let verdict = match self.judge(updates, &outcome, &answer) {
            Ok(()) => Verdict::Accepted,
            Err(trouble) => self.settle(way, trouble),
        };
        log::debug!("forward of {}: {outcome}: {verdict:?}", self.staging.git_dir().display());
        Forwarded { verdict, remarks }
    }

    /// Notes the push and enters the target with it.
    fn enter(&self, way: &Way<'_>, updates: &[&RefUpdate]) -> Result<Lease, String> {
        let trace = |update: &&RefUpdate| RefTrace {
            name: update.name.as_str().as_bytes().to_vec(),
            new: update.new.clone(),
        };
        let footprint = Footprint { refs: updates.iter().map(trace).collect(), ..Footprint::default() };
        let target = self.staging.target();
        let note = Note::make(way.store.clone(), &target.git_dir, &footprint.notes())
            .map_err(|error| error.to_string())?;
        let Tools { asker, stop, .. } = way.tools;
        let is_over = || stop.level() == Level::Killing;
        way.leases.enter(target, footprint, Box::new(note), asker.deadline.at, is_over).map_err(|error| {
            match error {
                LeaseError::ClientGone => "the gate is stopping".to_owned(),
                LeaseError::Deadline | LeaseError::Full => error.to_string(),
            }
        })
    }

    fn run(
        &self,
        way: &Way<'_>,
        updates: &[&RefUpdate],
        lease: &Lease,
    ) -> Result<(Outcome, Vec<u8>), SpawnError> {
        let updates: Vec<Update<'_>> = updates.iter().map(|update| leased(update)).collect();
        let invocation = way.tools.git.push_onward(&Onward {
            from: self.staging.git_dir(),
            to: &self.staging.target().git_dir,
            updates: &updates,
            options: self.options,
            identity: self.pusher,
        });
        let what = format!("push {}", self.staging.target().git_dir.display());
        let mut child = way.tools.asker.reaper.spawn(way.tools.spec(invocation, what))?;
        child.hold(Box::new(lease.hold()));
        Ok(child.collect(ANSWER_MAX, None))
    }

    fn judge(&self, updates: &[&RefUpdate], outcome: &Outcome, answer: &[u8]) -> Result<(), Trouble> {
        if let Some(why) = outcome.ended {
            return Err(Trouble::Passing(ended(why, outcome)));
        }
        if outcome.leaked || !matches!(outcome.exit, Exit::Code(_)) {
            return Err(Trouble::Passing(format!("the forward ended with {outcome}")));
        }
        let names: Vec<&str> = updates.iter().map(|update| update.name.as_str()).collect();
        let fates = match porcelain::parse(answer, &names) {
            Ok(fates) => fates,
            Err(error) => {
                log::debug!("forward of {}: {error}", self.staging.git_dir().display());
                return Err(self.gave_up(outcome));
            }
        };
        if outcome.is_success() && fates.iter().all(|fate| *fate == Fate::Done) {
            return Ok(());
        }
        Err(self.refused(updates, fates, outcome))
    }

    /// Git ended without a word about each ref.
    fn gave_up(&self, outcome: &Outcome) -> Trouble {
        let words = last_words(&outcome.stderr, &self.staging.target().git_dir)
            .unwrap_or_else(|| format!("git push failed: {}", outcome.exit));
        if is_passing(&outcome.stderr) {
            return Trouble::Passing(words);
        }
        Trouble::Refused(self.refs.iter().map(|_| RefAnswer::Refused(words.clone())).collect())
    }

    fn refused(&self, updates: &[&RefUpdate], fates: Vec<Fate>, outcome: &Outcome) -> Trouble {
        let is_declined =
            |fate: &Fate| matches!(fate, Fate::Refused(reason) if reason.ends_with("hook declined"));
        let (declined, leased) = (fates.iter().any(is_declined), fates.contains(&Fate::LeaseFailed));
        let by_name: BTreeMap<&RefName, Fate> =
            updates.iter().map(|update| &update.name).zip(fates).collect();
        let answers = self.refs.iter().map(|update| answer(by_name.get(&update.name))).collect();
        if declined {
            Trouble::Declined(answers)
        } else if leased {
            Trouble::Passing(
                "a ref of the target moved and came back while the push was under way".to_owned(),
            )
        } else if is_passing(&outcome.stderr) {
            let words = last_words(&outcome.stderr, &self.staging.target().git_dir);
            Trouble::Passing(words.unwrap_or_else(|| "the target could not take the push now".to_owned()))
        } else {
            Trouble::Refused(answers)
        }
    }

    /// The refs of the target have the last word on what is not a plain success or a hook's no.
    fn settle(&self, way: &Way<'_>, trouble: Trouble) -> Verdict {
        if let Trouble::Declined(answers) = trouble {
            return Verdict::Refused(answers);
        }
        match standing(&way.tools, self.staging, self.refs) {
            Ok(Standing::New) => Verdict::Accepted,
            Ok(Standing::Moved(moved)) => Verdict::Stale(moved),
            Ok(Standing::Old | Standing::Between) => match trouble {
                Trouble::Declined(answers) | Trouble::Refused(answers) => Verdict::Refused(answers),
                Trouble::Passing(why) => Verdict::Deferred { why },
            },
            Err(error) => Verdict::Deferred { why: self.unknown(&error) },
        }
    }

    fn unknown(&self, error: &AskError) -> String {
        let why = format!("what came of the push is not known yet: {error}");
        clip(&sanitize(&without_place(&why, &self.staging.target().git_dir)), REASON_MAX)
    }
}

fn deferred(why: String) -> Forwarded {
    Forwarded { verdict: Verdict::Deferred { why }, remarks: Vec::new() }
}

fn leased(update: &RefUpdate) -> Update<'_> {
    let value = |oid| if Oid::is_zero(oid) { None } else { Some(oid.as_str()) };
    Update { name: update.name.as_str(), old: value(&update.old), new: value(&update.new) }
}

/// Git removes its own traces on every way out but a signal.
fn is_clean(outcome: &Outcome) -> bool {
    outcome.ended.is_none() && !outcome.leaked && matches!(outcome.exit, Exit::Code(_))
}

fn ended(why: Why, outcome: &Outcome) -> String {
    match why {
        Why::Deadline => format!("the {} has passed", outcome.deadline),
        Why::Stopping => "the gate is stopping".to_owned(),
        Why::ClientGone | Why::Overflow | Why::Internal => format!("the forward ended with {outcome}"),
    }
}

/// A ref that was not pushed this time has been at its new value before.
fn answer(fate: Option<&Fate>) -> RefAnswer {
    match fate {
        Some(Fate::Done) | None => RefAnswer::Accepted,
        Some(Fate::LeaseFailed) => RefAnswer::Refused("stale info".to_owned()),
        Some(Fate::Dragged) => RefAnswer::Refused("another ref of the push was refused".to_owned()),
        Some(Fate::Unsent(reason) | Fate::Refused(reason)) => RefAnswer::Refused(clip(reason, REASON_MAX)),
    }
}

fn is_passing(stderr: &str) -> bool {
    PASSING.iter().any(|words| stderr.contains(words))
}

/// What the target's side said. The kept end of the stream may begin inside of a line.
fn remarks(stderr: &str) -> Vec<String> {
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("remote: "));
    lines.map(sanitize).filter(|line| !line.is_empty()).collect()
}

/// People are not told where the target lies on the disk.
fn without_place(words: &str, target: &Path) -> String {
    words.replace(&*target.to_string_lossy(), "the target")
}

/// The first reason that git gives, from whichever side.
fn last_words(stderr: &str, target: &Path) -> Option<String> {
    let reason = |line: &str| {
        let line = line.strip_prefix("remote: ").unwrap_or(line);
        let words = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: "))?;
        let is_summary = words.starts_with("failed to push some refs");
        (!is_summary).then(|| without_place(words, target))
    };
    stderr.lines().find_map(reason).map(|words| clip(&sanitize(&words), REASON_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(digit: u8) -> Oid {
        Oid::parse(&[digit; 40]).unwrap()
    }

    fn update(name: &str, old: u8, new: u8) -> RefUpdate {
        RefUpdate { name: RefName::parse(name.as_bytes()).unwrap(), old: oid(old), new: oid(new) }
    }

    #[test]
    fn where_refs_stand_follows_from_their_values() {
        let refs = [update("refs/heads/a", b'1', b'2'), update("refs/heads/gone", b'3', b'0')];
        let standing = |values: &[(&str, u8)]| {
            let values = values.iter().map(|(name, digit)| (format!("refs/heads/{name}"), oid(*digit)));
            Standing::of(&refs, &values.collect())
        };
        assert_eq!(standing(&[("a", b'2')]), Standing::New);
        assert_eq!(standing(&[("a", b'1'), ("gone", b'3')]), Standing::Old);
        assert_eq!(standing(&[("a", b'1')]), Standing::Between);
        assert_eq!(standing(&[("a", b'2'), ("gone", b'3')]), Standing::Between);
        let gone = vec![RefName::parse(b"refs/heads/gone").unwrap()];
        assert_eq!(standing(&[("a", b'2'), ("gone", b'4')]), Standing::Moved(gone));
        assert_eq!(standing(&[]), Standing::Moved(vec![RefName::parse(b"refs/heads/a").unwrap()]));
    }

    #[test]
    fn git_s_words_are_found_and_the_place_of_the_target_is_not_told() {
        let stderr = "…half a line\nremote: policy: no\t\u{1b}[1m        \nremote: \nremote: error: cannot lock\n\
                      fatal: '/srv/a.git' does not appear to be a git repository\nerror: failed to push some refs to '/srv/a.git'";
        assert_eq!(remarks(stderr), ["policy: no ?[1m", "error: cannot lock"]);
        let target = Path::new("/srv/a.git");
        assert_eq!(last_words(stderr, target).unwrap(), "cannot lock");
        let fatal = stderr.split_once("lock\n").unwrap().1;
        let words = last_words(fatal, target).unwrap();
        assert_eq!(words, "'the target' does not appear to be a git repository");
        assert_eq!(last_words("error: failed to push some refs to 'x'", target), None);
    }
}
