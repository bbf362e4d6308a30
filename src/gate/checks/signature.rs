//! `signature`: every new commit and annotated tag is signed with the ssh key of somebody whose signature counts.

use super::Check;
use super::bench::{Bench, CheckError, io_error};
use super::findings::{Demand, Findings, Place};
use super::history::History;
use super::objects::ask_lines;
use crate::git::inspect::Signers;
use crate::model::oid::Oid;
use crate::supervise::Input;
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

const VERIFYING: &str = "verifying the signatures of commits";
const VERIFYING_TAGS: &str = "verifying the signatures of tags";
const UNSIGNED: Demand = Demand {
    key: "checks.signature.required",
    hint: "sign with your ssh key (gpg.format = ssh, commit.gpgSign = true) and rebase (git rebase --force-rebase)",
};
const NOT_ALLOWED: Demand = Demand {
    key: "checks.signature.allowed_signers",
    hint: "sign with a key that whoever runs this gate has in the file of allowed signers",
};

const TRAILING: Demand = Demand {
    key: "checks.signature.required",
    hint: "make the tag anew (git tag -s -f): nothing that follows a signature is signed",
};

const BEGIN: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
const END: &[u8] = b"-----END SSH SIGNATURE-----";

/// How many tags one git verifies: their ids are arguments.
const TAGS_AT_ONCE: usize = 500;

/// Git judges: its letter for a commit is `G` when the key is one of the allowed, `U` when the signature is good and the key
/// is nobody's.
#[derive(Default)]
pub(super) struct Signature(Findings);

impl Signature {
    fn judge(&mut self, place: Place<'_>, letter: &[u8]) -> Result<(), CheckError> {
        let (demand, message) = match letter {
            b"G" => return Ok(()),
            b"N" => (UNSIGNED, "the commit is not signed with an ssh key"),
            b"U" => (NOT_ALLOWED, "the commit is signed with a key that is not allowed"),
            b"B" | b"X" | b"Y" | b"R" => (NOT_ALLOWED, "the commit's signature is bad, expired or revoked"),
            _ => return Err(CheckError::Answer { what: VERIFYING, why: "a signature was not checked" }),
        };
        self.0.add(place, demand, message);
        Ok(())
    }

    fn commits(
        &mut self,
        bench: &Bench<'_>,
        history: &History,
        signers: Signers<'_>,
    ) -> Result<(), CheckError> {
        let mut count = 0;
        let git = bench.tools.git.commit_signatures(bench.sight(), signers);
        ask_lines(bench, VERIFYING, git, history.input()?, |line| {
            let (id, letter) =
                line.split_at(line.iter().position(|&byte| byte == b' ').unwrap_or(line.len()));
            let unclear = CheckError::Answer { what: VERIFYING, why: "an id is none" };
            let oid = Oid::parse(id).ok_or(unclear)?;
            let place =
                Place { ref_name: bench.ref_of(oid.as_str()), commit: Some(oid.as_str()), path: None };
            count += 1;
            self.judge(place, letter.get(1..).unwrap_or_default())
        })?;
        if count == history.count {
            Ok(())
        } else {
            Err(CheckError::Answer { what: VERIFYING, why: "it tells of another number of commits" })
        }
    }

    fn tags(&mut self, bench: &Bench<'_>, history: &History, signers: Signers<'_>) -> Result<(), CheckError> {
        let mut good = HashSet::new();
        let ids: Vec<Oid> = history.tags.iter().map(|tag| tag.oid.clone()).collect();
        for ids in ids.chunks(TAGS_AT_ONCE) {
            // Its exit code says no more than whether all are good; it prints those that are.
            let git = bench.tools.git.verify_tags(bench.sight(), signers, ids);
            let mut printed = Vec::new();
            bench.run(VERIFYING_TAGS, git, Input::Null, |bytes| {
                printed.extend_from_slice(bytes);
                Ok(())
            })?;
            good.extend(printed.split(|&byte| byte == b'\n').filter_map(Oid::parse));
        }
        for tag in &history.tags {
            let place = Place { ref_name: bench.ref_of(tag.oid.as_str()), ..Place::default() };
            let name = String::from_utf8_lossy(&tag.name);
            if has_more_than_a_signature(&tag.message) {
                self.0.add(place, TRAILING, format!("the tag {name} has text behind its signature"));
            }
            if good.contains(&tag.oid) {
                continue;
            }
            let message = format!("the tag {name} is not signed with an ssh key that is allowed");
            self.0.add(place, NOT_ALLOWED, message);
        }
        Ok(())
    }
}

/// Whether something that is no part of an ssh signature follows where the last one in a message begins: ssh-keygen passes
/// over it.
fn has_more_than_a_signature(message: &[u8]) -> bool {
    let lines: Vec<&[u8]> = message.split(|&byte| byte == b'\n').collect();
    let Some(start) = lines.iter().rposition(|line| line.starts_with(BEGIN)) else { return false };
    let signature = &lines[start..];
    let end = signature.iter().position(|line| *line == END).unwrap_or(signature.len());
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let is_armour = signature[0] == BEGIN && signature[1..end].iter().all(|line| line.iter().all(is_base64));
    let is_last = signature.iter().skip(end + 1).all(|line| line.is_empty());
    !(is_armour && is_last)
}

impl Check for Signature {
    fn conclude(&mut self, bench: &Bench<'_>, history: &History) -> Result<(), CheckError> {
        let unset = CheckError::Lacking("checks.signature.allowed_signers is not set");
        let file = bench.settings.signature.allowed_signers.as_deref().ok_or(unset)?;
        // Git takes a file that it cannot read, and a missing ssh-keygen, for the fault of whoever signed.
        File::open(file).map_err(io_error("opening the file of allowed signers"))?;
        let keygen =
            bench.tools.git.find_program(Path::new("ssh-keygen")).ok_or(CheckError::Lacking(
                "there is no ssh-keygen on this machine to verify signatures with",
            ))?;
        let signers = Signers { file, keygen: &keygen };
        if history.count > 0 {
            self.commits(bench, history, signers)?;
        }
        self.tags(bench, history, signers)
    }

    fn findings(self: Box<Self>) -> Findings {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_behind_a_signature_or_in_it_is_seen() {
        let (begin, end) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");
        let has = |text: String| has_more_than_a_signature(text.as_bytes());
        assert!(!has("no signature\n".to_owned()) && !has(format!("v1\n{begin}\nU1NI\nQQ==\n{end}\n")));
        assert!(has(format!("v1\n{begin}\nU1NI\n{end}\nmore\n")));
        assert!(has(format!("v1\n{begin}\nU1NI\n{end}\nmore\n{end}\n")));
        assert!(has(format!("v1\n{begin}\nU1NI\n\na word\n{end}\n")));
        assert!(has(format!("v1\n{begin} more\nU1NI\n{end}\n")));
    }
}
