//! A repository of an upstream that is a server.

use super::{Destination, Parcel, Pushed, Said};
use crate::git::porcelain::Fate;
use crate::git::push_answer::PushAnswer;
use crate::git::tools::Tools;
use crate::mirror::{Delivery, Mirrors, NOT_ALONE, PushError, Remote, Side, UpstreamError, WRONG_OLD_VALUE};
use crate::model::oid::Oid;
use crate::model::text::{clip, sanitize};
use crate::model::upstream::UpstreamUrl;
use crate::sys::stop::Level;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io;

/// Longest words of a failure, in bytes.
const WORDS_MAX: usize = 500;

/// Most that is kept of what hooks say, in bytes.
const REMARKS_MAX: usize = 4 << 10;

/// The repository, and what is shown there. Whatever a push that breaks off leaves is the server's to clean.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The way to it.
    pub mirrors: &'a Mirrors,
    /// The upstream.
    pub remote: Remote<'a>,
    /// The repository's path there.
    pub path: &'a str,
    /// Its address, as it was recorded.
    pub url: &'a UpstreamUrl,
    /// The service that is asked for its refs: many a server lets everybody read, and asks who pushes even for the refs.
    pub side: Side,
}

impl Destination for Server<'_> {
    fn values(&self, tools: &Tools<'_>, names: &[&str]) -> Result<BTreeMap<String, Oid>, String> {
        let Self { mirrors, remote, path, side, .. } = self;
        let seen = mirrors.ask(remote, path, *side, tools.git, &tools.asker);
        let mut refs = seen.map_err(|error| error.to_string())?.refs;
        Ok(names.iter().filter_map(|name| refs.remove_entry(*name)).collect())
    }

    fn push(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<Pushed, String> {
        let Parcel { from, updates, options, .. } = *parcel;
        let delivery = Delivery { url: self.url, updates, options, objects: &from.join("objects") };
        let answer = self.mirrors.push(&self.remote, &delivery, &tools.asker.deadline);
        let is_stopping = tools.stop.level() == Level::Killing;
        match answer {
            Ok(answer) => Ok(heard(answer)),
            Err(error) if !is_stopping && was_refused(&error) => Err(words(&error)),
            Err(error) => Ok(unheard(&error, is_stopping)),
        }
    }
}

/// The server said what became of each ref.
fn heard(answer: PushAnswer) -> Pushed {
    let fate = |verdict: Result<(), String>| verdict.map_or_else(fate_of, |()| Fate::Done);
    let fates = match answer.refusal_of_pack() {
        None => answer.verdicts.into_iter().map(fate).collect(),
        Some(why) => answer.verdicts.iter().map(|_| Fate::Refused(why.clone())).collect(),
    };
    Pushed { said: Said::Each { fates, passing: None }, remarks: last(answer.remarks) }
}

/// What a refusal of a ref means.
fn fate_of(reason: String) -> Fate {
    match &*reason {
        WRONG_OLD_VALUE => Fate::Moved,
        NOT_ALONE => Fate::Dragged,
        // It has dropped what it had when the push was made.
        "missing necessary objects" => Fate::Refused(format!("{reason}: fetch and push again")),
        _ => Fate::Refused(reason),
    }
}

/// Whether nobody took the connection: nothing can have been sent then. Of all faults on the way, this one is met only
/// before there is a connection (connect(2)).
fn was_refused(error: &PushError) -> bool {
    let refused = io::Error::from(Errno::ECONNREFUSED).to_string();
    matches!(error, PushError::Upstream(UpstreamError::Unreachable { why, .. }) if *why == refused)
}

fn words(error: &PushError) -> String {
    clip(&sanitize(&error.to_string()), WORDS_MAX)
}

/// The server said nothing about the refs.
fn unheard(error: &PushError, is_stopping: bool) -> Pushed {
    let said = if is_stopping {
        Said::Passing("the gate is stopping".to_owned())
    } else if error.is_passing() {
        Said::Passing(words(error))
    } else {
        Said::No(words(error))
    };
    Pushed { said, remarks: Vec::new() }
}

/// The last of these lines, as many as are kept.
fn last(mut lines: Vec<String>) -> Vec<String> {
    let mut bytes = 0;
    let count = lines.iter().rev().take_while(|line| {
        bytes += line.len() + 1;
        bytes <= REMARKS_MAX
    });
    lines.split_off(lines.len() - count.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_remarks_are_kept() {
        let lines: Vec<String> = (0..40).map(|n| format!("{n:0400}")).collect();
        let kept = last(lines.clone());
        assert_eq!((kept.len(), kept.last()), (10, lines.last()));
        assert_eq!(last(vec!["one".to_owned(), "two".to_owned()]), ["one", "two"]);
        assert!(last(Vec::new()).is_empty());
    }

    #[test]
    fn reasons_of_refs_that_moved_are_told_from_others() {
        let fate = |reason: &str| fate_of(reason.to_owned());
        assert_eq!(fate("incorrect old value provided"), Fate::Moved);
        assert_eq!(fate("atomic push failure"), Fate::Dragged);
        assert_eq!(fate("hook declined"), Fate::Refused("hook declined".to_owned()));
        assert!(
            matches!(fate("missing necessary objects"), Fate::Refused(why) if why.ends_with("push again"))
        );
    }
}
