//! What the handlers of both doors share.

use super::auth::Throttle;
use super::budget::Budget;
use super::form::FormKey;
use super::front::View;
use super::metrics::Metrics;
use super::smart::Grants;
use crate::config::{ChecksSettings, Settings};
use crate::gate::diff::Differ;
use crate::gate::maintenance::Maintenance;
use crate::gate::road::Road;
use crate::gate::waiters::Waiters;
use crate::git::command::Git;
use crate::git::layout::Root;
use crate::git::lease::Leases;
use crate::git::pool::{Kind, Lane, Size};
use crate::git::settings::SettingsCache;
use crate::model::access::Rules;
use crate::store::Store;
use crate::supervise::Reaper;
use crate::sys::current::Current;
use crate::sys::stop::Stop;
use crate::sys::timetable::Record;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

/// The four lanes of git workers.
#[derive(Debug)]
pub struct Lanes {
    /// Clones and fetches.
    pub read: Lane,
    /// Pushes.
    pub write: Lane,
    /// Upstreams.
    pub upstream: Lane,
    /// Maintenance.
    pub upkeep: Lane,
}

impl Lanes {
    /// Starts every lane with the workers that the settings give it; the handles end after [`Lanes::close`].
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(settings: &Settings) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let git = &settings.git;
        let mut handles = Vec::new();
        let mut lane = |kind, workers| -> io::Result<Lane> {
            let (lane, workers) = Lane::start(kind, Size { workers, queue: git.queue })?;
            handles.extend(workers);
            Ok(lane)
        };
        let lanes = Self {
            read: lane(Kind::Read, git.read_workers)?,
            write: lane(Kind::Write, git.write_workers)?,
            upstream: lane(Kind::Upstream, git.upstream_workers)?,
            upkeep: lane(Kind::Upkeep, git.upkeep_workers)?,
        };
        Ok((lanes, handles))
    }

    /// Every lane, in the order in which people are shown them.
    #[must_use]
    pub fn all(&self) -> [&Lane; 4] {
        [&self.read, &self.write, &self.upstream, &self.upkeep]
    }

    /// Takes no more jobs anywhere.
    pub fn close(&self) {
        self.all().into_iter().for_each(Lane::close);
    }
}

/// Everything a handler may use; one for the process.
#[derive(Debug)]
pub struct App {
    /// The settings as of the start; the rules and checks in them are superseded by [`App::rules`] and [`App::checks`].
    pub settings: Settings,
    /// Users, tokens, writes under way.
    pub store: Store,
    /// The one spawner and waiter.
    pub reaper: Reaper,
    /// The git program and its environment.
    pub git: Git,
    /// The directory of hosted repositories.
    pub root: Root,
    /// The repositories' own settings.
    pub repository_settings: Arc<SettingsCache>,
    /// Who pushes to which repository.
    pub leases: Leases,
    /// Where maintenance of repositories is asked for.
    pub maintenance: Maintenance,
    /// What the bodies of all fetches may take together.
    pub fetch_bodies: Arc<Budget>,
    /// The workers.
    pub lanes: Lanes,
    /// How held pushes travel.
    pub road: Road,
    /// What upstreams have said yes to.
    pub grants: Grants,
    /// Who waits for a decision on his push.
    pub waiters: Waiters,
    /// The key of the forms on the pages.
    pub forms: FormKey,
    /// Makes the diffs of held pushes; set when the gate is in place.
    pub differ: OnceLock<Arc<dyn Differ>>,
    /// The end of it all.
    pub stop: Stop,
    /// What is counted at the doors.
    pub metrics: Metrics,
    /// Failed logins.
    pub throttle: Throttle,
    /// How the sweeper's jobs fare.
    pub sweeps: Record,
    /// What the public front counts; set when it is open.
    pub front: OnceLock<View>,
    /// When the process began.
    pub started: Instant,
    /// The rules in force.
    pub rules: Current<Rules>,
    /// What pushes are checked for now.
    pub checks: Current<ChecksSettings>,
    /// Whether requests are served.
    pub ready: AtomicBool,
}

impl App {
    /// Whether requests are served: the start is over and the stop has not begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && self.stop.is_running()
    }
}
