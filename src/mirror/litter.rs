//! What a git that was ended leaves in a mirror: packs that are not whole, and locks, of which a single one stops every
//! later fetch.
//!
//! A mirror is ours alone, and whoever has the turn is alone in it: so unlike in a hosted repository
//! ([`crate::git::leftovers`]), everything that looks like it goes, whoever made it and whenever.

use super::refs;
use super::shape::entries;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Removes it from the mirror at `git_dir`, and ends a change of its refs that was begun. Whoever calls has the turn.
///
/// # Errors
/// When something could not be looked at or removed.
pub(super) fn clear(git_dir: &Path) -> io::Result<()> {
    refs::settle(git_dir)?;
    let mut removed = 0;
    for (place, is_litter) in PLACES {
        for entry in entries(&git_dir.join(place))? {
            removed += remove_if(&entry, *is_litter)?;
        }
    }
    for tree in ["refs", "logs"] {
        removed += clear_locks(&git_dir.join(tree))?;
    }
    if removed > 0 {
        log::info!("removed {removed} leftovers of a git that was ended from {git_dir:?}");
    }
    Ok(())
}

/// Whether the entry is litter where it lies.
type Test = fn(&DirEntry) -> bool;

/// The directories and what is litter there.
const PLACES: &[(&str, Test)] = &[
    ("", |entry| has(entry, b"", b".lock") || entry.file_name() == "packed-refs.new"),
    // The second is a list of refs for a bitmap, which git 2.39 and 2.47 leave there when they are killed.
    ("objects", |entry| has(entry, b"tmp_obj", b"") || has(entry, b"bitmap-ref-tips_", b"")),
    ("objects/info", |entry| has(entry, b"", b".lock")),
    ("objects/info/commit-graphs", |entry| has(entry, b"", b".lock") || has(entry, b"tmp_", b"")),
    ("objects/pack", is_pack_litter),
];

/// What belongs to a pack besides its index.
const PACK_PARTS: [&str; 4] = ["pack", "rev", "mtimes", "bitmap"];

/// Index-pack names a pack first and its index last: one without is not known to any git, and what is in it is fetched again.
fn is_pack_litter(entry: &DirEntry) -> bool {
    let path = entry.path();
    let is_part = |suffix: &OsStr| PACK_PARTS.iter().any(|part| suffix == *part);
    let is_headless = has(entry, b"pack-", b"")
        && path.extension().is_some_and(is_part)
        && !path.with_extension("idx").exists();
    has(entry, b"tmp_", b"")
        || has(entry, b".tmp-", b"")
        || has(entry, b"", b".lock")
        || is_headless
        || (has(entry, b"", b".keep") && is_of_fetch(&path))
}

/// A pack is kept from being repacked while its refs are being written; the note says for whom.
fn is_of_fetch(path: &Path) -> bool {
    fs::read(path).is_ok_and(|text| text.starts_with(b"fetch-pack "))
}

fn has(entry: &DirEntry, prefix: &[u8], suffix: &[u8]) -> bool {
    let name = entry.file_name();
    name.as_bytes().starts_with(prefix) && name.as_bytes().ends_with(suffix)
}

fn clear_locks(top: &Path) -> io::Result<usize> {
    let mut removed = 0;
    let mut ahead = vec![top.to_path_buf()];
    while let Some(dir) = ahead.pop() {
        for entry in entries(&dir)? {
            if entry.file_type()?.is_dir() {
                ahead.push(entry.path());
            } else {
                removed += remove_if(&entry, |entry| has(entry, b"", b".lock"))?;
            }
        }
    }
    Ok(removed)
}

fn remove_if(entry: &DirEntry, is_litter: Test) -> io::Result<usize> {
    if !is_litter(entry) {
        return Ok(0);
    }
    let is_dir = entry.file_type()?.is_dir();
    if is_dir {
        fs::remove_dir_all(entry.path())?
    } else {
        fs::remove_file(entry.path())?
    }
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_goes_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let litter = [
            "HEAD.lock",
            "packed-refs.lock",
            "packed-refs.new",
            "shallow.lock",
            "objects/pack/tmp_pack_a1",
            "objects/pack/tmp_idx_a1",
            "objects/pack/.tmp-1-pack-2.pack",
            "objects/pack/pack-cut.pack",
            "objects/pack/pack-cut.rev",
            "objects/pack/pack-cut.keep",
            "objects/pack/multi-pack-index.lock",
            "objects/tmp_objdir-incoming-x/pack/tmp_pack_b",
            "objects/tmp_obj_c",
            "objects/bitmap-ref-tips_d",
            "objects/pack/tmp_bitmap_e",
            "objects/info/commit-graph.lock",
            "objects/info/commit-graphs/commit-graph-chain.lock",
            "objects/info/commit-graphs/tmp_graph_a",
            "objects/pack/pack-cut.mtimes",
            "upkeep.lock",
            "refs/heads/topic.lock",
            "refs/heads/deep/er.lock",
        ];
        let whole = [
            "HEAD",
            "config",
            "packed-refs",
            "objects/pack/pack-1.pack",
            "objects/pack/pack-1.rev",
            "objects/pack/pack-1.idx",
            "objects/pack/pack-2.keep",
            "objects/info/commit-graph",
            "objects/info/commit-graphs/commit-graph-chain",
            "objects/info/commit-graphs/graph-1.graph",
            "objects/pack/multi-pack-index",
            "objects/pack/multi-pack-index-1.bitmap",
            "objects/pack/pack-1.mtimes",
            "upkeep",
            "refs/heads/main",
            "refs/heads/deep/main",
        ];
        for name in litter.iter().chain(&whole) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content = if name.ends_with("cut.keep") { "fetch-pack 7 on here" } else { "kept by hand" };
            fs::write(path, content).unwrap();
        }
        clear(dir.path()).unwrap();
        let is_there = |name: &&str| dir.path().join(name).exists();
        assert_eq!(litter.iter().filter(|name| is_there(name)).count(), 0);
        assert!(whole.iter().all(is_there));
        clear(dir.path()).unwrap();
    }
}
