//! What the handlers of both doors share.

use super::auth::Throttle;
use super::budget::Budget;
use super::events::Streams;
use super::form::FormKey;
use super::front::View;
use super::metrics::Metrics;
use super::smart::{Door, Grants};
use crate::config::{ChecksSettings, Settings};
use crate::gate::changes::Changes;
use crate::gate::diff::Differ;
use crate::gate::maintenance::Maintenance;
use crate::gate::road::Road;
use crate::gate::waiters::Waiters;
use crate::git::capabilities::Capabilities;
use crate::git::command::Git;
use crate::git::layout::Root;
use crate::git::lease::Leases;
use crate::git::pool::{Kind, Lane, Size};
use crate::git::refs_cache::RefsCache;
use crate::git::responses::Responses;
use crate::git::settings::SettingsCache;
use crate::mirror::keeper::Keeper;
use crate::mirror::{Approach, Mirrors};
use crate::model::access::Rules;
use crate::outbox::SinkStates;
use crate::outbox::redis::source::SourceStates;
use crate::peers::Peers;
use crate::store::Store;
use crate::supervise::Reaper;
use crate::sys::current::Current;
use crate::sys::stop::Stop;
use crate::sys::timetable::Record;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The five lanes of git workers, and the one of those who ask upstreams.
#[derive(Debug)]
pub struct Lanes {
    /// Clones and fetches.
    pub read: Lane,
    /// Packs that several clients may get.
    pub pack: Lane,
    /// Pushes.
    pub write: Lane,
    /// Upstreams.
    pub upstream: Lane,
    /// Maintenance.
    pub upkeep: Lane,
    /// Questions to upstreams, without a git.
    pub probe: Lane,
}

/// Threads that ask upstreams for work that no client's thread asks for. One that is dead takes one of them for ten seconds.
const PROBES: usize = 16;

/// The threads of the lanes, which end after [`Lanes::close`] and the jobs that wait.
#[derive(Debug)]
pub struct Workers {
    /// Those that run gits.
    pub gits: Vec<JoinHandle<()>>,
    /// Those that ask upstreams: a question that nobody answers goes on for some seconds, whatever is closed.
    pub probes: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Whether one has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.gits.iter().chain(&self.probes).any(JoinHandle::is_finished)
    }
}

impl Lanes {
    /// Starts every lane with the workers that the settings give it.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(settings: &Settings) -> io::Result<(Self, Workers)> {
        let git = &settings.git;
        let mut gits = Vec::new();
        let mut lane = |kind, workers| -> io::Result<Lane> {
            let (lane, workers) = Lane::start(kind, Size { workers, queue: git.queue })?;
            gits.extend(workers);
            Ok(lane)
        };
        let (probe, probes) = Lane::start(Kind::Probe, Size { workers: PROBES, queue: git.queue })?;
        let lanes = Self {
            read: lane(Kind::Read, git.read_workers)?,
            pack: lane(Kind::Pack, git.pack_workers)?,
            write: lane(Kind::Write, git.write_workers)?,
            upstream: lane(Kind::Upstream, git.upstream_workers)?,
            upkeep: lane(Kind::Upkeep, git.upkeep_workers)?,
            probe,
        };
        Ok((lanes, Workers { gits, probes }))
    }

    /// The way to upstreams, for work that no client's own thread asks for.
    #[must_use]
    pub fn approach(&self, mirrors: &Mirrors, git: &Git, reaper: &Reaper, grace: Duration) -> Approach {
        let (mirrors, git, reaper) = (mirrors.clone(), git.clone(), reaper.clone());
        Approach { mirrors, git, reaper, grace, probes: self.probe.clone(), lane: self.upstream.clone() }
    }

    /// Every lane, in the order in which people are shown them.
    #[must_use]
    pub fn all(&self) -> [&Lane; 6] {
        [&self.read, &self.pack, &self.write, &self.upstream, &self.upkeep, &self.probe]
    }

    /// Takes no more jobs anywhere.
    pub fn close(&self) {
        self.all().into_iter().for_each(Lane::close);
    }
}

/// What git has said, for as long as it would say the same again.
#[derive(Debug)]
pub struct Remembered {
    /// Of itself, to those who fetch.
    pub capabilities: Capabilities,
    /// Of the refs of repositories.
    pub refs: RefsCache,
}

impl Remembered {
    /// Nothing yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { capabilities: Capabilities::default(), refs: RefsCache::new(settings.limits.refs_bytes_max) }
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
    /// What git has said before.
    pub remembered: Remembered,
    /// Who pushes to which repository.
    pub leases: Leases,
    /// Where maintenance of repositories is asked for.
    pub maintenance: Maintenance,
    /// What the bodies of all fetches may take together.
    pub fetch_bodies: Arc<Budget>,
    /// Answers to fetches, being made and kept.
    pub responses: Responses,
    /// Who was let in and comes back for a pack.
    pub door: Door,
    /// The workers.
    pub lanes: Lanes,
    /// How held pushes travel.
    pub road: Road,
    /// Keeps mirrors fresh.
    pub keeper: Keeper,
    /// Changes of hosted repositories.
    pub changes: Changes,
    /// Where events are published to.
    pub sinks: SinkStates,
    /// The other gates that are listened to.
    pub peers: Peers,
    /// How it stands with the server that all gates of the fleet tell of their changes; set when it is listened to.
    pub redis: OnceLock<SourceStates>,
    /// What upstreams have said yes to.
    pub grants: Grants,
    /// Who waits for a decision on his push.
    pub waiters: Waiters,
    /// The places for streams of events.
    pub streams: Streams,
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
