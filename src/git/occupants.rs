//! Who else is at work in a repository: processes that are not ours and may hold a lock there.
//!
//! Seen through `/proc`, so only on this machine and in this PID namespace; a writer on another host that shares the disk
//! stays unseen, and so does a server that opens its files anew for every step. What is removed from a repository is
//! therefore also bound to a time and to our own refs (see [`crate::git::leftovers`]).

use crate::git::layout::Repository;
use crate::sys::procfs::{self, Stat, State};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A process that may be writing to `repository` and is neither `own` nor descends from it; `None` when there is none.
///
/// Such a process has a file of the repository open, or is a git that stands in it. A shell that merely stands there is
/// no writer. A git that may not be inspected counts.
///
/// # Errors
/// When `/proc` cannot be read: then nothing is known.
pub(crate) fn foreign_writer(repository: &Repository, own: Pid) -> io::Result<Option<Pid>> {
    let stats = snapshot()?;
    let is_foreign = |stat: &&Stat| stat.state != State::Zombie && !descends(stat.pid, own, &stats);
    let writers = stats.values().filter(is_foreign);
    Ok(writers.map(|stat| stat.pid).find(|&pid| may_write(pid, repository)))
}

/// Every process; those that end meanwhile are left out.
fn snapshot() -> io::Result<HashMap<Pid, Stat>> {
    let stats = procfs::processes()?.into_iter().filter_map(|pid| Stat::of(pid).ok());
    Ok(stats.map(|stat| (stat.pid, stat)).collect())
}

/// Whether the line of parents of `pid` leads to `own`. The snapshot is not atomic, so it may hold a ring: the number of
/// steps is bounded by the number of processes.
fn descends(mut pid: Pid, own: Pid, stats: &HashMap<Pid, Stat>) -> bool {
    for _ in 0..=stats.len() {
        if pid == own {
            return true;
        }
        match stats.get(&pid) {
            Some(stat) if stat.parent.as_raw() > 0 => pid = stat.parent,
            Some(_) | None => return false,
        }
    }
    false
}

fn may_write(pid: Pid, repository: &Repository) -> bool {
    match stands_in(pid, repository) {
        Ok(stands) => (stands && is_git(pid)) || has_open(pid, repository),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => is_git(pid),
        Err(_) => false,
    }
}

fn stands_in(pid: Pid, repository: &Repository) -> io::Result<bool> {
    Ok(is_inside(&fs::read_link(format!("/proc/{pid}/cwd"))?, repository))
}

fn has_open(pid: Pid, repository: &Repository) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.into_iter().any(|target| is_inside(&target, repository))
}

fn is_inside(path: &Path, repository: &Repository) -> bool {
    path.starts_with(&repository.git_dir) || path.starts_with(&repository.common_dir)
}

/// Every git calls itself `git`, `git-…`; the name is readable for everybody.
fn is_git(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(b"git"))
}
