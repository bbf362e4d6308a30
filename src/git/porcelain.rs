//! What `git push --porcelain` says about each ref (git-push(1), "OUTPUT"): `FLAG TAB FROM:TO TAB SUMMARY (REASON)`.
//!
//! Read strictly: an answer that leaves out a ref, names one twice or names another is no answer, and whoever pushed
//! has to ask the other side what came of it.

use crate::git::push_request::excerpt;
use crate::model::text::sanitize;
use std::collections::BTreeMap;

/// What became of one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has the new value now, or had it before.
    Done,
    /// The ref was not at its old value.
    Moved,
    /// Not sent because of another ref of the same atomic push, or undone with one by the other side.
    Dragged,
    /// Our own git did not send it for another reason, in its words.
    Unsent(String),
    /// The other side refused it, in its words.
    Refused(String),
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PorcelainError {
    /// A line of another form.
    #[error("git push said {0:?}, which is no line about a ref")]
    Line(String),
    /// A ref that was not pushed, or one that was named before.
    #[error("git push spoke of {0:?}, which it was not told to push")]
    Foreign(String),
    /// Nothing was said about this one.
    #[error("git push said nothing about {0:?}")]
    Missing(String),
}

/// Reads the answer to a push of the refs `names`: one fate for each, in their order.
///
/// # Errors
/// When a line is not of the form, or the refs are not exactly these.
pub fn parse<'a>(answer: &[u8], names: &[&'a str]) -> Result<Vec<Fate>, PorcelainError> {
    let mut fates: BTreeMap<&str, Option<Fate>> = names.iter().map(|name| (*name, None)).collect();
    for line in answer.split(|&byte| byte == b'\n').filter(|line| !is_frame(line)) {
        let (name, fate) = parse_line(line).ok_or_else(|| PorcelainError::Line(excerpt(line)))?;
        match fates.get_mut(name) {
            Some(slot @ None) => *slot = Some(fate),
            Some(Some(_)) | None => return Err(PorcelainError::Foreign(excerpt(name.as_bytes()))),
        }
    }
    let take = |name: &&'a str| {
        let fate = fates.get_mut(*name).and_then(Option::take);
        fate.ok_or_else(|| PorcelainError::Missing(excerpt(name.as_bytes())))
    };
    names.iter().map(take).collect()
}

/// `To URL` before the refs, `Done` after them when git went through all of it, and the end of the last line.
fn is_frame(line: &[u8]) -> bool {
    line.is_empty() || line == b"Done" || line.starts_with(b"To ")
}

fn parse_line(line: &[u8]) -> Option<(&str, Fate)> {
    let text = str::from_utf8(line).ok()?;
    let mut fields = text.splitn(3, '\t');
    let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
    // No ref name has a colon, so this one ends what was pushed: an id, `(delete)`, or nothing for a deletion.
    let (_, name) = refs.split_once(':')?;
    let fate = match flag {
        " " | "+" | "-" | "*" | "=" => Fate::Done,
        "!" => rejection(summary)?,
        _ => return None,
    };
    Some((name, fate))
}

/// `[rejected] (REASON)` is our git's, `[remote rejected] (REASON)` the other side's.
fn rejection(summary: &str) -> Option<Fate> {
    let (kind, rest) = summary.strip_prefix('[')?.split_once(']')?;
    let reason = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')')).unwrap_or("no reason given");
    match (kind, reason) {
        ("rejected", "stale info") => Some(Fate::Moved),
        ("rejected", "atomic push failed") => Some(Fate::Dragged),
        ("rejected" | "no match", reason) => Some(Fate::Unsent(sanitize(reason))),
        ("remote rejected", "atomic push failure") => Some(Fate::Dragged),
        ("remote rejected", reason) => Some(Fate::Refused(sanitize(reason))),
        // "remote failure": the report said nothing about this ref.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn fate_of(line: &str) -> Result<Fate, PorcelainError> {
        let answer = format!("To /srv/a.git\n{line}\nDone\n");
        parse(answer.as_bytes(), &["refs/heads/x"]).map(|mut fates| fates.remove(0))
    }

    #[test]
    fn every_flag_of_the_manual_is_understood() {
        for flag in [" ", "+", "*", "="] {
            assert_eq!(fate_of(&format!("{flag}\t{A}:refs/heads/x\t[any]")), Ok(Fate::Done), "{flag:?}");
        }
        assert_eq!(fate_of("-\t:refs/heads/x\t[deleted]"), Ok(Fate::Done));
        let stale = fate_of("!\t(delete):refs/heads/x\t[rejected] (stale info)");
        assert_eq!(stale, Ok(Fate::Moved));
    }

    #[test]
    fn a_refusal_keeps_the_words_of_the_other_side() {
        let fate = |summary: &str| fate_of(&format!("!\t{A}:refs/heads/x\t{summary}")).unwrap();
        let declined = fate("[remote rejected] (pre-receive hook declined)");
        assert_eq!(declined, Fate::Refused("pre-receive hook declined".into()));
        assert_eq!(fate("[remote rejected] (a (b) \u{1b}c)"), Fate::Refused("a (b) ?c".into()));
        assert_eq!(fate("[rejected] (atomic push failed)"), Fate::Dragged);
        assert_eq!(fate("[remote rejected] (atomic push failure)"), Fate::Dragged);
        assert_eq!(fate("[rejected] (fetch first)"), Fate::Unsent("fetch first".into()));
        assert_eq!(fate("[remote rejected]"), Fate::Refused("no reason given".into()));
    }

    #[test]
    fn what_is_not_about_exactly_these_refs_is_no_answer() {
        let x = format!("*\t{A}:refs/heads/x\t[new branch]\n");
        let other = format!("*\t{A}:refs/heads/refs/heads/x\t[new branch]\n");
        let names = ["refs/heads/x"];
        assert!(parse(x.as_bytes(), &names).is_ok());
        assert_eq!(parse(b"Done\n", &names), Err(PorcelainError::Missing("refs/heads/x".into())));
        for text in [format!("{x}{x}"), format!("{x}{other}")] {
            assert!(matches!(parse(text.as_bytes(), &names), Err(PorcelainError::Foreign(_))), "{text}");
        }
        for line in ["?\t:refs/heads/x\tx", "!\t:refs/heads/x\trejected", "hello", "*\trefs/heads/x\tx"] {
            assert!(matches!(fate_of(line), Err(PorcelainError::Line(_))), "{line}");
        }
        let silent = "!\t:refs/heads/x\t[remote failure] (remote failed to report status)";
        assert!(matches!(fate_of(silent), Err(PorcelainError::Line(_))));
    }
}
