//! What is done to all jobs at once, whatever their owners do: the orphan pass, and the end of everything at the stop.

use super::job::Job;
use super::jobs::lock;
use super::orphans::{Ending, TICK};
use super::outcome::Why;
use super::reaper::{Reaper, Shared};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Reaper {
    /// One orphan pass, for the sweeper to call every second: processes of jobs that are over get SIGTERM, and SIGKILL
    /// `grace` later.
    ///
    /// It also sees to what owners cannot: a deadline holds when the owner does not look at the clock, what was held for a
    /// leaked job is freed when that has gone at last, and a leader whose status was stolen is found.
    pub fn sweep_orphans(&self, grace: Duration) {
        let Shared { jobs, orphans, .. } = &*self.0;
        jobs.find_lost();
        self.enforce_deadlines(grace);
        self.free_leaked();
        let escapees = orphans.all();
        let mut told = lock(&orphans.told);
        told.retain(|escapee, _| escapees.contains(escapee));
        if escapees.is_empty() {
            return;
        }
        // After the look, not before: a process that was seen then belongs to a job that is registered now.
        let settled = jobs.settled();
        let owned: HashSet<u64> =
            settled.iter().filter(|job| !job.is_leaked()).map(|job| job.number).collect();
        for escapee in escapees.into_iter().filter(|escapee| !owned.contains(&escapee.job)) {
            match told.get(&escapee) {
                Some(since) if since.elapsed() >= grace => orphans.signal(&escapee, Signal::SIGKILL),
                Some(_) => {}
                None => {
                    told.insert(escapee, Instant::now());
                    orphans.tell(&escapee);
                }
            }
        }
    }

    /// Ends everything, for the stop: from now on nothing is started. Every group gets SIGTERM, after `grace` SIGKILL, and
    /// `cap` later this gives up. Answers how many jobs and escaped processes are left; their owners hear of it too.
    pub fn end_all(&self, grace: Duration, cap: Duration) -> usize {
        let Shared { jobs, orphans, .. } = &*self.0;
        jobs.close();
        jobs.all().iter().for_each(|job| jobs.ask(job, Why::Stopping));
        let mut ending = Ending::new(Instant::now() + grace, cap);
        loop {
            let (reaps, now) = (jobs.reaps.count(), Instant::now());
            let unfinished = self.unfinished();
            let escapees = orphans.all();
            if ending.is_killing(now) {
                unfinished.iter().for_each(|job| jobs.kill(job));
            }
            ending.press(orphans, &escapees, now);
            let left = unfinished.len() + escapees.len();
            match ending.step(now) {
                Some(step) if left > 0 => jobs.reaps.wait_after(reaps, step.min(TICK)),
                Some(_) | None => return left,
            }
        }
    }

    fn unfinished(&self) -> Vec<Arc<Job>> {
        let jobs = &self.0.jobs;
        jobs.all().into_iter().filter(|job| !jobs.is_gone(job)).collect()
    }

    /// The owner is the one to end its child, and has its grace for it; this is for one that is blocked elsewhere.
    fn enforce_deadlines(&self, grace: Duration) {
        let (jobs, now) = (&self.0.jobs, Instant::now());
        for job in jobs.all().iter().filter(|job| job.deadline.has_passed(now)) {
            jobs.ask(job, Why::Deadline);
            if now >= job.deadline.at + 2 * grace {
                jobs.kill(job);
            }
        }
    }

    /// Outside of every lock, since dropping a guard runs its owner's code.
    fn free_leaked(&self) {
        let Shared { jobs, orphans, .. } = &*self.0;
        let leaked = jobs.all().into_iter().filter(|job| job.is_leaked());
        for job in leaked.filter(|job| jobs.is_gone(job) && orphans.of_job(job).is_empty()) {
            log::warn!("{} (group {}) has gone at last", job.what, job.pid);
            jobs.forget(&job);
            drop(job.release());
        }
    }
}
