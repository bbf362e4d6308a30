//! The way on: one push from the staging repository to where the push goes, by oid, each ref from its old value only.
//!
//! What came of it is what the destination says about each ref. Where this leaves a doubt (a deadline, a broken connection,
//! a ref that had another value, an answer of another form) the destination is asked: its refs are the truth. Between two
//! attempts nothing is remembered here; [`Forward::resume`] asks first.

use super::destination::{Destination, Parcel, Said};
use super::staging::Staging;
use crate::git::ask::Asker;
use crate::git::command::Identity;
use crate::git::porcelain::Fate;
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::{RefAnswer, RefName, RefUpdate};
use crate::model::text::{clip, sanitize};
use crate::supervise::Deadline;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the destination may take to tell its refs after a push. Not a part of the push's own deadline, which may be
/// what has passed.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// Longest reason of one ref, in bytes.
const REASON_MAX: usize = 500;

/// What a forward needs beside the push.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Under whose deadline; a lost client ends no forward, so that of the tools is not looked at.
    pub tools: Tools<'a>,
    /// Where it goes.
    pub to: &'a dyn Destination,
}

/// An approved push.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Where its objects are.
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

impl Way<'_> {
    /// Whether the destination says that it has all of this already.
    #[must_use]
    pub fn has_all(&self, refs: &[RefUpdate]) -> bool {
        self.values(refs).is_ok_and(|values| Standing::of(refs, &values) == Standing::New)
    }

    /// The values of the pushed refs at the destination.
    fn values(&self, refs: &[RefUpdate]) -> Result<BTreeMap<String, Oid>, String> {
        let names: Vec<&str> = refs.iter().map(|update| update.name.as_str()).collect();
        let deadline = Deadline::starting(Instant::now(), ASK_LIMIT, "time to ask for refs");
        let asker = Asker { deadline, client: None, ..self.tools.asker };
        self.to.values(&Tools { asker, ..self.tools }, &names).map_err(|error| {
            let why = format!("what came of the push is not known yet: {error}");
            clip(&sanitize(&why), REASON_MAX)
        })
    }
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
    /// A hook of the target said no; that somebody moved its refs meanwhile does not matter.
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
        let values = match way.values(self.refs) {
            Ok(values) => values,
            Err(why) => return deferred(why),
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
        let Self { options, pusher, .. } = *self;
        let parcel = Parcel { from: self.staging.git_dir(), updates, options, pusher };
        let pushed = match way.to.push(&way.tools, &parcel) {
            Ok(pushed) => pushed,
            Err(why) => return deferred(why),
        };
        let verdict = match self.judge(updates, pushed.said) {
            Ok(()) => Verdict::Accepted,
            Err(trouble) => self.settle(way, trouble),
        };
        log::debug!("forward of {}: {verdict:?}", self.staging.git_dir().display());
        Forwarded { verdict, remarks: pushed.remarks }
    }

    fn judge(&self, updates: &[&RefUpdate], said: Said) -> Result<(), Trouble> {
        match said {
            Said::Each { fates, .. } if fates.iter().all(|fate| *fate == Fate::Done) => Ok(()),
            Said::Each { fates, passing } => Err(self.refused(updates, fates, passing)),
            Said::No(words) => {
                let answers = self.refs.iter().map(|_| RefAnswer::Refused(words.clone()));
                Err(Trouble::Refused(answers.collect()))
            }
            Said::Passing(words) => Err(Trouble::Passing(words)),
        }
    }

    fn refused(&self, updates: &[&RefUpdate], fates: Vec<Fate>, passing: Option<String>) -> Trouble {
        let is_declined =
            |fate: &Fate| matches!(fate, Fate::Refused(reason) if reason.ends_with("hook declined"));
        let (declined, has_moved) = (fates.iter().any(is_declined), fates.contains(&Fate::Moved));
        let by_name: BTreeMap<&RefName, Fate> =
            updates.iter().map(|update| &update.name).zip(fates).collect();
        let answers = self.refs.iter().map(|update| answer(by_name.get(&update.name))).collect();
        match passing {
            _ if declined => Trouble::Declined(answers),
            _ if has_moved => Trouble::Passing(
                "a ref of the target moved and came back while the push was under way".to_owned(),
            ),
            Some(words) => Trouble::Passing(words),
            None => Trouble::Refused(answers),
        }
    }

    /// The refs of the target have the last word on what is not a plain success: what it says may not be so.
    fn settle(&self, way: &Way<'_>, trouble: Trouble) -> Verdict {
        let standing = match way.values(self.refs) {
            Ok(values) => Standing::of(self.refs, &values),
            Err(why) => return Verdict::Deferred { why: with_words(trouble, &why) },
        };
        match (standing, trouble) {
            (Standing::New, _) => Verdict::Accepted,
            (Standing::Moved(moved), Trouble::Refused(_) | Trouble::Passing(_)) => Verdict::Stale(moved),
            // A hook would say no to the next push, too.
            (Standing::Moved(_), Trouble::Declined(answers))
            | (Standing::Old | Standing::Between, Trouble::Declined(answers) | Trouble::Refused(answers)) => {
                Verdict::Refused(answers)
            }
            (Standing::Old | Standing::Between, Trouble::Passing(why)) => Verdict::Deferred { why },
        }
    }
}

/// What git said before the destination could not be asked, and that; once, where both are the same.
fn with_words(trouble: Trouble, why: &str) -> String {
    match trouble {
        Trouble::Passing(words) if why.ends_with(&words) => why.to_owned(),
        Trouble::Passing(words) => clip(&format!("{words}; {why}"), REASON_MAX),
        Trouble::Declined(_) | Trouble::Refused(_) => why.to_owned(),
    }
}

fn deferred(why: String) -> Forwarded {
    Forwarded { verdict: Verdict::Deferred { why }, remarks: Vec::new() }
}

/// A ref that was not pushed this time has been at its new value before.
fn answer(fate: Option<&Fate>) -> RefAnswer {
    match fate {
        Some(Fate::Done) | None => RefAnswer::Accepted,
        Some(Fate::Moved) => RefAnswer::Refused("stale info".to_owned()),
        Some(Fate::Dragged) => RefAnswer::Refused("another ref of the push was refused".to_owned()),
        Some(Fate::Unsent(reason) | Fate::Refused(reason)) => RefAnswer::Refused(clip(reason, REASON_MAX)),
    }
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
    fn what_is_said_to_the_push_and_to_the_question_after_it_is_told_once() {
        let why = "what came of the push is not known yet: the forge broke off";
        let told = |words: &str| with_words(Trouble::Passing(words.to_owned()), why);
        assert_eq!(told("the forge broke off"), why);
        assert_eq!(told("the forge is silent"), format!("the forge is silent; {why}"));
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
}
