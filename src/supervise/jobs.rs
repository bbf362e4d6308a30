//! All jobs that are not over, and the gate around them.
//!
//! Every section of the gate is in this file; the room's comment says what happens in which. Nothing is decided here about
//! when a job has to go: owners, the orphan pass and the stop do that.

use super::bell::Bell;
use super::counts::Counts;
use super::job::{self, Guard, Job, Reaped};
use super::mark::Mark;
use super::outcome::Why;
use super::spec::Spec;
use super::wait::{self, Look, Taken};
use crate::sys::limits;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many zombies are reaped in one write section. A storm of orphans costs one turn at the gate per batch, and no
/// start waits for longer than a batch takes (about 3 µs each).
const BATCH: usize = 64;

/// What owners, the reaper's thread and the passes share. One per process.
pub(super) struct Jobs {
    pub(super) mark: Mark,
    pub(super) counts: Counts,
    /// Rung after each reap, whoever it was.
    pub(super) reaps: Bell,
    /// Rung after each start.
    pub(super) births: Bell,
    gate: RwLock<Gate>,
    table: Mutex<Table>,
    numbers: AtomicU64,
    oom_score: Option<i32>,
}

/// What the gate guards besides the order of things.
#[derive(Debug, Default)]
struct Gate {
    /// Nothing is started any more.
    closed: bool,
}

#[derive(Debug, Default)]
struct Table {
    /// Jobs whose leader nobody has waited for, by the leader's number.
    leaders: HashMap<Pid, Arc<Job>>,
    /// Jobs that are not over: their owner waits, or has given up.
    jobs: HashMap<u64, Arc<Job>>,
}

/// A process that was started just now, and its job.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) job: Arc<Job>,
    pub(super) process: process::Child,
    /// Whether its limits hold. Without them it must not live.
    pub(super) limited: io::Result<()>,
}

impl Jobs {
    /// No job yet.
    pub(super) fn new(mark: Mark) -> Self {
        Self {
            mark,
            counts: Counts::default(),
            reaps: Bell::default(),
            births: Bell::default(),
            gate: RwLock::default(),
            table: Mutex::default(),
            numbers: AtomicU64::new(1),
            oom_score: limits::oom_score_of_children(),
        }
    }

    /// Starts what `spec` says and registers it; `None` when the gate is closed.
    pub(super) fn start(&self, spec: &mut Spec) -> io::Result<Option<Started>> {
        let exited = job::exit_event()?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut command = spec.command(&self.mark, number);
        let gate = self.read_gate();
        if gate.closed {
            return Ok(None);
        }
        #[expect(clippy::disallowed_methods, reason = "the one spawner, inside a read section")]
        let process = command.spawn()?;
        let job = Arc::new(Job::new(number, Pid::from_raw(process.id().cast_signed()), spec, exited));
        self.register(&job);
        let limited = self.limit(&job, spec);
        // The section ends here, before there is an owner who can drop the child: its end takes a turn at the gate of its
        // own.
        drop(gate);
        self.births.ring();
        Ok(Some(Started { job, process, limited }))
    }

    /// Tells the group of `job` to go, unless somebody did, or its leader is reaped.
    pub(super) fn ask(&self, job: &Job, why: Why) {
        let _gate = self.read_gate();
        if job.ask(why) {
            self.counts.killed[why as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Kills the group of `job`.
    pub(super) fn kill(&self, job: &Job) {
        let _gate = self.read_gate();
        job.kill();
    }

    /// Whether the leader of `job` is reaped and its group empty.
    pub(super) fn is_gone(&self, job: &Job) -> bool {
        let _gate = self.read_gate();
        job.is_gone()
    }

    /// Runs `act` in a read section.
    pub(super) fn while_pinned<T>(&self, act: impl FnOnce() -> T) -> T {
        let _gate = self.read_gate();
        act()
    }

    /// Reaps `first` and the zombies behind it.
    pub(super) fn reap_batch(&self, first: Pid) {
        let gate = self.write_gate();
        self.reap(first);
        for _ in 1..BATCH {
            match wait::look(false) {
                Ok(Look::Zombie(pid)) => self.reap(pid),
                Ok(Look::AllAlive | Look::NoChildren) | Err(_) => break,
            }
        }
        drop(gate);
        self.reaps.ring();
    }

    /// Finds leaders that somebody else has waited for, against the rule of the room. Their owners would otherwise wait
    /// until the deadline and then signal a number that is no longer theirs.
    pub(super) fn find_lost(&self) {
        let gate = self.write_gate();
        let is_lost = |pid: &Pid, _: &mut Arc<Job>| wait::is_foreign(*pid);
        let lost: Vec<_> = self.table().leaders.extract_if(is_lost).map(|(_, job)| job).collect();
        lost.iter().for_each(|job| job.lose());
        drop(gate);
        for job in lost {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            log::error!(
                "somebody else has waited for {} (process {}): its status is lost",
                job.what,
                job.pid
            );
        }
    }

    /// Starts nothing any more, and answers when no start is under way.
    pub(super) fn close(&self) {
        self.write_gate().closed = true;
    }

    /// The jobs that are not over. Taken in a write section, so that no start is under way: whatever a job has started
    /// by now belongs to one of these, or to a job that is over.
    pub(super) fn settled(&self) -> Vec<Arc<Job>> {
        let _gate = self.write_gate();
        self.all()
    }

    /// The jobs that are not over.
    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        self.table().jobs.values().cloned().collect()
    }

    /// The job whose unreaped leader is `pid`.
    pub(super) fn leader(&self, pid: Pid) -> Option<Arc<Job>> {
        self.table().leaders.get(&pid).cloned()
    }

    /// The owner of `job` is done with it: its group is empty.
    pub(super) fn forget(&self, job: &Job) {
        self.table().jobs.remove(&job.number);
    }

    /// The owner of `job` gives up: it stays in the table with what was `held`, until the orphan pass finds it gone.
    pub(super) fn leak(&self, job: &Job, held: Vec<Guard>) {
        job.leak(held);
        self.counts.leaked_total.fetch_add(1, Ordering::Relaxed);
        log::error!(
            "{} (group {}) is still there after SIGKILL: it sleeps in the kernel or is being debugged; see /proc/{}/stack",
            job.what,
            job.pid,
            job.pid
        );
    }

    /// Read section, right after the start.
    fn register(&self, job: &Arc<Job>) {
        let mut table = self.table();
        table.jobs.values().filter(|other| other.pid == job.pid).for_each(|other| other.forget_group());
        table.leaders.insert(job.pid, Arc::clone(job));
        table.jobs.insert(job.number, Arc::clone(job));
        self.counts.spawned.fetch_add(1, Ordering::Relaxed);
    }

    /// Read section: the number is still the child's own.
    fn limit(&self, job: &Job, spec: &Spec) -> io::Result<()> {
        if let Some(score) = self.oom_score
            && let Err(error) = limits::set_oom_score(job.pid, score)
        {
            // A preference, not a promise: a child without it is served all the same.
            log::debug!("cannot prefer {} as the victim when memory runs out: {error}", job.what);
        }
        if spec.is_background
            && let Err(error) = limits::put_behind(job.pid)
        {
            log::debug!("cannot let others go before {}: {error}", job.what);
        }
        limits::limit_child(job.pid, spec.memory)
    }

    /// Write section. A zombie that was seen before the section may be gone in it: std has waited for a start that
    /// failed. Then there is no job of that number, and nothing to take.
    fn reap(&self, pid: Pid) {
        let count = match self.leader(pid) {
            Some(job) => match job.reap() {
                Reaped::Yes => &self.counts.reaped,
                Reaped::Lost => &self.counts.lost,
                Reaped::No => return,
            },
            None => match wait::take(pid) {
                Taken::Ended(..) => &self.counts.orphans_reaped,
                Taken::Alive | Taken::NotOurs => return,
            },
        };
        self.table().leaders.remove(&pid);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Read section: nothing is reaped while it lasts. Never enter it twice in one thread: a writer that waits between the
    /// two would wait for ever.
    fn read_gate(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write section: nothing is started and nothing signalled while it lasts.
    fn write_gate(&self) -> RwLockWriteGuard<'_, Gate> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("mark", &self.mark)
            .field("jobs", &self.all().len())
            .finish_non_exhaustive()
    }
}

/// Locks, poisoned or not: after a panic the reaper goes on for the time that the gate needs to stop.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
