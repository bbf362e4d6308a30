//! What git says of itself to whoever begins a fetch by version 2 of the protocol (gitprotocol-v2(5), "Capability
//! Advertisement"): the same to all, and for all repositories with the same settings.
//!
//! The words are git's own, asked for once. Left out are those by which two gits, or two answers of one, can be told apart:
//! `agent`, and with it what clients would say of theirs, so that equal requests have equal bytes; and `session-id`.

use crate::git::ask::AskError;
use crate::git::command::Git;
use crate::git::learned::{Learned, UNSETTLED};
use crate::git::pktline::{Dialect, HEADER, Packet, Parsed, encode, parse};
use crate::git::settings::{RepositorySettings, SettingsDigest};
use crate::git::stamps::Stamp;
use crate::git::wants::Unadvertised;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Answers that are remembered, each some hundred bytes. Repositories of one server have few different settings.
const ANSWERS_MAX: usize = 4096;

/// How each answer begins.
const FIRST_LINE: &[u8] = b"version 2\n";

/// Words that are left out, up to their values.
const LEFT_OUT: [&[u8]; 2] = [b"agent", b"session-id"];

/// What git has said, by whom it was and what it depends on.
#[derive(Debug, Default)]
pub struct Capabilities(Mutex<HashMap<Kind, Arc<[u8]>>>);

/// Repositories of which a git says the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    /// The program: it may be replaced by another version while the gate runs.
    program: Stamp,
    /// The object format is among them.
    settings: SettingsDigest,
    unadvertised: Unadvertised,
}

impl Kind {
    /// `None` when the program cannot be looked at.
    fn of(git: &Git, settings: RepositorySettings, unadvertised: Unadvertised) -> Option<Self> {
        let program = Stamp::of(git.program()).ok().filter(|stamp| *stamp != Stamp::Absent)?;
        Some(Self { program, settings: settings.digest(), unadvertised })
    }
}

impl Capabilities {
    /// The answer to a request for the capabilities of a repository with these settings, if it is remembered.
    #[must_use]
    pub fn find(
        &self,
        git: &Git,
        settings: RepositorySettings,
        unadvertised: Unadvertised,
    ) -> Option<Arc<[u8]>> {
        let kind = Kind::of(git, settings, unadvertised)?;
        self.lock().get(&kind).cloned()
    }

    /// The same out of what a git says when it is asked, which is remembered if the settings are the same still, as
    /// `is_still_set` tells: what is said of one repository will be said of others.
    ///
    /// # Errors
    /// When git does not answer, or with anything else.
    pub fn learn(
        &self,
        git: &Git,
        settings: RepositorySettings,
        unadvertised: Unadvertised,
        ask: impl FnOnce() -> Result<Vec<u8>, AskError>,
        is_still_set: impl Fn() -> bool,
    ) -> Result<Learned, AskError> {
        let kind = Kind::of(git, settings, unadvertised);
        let answer: Arc<[u8]> = without_names(&ask()?).ok_or_else(not_understood)?.into();
        match kind.filter(|_| is_still_set()) {
            Some(kind) => {
                self.remember(kind, Arc::clone(&answer));
                Ok(Learned { answer, unkept: None })
            }
            None => Ok(Learned { answer, unkept: Some(UNSETTLED) }),
        }
    }

    fn remember(&self, kind: Kind, answer: Arc<[u8]>) {
        let mut answers = self.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(kind, answer);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Arc<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_understood() -> AskError {
    AskError::Answer {
        what: "upload-pack".to_owned(),
        why: "it is no list of the capabilities of version 2".to_owned(),
    }
}

/// What git said without the words that are left out; `None` when it is something else.
fn without_names(said: &[u8]) -> Option<Vec<u8>> {
    let mut rest = said.strip_prefix(b"000eversion 2\n")?;
    let mut kept = Vec::with_capacity(said.len());
    encode(Packet::Data(FIRST_LINE), &mut kept);
    loop {
        match parse(rest, Dialect::V2).ok()? {
            Parsed::Packet(Packet::Data(line), length) => {
                if !is_left_out(line) {
                    encode(Packet::Data(line), &mut kept);
                }
                rest = &rest[length..];
            }
            Parsed::Packet(Packet::Flush, HEADER) if rest.len() == HEADER => {
                encode(Packet::Flush, &mut kept);
                return Some(kept);
            }
            Parsed::Packet(Packet::Flush | Packet::Delim | Packet::ResponseEnd, _) | Parsed::Needs(_) => {
                return None;
            }
        }
    }
}

fn is_left_out(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let name = line.split(|&byte| byte == b'=').next().unwrap_or_default();
    LEFT_OUT.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| encode(Packet::Data(line.as_bytes()), &mut bytes));
        encode(Packet::Flush, &mut bytes);
        bytes
    }

    #[test]
    fn the_names_of_git_and_of_the_session_are_left_out_and_nothing_else() {
        let all =
            ["version 2\n", "agent=git/2.47.3\n", "ls-refs=unborn\n", "session-id=1-2\n", "server-option\n"];
        let kept = ["version 2\n", "ls-refs=unborn\n", "server-option\n"];
        assert_eq!(without_names(&said(&all)).unwrap(), said(&kept));
        let alike = ["version 2\n", "agents=x", "os-agent=y\n", "session-ids\n"];
        assert_eq!(without_names(&said(&alike)).unwrap(), said(&alike));
        assert_eq!(
            without_names(&said(&["version 2\n", "agent", "session-id\n"])).unwrap(),
            said(&kept[..1])
        );
    }

    #[test]
    fn what_is_no_list_of_capabilities_is_not_remembered() {
        let good = said(&["version 2\n", "ls-refs\n"]);
        let odd = [
            Vec::new(),
            said(&["version 1\n", "x\n"]),
            said(&["ERR no\n"]),
            good[..good.len() - 4].to_vec(),
            [&good[..], b"0000"].concat(),
            [&good[..good.len() - 4], b"0001"].concat(),
        ];
        for bytes in odd {
            assert_eq!(without_names(&bytes), None, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = without_names(&rest);
            let _ = without_names(&[b"000eversion 2\n", &rest[..]].concat());
        }
    }
}
