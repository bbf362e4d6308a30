//! Who else is at work in a repository: processes that are not ours and may hold a lock there.
//!
//! Seen through `/proc`, so only on this machine and in this PID namespace; a writer on another host that shares the disk
//! stays unseen, and so does a server that opens its files anew for every step. What is removed from a repository is
//! therefore also bound to a time and to our own refs (see [`crate::git::leftovers`]).

use crate::git::layout::Repository;
use crate::sys::procfs::{self, Stat, State};
use nix::libc;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many arguments of a git are looked at: those that say where it works come first.
const ARGUMENTS_MAX: usize = 32;

/// A process that may be writing to `repository` and is neither `own` nor descends from it; `None` when there is none.
///
/// Such a process has a file of the repository open for writing, or is a git that stands in the repository, has any of its
/// files open, or was started for it: git holds a lock also while it has nothing open. Whoever merely reads there, such as
/// a backup or `find`, is no writer, and neither is a shell that stands there. A git that may not be inspected counts.
///
/// # Errors
/// When `/proc` cannot be read: then nothing is known.
pub(crate) fn foreign_writer(repository: &Repository, own: Pid) -> io::Result<Option<Pid>> {
    let stats = snapshot()?;
    let is_foreign = |stat: &&Stat| stat.state != State::Zombie && !descends(stat.pid, own, &stats);
    let mut writers = stats.values().filter(is_foreign);
    Ok(writers.find(|stat| may_write(stat, repository)).map(|stat| stat.pid))
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

fn may_write(stat: &Stat, repository: &Repository) -> bool {
    match fs::read_link(format!("/proc/{}/cwd", stat.pid)) {
        Ok(place) if is_git(stat.pid) => {
            is_inside(&place, repository)
                || has_open(stat.pid, repository, |_| true)
                || is_started_for(stat, &place, repository)
        }
        Ok(_) => has_open(stat.pid, repository, |number| is_writable(stat.pid, number)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => is_git(stat.pid),
        Err(_) => false,
    }
}

/// Whether a process has a file of the repository open by a descriptor that `matters`.
fn has_open(pid: Pid, repository: &Repository, matters: impl Fn(&OsStr) -> bool) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| is_inside(&target, repository))
            && matters(&entry.file_name())
    })
}

/// Whether a descriptor can be written to (`flags` in proc_pid_fdinfo(5)); one that cannot be looked at counts, unless it
/// has been closed meanwhile.
fn is_writable(pid: Pid, number: &OsStr) -> bool {
    match fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(number)) {
        Ok(facts) => access(&facts).is_none_or(|access| access != libc::O_RDONLY),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// How a descriptor was opened: for reading, writing or both.
fn access(facts: &str) -> Option<i32> {
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE)
}

/// Whether a git that stands in `place` was told to work in the repository: by an argument such as `--git-dir=…`, or by
/// its environment. Of one in uninterruptible sleep that is not asked, for the answer may take as long as its sleep.
fn is_started_for(stat: &Stat, place: &Path, repository: &Repository) -> bool {
    match stat.state {
        State::Uninterruptible | State::Zombie => return false,
        State::Alive => {}
    }
    let (arguments, environ) = (procfs::arguments(stat.pid), procfs::environ(stat.pid));
    let (Ok(arguments), Ok(environ)) = (arguments, environ) else { return false };
    let values = arguments.split(|byte| *byte == 0).take(ARGUMENTS_MAX).map(option_value);
    let mut paths = values.chain(procfs::variable(&environ, "GIT_DIR")).filter(|path| !path.is_empty());
    paths.any(|path| {
        let path = place.join(OsStr::from_bytes(path));
        fs::canonicalize(path).is_ok_and(|path| is_inside(&path, repository))
    })
}

/// The value of an option that has one, and any other argument whole.
fn option_value(argument: &[u8]) -> &[u8] {
    let value = argument.iter().position(|byte| *byte == b'=').filter(|_| argument.starts_with(b"--"));
    value.map_or(argument, |at| &argument[at + 1..])
}

fn is_inside(path: &Path, repository: &Repository) -> bool {
    path.starts_with(&repository.git_dir) || path.starts_with(&repository.common_dir)
}

/// Every git calls itself `git`, `git-…`; the name is readable for everybody.
fn is_git(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(b"git"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// Seen from a process that does not exist, everybody is foreign.
    fn is_occupied(repository: &Repository) -> bool {
        foreign_writer(repository, Pid::from_raw(i32::MAX)).unwrap().is_some()
    }

    fn repository() -> (TempDir, Repository) {
        let dir = TempDir::new().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        fs::write(path.join("HEAD"), "").unwrap();
        (dir, Repository { git_dir: path.clone(), common_dir: path })
    }

    #[test]
    fn who_has_a_file_open_to_write_is_a_writer_and_who_reads_is_none() {
        let (_dir, repository) = repository();
        let reader = (File::open(repository.git_dir.join("HEAD")).unwrap(), File::open(&repository.git_dir));
        assert!(!is_occupied(&repository), "a backup reads");
        for options in [File::options().write(true), File::options().read(true).append(true)] {
            let writer = options.open(repository.git_dir.join("HEAD")).unwrap();
            assert!(is_occupied(&repository));
            drop(writer);
        }
        assert!(!is_occupied(&repository));
        drop(reader);
    }

    #[test]
    fn how_a_descriptor_was_opened_is_read_from_its_flags() {
        let facts = |flags: &str| format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\n");
        assert_eq!(access(&facts("02100000")), Some(libc::O_RDONLY));
        assert_eq!(access(&facts("0102001")), Some(libc::O_WRONLY));
        assert_eq!(access(&facts("02")), Some(libc::O_RDWR));
        assert_eq!(access("pos:\t0\n"), None);
    }

    #[test]
    fn a_git_is_at_work_where_its_arguments_lead() {
        let (_dir, repository) = repository();
        let elsewhere = TempDir::new().unwrap();
        symlink(&repository.git_dir, elsewhere.path().join("link")).unwrap();
        let name = |argument: &str| {
            let value = option_value(argument.as_bytes());
            let path = elsewhere.path().join(OsStr::from_bytes(value));
            fs::canonicalize(path).is_ok_and(|path| is_inside(&path, &repository))
        };
        let path = repository.git_dir.display();
        assert!(
            name(&format!("--git-dir={path}"))
                && name(&path.to_string())
                && name("link")
                && name("--x=link/HEAD")
        );
        assert!(!name("--git-dir=/") && !name("push") && !name("main=link"));
    }
}
