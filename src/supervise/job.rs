//! A job: one group of processes from the start of its leader until the group is empty.
//!
//! The job is what reaper and owner share. Its methods that signal or reap are called inside a section of the gate (see
//! the room's comment), which the caller holds; the lock inside orders the phases only.

use super::outcome::{Deadline, Exit, Usage, Why};
use super::wait::{self, Taken};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Something that must live as long as a group: a repository's lease.
pub(super) type Guard = Box<dyn Any + Send>;

/// How far the end of a group has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has told it to go.
    Running,
    /// SIGTERM was sent; every member has the grace to clean up.
    Asked,
    /// SIGKILL was sent to all that was left.
    Killed,
    /// The leader is reaped and the group is empty.
    Gone,
}

impl Phase {
    /// The word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Asked => "ending",
            Self::Killed => "killed",
            Self::Gone => "gone",
        }
    }
}

/// A job as `status` shows it.
#[derive(Clone, Debug)]
pub struct Running {
    /// What it is, for people.
    pub what: String,
    /// The lane whose worker it occupies.
    pub lane: &'static str,
    /// The leader, and the number of the group.
    pub pid: Pid,
    /// When it was started.
    pub started: Instant,
    /// By when it must be over.
    pub deadline: Deadline,
    /// How far its end has gone.
    pub phase: Phase,
    /// Its owner has given up waiting for it.
    pub leaked: bool,
}

/// One group of processes.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) pid: Pid,
    pub(super) what: String,
    pub(super) lane: &'static str,
    pub(super) started: Instant,
    pub(super) deadline: Deadline,
    exited: EventFd,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    ended: Option<Why>,
    /// What became of the leader, once it is reaped.
    left: Option<(Exit, Usage)>,
    leaked: bool,
    held: Vec<Guard>,
}

/// What reaping a leader came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// The status was handed over.
    Yes,
    /// The leader is alive after all.
    No,
    /// Somebody else had taken the status.
    Lost,
}

/// The descriptor through which an owner hears that its leader has been reaped.
pub(super) fn exit_event() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
}

impl Job {
    pub(super) fn new(number: u64, pid: Pid, spec: &super::Spec, exited: EventFd) -> Self {
        let state = State { phase: Phase::Running, ended: None, left: None, leaked: false, held: Vec::new() };
        Self {
            number,
            pid,
            what: spec.what.clone(),
            lane: spec.lane,
            started: Instant::now(),
            deadline: spec.deadline,
            exited,
            state: Mutex::new(state),
        }
    }

    /// Tells the group to go. A stopped process acts on SIGTERM only when it goes on, hence SIGCONT after it.
    /// Answers whether this call was the one that did.
    ///
    /// Read section: the leader, unreaped, pins the number. Once it is reaped there is nothing left to tell: the rest of
    /// the group was killed with it.
    pub(super) fn ask(&self, why: Why) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Running || state.left.is_some() {
            return false;
        }
        state.phase = Phase::Asked;
        state.ended = Some(why);
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        true
    }

    /// Kills the group, as long as the leader pins its number; from then on the members are killed one by one.
    ///
    /// Read section.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        match state.phase {
            Phase::Running | Phase::Asked | Phase::Killed => state.phase = Phase::Killed,
            Phase::Gone => return,
        }
        if state.left.is_none() {
            self.signal(Signal::SIGKILL);
        }
    }

    /// Takes the status of the leader, which is a zombie, and wakes the owner.
    ///
    /// Write section: nobody signals the number between the kill and the wait, and no start of ours can get it before
    /// the look at the group. Members of a group in its grace are spared: they may be removing their lock files.
    pub(super) fn reap(&self) -> Reaped {
        let mut state = self.state();
        match state.phase {
            Phase::Running | Phase::Killed => {
                self.signal(Signal::SIGKILL);
                state.phase = Phase::Killed;
            }
            Phase::Asked | Phase::Gone => {}
        }
        match wait::take(self.pid) {
            Taken::Ended(exit, usage) => {
                self.deliver(&mut state, exit, usage);
                Reaped::Yes
            }
            Taken::NotOurs => {
                self.deliver(&mut state, Exit::Lost, Usage::default());
                Reaped::Lost
            }
            Taken::Alive => Reaped::No,
        }
    }

    /// Somebody else has waited for the leader, so nobody may signal its number any more.
    ///
    /// Write section.
    pub(super) fn lose(&self) {
        self.deliver(&mut self.state(), Exit::Lost, Usage::default());
    }

    fn deliver(&self, state: &mut State, exit: Exit, usage: Usage) {
        state.left = Some((exit, usage));
        self.look(state);
        // A full counter is readable, which is all that is needed.
        let _ = self.exited.write(1);
    }

    /// Whether the leader is reaped and the group is empty.
    ///
    /// Read section. The number of a group that was not yet seen empty can pass to a stranger only after it was empty, so
    /// the worst that a reuse does is to delay this answer; [`Job::forget_group`] corrects it when the reuse is ours.
    pub(super) fn is_gone(&self) -> bool {
        let mut state = self.state();
        self.look(&mut state);
        state.phase == Phase::Gone
    }

    fn look(&self, state: &mut State) {
        // EPERM means that there are members, of another user.
        if state.left.is_some() && killpg(self.pid, None) == Err(Errno::ESRCH) {
            state.phase = Phase::Gone;
        }
    }

    /// The number of the group has just been given to a new process of ours: the group is empty.
    pub(super) fn forget_group(&self) {
        let mut state = self.state();
        if state.left.is_some() {
            state.phase = Phase::Gone;
        }
    }

    /// A group that has ended meanwhile is not an error, and one that may not be signalled shows as leaked.
    fn signal(&self, signal: Signal) {
        if let Err(errno) = killpg(self.pid, signal)
            && errno != Errno::ESRCH
        {
            log::debug!("cannot send {signal} to group {} ({}): {errno}", self.pid, self.what);
        }
    }

    /// Readable once the leader has been reaped; nobody reads from it.
    pub(super) fn exited_fd(&self) -> BorrowedFd<'_> {
        self.exited.as_fd()
    }

    /// What became of the leader; `None` while it is not reaped.
    pub(super) fn left(&self) -> Option<(Exit, Usage)> {
        self.state().left
    }

    /// Whether its leader has been reaped.
    pub(super) fn has_exited(&self) -> bool {
        self.state().left.is_some()
    }

    /// Why it was told to go.
    pub(super) fn ended(&self) -> Option<Why> {
        self.state().ended
    }

    /// How far its end has gone, as far as is known.
    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// The owner gives up; `held` stays locked up in the job until [`Job::release`].
    pub(super) fn leak(&self, held: Vec<Guard>) {
        let mut state = self.state();
        state.leaked = true;
        state.held = held;
    }

    /// Whether the owner has given up.
    pub(super) fn is_leaked(&self) -> bool {
        self.state().leaked
    }

    /// What was held for a leaked job. The caller drops it outside every lock.
    pub(super) fn release(&self) -> Vec<Guard> {
        std::mem::take(&mut self.state().held)
    }

    /// The job as people see it.
    pub(super) fn show(&self) -> Running {
        let state = self.state();
        Running {
            what: self.what.clone(),
            lane: self.lane,
            pid: self.pid,
            started: self.started,
            deadline: self.deadline,
            phase: state.phase,
            leaked: state.leaked,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("number", &self.number)
            .field("shown", &self.show())
            .finish_non_exhaustive()
    }
}
