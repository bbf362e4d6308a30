//! Processes of an earlier life of this gate, which outlived its violent end, found and ended at start.
//!
//! They are no children of ours, so the gate cannot pin their numbers. A pidfd can: it names one process for good, and
//! signalling through it never meets another. So marked processes are ended one by one, not by group: every member that
//! inherited the environment carries the mark, and looking again until nothing is found reaches what is started meanwhile.

use super::mark::Mark;
use crate::sys::poll::{self, Interest};
use crate::sys::procfs::{self, Stat, State};
use crate::sys::thread;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long after SIGKILL a survivor may take to be gone before the start goes on without.
const CAP: Duration = Duration::from_secs(5);

/// How long to wait for one survivor before looking for more.
const STEP: Duration = Duration::from_millis(100);

/// How long a process in uninterruptible sleep may keep its environment from us.
const READ_LIMIT: Duration = Duration::from_millis(500);

/// What became of the processes of an earlier life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survivors {
    /// How many there were.
    pub found: usize,
    /// How many are there still: SIGKILL does not reach them. They may yet write to a repository.
    pub left: usize,
}

/// Every survivor that was seen, by number and start.
type Seen = HashMap<(Pid, u64), Survivor>;

enum Survivor {
    /// One of ours, and the descriptor that names it for good.
    Known(OwnedFd),
    /// It sleeps uninterruptibly and keeps its environment locked, so it may be one of ours.
    Unknown,
}

/// Ends every process of our user that carries `mark` and is not this one: SIGTERM, after `grace` SIGKILL. Comes back when
/// all are gone, or 5 s after the SIGKILL.
///
/// Call it with the lock of the data directory taken, so that nobody else of this mark lives, and before the first child
/// is started.
///
/// # Errors
/// When `/proc` cannot be read or the kernel has no pidfds (before Linux 5.3): nothing is known then, and repositories may
/// have writers.
pub fn end_survivors(mark: &Mark, grace: Duration) -> io::Result<Survivors> {
    let kill_at = Instant::now() + grace;
    let mut seen = Seen::new();
    loop {
        let now = Instant::now();
        let living = look(mark, &mut seen)?;
        if living.is_empty() || now >= kill_at + CAP {
            return Ok(Survivors { found: seen.len(), left: living.len() });
        }
        let handles = living.iter().filter_map(|key| seen.get(key)?.handle());
        if now >= kill_at {
            handles.clone().try_for_each(|handle| send(handle, Signal::SIGKILL))?;
        }
        poll::wait([handles.clone().next().map(|handle| (handle.as_fd(), Interest::Read))], Some(STEP))?;
    }
}

/// The survivors that are alive now. New ones are added to `seen` and told to go.
fn look(mark: &Mark, seen: &mut Seen) -> io::Result<Vec<(Pid, u64)>> {
    let mut living = Vec::new();
    for stat in procfs::processes()?.into_iter().filter_map(candidate) {
        let key = (stat.pid, stat.started);
        if let Entry::Vacant(entry) = seen.entry(key) {
            let Some(survivor) = meet(mark, &stat)? else { continue };
            entry.insert(survivor);
        }
        living.push(key);
    }
    Ok(living)
}

/// The facts about a living process of our user that is not this one.
fn candidate(pid: Pid) -> Option<Stat> {
    let is_ours = pid != Pid::this() && procfs::owner(pid).is_ok_and(|owner| owner == Uid::effective());
    Stat::of(pid).ok().filter(|stat| is_ours && stat.state != State::Zombie)
}

/// Tells a process to go if it is one of ours; `None` for a stranger.
fn meet(mark: &Mark, stat: &Stat) -> io::Result<Option<Survivor>> {
    let environ = match stat.state {
        State::Alive | State::Zombie => procfs::environ(stat.pid).ok(),
        State::Uninterruptible => match environ_in_time(stat.pid) {
            Some(environ) => environ,
            None => return Ok(Some(Survivor::Unknown)),
        },
    };
    // One that may not be inspected runs with other rights than our children do.
    if !environ.is_some_and(|environ| mark.is_in(&environ)) {
        return Ok(None);
    }
    let Some(handle) = open(stat)? else { return Ok(None) };
    send(&handle, Signal::SIGTERM)?;
    send(&handle, Signal::SIGCONT)?;
    log::info!("process {} of an earlier life of this gate is told to go", stat.pid);
    Ok(Some(Survivor::Known(handle)))
}

impl Survivor {
    fn handle(&self) -> Option<&OwnedFd> {
        match self {
            Self::Known(handle) => Some(handle),
            Self::Unknown => None,
        }
    }
}

/// Reads an environment in a thread of its own, which stays behind when the read blocks. `None` when it does.
fn environ_in_time(pid: Pid) -> Option<Option<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // The receiver may have gone: then nobody wants to know any more.
    let read = move || drop(sender.send(procfs::environ(pid).ok()));
    thread::spawn(format!("environ-{pid}"), read).ok()?;
    receiver.recv_timeout(READ_LIMIT).ok()
}

/// A descriptor for the process that `stat` is about; `None` when it has ended, whoever has its number now.
fn open(stat: &Stat) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes two integers.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, stat.pid.as_raw(), 0) };
    let number = match Errno::result(answer) {
        Ok(number) => number,
        Err(Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let number = c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the call above made this descriptor, close-on-exec, and nobody else knows it.
    let handle = unsafe { OwnedFd::from_raw_fd(number) };
    // The number still belongs to the process we looked at, so the descriptor does.
    Ok(Stat::of(stat.pid).is_ok_and(|now| now.started == stat.started).then_some(handle))
}

/// Signals exactly the process behind `handle`; one that has ended is not an error.
fn send(handle: &OwnedFd, signal: Signal) -> io::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null info means "as kill(2) does"; the other arguments are integers.
    let answer: c_long = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal as c_int, no_info, 0)
    };
    match Errno::result(answer) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
