//! Which objects are new, and which of those that came are named by nothing.
//!
//! A pack may hold what no ref of the push reaches: git takes it, and protocol v2 then hands it to whoever knows its id.
//! What came in the packs is therefore struck off by what is new, and the rest must be in the target already: a client may
//! send what it did not know to be there. The bases of deltas by which git completes a thin pack did not come; they are
//! known by their place behind all that did, and git has taken them from the target.

use super::bench::{Bench, CheckError, io_error, rewound};
use super::idset::IdSet;
use super::split::{Piece, Splitter};
use crate::git::command::Invocation;
use crate::git::pack_index::read_ids;
use crate::model::oid::Oid;
use crate::supervise::Input;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

/// The most packs in a staging repository. One push makes one.
const PACKS_MAX: usize = 16;

/// What the log and the pusher are told about.
const LISTING: &str = "listing the new objects";
const INDEXING: &str = "listing the pack";
const LOOKING: &str = "looking for objects in the target";
const WRITING: &str = "writing a temporary file";
const READING: &str = "reading the staging repository";

const TOO_MANY: CheckError =
    CheckError::TooMuch("the push has more objects than are looked through: push its history in parts");

/// The new objects.
#[derive(Debug)]
pub(super) struct NewObjects {
    /// Their ids, a line each; commits first.
    pub(super) ids: File,
}

/// Lists the new objects, and hands those that nothing names to `hidden`.
pub(super) fn list(bench: &Bench<'_>, hidden: &mut impl FnMut(&str)) -> Result<NewObjects, CheckError> {
    let mut brought = IdSet::default();
    add_packed(bench, &mut brought)?;
    add_loose(bench.view.objects(), &mut brought)?;
    brought.sort();
    let mut ids = BufWriter::new(bench.file()?);
    let tips: Vec<&str> = bench
        .push
        .refs
        .iter()
        .filter(|update| !update.new.is_zero())
        .map(|update| update.new.as_str())
        .collect();
    if !tips.is_empty() {
        let git = bench.tools.git.new_objects(bench.sight());
        ask_lines(bench, LISTING, git, bench.lines(&tips)?, |line| {
            brought.strike(&oid(LISTING, line)?);
            ids.write_all(line).and_then(|()| ids.write_all(b"\n")).map_err(io_error(WRITING))
        })?;
    }
    report_missing(bench, &brought, hidden)?;
    let ids = ids.into_inner().map_err(|error| io_error(WRITING)(error.into_error()))?;
    Ok(NewObjects { ids })
}

fn add_packed(bench: &Bench<'_>, brought: &mut IdSet) -> Result<(), CheckError> {
    // Also the zeroes of a deletion have the length of the repository's ids.
    let width = bench.push.refs.first().map(|update| update.new.as_str().len() / 2);
    let width = width.ok_or(CheckError::Answer { what: INDEXING, why: "the push has no ref" })?;
    let packs = names_in(&bench.view.objects().join("pack"))?;
    let indexes: Vec<_> = packs.iter().filter(|name| name.ends_with(".idx")).collect();
    let has_index =
        |name: &&String| name.strip_suffix(".pack").is_none_or(|base| packs.contains(&format!("{base}.idx")));
    if !packs.iter().all(|name| has_index(&name)) || indexes.len() > PACKS_MAX {
        return Err(CheckError::Answer {
            what: INDEXING,
            why: "there is a pack without an index, or many packs",
        });
    }
    let is_alone = indexes.len() == 1;
    for name in indexes {
        let index = File::open(bench.view.objects().join("pack").join(name)).map_err(io_error(READING))?;
        let mut is_room = true;
        let sent = bench.push.sent.filter(|_| is_alone);
        read_ids(BufReader::new(index), width, sent, |id| {
            is_room = brought.add_bytes(id);
            is_room
        })
        .map_err(io_error(READING))?;
        if !is_room {
            return Err(TOO_MANY);
        }
    }
    Ok(())
}

/// Adds what lies there outside of packs: git unpacks a push of few objects unless it is told not to.
fn add_loose(objects: &Path, brought: &mut IdSet) -> Result<(), CheckError> {
    let is_fan = |name: &&String| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    for fan in names_in(objects)?.iter().filter(is_fan) {
        for name in names_in(&objects.join(fan))? {
            // Whatever else lies there is no object, and git does not see it.
            let Some(oid) = Oid::parse(format!("{fan}{name}").as_bytes()) else { continue };
            if !brought.add(&oid) {
                return Err(TOO_MANY);
            }
        }
    }
    Ok(())
}

/// The names in a directory that are UTF-8, as all of git's own are.
fn names_in(directory: &Path) -> Result<Vec<String>, CheckError> {
    let entries = fs::read_dir(directory).map_err(io_error(READING))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io_error(READING))?.file_name().into_string());
    }
    Ok(names)
}

/// Hands on what is left of `brought` and is not in the target either.
fn report_missing(
    bench: &Bench<'_>,
    brought: &IdSet,
    hidden: &mut impl FnMut(&str),
) -> Result<(), CheckError> {
    if brought.rest().next().is_none() {
        return Ok(());
    }
    let git = bench.tools.git.object_types(bench.sight_of_target());
    ask_lines(bench, LOOKING, git, bench.lines(brought.rest())?, |line| {
        let (id, rest) = line.split_at(line.iter().position(|&byte| byte == b' ').unwrap_or(line.len()));
        let id = oid(LOOKING, id)?;
        if rest == b" missing" {
            hidden(id.as_str());
        }
        Ok(())
    })
}

/// Asks git for lines, none of them long.
pub(super) fn ask_lines(
    bench: &Bench<'_>,
    what: &'static str,
    invocation: Invocation,
    stdin: Input,
    mut sink: impl FnMut(&[u8]) -> Result<(), CheckError>,
) -> Result<(), CheckError> {
    let mut splitter = Splitter::default();
    let mut whole = |piece: Piece<'_>| {
        if piece.starts {
            sink(piece.bytes)
        } else {
            Err(CheckError::Answer { what, why: "a line is too long" })
        }
    };
    bench.ask(what, invocation, stdin, |bytes| splitter.feed(bytes, &mut whole))?;
    splitter.finish(&mut whole)
}

fn oid(what: &'static str, text: &[u8]) -> Result<Oid, CheckError> {
    Oid::parse(text).ok_or(CheckError::Answer { what, why: "an id is none" })
}

impl NewObjects {
    /// The ids as the standard input of a git.
    pub(super) fn input(&self) -> Result<Input, CheckError> {
        rewound(self.ids.try_clone().map_err(io_error(WRITING))?)
    }
}
