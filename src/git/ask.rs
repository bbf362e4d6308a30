//! Short questions to git: its version, a repository's settings, the values of refs. Everything else it does goes through a
//! lane.

use crate::git::command::{
    FindError, Git, Identity, Invocation, Protocol, Service, Serving, Surroundings, VersionError, resolve,
};
use crate::git::layout::Repository;
use crate::git::ls_refs::RefList;
use crate::git::push_request::excerpt;
use crate::git::refs_cache::Said;
use crate::git::upstream::PushOffers;
use crate::git::wants::Unadvertised;
use crate::model::fleet::RefDigest;
use crate::model::mirrored::OWN;
use crate::model::oid::Oid;
use crate::supervise::{Deadline, Input, Outcome, Reaper, SpawnError, Why};
use crate::sys::memory_file;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

/// The most that an answer may have, in bytes: a configuration is some kilobytes.
const ANSWER_MAX: usize = 4 << 20;

/// The most that the refs of a whole repository may have, in bytes: as much as an upstream may say of them.
const ALL_REFS_MAX: usize = 256 << 20;

/// How many bytes of ref names one command line takes: far below the kernel's limit of 2 MiB.
const NAMES_MAX: usize = 256 << 10;

/// The refs that a repository was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRefs {
    /// Their values, symbolic ones resolved; one that is not there is left out.
    pub values: BTreeMap<String, Oid>,
    /// Those that are symbolic, with the ref that each stands for in the end.
    pub symbolic: BTreeMap<String, String>,
    /// The values of all refs below those that were asked for.
    pub below: BTreeSet<Oid>,
}

/// One ref as git lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    value: Oid,
    /// The ref that it stands for, if it is symbolic.
    stands_for: Option<String>,
}

/// What an object leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeled {
    /// What is no tag any more: the object itself, unless that is one.
    pub oid: Oid,
    /// It is a commit.
    pub is_commit: bool,
}

/// Who asks: what every question needs to be a supervised child.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Who starts and ends it.
    pub reaper: &'a Reaper,
    /// When the answer must be there.
    pub deadline: Deadline,
    /// How long it may take to go after SIGTERM.
    pub grace: Duration,
    /// The socket of the client that waits for the answer, if there is one.
    pub client: Option<BorrowedFd<'a>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No such program.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Not a git, or one that is too old.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The question could not be written down.
    #[error("writing what {what} is asked: {source}")]
    Input {
        /// What was asked.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Git did not answer.
    #[error("git failed at {what}: {outcome}: {}", outcome.stderr.trim_end())]
    Failed {
        /// What was asked.
        what: String,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// Git answered something that cannot be understood.
    #[error("git gave no usable answer to {what}: {why}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl AskError {
    /// The same question may be answered in a moment: 503 with `Retry-After`.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Spawn(error) if error.is_busy())
    }

    /// The client that waited for the answer left.
    #[must_use]
    pub fn is_client_gone(&self) -> bool {
        self.ended() == Some(Why::ClientGone)
    }

    /// The answer did not come in time; the text names the deadline.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        self.ended() == Some(Why::Deadline)
    }

    /// Git looked and failed by itself, or answered nonsense: the repository is not what it should be.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Failed { outcome, .. } => outcome.ended.is_none(),
            Self::Answer { .. } => true,
            Self::Find(_) | Self::Version(_) | Self::Spawn(_) | Self::Input { .. } => false,
        }
    }

    fn ended(&self) -> Option<Why> {
        match self {
            Self::Failed { outcome, .. } => outcome.ended,
            Self::Find(_) | Self::Version(_) | Self::Spawn(_) | Self::Input { .. } | Self::Answer { .. } => {
                None
            }
        }
    }
}

/// Finds git and learns its version, once at start.
///
/// # Errors
/// When there is none, or none that can be used.
pub fn find_git(program: &Path, surroundings: Surroundings, asker: &Asker<'_>) -> Result<Git, AskError> {
    let program = resolve(program, &surroundings.path)?;
    let query = Git::version_query(&program, &surroundings);
    let answer = ask("git --version".to_owned(), query, ANSWER_MAX, asker)?;
    Ok(Git::new(program, &String::from_utf8_lossy(&answer), surroundings)?)
}

/// Lists every setting of a repository; see [`Git::list_settings`] for the form.
///
/// # Errors
/// When git cannot read the repository's configuration.
pub fn list_settings(git: &Git, repository: &Repository, asker: &Asker<'_>) -> Result<Vec<u8>, AskError> {
    let what = format!("config {}", repository.git_dir.display());
    ask(what, git.list_settings(&repository.git_dir), ANSWER_MAX, asker)
}

/// The present values of the refs `names`, symbolic ones resolved; one that is not there is not in the answer.
///
/// # Errors
/// When git cannot read the repository's refs.
pub fn ref_values(
    git: &Git,
    git_dir: &Path,
    names: &[&str],
    asker: &Asker<'_>,
) -> Result<BTreeMap<String, Oid>, AskError> {
    Ok(find_refs(git, git_dir, names, asker)?.values)
}

/// The refs `names` as they are now. A symbolic ref to one that is not there is not in the answer.
///
/// # Errors
/// When git cannot read the repository's refs.
pub fn find_refs(
    git: &Git,
    git_dir: &Path,
    names: &[&str],
    asker: &Asker<'_>,
) -> Result<FoundRefs, AskError> {
    let mut found = FoundRefs::default();
    for some in in_portions(names) {
        // Git takes each name for the start of longer ones, too.
        for it in list_refs(git, git_dir, some, ALL_REFS_MAX, asker)? {
            if some.contains(&it.name.as_str()) {
                found.symbolic.extend(it.stands_for.map(|other| (it.name.clone(), other)));
                found.values.insert(it.name, it.value);
            } else {
                found.below.insert(it.value);
            }
        }
    }
    Ok(found)
}

/// All refs below the directories `places` with their values, but those whose names are not UTF-8.
///
/// # Errors
/// When git cannot read the repository's refs.
pub fn all_refs(
    git: &Git,
    git_dir: &Path,
    places: &[&str],
    asker: &Asker<'_>,
) -> Result<BTreeMap<String, Oid>, AskError> {
    let refs = list_refs(git, git_dir, places, ALL_REFS_MAX, asker)?;
    Ok(refs.into_iter().map(|it| (it.name, it.value)).collect())
}

/// What a repository's refs come to, but for those that mirrors have for themselves.
///
/// # Errors
/// As [`all_refs`].
pub fn refs_digest(git: &Git, git_dir: &Path, asker: &Asker<'_>) -> Result<RefDigest, AskError> {
    let mut refs = all_refs(git, git_dir, &["refs"], asker)?;
    refs.retain(|name, _| !name.starts_with(OWN));
    Ok(RefDigest::of(&refs))
}

/// Those of the objects named in `names`, one a line, that a repository has not.
///
/// # Errors
/// When git cannot read the repository.
pub fn missing_objects(
    git: &Git,
    git_dir: &Path,
    names: File,
    asker: &Asker<'_>,
) -> Result<Vec<Oid>, AskError> {
    let what = format!("cat-file {}", git_dir.display());
    let answer = ask_with(what.clone(), git.look_up(git_dir), Input::File(names), ANSWER_MAX, asker)?;
    parse_missing(&answer).map_err(|why| AskError::Answer { what, why })
}

/// What the objects `oids` of a repository are, and what those lead to that are tags. One that is not there, or leads to one
/// that is not, is not in the answer.
///
/// # Errors
/// When git cannot read the repository.
pub fn peel(
    git: &Git,
    git_dir: &Path,
    oids: &BTreeSet<&Oid>,
    asker: &Asker<'_>,
) -> Result<BTreeMap<Oid, Peeled>, AskError> {
    if oids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let what = format!("cat-file {}", git_dir.display());
    let lines: String = oids.iter().map(|oid| format!("{oid}^{{}}\n")).collect();
    let names = memory_file::reader_of(lines.as_bytes());
    let names = names.map_err(|source| AskError::Input { what: what.clone(), source })?;
    let answer = ask_with(what.clone(), git.look_up(git_dir), Input::File(names), ALL_REFS_MAX, asker)?;
    parse_peeled(oids, &answer).map_err(|why| AskError::Answer { what, why })
}

fn list_refs(
    git: &Git,
    git_dir: &Path,
    names: &[&str],
    limit: usize,
    asker: &Asker<'_>,
) -> Result<Vec<Listed>, AskError> {
    let what = format!("for-each-ref {}", git_dir.display());
    let answer = ask(what.clone(), git.list_refs(git_dir, names), limit, asker)?;
    parse_refs(&answer).map_err(|why| AskError::Answer { what, why })
}

/// What an upstream that is a directory of this machine says of itself for `service`, as [`crate::git::advertisement`]
/// reads it.
///
/// # Errors
/// When git does not advertise there.
pub fn advertisement(
    git: &Git,
    git_dir: &Path,
    service: Service,
    asker: &Asker<'_>,
) -> Result<Vec<u8>, AskError> {
    let (identity, protocol, unadvertised) = (Identity::default(), Protocol::V0, Unadvertised::default());
    let serving = Serving { service, git_dir, advertise: true, protocol, identity: &identity, unadvertised };
    ask(format!("{} {}", service.command(), git_dir.display()), git.serve(&serving), ALL_REFS_MAX, asker)
}

/// What git says of itself to whoever begins a fetch by version 2 of the protocol, as [`crate::git::capabilities`] reads it.
///
/// # Errors
/// When git does not advertise there.
pub fn capabilities(
    git: &Git,
    git_dir: &Path,
    unadvertised: Unadvertised,
    asker: &Asker<'_>,
) -> Result<Vec<u8>, AskError> {
    let (service, identity, protocol) = (Service::UploadPack, Identity::default(), Protocol::V2);
    let serving = Serving { service, git_dir, advertise: true, protocol, identity: &identity, unadvertised };
    ask(format!("{} {}", service.command(), git_dir.display()), git.serve(&serving), ANSWER_MAX, asker)
}

/// What git lists of the refs of a repository by version 2 of the protocol, at most `limit` bytes; `request` is
/// [`crate::git::ls_refs::everything`].
///
/// # Errors
/// When git gives no list.
pub fn list_of_refs(
    git: &Git,
    git_dir: &Path,
    request: File,
    unadvertised: Unadvertised,
    limit: usize,
    asker: &Asker<'_>,
) -> Result<Said, AskError> {
    let (service, identity, protocol) = (Service::UploadPack, Identity::default(), Protocol::V2);
    let serving = Serving { service, git_dir, advertise: false, protocol, identity: &identity, unadvertised };
    let what = format!("{} {}", service.command(), git_dir.display());
    let (outcome, said) = run(&what, git.serve(&serving), Input::File(request), limit, asker)?;
    if !outcome.is_success() {
        return Err(AskError::Failed { what, outcome: Box::new(outcome) });
    }
    match RefList::parse(said) {
        Some(list) => Ok(Said { list, is_silent: outcome.stderr.is_empty() }),
        None => Err(AskError::Answer { what, why: "it is no list of refs of version 2".to_owned() }),
    }
}

/// What git says first to a client that pushes to a small repository of ours, as [`crate::git::push_advertisement`] reads
/// it.
///
/// # Errors
/// When git does not advertise there.
pub fn push_advertisement(
    git: &Git,
    git_dir: &Path,
    offers: PushOffers,
    asker: &Asker<'_>,
) -> Result<Vec<u8>, AskError> {
    let what = format!("receive-pack {}", git_dir.display());
    ask(what, git.advertise_push(git_dir, offers, Protocol::V0), ANSWER_MAX, asker)
}

/// The names in portions that fit a command line.
fn in_portions<'a>(mut names: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    let mut portions = Vec::new();
    while !names.is_empty() {
        let mut room = NAMES_MAX;
        let fits = |name: &&&str| {
            let left = room.checked_sub(name.len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let count = names.iter().take_while(fits).count().max(1);
        let (some, rest) = names.split_at(count);
        portions.push(some);
        names = rest;
    }
    portions
}

fn parse_refs(answer: &[u8]) -> Result<Vec<Listed>, String> {
    let parse = |line: &[u8]| {
        let (value, names) = str::from_utf8(line).ok()?.split_once(' ')?;
        let (name, other) = names.split_once('\0')?;
        let stands_for = (!other.is_empty()).then(|| other.to_owned());
        Some(Listed { name: name.to_owned(), value: Oid::parse(value.as_bytes())?, stands_for })
    };
    let lines = answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    // A name that is not UTF-8 is longer than one of ours, which are.
    let lines = lines.filter(|line| str::from_utf8(line).is_ok());
    lines
        .map(|line| parse(line).ok_or_else(|| format!("{} is not `OID REF NUL [REF]`", excerpt(line))))
        .collect()
}

/// Lines of an object's name and its type, or the word `missing`.
fn parse_missing(answer: &[u8]) -> Result<Vec<Oid>, String> {
    let lines = answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let parse = |line: &[u8]| {
        let (name, kind) = str::from_utf8(line).ok()?.split_once(' ')?;
        Oid::parse(name.as_bytes()).map(|oid| (kind == "missing").then_some(oid))
    };
    let parsed = lines.map(|line| parse(line).ok_or_else(|| format!("{} is not `OID TYPE`", excerpt(line))));
    parsed.filter_map(Result::transpose).collect()
}

/// A line `ID TYPE` for each of `oids`, in their order, or one that says that it is missing.
fn parse_peeled(oids: &BTreeSet<&Oid>, answer: &[u8]) -> Result<BTreeMap<Oid, Peeled>, String> {
    let lines: Vec<&[u8]> = answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    if lines.len() != oids.len() {
        return Err(format!("{} lines for {} objects", lines.len(), oids.len()));
    }
    let parse = |line: &[u8]| {
        let (oid, kind) = str::from_utf8(line).ok()?.split_once(' ')?;
        Some(Peeled { oid: Oid::parse(oid.as_bytes())?, is_commit: kind == "commit" })
    };
    let lines = oids.iter().zip(lines).filter(|(_, line)| !line.ends_with(b" missing"));
    lines
        .map(|(oid, line)| match parse(line) {
            Some(peeled) => Ok(((*oid).clone(), peeled)),
            None => Err(format!("{} is not `OID TYPE`", excerpt(line))),
        })
        .collect()
}

fn ask(what: String, invocation: Invocation, limit: usize, asker: &Asker<'_>) -> Result<Vec<u8>, AskError> {
    ask_with(what, invocation, Input::Null, limit, asker)
}

fn ask_with(
    what: String,
    invocation: Invocation,
    stdin: Input,
    limit: usize,
    asker: &Asker<'_>,
) -> Result<Vec<u8>, AskError> {
    let (outcome, answer) = run(&what, invocation, stdin, limit, asker)?;
    if outcome.is_success() { Ok(answer) } else { Err(AskError::Failed { what, outcome: Box::new(outcome) }) }
}

fn run(
    what: &str,
    invocation: Invocation,
    stdin: Input,
    limit: usize,
    asker: &Asker<'_>,
) -> Result<(Outcome, Vec<u8>), SpawnError> {
    let mut spec = invocation.spec(what, "ask", asker.deadline);
    spec.stdin = stdin;
    spec.grace = asker.grace;
    Ok(asker.reaper.spawn(spec)?.collect(limit, asker.client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_for_in_portions_and_none_is_left_out() {
        let (short, long) = ("refs/heads/a", "x".repeat(NAMES_MAX - 20));
        let names = [short, &long, short, &long, &long];
        let portions = in_portions(&names);
        assert_eq!(portions.iter().map(|some| some.len()).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(portions.concat(), names);
        assert_eq!(in_portions(&[]).len(), 0);
    }

    #[test]
    fn objects_are_missing_that_git_says_so_of() {
        let [here, gone] = ["a", "b"].map(|digit| digit.repeat(40));
        let answer = format!("{here} blob\n{gone} missing\n");
        let gone = Oid::parse(gone.as_bytes()).unwrap();
        assert_eq!(parse_missing(answer.as_bytes()), Ok(vec![gone]));
        assert!(parse_missing(b"aa missing\n").is_err() && parse_missing(b"what\n").is_err());
    }

    #[test]
    fn objects_are_what_git_says_of_them_in_the_order_of_the_question() {
        let [a, b, gone] = ["a", "b", "c"].map(|digit| Oid::parse(digit.repeat(40).as_bytes()).unwrap());
        let oids = [&a, &b, &gone].into();
        let found = parse_peeled(&oids, format!("{a} commit\n{a} tree\n{gone}^{{}} missing\n").as_bytes());
        let peeled = |is_commit| Peeled { oid: a.clone(), is_commit };
        assert_eq!(found, Ok([(a.clone(), peeled(true)), (b.clone(), peeled(false))].into()));
        for answer in [format!("{a} commit\n"), "what\nis\nthat\n".to_owned()] {
            assert!(parse_peeled(&oids, answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_answer_that_is_no_list_of_refs_is_refused() {
        let oid = "a".repeat(40);
        let good = format!("{oid} refs/heads/a\0refs/heads/z\n{oid} refs/tags/b c\0\n");
        let refs = parse_refs(good.as_bytes()).unwrap();
        let value = Oid::parse(oid.as_bytes()).unwrap();
        assert_eq!(refs[0].stands_for.as_deref(), Some("refs/heads/z"));
        assert_eq!(refs[1], Listed { name: "refs/tags/b c".to_owned(), value, stands_for: None });
        assert!(parse_refs(b"warning: x\0").is_err() && parse_refs(b"short").is_err());
    }
}
