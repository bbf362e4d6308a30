//! A table of jobs, each with a name and an interval, run by one thread.
//!
//! A job that fails is logged and counted and runs again at its next turn; a job that panics ends the thread, which is
//! for the thread's owner to notice.

use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One row of the table; `C` is what the jobs work on.
pub struct Job<C> {
    /// Its name in the log, the status and the metrics.
    pub name: &'static str,
    /// From the end of one run to the start of the next.
    pub every: Duration,
    /// One run; the error is a sentence for the log.
    pub run: fn(&C) -> Result<(), String>,
}

impl<C> std::fmt::Debug for Job<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("every", &self.every).finish_non_exhaustive()
    }
}

/// What others may see of the jobs; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Rises with each look at the table: the watchdog's sign of life.
    beats: AtomicU64,
    jobs: Mutex<BTreeMap<&'static str, Runs>>,
}

/// How one job has fared.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Its interval.
    pub every: Duration,
    /// Runs that did what they should.
    pub succeeded: u64,
    /// Runs that did not.
    pub failed: u64,
    /// When the last run ended.
    pub last: Option<Instant>,
    /// What the last run said when it failed; `None` after a success.
    pub last_error: Option<String>,
}

impl Record {
    /// A number that rises as long as the thread lives.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    /// Every job by name.
    #[must_use]
    pub fn jobs(&self) -> BTreeMap<&'static str, Runs> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Runs>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<C>(&self, job: &Job<C>, result: Result<(), String>) {
        let mut jobs = self.lock();
        let runs = jobs.entry(job.name).or_default();
        runs.last = Some(Instant::now());
        match &result {
            Ok(()) => runs.succeeded += 1,
            Err(_) => runs.failed += 1,
        }
        runs.last_error = result.err();
    }
}

/// The longest wait between two looks at the table, so that the beat never pauses for the watchdog's patience.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// Starts the thread `name`, which runs `jobs` until the stop begins to drain.
///
/// # Errors
/// When the thread cannot be started.
pub fn start<C: Send + 'static>(
    name: &str,
    jobs: Vec<Job<C>>,
    context: C,
    stop: Stop,
    record: &Record,
) -> io::Result<JoinHandle<()>> {
    for job in &jobs {
        record.lock().insert(job.name, Runs { every: job.every, ..Runs::default() });
    }
    let record = record.clone();
    thread::spawn(name, move || work_through(&jobs, &context, &stop, &record))
}

fn work_through<C>(jobs: &[Job<C>], context: &C, stop: &Stop, record: &Record) {
    let mut due: Vec<Instant> = jobs.iter().map(|job| Instant::now() + job.every).collect();
    loop {
        record.0.beats.fetch_add(1, Ordering::Relaxed);
        for (job, due) in jobs.iter().zip(&mut due) {
            if *due > Instant::now() {
                continue;
            }
            let result = (job.run)(context);
            if let Err(error) = &result {
                log::warn!("job {}: {error}", job.name);
            }
            record.note(job, result);
            *due = Instant::now() + job.every;
        }
        let next = due.iter().min().map_or(LONGEST_NAP, |due| due.saturating_duration_since(Instant::now()));
        if !stop.sleep(next.min(LONGEST_NAP), Level::Draining) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::{Sender, bounded};

    #[test]
    fn jobs_run_again_and_again_also_after_a_failure_and_end_with_the_stop() {
        let stop = Stop::new().unwrap();
        let record = Record::default();
        let (ran, runs) = bounded(0);
        let run: fn(&Sender<()>) -> Result<(), String> = |ran| {
            ran.send(()).map_err(|_| "nobody listens".to_owned())?;
            Err("on purpose".to_owned())
        };
        let job = Job { name: "test", every: Duration::from_millis(1), run };
        let worker = start("jobs", vec![job], ran, stop.clone(), &record).unwrap();
        for _ in 0..3 {
            runs.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        stop.raise(Level::Draining);
        drop(runs);
        worker.join().unwrap();
        let jobs = record.jobs();
        assert!(jobs["test"].failed >= 3 && jobs["test"].succeeded == 0, "{jobs:?}");
        assert!(record.beats() > 0);
    }
}
