//! Processes that left their group: found by their marks once they are our children, and ended with their job.
//!
//! A process that calls `setsid` or `setpgid` is not reached by a signal to its job's group. When its parent ends it comes
//! to us, and its environment says which job it belongs to. It is looked at outside of the gate, since reading an
//! environment may block in the kernel, and signalled inside, after asking again whether it is still the same process and
//! still an unreaped child of ours. What it has started comes to us when it ends, and is found by the next look.
//!
//! What carries no mark of ours is left alone as long as it lives: as PID 1 of a container we adopt the processes of
//! whoever runs a shell there. The dead are reaped whoever they were.

use super::job::Job;
use super::jobs::{Jobs, lock};
use crate::sys::procfs::{self, Stat, State};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often members of a dying group are looked for that no event of ours tells of: those whose parent is alive outside
/// of the group, and those that change parents.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// An adopted process of one of our jobs. Number and start name it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Escapee {
    pid: Pid,
    started: u64,
    /// The job that it belongs to.
    pub(super) job: u64,
}

/// The adopted processes, and what is remembered of them from one look to the next.
#[derive(Debug)]
pub(super) struct Orphans {
    jobs: Arc<Jobs>,
    /// The job of each by number and start; `None` for a stranger. Read once, while that cannot block: it stays known
    /// when the process sleeps uninterruptibly later, or clears its environment by another exec.
    known: Mutex<HashMap<(Pid, u64), Option<u64>>>,
    /// Whom the orphan pass has told to go, and when.
    pub(super) told: Mutex<HashMap<Escapee, Instant>>,
}

/// One end of one job or of all: everybody is told once, and killed when the grace is over.
#[derive(Debug)]
pub(super) struct Ending {
    kill_at: Instant,
    give_up: Instant,
    told: HashSet<Escapee>,
}

impl Ending {
    /// An end whose grace is over at `kill_at` and which is given up `cap` later.
    pub(super) fn new(kill_at: Instant, cap: Duration) -> Self {
        Self { kill_at, give_up: kill_at + cap, told: HashSet::new() }
    }

    /// Whether the grace is over at `now`.
    pub(super) fn is_killing(&self, now: Instant) -> bool {
        self.kill_at <= now
    }

    /// How long to wait at most for the next step; `None` when it is to be given up.
    pub(super) fn step(&self, now: Instant) -> Option<Duration> {
        let next = if self.is_killing(now) { self.give_up } else { self.kill_at };
        next.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Tells those who have not been told, or kills all, whichever it is time for.
    pub(super) fn press(&mut self, orphans: &Orphans, escapees: &[Escapee], now: Instant) {
        for escapee in escapees {
            if self.is_killing(now) {
                orphans.signal(escapee, Signal::SIGKILL);
            } else if self.told.insert(*escapee) {
                orphans.tell(escapee);
            }
        }
    }
}

impl Orphans {
    /// The orphans that come from `jobs`.
    pub(super) fn of(jobs: Arc<Jobs>) -> Self {
        Self { jobs, known: Mutex::default(), told: Mutex::default() }
    }

    /// What of `job` lives outside its group, and, once the leader is gone, inside.
    pub(super) fn of_job(&self, job: &Job) -> Vec<Escapee> {
        let mut escapees = self.all();
        escapees.retain(|escapee| escapee.job == job.number);
        escapees
    }

    /// The adopted, living processes of our jobs, whatever has become of the job.
    ///
    /// One that cannot be asked now is missing from the answer, and found by a later look: it sleeps uninterruptibly since
    /// before it came to us, or we are out of descriptors.
    pub(super) fn all(&self) -> Vec<Escapee> {
        let children = procfs::children_of_main_thread().unwrap_or_default();
        let adopted = children.into_iter().filter(|pid| self.jobs.leader(*pid).is_none());
        let stats: Vec<Stat> = adopted.filter_map(|pid| Stat::of(pid).ok()).collect();
        lock(&self.known).retain(|known, _| stats.iter().any(|stat| (stat.pid, stat.started) == *known));
        let living = stats.iter().filter(|stat| stat.state != State::Zombie);
        living
            .filter_map(|stat| {
                Some(Escapee { pid: stat.pid, started: stat.started, job: self.job_of(stat)? })
            })
            .collect()
    }

    /// The job that an adopted process belongs to; `None` for a stranger.
    fn job_of(&self, stat: &Stat) -> Option<u64> {
        let key = (stat.pid, stat.started);
        if let Some(known) = lock(&self.known).get(&key) {
            return *known;
        }
        if stat.state == State::Uninterruptible {
            return None;
        }
        let job = self.jobs.mark.job_in(&procfs::environ(stat.pid).ok()?);
        lock(&self.known).insert(key, job);
        job
    }

    /// SIGTERM, and SIGCONT for one that is stopped.
    pub(super) fn tell(&self, escapee: &Escapee) {
        self.jobs.counts.orphans_ended.fetch_add(1, Ordering::Relaxed);
        log::debug!("process {} of job {} left its group and is told to go", escapee.pid, escapee.job);
        self.signal(escapee, Signal::SIGTERM);
        self.signal(escapee, Signal::SIGCONT);
    }

    /// Signals the group that the escapee is in, or the escapee alone where that group has other members than its own.
    pub(super) fn signal(&self, escapee: &Escapee, signal: Signal) {
        let answer = self.jobs.while_pinned(|| {
            let stat = Stat::of(escapee.pid).ok().filter(|stat| is_unreaped_child(stat, escapee))?;
            // As long as it is in the group, the number of the group is pinned with it.
            Some(if self.is_private(stat.group, escapee.job) {
                killpg(stat.group, signal)
            } else {
                kill(escapee.pid, signal)
            })
        });
        if let Some(Err(errno)) = answer
            && errno != Errno::ESRCH
        {
            // Said once and not every second: one of another user cannot be told, nor killed.
            let level = if signal == Signal::SIGTERM { log::Level::Warn } else { log::Level::Debug };
            log::log!(
                level,
                "cannot send {signal} to process {} of job {}: {errno}",
                escapee.pid,
                escapee.job
            );
        }
    }

    /// Whether a group is no other than that of an escapee or of its own job: not ours, not another job's, and not one of
    /// outside our PID namespace, which shows as 0 and would mean our own to `kill`.
    fn is_private(&self, group: Pid, job: u64) -> bool {
        let is_foreign = self.jobs.leader(group).is_some_and(|leader| leader.number != job);
        group.as_raw() > 1 && group != getpgrp() && !is_foreign
    }
}

/// Inside a read section of the gate this stays true until the section ends. A zombie counts as gone.
fn is_unreaped_child(stat: &Stat, escapee: &Escapee) -> bool {
    stat.parent == Pid::this() && stat.started == escapee.started && stat.state != State::Zombie
}
