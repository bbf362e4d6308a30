//! The reaper: the one thread that waits for processes, and the handle through which all others start and count them.
//!
//! It decides nothing about when a job has to go: owners, the sweeper and the stop do. What it does to a zombie, and in
//! which section of the gate, is with the table of jobs.

use super::child::Child;
use super::counts::Counters;
use super::job::Running;
use super::jobs::{Jobs, Started, lock};
use super::mark::Mark;
use super::orphans::Orphans;
use super::outcome::Why;
use super::spec::{SpawnError, Spec};
use super::wait::{self, Look};
use crate::sys::procfs::{self, Stat, State};
use crate::sys::{limits, signals, thread};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::Pid;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the reaper rests when there are no children: orphans of a foreign `exec` into a container arrive without a
/// start of ours that would wake it.
const REST: Duration = Duration::from_secs(1);

/// How long the reaper pauses after a failure of its own, so that one that repeats does not spin.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How long a zombie may wait for the reaper before the watchdog is told: a thousand times what it takes, and more than a
/// start that the machine delays.
const OVERDUE: Duration = Duration::from_secs(5);

/// The handle to the reaper; clones share it. One per process: two would steal each other's statuses.
#[derive(Clone)]
pub struct Reaper(pub(super) Arc<Shared>);

/// What the handles and the thread share.
pub(super) struct Shared {
    pub(super) jobs: Arc<Jobs>,
    pub(super) orphans: Arc<Orphans>,
    failed: AtomicBool,
    overdue: Mutex<Option<Overdue>>,
}

/// A zombie that [`Reaper::is_alive`] saw, after how many reaps, and when first.
#[derive(Clone, Copy, Debug)]
struct Overdue {
    zombie: Pid,
    reaps: u64,
    since: Instant,
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
        let jobs = Arc::new(Jobs::new(mark));
        let orphans = Arc::new(Orphans::of(Arc::clone(&jobs)));
        let (failed, overdue) = (AtomicBool::new(false), Mutex::default());
        let reaper = Self(Arc::new(Shared { jobs, orphans, failed, overdue }));
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
        let Shared { jobs, orphans, .. } = &*self.0;
        let Some(Started { job, process, limited }) = jobs.start(spec)? else { return Ok(None) };
        let child = Child::new(Arc::clone(jobs), Arc::clone(orphans), job, process, spec.grace);
        limited.and_then(|()| child.prepare_pipes()).map(|()| Some(child))
    }

    /// The jobs that are not over, oldest first.
    #[must_use]
    pub fn children(&self) -> Vec<Running> {
        let mut shown: Vec<_> = self.0.jobs.all().iter().map(|job| job.show()).collect();
        shown.sort_by_key(|job| job.started);
        shown
    }

    /// What has been counted. Reads `/proc` for the zombies of this moment.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counts = &self.0.jobs.counts;
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
            leaked: number(self.0.jobs.all().iter().filter(|job| job.is_leaked()).count()),
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
        let reaps = self.0.jobs.reaps.count();
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
}

impl Shared {
    /// The body of the thread.
    fn reap_for_ever(&self) {
        let births = &self.jobs.births;
        loop {
            let failure = match catch_unwind(AssertUnwindSafe(|| self.reap_until_failure())) {
                Ok(errno) => format!("waitid(2) answered {errno}"),
                Err(_) => "it panicked".to_owned(),
            };
            self.failed.store(true, Ordering::Relaxed);
            log::error!("the reaper failed: {failure}; it goes on for the time that the gate needs to stop");
            births.wait_after(births.count(), AFTER_FAILURE);
        }
    }

    fn reap_until_failure(&self) -> Errno {
        loop {
            let births = self.jobs.births.count();
            match wait::look(true) {
                Ok(Look::Zombie(pid)) => self.jobs.reap_batch(pid),
                Ok(Look::AllAlive) => {} // interrupted by a signal
                Ok(Look::NoChildren) => self.jobs.births.wait_after(births, REST),
                Err(errno) => return errno,
            }
        }
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reaper").field(&self.0.jobs).finish()
    }
}
