//! The new commits, tags and files, as git tells them, handed to every check that looks at them.

use super::bench::{Bench, CheckError, io_error, rewound};
use super::contents::{Content, ContentReader, Kind, Object};
use super::facts::{Change, Fact, FactReader};
use super::findings::Place;
use super::objects::{NewObjects, ask_lines};
use super::tag::Tag;
use super::{Active, Check};
use crate::model::filetype::HEAD_BYTES;
use crate::supervise::Input;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};

/// The most annotated tags of a push, and of files that merges made anew: each is kept in memory for a moment.
const KEPT_MAX: usize = 100_000;
/// How much of a commit is read for its header, in bytes: what is longer is none that anybody writes.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// The longest tag that is read, in bytes.
const TAG_BYTES_MAX: usize = 1 << 20;

const SORTING: &str = "telling new objects apart";
const OPENING: &str = "reading new tags and files";
const TELLING: &str = "reading the new commits";
const HEADERS: &str = "reading the headers of the new commits";
const WRITING: &str = "writing a temporary file";

const TOO_MANY: CheckError =
    CheckError::TooMuch("the push has more tags or merged files than are looked through: push it in parts");

/// What the stages after this one need.
#[derive(Debug)]
pub(super) struct History {
    /// The ids of the new commits, a line each.
    commits: File,
    /// How many there are.
    pub(super) count: u64,
    /// The new annotated tags.
    pub(super) tags: Vec<Tag>,
    /// The files that merges made as in none of their parents.
    pub(super) merged: Vec<Merged>,
}

/// A file that a merge made as in none of its parents.
#[derive(Debug)]
pub(super) struct Merged {
    /// The merge.
    pub(super) commit: String,
    /// The file.
    pub(super) change: Change,
}

/// New objects by what is to be done with them.
struct Sorted {
    commits: File,
    count: u64,
    /// Tags, and files whose first bytes somebody wants to see.
    to_open: File,
    opens: bool,
}

impl History {
    /// The ids of the commits as the standard input of a git.
    pub(super) fn input(&self) -> Result<Input, CheckError> {
        rewound(self.commits.try_clone().map_err(io_error(WRITING))?)
    }
}

/// Tells `checks` of every new object, tag, commit and change.
pub(super) fn read(
    bench: &Bench<'_>,
    new: &NewObjects,
    checks: &mut [Active<'_>],
) -> Result<History, CheckError> {
    let Sorted { commits, count, to_open, opens } = sort(bench, new, checks)?;
    let mut history = History { commits, count, tags: Vec::new(), merged: Vec::new() };
    if opens {
        history.tags = open(bench, rewound(to_open)?, checks)?;
    }
    if count > 0 {
        tell(bench, &mut history, checks)?;
        if checks.iter().any(|active| active.check.wants_headers()) {
            tell_headers(bench, &history, checks)?;
        }
    }
    Ok(history)
}

fn sort(bench: &Bench<'_>, new: &NewObjects, checks: &mut [Active<'_>]) -> Result<Sorted, CheckError> {
    let wants_heads = checks.iter().any(|active| active.check.wants_heads());
    let tips: HashSet<&str> = bench.push.refs.iter().map(|update| update.new.as_str()).collect();
    let (mut commits, mut to_open) = (BufWriter::new(bench.file()?), BufWriter::new(bench.file()?));
    let (mut count, mut opens) = (0, false);
    let git = bench.tools.git.object_types(bench.sight());
    ask_lines(bench, SORTING, git, new.input()?, |line| {
        let object =
            Object::parse(line).ok_or(CheckError::Answer { what: SORTING, why: "an object is missing" })?;
        let id = object.oid.as_str();
        let list = match object.kind {
            Kind::Commit => {
                count += 1;
                Some(&mut commits)
            }
            Kind::Tag => Some(&mut to_open),
            Kind::Blob if wants_heads => Some(&mut to_open),
            Kind::Blob | Kind::Tree => None,
        };
        opens |= list.is_some() && object.kind != Kind::Commit;
        if let Some(list) = list {
            writeln!(list, "{id}").map_err(io_error(WRITING))?;
        }
        if tips.contains(id) && matches!(object.kind, Kind::Blob | Kind::Tree) {
            let place = Place { ref_name: bench.ref_of(id), ..Place::default() };
            each(checks, |check| check.outside_of_commits(place, object.kind));
        }
        each(checks, |check| check.object(&object));
        Ok(())
    })?;
    let whole =
        |list: BufWriter<File>| list.into_inner().map_err(|error| io_error(WRITING)(error.into_error()));
    Ok(Sorted { commits: whole(commits)?, count, to_open: whole(to_open)?, opens })
}

/// Reads tags whole, and of files their first bytes.
fn open(bench: &Bench<'_>, ids: Input, checks: &mut [Active<'_>]) -> Result<Vec<Tag>, CheckError> {
    let mut tags = Vec::new();
    let mut present: Option<(Object, Vec<u8>)> = None;
    let mut take = |content: Content<'_>| -> Result<(), Broken> {
        match (content, &mut present) {
            (Content::Begin(object), _) if object.kind == Kind::Tag && object.size > TAG_BYTES_MAX as u64 => {
                return Err("a tag is longer than 1 MiB".into());
            }
            (Content::Begin(object), present) => *present = Some((object.clone(), Vec::new())),
            (Content::Bytes(bytes), Some((object, kept))) => {
                let most = if object.kind == Kind::Tag { TAG_BYTES_MAX } else { HEAD_BYTES };
                kept.extend_from_slice(&bytes[..bytes.len().min(most - kept.len())]);
            }
            (Content::End, Some((object, kept))) if object.kind == Kind::Tag => {
                let tag = Tag::parse(&object.oid, kept).ok_or("a tag is not as git writes it")?;
                tell_tag(bench, &tag, checks);
                tags.push(tag);
            }
            (Content::End, Some((object, kept))) => each(checks, |check| check.head(object, kept)),
            (Content::Bytes(_) | Content::End, None) => return Err("an object has no beginning".into()),
        }
        if tags.len() > KEPT_MAX { Err(TOO_MANY.into()) } else { Ok(()) }
    };
    let mut reader = ContentReader::default();
    let git = bench.tools.git.object_contents(bench.sight());
    bench
        .ask(OPENING, git, ids, |bytes| reader.feed(bytes, &mut take).map_err(|broken| broken.at(OPENING)))?;
    reader.finish().map_err(|why| Broken::from(why).at(OPENING))?;
    Ok(tags)
}

fn tell_tag(bench: &Bench<'_>, tag: &Tag, checks: &mut [Active<'_>]) {
    let place = Place { ref_name: bench.ref_of(tag.oid.as_str()), ..Place::default() };
    if matches!(tag.of, Kind::Blob | Kind::Tree) {
        each(checks, |check| check.outside_of_commits(place, tag.of));
    }
    each(checks, |check| check.header(place, &tag.header));
    each(checks, |check| check.tag(place, tag));
}

fn tell(bench: &Bench<'_>, history: &mut History, checks: &mut [Active<'_>]) -> Result<(), CheckError> {
    let mut reader = FactReader::default();
    let merged = &mut history.merged;
    let mut take = |fact: Fact<'_>| -> Result<(), Broken> {
        match fact {
            Fact::Commit(commit) => {
                let place =
                    Place { ref_name: bench.ref_of(&commit.oid), commit: Some(&commit.oid), path: None };
                each(checks, |check| check.commit(place, commit));
            }
            Fact::Change(commit, change) => {
                let ref_name = bench.ref_of(&commit.oid);
                let place = Place { ref_name, commit: Some(&commit.oid), path: Some(&change.path) };
                each(checks, |check| check.change(place, change));
                if change.is_merged() {
                    merged.push(Merged { commit: commit.oid.clone(), change: change.clone() });
                }
            }
        }
        if merged.len() > KEPT_MAX { Err(TOO_MANY.into()) } else { Ok(()) }
    };
    let git = bench.tools.git.commit_facts(bench.sight());
    let commits = rewound(history.commits.try_clone().map_err(io_error(WRITING))?)?;
    bench.ask(TELLING, git, commits, |bytes| {
        reader.feed(bytes, &mut take).map_err(|broken| broken.at(TELLING))
    })?;
    reader.finish().map_err(|why| Broken::from(why).at(TELLING))?;
    if reader.commits == history.count {
        Ok(())
    } else {
        Err(CheckError::Answer { what: TELLING, why: "it tells of another number of commits" })
    }
}

/// Reads the commits themselves: git's own words for who made one hide what is odd about it.
fn tell_headers(bench: &Bench<'_>, history: &History, checks: &mut [Active<'_>]) -> Result<(), CheckError> {
    let (mut count, mut commit, mut kept) = (0, None, Vec::new());
    let mut take = |content: Content<'_>| -> Result<(), Broken> {
        match (content, &commit) {
            (Content::Begin(object), _) if object.kind == Kind::Commit => {
                commit = Some(object.oid.clone());
                kept.clear();
            }
            (Content::Bytes(bytes), Some(_)) => {
                kept.extend_from_slice(&bytes[..bytes.len().min(HEADER_BYTES_MAX - kept.len())]);
            }
            (Content::End, Some(oid)) => {
                let end = kept.windows(2).position(|pair| pair == b"\n\n");
                if end.is_none() && kept.len() == HEADER_BYTES_MAX {
                    return Err("the header of a commit is longer than 1 MiB".into());
                }
                let id = oid.as_str();
                let place = Place { ref_name: bench.ref_of(id), commit: Some(id), path: None };
                each(checks, |check| check.header(place, &kept[..end.unwrap_or(kept.len())]));
                count += 1;
            }
            (Content::Begin(_) | Content::Bytes(_) | Content::End, _) => {
                return Err("a commit is none, or has no beginning".into());
            }
        }
        Ok(())
    };
    let mut reader = ContentReader::default();
    let git = bench.tools.git.object_contents(bench.sight());
    bench.ask(HEADERS, git, history.input()?, |bytes| {
        reader.feed(bytes, &mut take).map_err(|broken| broken.at(HEADERS))
    })?;
    reader.finish().map_err(|why| Broken::from(why).at(HEADERS))?;
    if count == history.count {
        Ok(())
    } else {
        Err(CheckError::Answer { what: HEADERS, why: "it tells of another number of commits" })
    }
}

fn each<'a>(checks: &mut [Active<'a>], mut tell: impl FnMut(&mut (dyn Check + 'a))) {
    for active in checks {
        tell(active.check.as_mut());
    }
}

/// What a reader objects to, or the sink that it hands things to.
#[derive(Debug)]
pub(super) enum Broken {
    /// The answer is not as it should be.
    Answer(&'static str),
    /// Anything else.
    Other(CheckError),
}

impl From<&'static str> for Broken {
    fn from(why: &'static str) -> Self {
        Self::Answer(why)
    }
}

impl From<CheckError> for Broken {
    fn from(error: CheckError) -> Self {
        Self::Other(error)
    }
}

impl Broken {
    /// The error, with what git was asked for.
    pub(super) fn at(self, what: &'static str) -> CheckError {
        match self {
            Self::Answer(why) => CheckError::Answer { what, why },
            Self::Other(error) => error,
        }
    }
}
