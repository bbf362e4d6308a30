//! The reaper: the one thread that waits for processes, and the table of jobs behind it.
//!
//! Owns the gate, the table, the counters. It decides nothing about when a job has to go: owners, the sweeper and the
//! stop do. See the room's comment for what happens in which section of the gate.

use super::bell::Bell;
use super::child::Child;
use super::job::{self, Guard, Job, Reaped, Running};
use super::mark::Mark;
use super::orphans::Orphans;
use super::outcome::Why;
use super::spec::{SpawnError, Spec};
use super::wait::{self, Look, Taken};
use crate::sys::procfs::{self, Stat, State};
use crate::sys::{limits, signals, thread};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How long the reaper rests when there are no children: orphans of a foreign `exec` into a container arrive without a
/// start of ours that would wake it.
const REST: Duration = Duration::from_secs(1);

/// How many zombies are reaped in one write section. A storm of orphans costs one turn at the gate per batch, and no
/// start waits for longer than a batch takes (about 3 µs each).
const BATCH: usize = 64;

/// How long the reaper pauses after a failure of its own, so that one that repeats does not spin.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How long a zombie may wait for the reaper before the watchdog is told: a thousand times what it takes, and more than a
/// start that the machine delays.
const OVERDUE: Duration = Duration::from_secs(5);

/// How often members of a dying group are looked for that no event of ours tells of: those whose parent is alive outside
/// of the group, and those that change parents.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// The handle to the reaper; clones share it. One per process: two would steal each other's statuses.
#[derive(Clone)]
pub struct Reaper(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) mark: Mark,
    pub(super) orphans: Orphans,
    /// Rung after each reap, whoever it was.
    pub(super) reaps: Bell,
    /// Rung after each start.
    births: Bell,
    gate: RwLock<Gate>,
    table: Mutex<Table>,
    numbers: AtomicU64,
    counts: Counts,
    oom_score: Option<i32>,
    failed: AtomicBool,
    overdue: Mutex<Option<Overdue>>,
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

/// A zombie that [`Reaper::is_alive`] saw, after how many reaps, and when first.
#[derive(Clone, Copy, Debug)]
struct Overdue {
    zombie: Pid,
    reaps: u64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    spawned: AtomicU64,
    reaped: AtomicU64,
    orphans_reaped: AtomicU64,
    orphans_ended: AtomicU64,
    lost: AtomicU64,
    leaked_total: AtomicU64,
    killed: [AtomicU64; Why::ALL.len()],
}

/// What has been counted since the start, and what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Children started.
    pub spawned: u64,
    /// Children reaped, adopted ones not among them.
    pub reaped: u64,
    /// Adopted processes reaped.
    pub orphans_reaped: u64,
    /// Escaped processes of ours that were told to go.
    pub orphans_ended: u64,
    /// Children whose status somebody else had taken.
    pub lost: u64,
    /// Groups told to go, by reason.
    pub killed: Vec<(Why, u64)>,
    /// Groups that did not go.
    pub leaked_total: u64,
    /// Groups that have not gone to this day.
    pub leaked: u64,
    /// Children that have ended and wait to be reaped at this moment.
    pub zombies: u64,
}

impl Reaper {
    /// Makes this process the one that orphans come to and starts the thread `reaper`, which lives as long as the
    /// process: whatever is still to be reaped at its end goes to init.
    ///
    /// Nothing else in the process may wait for children, from here on. Descriptors that we inherited are closed to them.
    ///
    /// # Errors
    /// When the kernel has no subreapers (before Linux 3.4), `/proc` is not mounted, or no thread can be started.
    pub fn start(mark: Mark) -> io::Result<Self> {
        signals::keep_zombies();
        limits::seal_descriptors()?;
        if Pid::this().as_raw() != 1 {
            prctl::set_child_subreaper(true)?;
        }
        let reaper = Self(Arc::new(Shared {
            mark,
            orphans: Orphans::default(),
            reaps: Bell::default(),
            births: Bell::default(),
            gate: RwLock::default(),
            table: Mutex::default(),
            numbers: AtomicU64::new(1),
            counts: Counts::default(),
            oom_score: limits::oom_score_of_children(),
            failed: AtomicBool::new(false),
            overdue: Mutex::default(),
        }));
        let shared = Arc::clone(&reaper.0);
        thread::spawn("reaper", move || shared.reap_for_ever())?;
        Ok(reaper)
    }

    /// Starts what `spec` says, in a group of its own, with a clean environment, default signals, and no descriptor but
    /// its three streams. Blocks until the program runs, or does not.
    ///
    /// # Errors
    /// [`SpawnError`] says which kind of failure it is; nothing is left running then.
    pub fn spawn(&self, mut spec: Spec) -> Result<Child, SpawnError> {
        match self.try_spawn(&mut spec) {
            Ok(Some(child)) => Ok(child),
            Ok(None) => Err(SpawnError::Stopping { what: spec.what }),
            Err(error) => Err(SpawnError::of(spec, error)),
        }
    }

    /// `None` when the gate is closed.
    fn try_spawn(&self, spec: &mut Spec) -> io::Result<Option<Child>> {
        let exited = job::exit_event()?;
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let mut command = spec.command(&self.0.mark, number);
        let gate = self.0.read_gate();
        if gate.closed {
            return Ok(None);
        }
        #[expect(clippy::disallowed_methods, reason = "the one spawner, inside a read section")]
        let process = command.spawn()?;
        let job = Arc::new(Job::new(number, Pid::from_raw(process.id().cast_signed()), spec, exited));
        self.0.register(&job);
        let limited = self.0.limit(&job, spec.memory);
        // Before anything can drop the child: its end takes a turn at the gate of its own.
        drop(gate);
        self.0.births.ring();
        let child = Child::new(self.clone(), job, process, spec.grace);
        limited.and_then(|()| child.prepare_pipes()).map(|()| Some(child))
    }

    /// The jobs that are not over, oldest first.
    #[must_use]
    pub fn children(&self) -> Vec<Running> {
        let mut shown: Vec<_> = self.0.jobs().iter().map(|job| job.show()).collect();
        shown.sort_by_key(|job| job.started);
        shown
    }

    /// What has been counted. Reads `/proc` for the zombies of this moment.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counts = &self.0.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let is_zombie = |pid: &Pid| Stat::of(*pid).is_ok_and(|stat| stat.state == State::Zombie);
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Counters {
            spawned: read(&counts.spawned),
            reaped: read(&counts.reaped),
            orphans_reaped: read(&counts.orphans_reaped),
            orphans_ended: read(&counts.orphans_ended),
            lost: read(&counts.lost),
            killed: Why::ALL.iter().map(|why| (*why, read(&counts.killed[*why as usize]))).collect(),
            leaked_total: read(&counts.leaked_total),
            leaked: number(self.0.jobs().iter().filter(|job| job.is_leaked()).count()),
            zombies: number(
                procfs::children().unwrap_or_default().iter().filter(|pid| is_zombie(pid)).count(),
            ),
        }
    }

    /// Whether the reaper does its work: for the watchdog, which asks every few seconds. False once its thread has
    /// panicked or met an error that it does not know (it goes on reaping, so that the daemon can stop in order), and
    /// when one zombie is seen for longer than [`OVERDUE`] while nothing is reaped.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut overdue = lock(&self.0.overdue);
        let reaps = self.0.reaps.count();
        *overdue = match (wait::look(false), *overdue) {
            (Ok(Look::Zombie(zombie)), Some(known)) if (known.zombie, known.reaps) == (zombie, reaps) => {
                Some(known)
            }
            (Ok(Look::Zombie(zombie)), _) => Some(Overdue { zombie, reaps, since: Instant::now() }),
            (Ok(Look::AllAlive | Look::NoChildren) | Err(_), _) => None,
        };
        let is_stuck = overdue.is_some_and(|known| known.since.elapsed() > OVERDUE);
        !is_stuck && !self.0.failed.load(Ordering::Relaxed)
    }

    /// Tells the group of `job` to go, unless somebody did, or its leader is reaped.
    pub(super) fn ask(&self, job: &Job, why: Why) {
        let _gate = self.0.read_gate();
        if job.ask(why) {
            self.0.counts.killed[why as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Kills the group of `job`.
    pub(super) fn kill(&self, job: &Job) {
        let _gate = self.0.read_gate();
        job.kill();
    }

    /// Whether the leader of `job` is reaped and its group empty.
    pub(super) fn is_gone(&self, job: &Job) -> bool {
        let _gate = self.0.read_gate();
        job.is_gone()
    }

    /// The owner of `job` is done with it: its group is empty.
    pub(super) fn forget(&self, job: &Job) {
        self.0.table().jobs.remove(&job.number);
    }

    /// The owner of `job` gives up: it stays in the table with what was `held`, until the orphan pass finds it gone.
    pub(super) fn leak(&self, job: &Job, held: Vec<Guard>) {
        job.leak(held);
        self.0.counts.leaked_total.fetch_add(1, Ordering::Relaxed);
        log::error!(
            "{} (group {}) is still there after SIGKILL: it sleeps in the kernel or is being debugged; see /proc/{}/stack",
            job.what,
            job.pid,
            job.pid
        );
    }
}

impl Shared {
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

    /// Runs `act` in a read section.
    pub(super) fn while_pinned<T>(&self, act: impl FnOnce() -> T) -> T {
        let _gate = self.read_gate();
        act()
    }

    /// Starts nothing any more, and answers when no start is under way.
    pub(super) fn close(&self) {
        self.write_gate().closed = true;
    }

    /// The jobs that are not over. Taken in a write section, so that no start is under way: whatever a job has started
    /// by now belongs to one of these, or to a job that is over.
    pub(super) fn settled_jobs(&self) -> Vec<Arc<Job>> {
        let _gate = self.write_gate();
        self.jobs()
    }

    /// The jobs that are not over.
    pub(super) fn jobs(&self) -> Vec<Arc<Job>> {
        self.table().jobs.values().cloned().collect()
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

    /// The job whose unreaped leader is `pid`.
    pub(super) fn leader(&self, pid: Pid) -> Option<Arc<Job>> {
        self.table().leaders.get(&pid).cloned()
    }

    /// Counts an escaped process that was told to go.
    pub(super) fn count_ended_orphan(&self) {
        self.counts.orphans_ended.fetch_add(1, Ordering::Relaxed);
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
    fn limit(&self, job: &Job, memory: Option<u64>) -> io::Result<()> {
        if let Some(score) = self.oom_score
            && let Err(error) = limits::set_oom_score(job.pid, score)
        {
            // A preference, not a promise: a child without it is served all the same.
            log::debug!("cannot prefer {} as the victim when memory runs out: {error}", job.what);
        }
        limits::limit_child(job.pid, memory)
    }

    /// The body of the thread.
    fn reap_for_ever(&self) {
        loop {
            let failure = match catch_unwind(AssertUnwindSafe(|| self.reap_until_failure())) {
                Ok(errno) => format!("waitid(2) answered {errno}"),
                Err(_) => "it panicked".to_owned(),
            };
            self.failed.store(true, Ordering::Relaxed);
            log::error!("the reaper failed: {failure}; it goes on for the time that the gate needs to stop");
            self.births.wait_after(self.births.count(), AFTER_FAILURE);
        }
    }

    fn reap_until_failure(&self) -> Errno {
        loop {
            let births = self.births.count();
            match wait::look(true) {
                Ok(Look::Zombie(pid)) => self.reap_batch(pid),
                Ok(Look::AllAlive) => {} // interrupted by a signal
                Ok(Look::NoChildren) => self.births.wait_after(births, REST),
                Err(errno) => return errno,
            }
        }
    }

    /// Reaps `first` and the zombies behind it.
    fn reap_batch(&self, first: Pid) {
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
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper")
            .field("mark", &self.0.mark)
            .field("jobs", &self.0.jobs().len())
            .finish_non_exhaustive()
    }
}
