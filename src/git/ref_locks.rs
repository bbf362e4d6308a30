//! Which lock files a push of these refs holds while it moves them, and how a lock of ours looks.

use crate::git::footprint::{Footprint, RefTrace};
use crate::git::layout::Repository;
use crate::model::oid::Oid;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// How many symbolic refs are followed from a ref to the one that is locked in the end (git's own limit).
const SYMREF_DEPTH: usize = 5;

/// Longest loose ref or lock that is read, in bytes: a symbolic ref with the longest name.
const REF_FILE_MAX: u64 = 4096 + 8;

/// The refs of a footprint and those that git locks with them: the targets of symbolic ones, and HEAD with its branch.
pub(crate) fn locked_refs(repository: &Repository, footprint: &Footprint) -> io::Result<Vec<RefTrace>> {
    let mut refs = footprint.refs.clone();
    for trace in &footprint.refs {
        let mut name = trace.name.clone();
        for _ in 0..SYMREF_DEPTH {
            let Some(target) = symbolic_target(repository, &name)? else { break };
            refs.push(RefTrace { name: target.clone(), new: trace.new.clone() });
            name = target;
        }
    }
    let names: BTreeSet<&[u8]> = refs.iter().map(|trace| &*trace.name).collect();
    let head = symbolic_target(repository, b"HEAD")?;
    let of_head = head.filter(|branch| names.contains(&**branch));
    let new = of_head
        .and_then(|branch| refs.iter().find(|trace| trace.name == branch))
        .map(|trace| trace.new.clone());
    refs.extend(new.map(|new| RefTrace { name: b"HEAD".to_vec(), new }));
    Ok(refs)
}

/// The lock of a ref if it is there and looks like ours: empty for a deletion and until it is written, else with the new
/// value.
pub(crate) fn find(repository: &Repository, trace: &RefTrace) -> io::Result<Option<(PathBuf, Metadata)>> {
    let Some(path) = lock_path(repository, trace) else { return Ok(None) };
    let Some(found) = unless_absent(fs::symlink_metadata(&path))?.filter(is_small) else { return Ok(None) };
    let Some(content) = unless_absent(fs::read(&path))? else { return Ok(None) };
    let is_ours = content.is_empty() || Oid::parse(content.trim_ascii()).is_some_and(|oid| oid == trace.new);
    Ok(is_ours.then_some((path, found)))
}

/// Where the lock of a ref lies when it is held; `None` for what no ref is called.
pub(crate) fn lock_path(repository: &Repository, trace: &RefTrace) -> Option<PathBuf> {
    ref_path(repository, &trace.name, ".lock")
}

fn is_small(found: &Metadata) -> bool {
    found.is_file() && found.len() <= REF_FILE_MAX
}

/// What a symbolic ref points to, if `name` is one.
fn symbolic_target(repository: &Repository, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(path) = ref_path(repository, name, "") else { return Ok(None) };
    match unless_absent(fs::symlink_metadata(&path))? {
        Some(found) if found.is_symlink() => Ok(Some(fs::read_link(&path)?.into_os_string().into_vec())),
        Some(found) if is_small(&found) => {
            let content = fs::read(&path)?;
            Ok(content.strip_prefix(b"ref:").map(|target| target.trim_ascii().to_vec()))
        }
        Some(_) | None => Ok(None),
    }
}

/// Where a loose ref lies, with `suffix` after its name. `None` for what no ref is called: the name came from a client,
/// and git has refused it if it could lead anywhere else.
fn ref_path(repository: &Repository, name: &[u8], suffix: &str) -> Option<PathBuf> {
    let mut file = OsString::from_vec(name.to_vec());
    file.push(suffix);
    if name == b"HEAD" {
        return Some(repository.git_dir.join(file));
    }
    let is_plain =
        |segment: &[u8]| !segment.is_empty() && !segment.starts_with(b".") && !segment.contains(&0);
    let is_ref = name.starts_with(b"refs/") && name.split(|&byte| byte == b'/').all(is_plain);
    let path = repository.common_dir.join(file);
    (is_ref && !passes_link(&path, &repository.common_dir)).then_some(path)
}

/// Whether a directory between `top` and `path` is a symbolic link.
fn passes_link(path: &Path, top: &Path) -> bool {
    let between = path.ancestors().skip(1).take_while(|dir| *dir != top);
    between.into_iter().any(|dir| fs::symlink_metadata(dir).is_ok_and(|found| found.is_symlink()))
}

/// `None` for a path that names nothing.
pub(crate) fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}
