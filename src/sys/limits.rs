//! Limits of this process and of the children right after their start.
//!
//! `prlimit(2)` on the running child replaces a hook between fork and exec, which would turn every start into a plain
//! fork of a threaded process. The few microseconds in which the child runs without its limits do not matter: it is
//! the program we chose, reading its configuration.

use nix::errno::Errno;
use nix::libc::{self, rlimit};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::sync::OnceLock;

/// The soft limit of descriptors with which this process was started; children get it back. Programs written for
/// `select(2)` need a small one, and some close every possible descriptor before they exec.
static DESCRIPTORS_AT_START: OnceLock<u64> = OnceLock::new();

/// How much rather the kernel should take a child than us when memory runs out, in thousandths of all memory: a git
/// is taken first unless we have grown to half of the machine.
const OOM_PREFERENCE: i32 = 500;

/// The niceness of what may wait: a tenth of a processor beside one that has work for all of it.
const BACKGROUND: libc::c_int = 10;

/// The highest `oom_score_adj` there is.
const OOM_MAX: i32 = 1000;

/// Raises the soft limit of open descriptors to the hard one and answers it.
///
/// # Errors
/// What the system answers; the old limit then stays.
pub fn raise_descriptors() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    DESCRIPTORS_AT_START.get_or_init(|| soft);
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// How many descriptors this process may have; 1024, the usual number, where the system does not say.
#[must_use]
pub fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// No core dumps, of us or of any child: they would write memory with credentials into a working directory.
///
/// # Errors
/// What the system answers.
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Marks every descriptor above standard error close-on-exec. Whoever started us may have left some open, and each
/// would reach every git, its hooks, and whatever these leave behind.
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
pub fn seal_descriptors() -> io::Result<()> {
    let numbers =
        fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number: &RawFd| *number > libc::STDERR_FILENO).for_each(|number| {
        // SAFETY: F_SETFD touches no memory; a number that was closed meanwhile answers EBADF.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    });
    Ok(())
}

/// Gives the child `pid` the descriptor limit that we were started with, and at most `memory` bytes of address space.
///
/// The caller makes sure that `pid` is a child that nobody has waited for, so that the number is still its own.
///
/// # Errors
/// What the system answers.
pub fn limit_child(pid: Pid, memory: Option<u64>) -> io::Result<()> {
    if let Some(&soft) = DESCRIPTORS_AT_START.get() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        prlimit(pid, libc::RLIMIT_NOFILE, rlimit { rlim_cur: soft.min(hard), rlim_max: hard })?;
    }
    if let Some(bytes) = memory {
        prlimit(pid, libc::RLIMIT_AS, rlimit { rlim_cur: bytes, rlim_max: bytes })?;
    }
    Ok(())
}

/// Lets everything else have the processors before the child `pid` and what it starts.
///
/// The caller makes sure of the same as for [`limit_child`].
///
/// # Errors
/// What the system answers.
pub fn put_behind(pid: Pid) -> io::Result<()> {
    let group = libc::id_t::try_from(pid.as_raw()).map_err(io::Error::other)?;
    // The group: what the child has started in the meantime is in it.
    // SAFETY: setpriority touches no memory; the number is that of a child nobody has waited for.
    let answer = unsafe { libc::setpriority(libc::PRIO_PGRP, group, BACKGROUND) };
    Ok(Errno::result(answer).map(drop)?)
}

fn prlimit(pid: Pid, resource: libc::__rlimit_resource_t, limit: rlimit) -> io::Result<()> {
    // SAFETY: `limit` is valid for reads and the old limit is not asked for.
    let answer = unsafe { libc::prlimit(pid.as_raw(), resource, &raw const limit, std::ptr::null_mut()) };
    Ok(Errno::result(answer).map(drop)?)
}

/// The `oom_score_adj` that children should have; `None` where the kernel has no such thing or ours is the highest.
#[must_use]
pub fn oom_score_of_children() -> Option<i32> {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
    (own < OOM_MAX).then(|| own.saturating_add(OOM_PREFERENCE).min(OOM_MAX))
}

/// Sets the `oom_score_adj` of the child `pid`; what it starts later inherits it.
///
/// # Errors
/// What the system answers; a child that has just ended is not an error.
pub fn set_oom_score(pid: Pid, score: i32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(format!("/proc/{pid}/oom_score_adj"))?;
    match file.write_all(score.to_string().as_bytes()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[test]
    fn an_inherited_descriptor_is_closed_on_exec() {
        let file = File::open("/dev/null").unwrap();
        // SAFETY: dup(2) touches no memory.
        let copy = unsafe { libc::dup(file.as_raw_fd()) };
        // SAFETY: dup(2) answered a new descriptor, which nobody else owns.
        let leaked = unsafe { OwnedFd::from_raw_fd(copy) };
        let flags = || nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags() & libc::FD_CLOEXEC, 0);
        seal_descriptors().unwrap();
        assert_eq!(flags() & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn the_soft_limit_of_descriptors_reaches_the_hard_one() {
        let hard = raise_descriptors().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
