//! Lanes: fixed sets of worker threads behind bounded queues, so that work of one kind never starves another.
//!
//! A lane owns its threads (`read-1`, `read-2`, …) and its queue. It never borrows a worker from another lane and
//! never grows. Nor does one client take all of it, or one upstream: jobs are on somebody's account, and take turns
//! ([`queue`] says how, [`sharing`] with which bounds). Whoever submits keeps watching its own client while the job waits:
//! a job whose client left before a worker took it never runs. The lane knows nothing of git; what a worker does is the
//! job's own affair, and the job's deadline was made at admission, so time spent in the queue counts.

mod claim;
mod queue;
mod sharing;

pub use claim::{Account, Claim, Class, Coming};

use crate::model::histogram::Histogram;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use nix::sys::eventfd::{EfdFlags, EventFd};
use queue::{Queue, Waiting};
use sharing::Sharing;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The kinds of work that must not starve each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Serving clones and fetches.
    Read,
    /// Making packs that several clients may get: nothing but the processor bounds it, since no client is waited for.
    Pack,
    /// Receiving pushes.
    Write,
    /// Talking to upstreams.
    Upstream,
    /// Maintenance of repositories.
    Upkeep,
    /// Asking upstreams whether they answer, for work that no client's own thread asks for.
    Probe,
}

impl Kind {
    /// Every kind, in the order in which people are shown them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Pack, Self::Write, Self::Upstream, Self::Upkeep, Self::Probe];

    /// The name of the lane and the stem of its threads' names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pack => "pack",
            Self::Write => "write",
            Self::Upstream => "upstream",
            Self::Upkeep => "upkeep",
            Self::Probe => "probe",
        }
    }
}

/// How many workers a lane has and how long its queue may grow.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Jobs that may wait while every worker is busy.
    pub queue: usize,
}

/// Why a job was not run; its closure has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRun {
    /// The queue was full at submission.
    #[error("the queue is full")]
    Full,
    /// No worker was free within the wait limit.
    #[error("no worker was free in time")]
    WaitedTooLong,
    /// The client left while the job waited.
    #[error("the client left while it waited")]
    ClientGone,
    /// The process is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The job itself failed by a panic, which the log shows.
    #[error("the job failed inside the server")]
    Panicked,
}

/// A lane's load at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Worker threads.
    pub workers: usize,
    /// Workers that run a job now.
    pub busy: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// The same by [`Class::ALL`].
    pub waiting_by_class: [usize; Class::ALL.len()],
}

/// A fixed set of workers with one queue; clones share it.
#[derive(Clone)]
pub struct Lane(Arc<Shared>);

struct Shared {
    kind: Kind,
    size: Size,
    queue: Mutex<Queue<Arc<dyn Task>>>,
    work: Condvar,
    waits: Histogram,
    /// How long a job takes, in microseconds: the latest ones count most.
    usual_us: AtomicU64,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("kind", &self.0.kind).field("load", &self.load()).finish()
    }
}

impl Lane {
    /// Starts the workers of a lane. The handles end after [`Lane::close`].
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(kind: Kind, size: Size) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let lane = Self(Arc::new(Shared {
            kind,
            size,
            queue: Mutex::new(Queue::new(size, Sharing::of(kind, size.workers))),
            work: Condvar::new(),
            waits: Histogram::seconds(),
            usual_us: AtomicU64::new(0),
        }));
        let worker = |number| {
            let lane = lane.clone();
            thread::spawn(format!("{}-{number}", kind.name()), move || lane.work())
        };
        let workers = (1..=size.workers).map(worker).collect::<io::Result<_>>()?;
        Ok((lane, workers))
    }

    /// The kind of work done here.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Queues `job` for the next free worker.
    ///
    /// # Errors
    /// [`NotRun::Full`] at once when the queue is at its limit, [`NotRun::Stopping`] after [`Lane::close`].
    pub fn submit<T, F>(&self, job: F) -> Result<Ticket<T>, NotRun>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_for(Claim::of_client(None), job)
    }

    /// Queues `job` for a free worker that whoever makes the claim may have.
    ///
    /// # Errors
    /// As [`Lane::submit`]; for an account that has jobs here already, the queue's limit is lower.
    pub fn submit_for<T, F>(&self, claim: Claim, job: F) -> Result<Ticket<T>, NotRun>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let done =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|_| NotRun::Full)?;
        let slot = Arc::new(Slot { phase: Mutex::new(Phase::Waiting(Box::new(job))), done });
        let mut queue = self.lock();
        if queue.is_closed() {
            return Err(NotRun::Stopping);
        }
        if queue.is_full(&claim, Coming::default()) {
            return Err(NotRun::Full);
        }
        let id = queue.push(claim, slot.clone(), Instant::now());
        drop(queue);
        self.0.work.notify_one();
        Ok(Ticket { is_detached: false, lane: self.clone(), id, slot })
    }

    /// The present load.
    #[must_use]
    pub fn load(&self) -> Load {
        let queue = self.lock();
        let waiting_by_class = Class::ALL.map(|class| queue.waiting(class));
        let waiting = waiting_by_class.iter().sum();
        Load { workers: self.0.size.workers, busy: queue.busy(), waiting, waiting_by_class }
    }

    /// How long jobs waited for their worker, in seconds.
    #[must_use]
    pub fn waits(&self) -> &Histogram {
        &self.0.waits
    }

    /// How long a job that is submitted now for `claim`, behind those who are `coming`, will wait, if those before it take as
    /// long as the latest did; `None` where it would be refused.
    #[must_use]
    pub fn prospect(&self, claim: &Claim, coming: Coming) -> Option<Duration> {
        let queue = self.lock();
        let workers = self.0.size.workers;
        let before = (queue.before(claim, coming) + queue.busy()).saturating_sub(workers);
        let is_full = queue.is_full(claim, coming);
        drop(queue);
        let usual = Duration::from_micros(self.0.usual_us.load(Ordering::Relaxed));
        let turns = u32::try_from(before.div_ceil(workers)).unwrap_or(u32::MAX);
        (!is_full).then(|| usual.saturating_mul(turns))
    }

    /// Takes no more jobs; the workers end when the queue is empty.
    pub fn close(&self) {
        self.lock().close();
        self.0.work.notify_all();
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            self.0.waits.observe(job.since.elapsed());
            let begun = Instant::now();
            job.job.run();
            self.note(begun.elapsed());
            self.lock().leave(&job.claim);
        }
    }

    /// Two workers that end at the same moment may count as one.
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 8);
        let usual = self.0.usual_us.load(Ordering::Relaxed);
        self.0.usual_us.store(usual - usual / 8 + took / 8, Ordering::Relaxed);
    }

    fn next(&self) -> Option<Waiting<Arc<dyn Task>>> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.take(Instant::now()) {
                // What else may run now, another worker takes: the end of one job may have let in two.
                self.0.work.notify_one();
                return Some(job);
            }
            if queue.is_closed() {
                return None;
            }
            queue = self.0.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn forget(&self, id: u64) {
        self.lock().forget(id);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Arc<dyn Task>>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the queue knows of a job: only that it can be run.
trait Task: Send + Sync {
    fn run(&self);
}

struct Slot<T> {
    phase: Mutex<Phase<T>>,
    done: EventFd,
}

enum Phase<T> {
    Waiting(Box<dyn FnOnce() -> T + Send>),
    Running,
    Done(Result<T, NotRun>),
    Canceled,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, Phase<T>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves from waiting to `next`; in any other phase nothing changes and there is no job to have.
    fn leave_waiting(&self, next: Phase<T>) -> Option<Box<dyn FnOnce() -> T + Send>> {
        let mut phase = self.lock();
        if !matches!(*phase, Phase::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut *phase, next) {
            Phase::Waiting(job) => Some(job),
            Phase::Running | Phase::Done(_) | Phase::Canceled => None,
        }
    }
}

impl<T: Send> Task for Slot<T> {
    fn run(&self) {
        let Some(job) = self.leave_waiting(Phase::Running) else { return };
        let result = catch_unwind(AssertUnwindSafe(job)).map_err(|_| NotRun::Panicked);
        *self.lock() = Phase::Done(result);
        // The counter is 0 or 1 here, far from its limit.
        let _ = self.done.write(1);
    }
}

/// A submitted job. Dropping it cancels the job unless a worker has it already, or [`Ticket::detach`] was called.
pub struct Ticket<T> {
    is_detached: bool,
    lane: Lane,
    id: u64,
    slot: Arc<Slot<T>>,
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("lane", &self.lane).field("id", &self.id).finish()
    }
}

impl<T> Ticket<T> {
    /// Waits for the job's result.
    ///
    /// While the job is queued, it is given up when `client` hangs up, after `limit`, or when the process ends its
    /// work; from the moment a worker has it, only the worker decides how it ends.
    ///
    /// # Errors
    /// The reason for which the job never ran, or [`NotRun::Panicked`].
    pub fn wait(self, client: Option<BorrowedFd<'_>>, limit: Duration, stop: &Stop) -> Result<T, NotRun> {
        match self.watch(client, limit, stop) {
            Ok(()) => self.result(),
            Err(given_up) if self.cancel() => Err(given_up),
            Err(_) => self.join(),
        }
    }

    /// Waits until the job is done, or there is a reason to give it up while it is queued.
    fn watch(&self, client: Option<BorrowedFd<'_>>, limit: Duration, stop: &Stop) -> Result<(), NotRun> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let watches = [
                Some((self.slot.done.as_fd(), Interest::Read)),
                client.map(|fd| (fd, Interest::HangUp)),
                Some((stop.fd(Level::Killing), Interest::Read)),
            ];
            let [done, gone, killing] = poll::wait(watches, Some(left)).map_err(|_| NotRun::Stopping)?;
            if done {
                return Ok(());
            } else if gone {
                return Err(NotRun::ClientGone);
            } else if killing {
                return Err(NotRun::Stopping);
            } else if left.is_zero() {
                return Err(NotRun::WaitedTooLong);
            }
        }
    }

    /// Lets the job run without anybody waiting for it.
    pub fn detach(mut self) {
        self.is_detached = true;
    }

    /// Takes the job out of the queue; `false` when a worker has it or had it, or it was taken out before.
    pub fn cancel(&self) -> bool {
        let canceled = self.slot.leave_waiting(Phase::Canceled).is_some();
        if canceled {
            self.lane.forget(self.id);
        }
        canceled
    }

    /// Waits for a job that a worker has.
    fn join(self) -> Result<T, NotRun> {
        loop {
            match poll::wait([Some((self.slot.done.as_fd(), Interest::Read))], None) {
                Ok([true]) => return self.result(),
                Ok([false]) => {}
                Err(_) => return Err(NotRun::Stopping),
            }
        }
    }

    fn result(&self) -> Result<T, NotRun> {
        match std::mem::replace(&mut *self.slot.lock(), Phase::Canceled) {
            Phase::Done(result) => result,
            Phase::Waiting(_) | Phase::Running | Phase::Canceled => Err(NotRun::Panicked),
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        if !self.is_detached {
            self.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::{Receiver, Sender, bounded};
    use std::os::unix::net::UnixStream;

    const LONG: Duration = Duration::from_secs(60);

    fn lane(workers: usize, queue: usize) -> Lane {
        Lane::start(Kind::Read, Size { workers, queue }).unwrap().0
    }

    /// A worker's job, and what ends it.
    type Occupied = (Ticket<()>, Sender<()>);

    /// Occupies one worker until the sender is used or dropped; returns once the worker has the job.
    fn occupy(lane: &Lane) -> Occupied {
        occupy_for(lane, Claim::of_client(None))
    }

    fn occupy_for(lane: &Lane, claim: Claim) -> Occupied {
        let (release, released): (Sender<()>, Receiver<()>) = bounded(1);
        let (started, begun) = bounded(1);
        let job = move || {
            started.send(()).unwrap();
            let _ = released.recv();
        };
        let ticket = lane.submit_for(claim, job).unwrap();
        begun.recv_timeout(LONG).unwrap();
        (ticket, release)
    }

    #[test]
    fn a_result_comes_back() {
        let stop = Stop::new().unwrap();
        let lane = lane(2, 2);
        assert_eq!(lane.submit(|| 7).unwrap().wait(None, LONG, &stop), Ok(7));
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_has_room_again_after_a_cancel() {
        let lane = lane(1, 1);
        let (_running, _release) = occupy(&lane);
        let waiting = lane.submit(|| ()).unwrap();
        assert!(lane.prospect(&Claim::of_client(None), Coming::default()).is_none());
        assert_eq!(lane.submit(|| ()).unwrap_err(), NotRun::Full);
        drop(waiting);
        assert!(lane.prospect(&Claim::of_client(None), Coming::default()).is_some());
    }

    fn address(last: u8) -> Claim {
        Claim::of_client(Some([192, 0, 2, last].into()))
    }

    /// A lane of four workers of which one address holds three and waits for the fourth, which it may not have.
    fn crowded(queue: usize) -> (Lane, Vec<Occupied>, Ticket<()>) {
        let lane = lane(4, queue);
        let held = (0..3).map(|_| occupy_for(&lane, address(1))).collect();
        let waiting = lane.submit_for(address(1), || ()).unwrap();
        (lane, held, waiting)
    }

    #[test]
    fn one_address_leaves_the_last_quarter_of_the_workers_to_others() {
        let stop = Stop::new().unwrap();
        let (lane, mut held, waiting) = crowded(4);
        let other = lane.submit_for(address(2), || "served").unwrap();
        assert_eq!(other.wait(None, LONG, &stop), Ok("served"));
        assert_eq!(lane.submit(|| "served too").unwrap().wait(None, LONG, &stop), Ok("served too"));
        assert_eq!(lane.load().waiting, 1);
        held.pop();
        assert_eq!(waiting.wait(None, LONG, &stop), Ok(()), "its own worker came free");
    }

    #[test]
    fn jobs_without_an_address_may_have_every_worker() {
        let lane = lane(4, 1);
        let _held: Vec<_> = (0..4).map(|_| occupy(&lane)).collect();
        assert_eq!(lane.load().busy, 4);
    }

    #[test]
    fn one_address_leaves_the_last_quarter_of_the_queue_to_others() {
        let stop = Stop::new().unwrap();
        let (lane, _held, _waiting) = crowded(4);
        let _more: Vec<_> = (0..2).map(|_| lane.submit_for(address(1), || ()).unwrap()).collect();
        assert_eq!(lane.submit_for(address(1), || ()).unwrap_err(), NotRun::Full);
        assert_eq!(lane.submit_for(address(2), || 5).unwrap().wait(None, LONG, &stop), Ok(5));
    }

    #[test]
    fn closing_gives_up_what_is_kept_for_others() {
        let stop = Stop::new().unwrap();
        let (lane, _held, waiting) = crowded(4);
        lane.close();
        assert_eq!(waiting.wait(None, LONG, &stop), Ok(()));
    }

    #[test]
    fn a_client_that_leaves_while_queued_is_never_served() {
        let stop = Stop::new().unwrap();
        let lane = lane(1, 1);
        let (_running, _release) = occupy(&lane);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let waiting = lane.submit(|| ()).unwrap();
        drop(theirs);
        assert_eq!(waiting.wait(Some(ours.as_fd()), LONG, &stop), Err(NotRun::ClientGone));
        assert_eq!(lane.load().waiting, 0);
    }

    #[test]
    fn the_wait_limit_ends_only_the_wait_for_a_worker() {
        let stop = Stop::new().unwrap();
        let lane = lane(1, 1);
        let (running, release) = occupy(&lane);
        let waiting = lane.submit(|| ()).unwrap();
        assert_eq!(waiting.wait(None, Duration::from_millis(5), &stop), Err(NotRun::WaitedTooLong));
        drop(release);
        assert_eq!(running.wait(None, Duration::ZERO, &stop), Ok(()));
    }

    #[test]
    fn a_detached_job_runs_and_a_dropped_one_does_not() {
        let lane = lane(1, 4);
        let (_running, release) = occupy(&lane);
        let (done, ran) = bounded(2);
        let job = |name: &'static str| {
            let done = done.clone();
            move || done.send(name).unwrap()
        };
        drop(lane.submit(job("dropped")).unwrap());
        lane.submit(job("detached")).unwrap().detach();
        drop(release);
        assert_eq!(ran.recv_timeout(LONG), Ok("detached"));
        assert_eq!(lane.load().waiting, 0);
    }

    #[test]
    fn a_panic_is_an_answer_and_the_worker_lives_on() {
        let stop = Stop::new().unwrap();
        let lane = lane(1, 1);
        let failing: Ticket<()> = lane.submit(|| panic!("on purpose")).unwrap();
        assert_eq!(failing.wait(None, LONG, &stop), Err(NotRun::Panicked));
        assert_eq!(lane.submit(|| 1).unwrap().wait(None, LONG, &stop), Ok(1));
    }

    #[test]
    fn closing_ends_the_workers_after_the_queue() {
        let stop = Stop::new().unwrap();
        let (lane, workers) = Lane::start(Kind::Write, Size { workers: 2, queue: 4 }).unwrap();
        let last = lane.submit(|| 3).unwrap();
        lane.close();
        assert_eq!(last.wait(None, LONG, &stop), Ok(3));
        assert_eq!(lane.submit(|| 4).unwrap_err(), NotRun::Stopping);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}
