//! Who is writing to a hosted repository, and that nobody enters while it is cleaned.
//!
//! Pushes enter side by side, as they do behind `git http-backend`: git's own locks decide between them. A push that was
//! killed leaves a *stain*, which is cleaned at once, also while others are inside ([`crate::git::leftovers`]); only for
//! that moment nobody enters. What may as well be of a living push that was inside with the killed one is *shared*: it is
//! looked at again when one of those leaves, and until then only pushes that would meet a shared lock wait. What could not
//! be removed because a foreign git is at work there is *postponed*: everybody enters, and [`Leases::tend`] tries again.
//!
//! A push holds its lease in two hands: [`Lease`] belongs to whoever waits for the outcome, [`Hold`] to the child, which
//! lets go when its process group is gone. Both have to let go before the push counts as out; a killed group that is not
//! gone keeps its repository closed. Files are only touched by threads that enter, leave or tend, never by the one that
//! drops a [`Hold`]: that may be the reaper's.

use crate::git::footprint::Footprint;
use crate::git::layout::Repository;
use crate::git::leftovers::{self, Swept, Window};
use crate::git::reach::Reach;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a wait may go on without asking whether the client is still there.
const POLL: Duration = Duration::from_millis(250);

/// How long a postponed cleaning rests: a foreign git is at work for seconds, a look at `/proc` takes milliseconds.
const RETRY: Duration = Duration::from_secs(10);

/// Repositories that can be entered or unclean at the same time; connections and lanes keep it far below that.
const REPOSITORIES_MAX: usize = 10_000;

/// Postponed cleanings of one repository. Beyond it the oldest is given up, and git's own two weeks apply.
const POSTPONED_MAX: usize = 32;

/// Shared stains of one repository: pushes that were killed during one that lasts. Each is swept for again when that one
/// leaves; beyond it nobody enters until then.
const SHARED_MAX: usize = 64;

/// Something that lives until a push has left nothing behind, such as the durable note of it: dropped then, and never
/// when the gate ends before.
pub type Record = Box<dyn Any + Send>;

type Sweep = dyn Fn(&Repository, Window, &Footprint, &[Arc<Reach>]) -> io::Result<Swept> + Send + Sync;

/// The leases of all hosted repositories; clones share them.
#[derive(Clone)]
pub struct Leases(Arc<Shared>);

struct Shared {
    entries: Mutex<HashMap<PathBuf, Entry>>,
    changed: Condvar,
    sweep: Box<Sweep>,
}

impl Drop for Shared {
    /// The gate ends, and what is unclean stays so. Its records are left undropped, or a durable note would vanish and the
    /// next life would not know what to clean.
    fn drop(&mut self) {
        let entries = self.entries.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, Entry { stains, shared, postponed, .. }) in entries.drain() {
            [stains, shared, postponed].into_iter().flatten().for_each(mem::forget);
        }
    }
}

/// One repository that somebody is in, waits for, or has left unclean.
struct Entry {
    repository: Repository,
    inside: Vec<Arc<Reach>>,
    /// Of those inside: killed, but their processes are not known to be gone.
    ending: usize,
    waiting: usize,
    is_being_cleaned: bool,
    /// To be cleaned at once.
    stains: Vec<Stain>,
    /// To be cleaned further when one that is beside has left.
    shared: Vec<Stain>,
    /// To be cleaned at `retry_at`.
    postponed: Vec<Stain>,
    retry_at: Instant,
    finished: Vec<Record>,
}

/// What a killed job may have left.
struct Stain {
    window: Window,
    footprint: Footprint,
    /// Those who were inside while the job was, and live.
    beside: Vec<Arc<Reach>>,
    /// What the last cleaning left since it may be of one of those.
    left: Vec<PathBuf>,
    _record: Record,
}

/// What a cleaning leaves.
#[derive(Default)]
struct Cleaned {
    shared: Vec<Stain>,
    postponed: Vec<Stain>,
}

/// Why a repository could not be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The deadline came first.
    #[error("the repository is being cleaned after a push that was ended: try again")]
    Deadline,
    /// The client left.
    #[error("the client left while it waited for the repository")]
    ClientGone,
    /// [`REPOSITORIES_MAX`] is reached.
    #[error("too many repositories are in use at once: try again")]
    Full,
}

/// The waiter's hand of a lease. Dropping it without [`Lease::settle`] says that the job may have left something.
pub struct Lease {
    // In this order: first the visit ends, then its place is tidied.
    visit: Arc<Visit>,
    _tidy: Tidy,
}

/// Tidies a repository when dropped.
struct Tidy {
    leases: Leases,
    place: PathBuf,
}

/// The child's hand of a lease.
pub struct Hold {
    _visit: Arc<Visit>,
}

struct Visit {
    leases: Leases,
    repository: Repository,
    reach: Arc<Reach>,
    from: SystemTime,
    is_settled: AtomicBool,
    /// Taken when the visit ends; the lock is never contended.
    left: Mutex<Option<(Footprint, Record)>>,
}

impl Leases {
    /// No repository is in use yet.
    #[must_use]
    pub fn new() -> Self {
        Self::cleaning_with(Box::new(leftovers::sweep))
    }

    fn cleaning_with(sweep: Box<Sweep>) -> Self {
        Self(Arc::new(Shared { entries: Mutex::default(), changed: Condvar::new(), sweep }))
    }

    /// Enters `repository` with a job that may leave `footprint`; waits while leftovers of another are in its way.
    ///
    /// `record` is dropped when the job has ended and nothing of it is left. `is_gone` is asked at least every 250 ms, never
    /// under a lock.
    ///
    /// # Errors
    /// See [`LeaseError`]; `record` is dropped.
    pub fn enter(
        &self,
        repository: &Repository,
        footprint: Footprint,
        record: Record,
        deadline: Instant,
        is_gone: impl Fn() -> bool,
    ) -> Result<Lease, LeaseError> {
        self.queue_up(repository)?;
        let reach = Arc::new(Reach::of(repository, &footprint));
        let admitted = self.wait_until_open(&repository.common_dir, &reach, deadline, is_gone);
        self.step_forward(&repository.common_dir, admitted.is_ok());
        let visit = Visit {
            leases: self.clone(),
            repository: repository.clone(),
            reach,
            from: admitted?,
            is_settled: AtomicBool::new(false),
            left: Mutex::new(Some((footprint, record))),
        };
        let tidy = Tidy { leases: self.clone(), place: repository.common_dir.clone() };
        Ok(Lease { visit: Arc::new(visit), _tidy: tidy })
    }

    /// Takes up what a job of an earlier life may have left: the next [`Leases::tend`] or entry cleans it.
    ///
    /// # Errors
    /// [`LeaseError::Full`]; `record` is dropped.
    pub fn remember(
        &self,
        repository: &Repository,
        window: Window,
        footprint: Footprint,
        record: Record,
    ) -> Result<(), LeaseError> {
        let mut entries = self.lock();
        Self::entry(&mut entries, repository)?.stain(window, footprint, record);
        Ok(())
    }

    /// Cleans whatever can be cleaned now: for the sweeper's timetable. Answers how many repositories are still unclean.
    pub fn tend(&self) -> usize {
        let places: Vec<PathBuf> = self.lock().keys().cloned().collect();
        places.iter().for_each(|place| self.tidy(place));
        self.lock().values().filter(|entry| !entry.is_clean()).count()
    }

    /// From here on the entry stays until [`Leases::step_forward`].
    fn queue_up(&self, repository: &Repository) -> Result<(), LeaseError> {
        let mut entries = self.lock();
        Self::entry(&mut entries, repository)?.waiting += 1;
        Ok(())
    }

    fn step_forward(&self, place: &Path, is_admitted: bool) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(place) {
            entry.waiting -= 1;
            // Admission itself counted the visit already, under the lock that saw the repository open.
            if !is_admitted && entry.is_unused() {
                entries.remove(place);
            }
        }
    }

    /// Answers when it was admitted.
    fn wait_until_open(
        &self,
        place: &Path,
        reach: &Arc<Reach>,
        deadline: Instant,
        is_gone: impl Fn() -> bool,
    ) -> Result<SystemTime, LeaseError> {
        loop {
            self.tidy(place);
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(from) = self.admit(place, reach, left.min(POLL)) {
                return Ok(from);
            }
            if is_gone() {
                return Err(LeaseError::ClientGone);
            }
            if left.is_zero() {
                return Err(LeaseError::Deadline);
            }
        }
    }

    /// Counts one more inside if the repository is open to it, or becomes open within `time`. Answers when.
    fn admit(&self, place: &Path, reach: &Arc<Reach>, time: Duration) -> Option<SystemTime> {
        let mut entries = self.lock();
        for is_last_look in [false, true] {
            match entries.get_mut(place) {
                Some(entry) if entry.is_open_to(reach) => {
                    let from = SystemTime::now();
                    entry.let_in(reach, from);
                    return Some(from);
                }
                // Somebody has to clean it first: us.
                Some(entry) if entry.can_be_cleaned() => return None,
                Some(_) | None => {}
            }
            if !is_last_look {
                entries =
                    self.0.changed.wait_timeout(entries, time).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        None
    }

    /// Does what a repository needs, outside of the lock: ends the records of finished jobs, cleans after killed ones,
    /// forgets the entry when nothing is left of it.
    fn tidy(&self, place: &Path) {
        // Whoever leaves during a cleaning finds it occupied and relies on whoever cleans to go on.
        while self.tidy_once(place) {}
    }

    /// Answers whether there is more to do.
    fn tidy_once(&self, place: &Path) -> bool {
        let (finished, work) = match self.lock().get_mut(place) {
            Some(entry) => (mem::take(&mut entry.finished), entry.begin_cleaning()),
            None => return false,
        };
        drop(finished);
        let cleaned = work.map(|(repository, stains)| self.clean(&repository, stains));
        // Declared before the lock is taken, so dropped after it is given back: a record may write to the store.
        let _given_up;
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(place) else { return false };
        if let Some(cleaned) = cleaned {
            _given_up = entry.end_cleaning(cleaned);
            self.0.changed.notify_all();
        }
        let has_more = entry.can_be_cleaned();
        if entry.is_unused() {
            entries.remove(place);
        }
        has_more
    }

    /// Sweeps for each stain; answers those that have to be tried again.
    fn clean(&self, repository: &Repository, stains: Vec<Stain>) -> Cleaned {
        let mut cleaned = Cleaned::default();
        for mut stain in stains {
            match (self.0.sweep)(repository, stain.window, &stain.footprint, &stain.beside) {
                Ok(swept) if swept.is_clean() => {}
                Ok(swept) if swept.is_hindered() => cleaned.postponed.push(stain),
                Ok(swept) => {
                    stain.left = swept.shared;
                    cleaned.shared.push(stain);
                }
                Err(error) => {
                    log::warn!(
                        "cleaning {:?} after a killed git: {error}; it will be tried again",
                        repository.git_dir
                    );
                    cleaned.postponed.push(stain);
                }
            }
        }
        cleaned
    }

    /// From here on nobody enters, until the visit that ends has been cleaned after.
    fn close(&self, repository: &Repository) {
        if let Some(entry) = self.lock().get_mut(&repository.common_dir) {
            entry.ending += 1;
        }
    }

    fn leave(&self, visit: &Visit) {
        let left = visit.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut entries = self.lock();
        let (Some(entry), Some((footprint, record))) = (entries.get_mut(&visit.repository.common_dir), left)
        else {
            return;
        };
        entry.let_out(&visit.reach);
        if visit.is_settled.load(Ordering::Acquire) {
            entry.finished.push(record);
        } else {
            let window = Window { from: visit.from, until: SystemTime::now() };
            entry.stain(window, footprint, record);
            entry.ending -= 1;
        }
        self.0.changed.notify_all();
    }

    fn entry<'a>(
        entries: &'a mut HashMap<PathBuf, Entry>,
        repository: &Repository,
    ) -> Result<&'a mut Entry, LeaseError> {
        if entries.len() >= REPOSITORIES_MAX && !entries.contains_key(&repository.common_dir) {
            return Err(LeaseError::Full);
        }
        let new = || Entry::new(repository.clone());
        Ok(entries.entry(repository.common_dir.clone()).or_insert_with(new))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Leases {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("repositories", &self.lock().len()).finish()
    }
}

impl Entry {
    fn new(repository: Repository) -> Self {
        Self {
            repository,
            inside: Vec::new(),
            ending: 0,
            waiting: 0,
            is_being_cleaned: false,
            stains: Vec::new(),
            shared: Vec::new(),
            postponed: Vec::new(),
            retry_at: Instant::now(),
            finished: Vec::new(),
        }
    }

    fn is_open(&self) -> bool {
        let is_cleaned = self.stains.is_empty() && !self.is_being_cleaned;
        is_cleaned && self.ending == 0 && self.shared.len() < SHARED_MAX
    }

    /// Whether no lock that a killed job may have left is in the way of a job with this reach.
    fn is_open_to(&self, reach: &Reach) -> bool {
        let mut left = self.shared.iter().flat_map(|stain| &stain.left);
        self.is_open() && !left.any(|path| reach.is_blocked_by(path))
    }

    fn is_clean(&self) -> bool {
        self.is_open() && self.shared.is_empty() && self.postponed.is_empty()
    }

    fn is_unused(&self) -> bool {
        self.inside.is_empty() && self.waiting == 0 && self.is_clean() && self.finished.is_empty()
    }

    fn can_be_cleaned(&self) -> bool {
        let has_work =
            !self.stains.is_empty() || (!self.postponed.is_empty() && Instant::now() >= self.retry_at);
        !self.is_being_cleaned && has_work
    }

    fn let_in(&mut self, reach: &Arc<Reach>, from: SystemTime) {
        self.inside.push(reach.clone());
        let stains = self.shared.iter_mut().chain(&mut self.postponed);
        stains.filter(|stain| stain.window.reaches(from)).for_each(|stain| stain.beside.push(reach.clone()));
    }

    fn let_out(&mut self, reach: &Arc<Reach>) {
        self.inside.retain(|other| !Arc::ptr_eq(other, reach));
        self.wake();
    }

    /// A job is over and may have left something.
    fn stain(&mut self, window: Window, footprint: Footprint, record: Record) {
        let beside = self.inside.clone();
        self.stains.push(Stain { window, footprint, beside, left: Vec::new(), _record: record });
    }

    /// Has the shared stains cleaned that somebody beside them has left.
    fn wake(&mut self) {
        let inside = &self.inside;
        let (still_shared, woken): (Vec<_>, Vec<_>) = mem::take(&mut self.shared)
            .into_iter()
            .partition(|stain| stain.beside.iter().all(|reach| is_among(reach, inside)));
        self.shared = still_shared;
        self.stains.extend(woken);
    }

    /// The work of a cleaning, if there is some. Until its end the repository is closed.
    fn begin_cleaning(&mut self) -> Option<(Repository, Vec<Stain>)> {
        if !self.can_be_cleaned() {
            return None;
        }
        self.is_being_cleaned = true;
        let mut stains = mem::take(&mut self.postponed);
        stains.append(&mut self.stains);
        for stain in &mut stains {
            stain.beside.retain(|reach| is_among(reach, &self.inside));
        }
        Some((self.repository.clone(), stains))
    }

    /// Opens the repository again; answers the oldest of the postponed stains, if they are too many.
    fn end_cleaning(&mut self, cleaned: Cleaned) -> Vec<Stain> {
        let Cleaned { shared, mut postponed } = cleaned;
        let excess = postponed.len().saturating_sub(POSTPONED_MAX);
        if excess > 0 {
            log::warn!("{:?}: giving up on the leftovers of {excess} killed pushes", self.repository.git_dir);
        }
        self.postponed = postponed.split_off(excess);
        self.retry_at = Instant::now() + RETRY;
        self.is_being_cleaned = false;
        self.shared.extend(shared);
        // Somebody may have left meanwhile.
        self.wake();
        postponed
    }
}

fn is_among(reach: &Arc<Reach>, others: &[Arc<Reach>]) -> bool {
    others.iter().any(|other| Arc::ptr_eq(other, reach))
}

impl Lease {
    /// The hand for the child that does the work.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { _visit: self.visit.clone() }
    }

    /// Lets go and says that the job ended by itself and well, so that nothing has to be cleaned.
    pub fn settle(self) {
        self.visit.is_settled.store(true, Ordering::Release);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.visit.is_settled.load(Ordering::Acquire) {
            self.visit.leases.close(&self.visit.repository);
        }
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        self.leases.tidy(&self.place);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leases.leave(self);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
