//! The two system calls of the reaper: look for a zombie without taking it, and take one.
//!
//! Raw, because nix refuses a status that names a real-time signal, and has no `wait4` with resource usage.

use super::outcome::{Exit, Usage};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::unistd::Pid;
use std::mem;
use std::time::Duration;

/// What a look at the children found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// This child has ended and waits to be reaped; looking again finds the same one.
    Zombie(Pid),
    /// There are children, and none has ended.
    AllAlive,
    /// There are no children.
    NoChildren,
}

/// Looks for a child that has ended and leaves it as it is. With `block`, waits until there is one or no child is left.
pub(super) fn look(block: bool) -> Result<Look, Errno> {
    let flags = libc::WEXITED | libc::WNOWAIT | if block { 0 } else { libc::WNOHANG };
    // SAFETY: all zeroes is a valid `siginfo_t`, with the process number 0 that means "none".
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: `info` is valid for writes.
    let answer = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    match Errno::result(answer) {
        Ok(_) => {}
        Err(Errno::ECHILD) => return Ok(Look::NoChildren),
        Err(Errno::EINTR) => return Ok(Look::AllAlive),
        Err(errno) => return Err(errno),
    }
    // SAFETY: waitid filled the fields of SIGCHLD, or left the zeroes.
    match unsafe { info.si_pid() } {
        0 => Ok(Look::AllAlive),
        pid => Ok(Look::Zombie(Pid::from_raw(pid))),
    }
}

/// What taking a zombie answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken {
    /// It is reaped, and this is what it left.
    Ended(Exit, Usage),
    /// It is alive, so there is nothing to take.
    Alive,
    /// It is no child of ours, or was taken by somebody else.
    NotOurs,
}

/// Reaps `pid` if it has ended; never blocks.
pub(super) fn take(pid: Pid) -> Taken {
    let mut status: c_int = 0;
    // SAFETY: all zeroes is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both out-parameters are valid for writes.
    match unsafe { libc::wait4(pid.as_raw(), &raw mut status, libc::WNOHANG, &raw mut usage) } {
        0 => Taken::Alive,
        taken if taken == pid.as_raw() => Taken::Ended(exit(status), used(&usage)),
        _ => Taken::NotOurs,
    }
}

/// Whether `pid` is no child of ours: it never was, or somebody has waited for it.
pub(super) fn is_foreign(pid: Pid) -> bool {
    let Ok(id) = libc::id_t::try_from(pid.as_raw()) else { return true };
    // SAFETY: all zeroes is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: `info` is valid for writes.
    Errno::result(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) }) == Err(Errno::ECHILD)
}

/// A wait without `WUNTRACED` answers exits and fatal signals only.
fn exit(status: c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

fn used(usage: &libc::rusage) -> Usage {
    Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // The kernel counts in KiB.
        memory_max: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
