//! The lines that the new commits add, handed to every check that looks at them.
//!
//! Of an ordinary commit they are what git's own comparison with its parent says. Of a merge they are the lines of a file
//! that no parent's version of it has: git's combined differences cut lines at a NUL and pass over what they take for
//! binary, so the versions themselves are compared here, line by line.

use super::Active;
use super::bench::{Bench, CheckError};
use super::contents::{Content, ContentReader};
use super::history::{Broken, History, Merged};
use super::patch::{Line, PatchReader};
use super::split::{Piece, Splitter};
use crate::model::oid::Oid;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// The most lines that are remembered of the parents' versions of one file.
const PARENT_LINES_MAX: usize = 4_000_000;

const COMPARING: &str = "comparing the new commits with their parents";
const MERGING: &str = "comparing merged files with those of the parents";

/// Tells `checks` of every added line.
pub(super) fn read(
    bench: &Bench<'_>,
    history: &History,
    checks: &mut [Active<'_>],
) -> Result<(), CheckError> {
    let mut tell = |line: Line<'_>| -> Result<(), Broken> {
        checks.iter_mut().for_each(|active| active.check.line(bench.ref_of(line.commit), line));
        Ok(())
    };
    if history.count > 0 {
        added(bench, history, &mut tell)?;
    }
    if !history.merged.is_empty() {
        merged(bench, history, &mut tell)?;
    }
    Ok(())
}

fn added(
    bench: &Bench<'_>,
    history: &History,
    tell: &mut impl FnMut(Line<'_>) -> Result<(), Broken>,
) -> Result<(), CheckError> {
    let mut reader = PatchReader::default();
    let git = bench.tools.git.added_lines(bench.sight());
    let feed = |bytes: &[u8]| reader.feed(bytes, tell).map_err(|broken| broken.at(COMPARING));
    bench.ask(COMPARING, git, history.input()?, feed)?;
    let count = reader.finish().map_err(|why| Broken::from(why).at(COMPARING))?;
    if count == history.count {
        Ok(())
    } else {
        Err(CheckError::Answer { what: COMPARING, why: "it compares another number of commits" })
    }
}

/// One step of reading a merged file: a parent's version, or the merge's own.
struct Step<'a> {
    oid: &'a Oid,
    commit: &'a str,
    path: &'a [u8],
    /// Whether it is the merge's own; the parents' come before it.
    is_result: bool,
}

fn merged(
    bench: &Bench<'_>,
    history: &History,
    tell: &mut impl FnMut(Line<'_>) -> Result<(), Broken>,
) -> Result<(), CheckError> {
    let steps: Vec<_> = history.merged.iter().flat_map(steps_of).collect();
    let ids = bench.lines(steps.iter().map(|step| step.oid.as_str()))?;
    let mut comparison = Comparison { steps: steps.into_iter(), step: None, known: Known::default() };
    let mut take = |content: Content<'_>| comparison.take(&content, tell);
    let mut reader = ContentReader::default();
    let git = bench.tools.git.object_contents(bench.sight());
    bench
        .ask(MERGING, git, ids, |bytes| reader.feed(bytes, &mut take).map_err(|broken| broken.at(MERGING)))?;
    reader.finish().map_err(|why| Broken::from(why).at(MERGING))?;
    match comparison.steps.next() {
        None => Ok(()),
        Some(_) => Err(CheckError::Answer { what: MERGING, why: "a file is missing" }),
    }
}

/// Nothing for what is now gone or no file.
fn steps_of(merged: &Merged) -> impl Iterator<Item = Step<'_>> {
    let (commit, path) = (merged.commit.as_str(), merged.change.path.as_slice());
    let result = merged.change.after.blob();
    let parents =
        merged.change.before.iter().filter_map(|side| side.blob()).filter(move |_| result.is_some());
    let parents = parents.map(move |oid| Step { oid, commit, path, is_result: false });
    parents.chain(result.map(|oid| Step { oid, commit, path, is_result: true }))
}

/// The lines of the parents' versions, by a keyed hash: nobody can make a line that passes for another one.
#[derive(Default)]
struct Known {
    lines: HashSet<u64>,
    key: RandomState,
}

/// A merged file in the reading.
struct Comparison<'a> {
    steps: std::vec::IntoIter<Step<'a>>,
    step: Option<(Step<'a>, Splitter, u64)>,
    known: Known,
}

impl Comparison<'_> {
    fn take(
        &mut self,
        content: &Content<'_>,
        tell: &mut impl FnMut(Line<'_>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let Self { steps, step, known } = self;
        match (content, &mut *step) {
            (Content::Begin(object), _) => {
                let next = steps.next().filter(|step| *step.oid == object.oid);
                *step = Some((next.ok_or("a file comes out of turn")?, Splitter::default(), 0));
                Ok(())
            }
            (Content::Bytes(bytes), Some((step, splitter, number))) => {
                splitter.feed(bytes, &mut |piece| known.compare(step, number, piece, tell))
            }
            (Content::End, Some((step, splitter, number))) => {
                splitter.finish(&mut |piece| known.compare(step, number, piece, tell))?;
                if step.is_result {
                    known.lines.clear();
                }
                Ok(())
            }
            (Content::Bytes(_) | Content::End, None) => Err("a file has no beginning".into()),
        }
    }
}

impl Known {
    fn compare(
        &mut self,
        step: &Step<'_>,
        number: &mut u64,
        piece: Piece<'_>,
        tell: &mut impl FnMut(Line<'_>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        *number += u64::from(piece.starts);
        let text = piece.bytes.strip_suffix(b"\r").unwrap_or(piece.bytes);
        let hash = self.key.hash_one((piece.starts, text));
        if !step.is_result {
            self.lines.insert(hash);
            let too_many = CheckError::TooMuch("a merged file has more lines than are looked through");
            return if self.lines.len() > PARENT_LINES_MAX { Err(too_many.into()) } else { Ok(()) };
        }
        if self.lines.contains(&hash) {
            return Ok(());
        }
        tell(Line { commit: step.commit, path: step.path, number: *number, text })
    }
}
