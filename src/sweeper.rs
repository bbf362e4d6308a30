//! The door through which time comes in: the table of jobs that the thread `sweeper` runs.
//!
//! A job is short, looks at facts only, and may be run at any time and twice.

use crate::config::SweeperSettings;
use crate::gate::changes::Changes;
use crate::gate::road::Road;
use crate::git::lease::Leases;
use crate::git::responses::Responses;
use crate::mirror::keeper::Keeper;
use crate::store::Store;
use crate::supervise::Reaper;
use crate::sys::stop::Stop;
use crate::sys::timetable::{self, Job, Record};
use jiff::Timestamp;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

/// Events that are kept, however young they are: at a kilobyte each, a hundred megabytes.
const EVENTS_MAX: u32 = 100_000;

/// What the jobs work on.
#[derive(Debug)]
pub struct Sweeper {
    /// The one spawner and waiter.
    pub reaper: Reaper,
    /// How long an escaped process may take to go after SIGTERM.
    pub kill_grace: Duration,
    /// Who pushes to which repository, and what is unclean.
    pub leases: Leases,
    /// Users, tokens, writes under way.
    pub store: Store,
    /// Held pushes.
    pub road: Road,
    /// Mirrors.
    pub keeper: Keeper,
    /// Changes of hosted repositories.
    pub changes: Changes,
    /// How long an event is kept.
    pub keep_events: Duration,
    /// Answers to fetches.
    pub responses: Responses,
}

/// A row: the name that people are shown, which is the key in `[sweeper]` with `-` for `_`, the interval's setting, one
/// run.
type Row = (&'static str, fn(&SweeperSettings) -> Duration, fn(&Sweeper) -> Result<(), String>);

/// Every job.
const JOBS: [Row; 14] = [
    ("orphans", |every| every.orphans, Sweeper::end_orphans),
    ("leftovers", |every| every.leftovers, Sweeper::clean_leftovers),
    ("tokens", |every| every.tokens, Sweeper::forget_expired_tokens),
    ("checkpoint", |every| every.checkpoint, Sweeper::checkpoint),
    ("retry-forwards", |every| every.retry_forwards, Sweeper::pass_on),
    ("expire-pushes", |every| every.expire_pushes, |sweeper| sweeper.road.expire_due()),
    ("close-orphans", |every| every.close_orphans, |sweeper| sweeper.road.close_orphans()),
    ("sweep-held", |every| every.sweep_held, |sweeper| sweeper.road.sweep_held()),
    ("sync-mirrors", |every| every.sync_mirrors, Sweeper::sync_mirrors),
    ("mirror-upkeep", |every| every.mirror_upkeep, Sweeper::tend_mirrors),
    ("watch-repositories", |every| every.watch_repositories, Sweeper::watch_repositories),
    ("prune-events", |every| every.prune_events, Sweeper::prune_events),
    ("expire-packs", |every| every.expire_packs, Sweeper::expire_packs),
    ("prune-records", |every| every.prune_records, |sweeper| sweeper.road.prune_records()),
];

impl Sweeper {
    /// Starts the thread `sweeper`, which runs until the stop begins to drain.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        self,
        intervals: &SweeperSettings,
        stop: Stop,
        record: &Record,
    ) -> io::Result<JoinHandle<()>> {
        let jobs = JOBS.map(|(name, every, run)| Job { name, every: every(intervals), run });
        timetable::start("sweeper", jobs.into(), self, stop, record)
    }

    /// What left its group and outlived its job is told to go, and killed when it does not.
    fn end_orphans(&self) -> Result<(), String> {
        self.reaper.sweep_orphans(self.kill_grace);
        Ok(())
    }

    /// What a killed git left and a foreign writer kept from being cleaned.
    fn clean_leftovers(&self) -> Result<(), String> {
        self.leases.tend();
        Ok(())
    }

    /// Pushes, and word of changes that the database did not take.
    fn pass_on(&self) -> Result<(), String> {
        self.changes.settle_due();
        self.road.forward_due()
    }

    fn sync_mirrors(&self) -> Result<(), String> {
        self.keeper.sync_due();
        Ok(())
    }

    fn tend_mirrors(&self) -> Result<(), String> {
        self.keeper.tend_due();
        Ok(())
    }

    fn watch_repositories(&self) -> Result<(), String> {
        self.changes.begin_look();
        Ok(())
    }

    /// Whoever was away for longer is told so.
    fn prune_events(&self) -> Result<(), String> {
        let before = Timestamp::now().checked_sub(self.keep_events).unwrap_or(Timestamp::MIN);
        self.store.events().prune(before, EVENTS_MAX).map(drop).map_err(|error| error.to_string())
    }

    fn expire_packs(&self) -> Result<(), String> {
        self.responses.expire();
        Ok(())
    }

    fn forget_expired_tokens(&self) -> Result<(), String> {
        self.store.users().forget_expired(Timestamp::now()).map(drop).map_err(|error| error.to_string())
    }

    /// Keeps the write-ahead log short.
    fn checkpoint(&self) -> Result<(), String> {
        self.store.checkpoint().map_err(|error| error.to_string())
    }
}
