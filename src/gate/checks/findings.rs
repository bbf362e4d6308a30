//! What a check has to say: bounded, and fit to be stored and shown.

use super::secrets::redact;
use crate::model::check::Finding;
use crate::model::text::{clip, sanitize};

/// Findings that are kept of one check: more than anybody reads before pushing again.
const KEPT_MAX: usize = 50;
/// The longest message, in bytes: two lines of a terminal and a long id.
const MESSAGE_BYTES_MAX: usize = 400;
/// The longest path that is shown, in bytes.
const PATH_BYTES_MAX: usize = 300;

/// The findings of one check. What comes in may be any bytes; what goes out is text on one line, without secrets.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    more: u64,
}

/// Where something was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    /// In which ref, if that is known.
    pub(super) ref_name: Option<&'a str>,
    /// In which commit.
    pub(super) commit: Option<&'a str>,
    /// In which file, as git has its name.
    pub(super) path: Option<&'a [u8]>,
}

/// What the finding refers to: the key that asks for it, and what the pusher can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// The dotted key; empty for what every push is checked for.
    pub(super) key: &'static str,
    /// A sentence in the imperative.
    pub(super) hint: &'static str,
}

impl Findings {
    /// Adds a finding; beyond the most that are kept it is only counted.
    pub(super) fn add(&mut self, place: Place<'_>, demand: Demand, message: impl AsRef<str>) {
        if self.kept.len() == KEPT_MAX {
            self.more += 1;
            return;
        }
        self.kept.push(Finding {
            ref_name: place.ref_name.map(redact),
            commit: place.commit.map(str::to_owned),
            path: place.path.map(shown_path),
            message: clip(&redact(&sanitize(message.as_ref())), MESSAGE_BYTES_MAX),
            key: demand.key.to_owned(),
            hint: demand.hint.to_owned(),
        });
    }

    /// Adds that a ref names a `kind` of object whose lines and paths cannot be looked at commit by commit.
    pub(super) fn add_outside(&mut self, place: Place<'_>, key: &'static str, kind: &str) {
        let hint = "push commits, and tags of commits";
        let message = format!("the ref leads to a {kind} outside of any commit, which is not looked into");
        self.add(place, Demand { key, hint }, message);
    }

    /// Adds that a commit's text cannot be looked through with certainty.
    pub(super) fn add_ambiguous(&mut self, place: Place<'_>, key: &'static str, encoding: &[u8]) {
        let hint = "write the message in UTF-8 (git config --unset i18n.commitEncoding) and amend";
        let encoding = String::from_utf8_lossy(encoding);
        let message = format!("the commit declares the encoding \"{encoding}\", which can hide what it says");
        self.add(place, Demand { key, hint }, message);
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Everything that is kept, and a last line for what is not.
    pub(super) fn into_list(mut self) -> Vec<Finding> {
        if let Some(last) = self.kept.last().filter(|_| self.more > 0) {
            let (key, hint) = (last.key.clone(), last.hint.clone());
            let message = format!("… and {} more", self.more);
            self.kept.push(Finding { message, key, hint, ..Finding::default() });
        }
        self.kept
    }
}

fn shown_path(path: &[u8]) -> String {
    clip(&redact(&sanitize(&String::from_utf8_lossy(path))), PATH_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { key: "checks.paths.block", hint: "do without" };

    #[test]
    fn what_is_hostile_comes_out_as_plain_text_on_one_line() {
        let mut findings = Findings::default();
        let place = Place { path: Some(b"a\xff\x1b[2J\r\nb"), ..Place::default() };
        findings.add(place, DEMAND, "one\r\ntwo\u{202e}\u{9b}");
        let found = findings.into_list().remove(0);
        assert_eq!(found.path.as_deref(), Some("a\u{fffd}?[2J? b"));
        assert_eq!(found.message, "one? two??");
    }

    #[test]
    fn too_many_are_counted() {
        let mut findings = Findings::default();
        for number in 0..KEPT_MAX + 7 {
            findings.add(Place::default(), DEMAND, number.to_string());
        }
        let list = findings.into_list();
        assert_eq!((list.len(), &*list[KEPT_MAX].message), (KEPT_MAX + 1, "… and 7 more"));
        assert_eq!(list[KEPT_MAX].key, DEMAND.key);
    }
}
