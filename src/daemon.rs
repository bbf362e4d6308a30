//! The composition root: starts everything in order, owns every handle, stops in reverse.
//!
//! | thread | started by | ends by |
//! |---|---|---|
//! | main | the kernel | signals and the watchdog's rounds, then the stop below |
//! | `reaper` | [`Reaper::start`] | the process's end: it outlives every child |
//! | `read-N`, `pack-N`, `write-N`, `upstream-N`, `upkeep-N` | [`Lanes::start`] | the lanes' close, after their last job |
//! | `probe-N` | [`Lanes::start`] | the lane's close, or the process's end where they ask in vain |
//! | `resolve` | [`Upstreams`], one a name looked up | its lookup: nobody waits for it, and it owns nothing |
//! | `front` | [`Front::start`] | the stop at [`Level::Draining`] |
//! | `request-N` | `front`, one a connection | its client, its limits, or the stop |
//! | `control`, `control-door`, and `tiny_http`'s own | [`Control::start`] | [`Control::close`] |
//! | `caller` | `control-door`, one a connection | its limits, or [`Control::close`] |
//! | `control-wait` | `control`, one a caller who waits for something | what he waits for, his leaving, or the stop at [`Level::Draining`] |
//! | `sweeper` | [`Sweeper::start`] | the stop at [`Level::Draining`] |
//! | `redis` | [`RedisSource::start`] | [`RedisSource::end`], as the stop begins |
//! | `heard` | [`Keeper::attend`] | the stop at [`Level::Draining`] |
//! | `peer-NAME`, one a peer | [`Peers::follow`] | the next [`Peers::follow`] without it, [`Peers::close`], or a final no of the peer |
//! | `outbox-SINK` | [`Outbox::start`] | [`Outbox::close`], after everything that may change a repository |
//! | `demo`, in a demo | [`Demo::let_wait`](crate::cli::demo::Demo::let_wait) | the end of its git, with every other |
//!
//! A thread of this table that ends before its time is fatal: the daemon stops in order and fails. Only a `peer` goes on
//! after a defect, and is parked after three.
//!
//! Order of the stop: readiness 503, no more accepting, work in flight until the drain deadline, process groups told to
//! go and then killed, everything reaped, the store closed, exit. A second order to stop goes straight to the kill.

mod fleet;
mod prepare;
mod watchdog;

use crate::cli::Exit;
use crate::cli::demo::DemoError;
use crate::config::{ConfigError, Environment, ListenAddr, Settings};
use crate::gate::changes::{Changes, ChangesParts};
use crate::gate::differ::GitDiffer;
use crate::gate::maintenance::Maintenance;
use crate::gate::road::{Parts, Road};
use crate::gate::waiters::Waiters;
use crate::git::ask::AskError;
use crate::git::layout::{LayoutError, Root};
use crate::git::lease::Leases;
use crate::git::responses::{self, Responses};
use crate::git::settings::SettingsCache;
use crate::git::upkeep::Tools;
use crate::http::app::{App, Lanes, Remembered, Workers};
use crate::http::auth::Throttle;
use crate::http::budget::{Budget, FETCHES_MAX};
use crate::http::control::Control;
use crate::http::events::Streams;
use crate::http::form::FormKey;
use crate::http::front::Front;
use crate::http::handler::Public;
use crate::http::limits::FrontLimits;
use crate::http::metrics::Metrics;
use crate::http::smart::{Door, Grants, recovery};
use crate::mirror::keeper::{Keeper, KeeperParts};
use crate::mirror::upstreams::Upstreams;
use crate::outbox::redis::source::RedisSource;
use crate::outbox::{Outbox, OutboxError, publishers};
use crate::peers::Peers;
use crate::peers::patience::Timing;
use crate::store::lock::{DataLock, LockError};
use crate::store::{Store, StoreError};
use crate::supervise::{Mark, Reaper};
use crate::sweeper::Sweeper;
use crate::sys::current::Current;
use crate::sys::net::{Address, Listener};
use crate::sys::proxies::TrustedProxies;
use crate::sys::signals::{Order, Signals};
use crate::sys::stop::{Level, Stop};
use crate::sys::systemd::{self, News};
use crate::sys::timetable::Record;
use crate::sys::{limits, machine, poll, probe};
use jiff::Timestamp;
use prepare::{end_earlier_life, find_git, open_held, prepare_directories, prepare_process};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use watchdog::Watchdog;

/// How often main looks whether every thread still lives.
const ROUND: Duration = Duration::from_secs(1);

/// How often main looks whether the last connection has ended, while it drains.
const DRAIN_ROUND: Duration = Duration::from_millis(10);

/// How long the last answers may take to leave once every process is gone.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long a killed process may take to vanish before the stop goes on without it.
const KILL_CAP: Duration = Duration::from_secs(2);

/// Of so many descriptors one may be that of a pack that is kept: clients and gits need the others.
const PACKS_PER_DESCRIPTORS: u64 = 8;

/// How long the asking of our own port may take, within the watchdog's interval.
const SELF_TEST_LIMIT: Duration = Duration::from_secs(5);

/// Why the gate could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A directory of ours cannot be made or emptied.
    #[error("preparing {}: {source}", at.display())]
    Directory {
        /// Which.
        at: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another gate owns the data directory, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Settings that do not go together with what was found.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory of repositories.
    #[error(transparent)]
    Root(#[from] LayoutError),
    /// What is to be published.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// No usable git.
    #[error("looking for git: {0}")]
    Git(#[from] AskError),
    /// An address cannot be listened on.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The machine has no room for a thread or a descriptor of ours.
    #[error("starting: {0}")]
    Resources(#[from] io::Error),
    /// The demo.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A thread ended before its time; the log says more.
    #[error("the thread {0} ended; everything was stopped in order")]
    ThreadEnded(&'static str),
}

impl DaemonError {
    /// The exit code of a gate that ends so.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Misused,
            Self::Directory { .. }
            | Self::Lock(_)
            | Self::Store(_)
            | Self::Outbox(_)
            | Self::Root(_)
            | Self::Git(_)
            | Self::Listen { .. }
            | Self::Resources(_)
            | Self::Demo(_)
            | Self::ThreadEnded(_) => Exit::Failed,
        }
    }
}

/// A running gate. The order of the fields is the order in which they go.
#[derive(Debug)]
pub struct Runtime {
    front: Front,
    control: Control,
    source: Option<RedisSource>,
    sweeper: JoinHandle<()>,
    heard: JoinHandle<()>,
    workers: Workers,
    outbox: Outbox,
    app: Arc<App>,
    signals: Signals,
    watchdog: Option<Watchdog>,
    addresses: Vec<Address>,
    _lock: DataLock,
}

/// Reads the settings again, for SIGHUP.
pub type Reload = Box<dyn Fn() -> Result<Settings, ConfigError>>;

impl Runtime {
    /// Starts everything and serves. Comes back when requests are answered.
    ///
    /// # Errors
    /// Why it could not; what was started has been stopped then.
    pub fn start(settings: Settings, environment: &Environment) -> Result<Self, DaemonError> {
        let started = Instant::now();
        prepare_process()?;
        let signals = Signals::install()?;
        let stop = Stop::new()?;
        // Asked before anything is made, and again before anything is removed: by then every directory is there.
        settings.check_places()?;
        let lock = DataLock::take(&settings.data_dir)?;
        settings.check_places()?;
        let mark = Mark::of(lock.file())?;
        let reaper = Reaper::start(mark.clone())?;
        end_earlier_life(&mark, &settings)?;
        let git = find_git(&reaper, &settings, environment)?;
        let root = settings.root_to_serve()?;
        let root = root.map_or(Ok(Root::none()), |path| Root::open(path, settings.follow_symlinks))?;
        let store = Store::open_to_tell(&settings.data_dir)?;
        prepare_directories(&settings.data_dir)?;
        let listeners = listeners(&settings)?;
        let addresses: Vec<Address> = listeners.iter().map(|listener| listener.address().clone()).collect();
        let (lanes, workers) = Lanes::start(&settings)?;
        let (rules, leases) = (Current::new(settings.rules.clone()), Leases::new());
        let checks = Current::new(settings.checks.clone());
        let waiters = Waiters::new(settings.limits.held_pushes);
        let tools = Tools { reaper: reaper.clone(), git: git.clone(), leases: leases.clone() };
        let maintenance = Maintenance::new(lanes.upkeep.clone(), tools, store.clone());
        let repository_settings = Arc::<SettingsCache>::default();
        let at = settings.data_dir.join("mirrors");
        let opened = Upstreams::open(&settings, &stop);
        let upstreams = opened.map_err(|source| DaemonError::Directory { at, source })?;
        let approach = lanes.approach(upstreams.mirrors(), &git, &reaper, settings.git.kill_grace);
        let keeper = Keeper::new(KeeperParts {
            store: store.clone(),
            upstreams: upstreams.clone(),
            approach: approach.clone(),
            memory: settings.git.memory,
            stop: stop.clone(),
            upkeep: lanes.upkeep.clone(),
            mirror_bytes_max: settings.limits.mirror_bytes_max,
        })?;
        let changes = Changes::new(ChangesParts {
            store: store.clone(),
            reaper: reaper.clone(),
            git: git.clone(),
            grace: settings.git.kill_grace,
            root: root.clone(),
            upstreams: upstreams.clone(),
            lane: lanes.write.clone(),
            stop: stop.clone(),
        })?;
        let node = settings.fleet.node.clone().unwrap_or_else(machine::host_name);
        let mut publishers = publishers(&settings, &store)?;
        let redis = fleet::server(&settings.fleet)?.map(|(server, to)| {
            publishers.push(to);
            server
        });
        let outbox = Outbox::start(&store, node, publishers)?;
        let peers = Peers::new(Arc::new(keeper.clone()), Timing::new(settings.fleet.peer_idle))?;
        let road = Road::new(Parts {
            store: store.clone(),
            reaper: reaper.clone(),
            git: git.clone(),
            root: root.clone(),
            leases: leases.clone(),
            repository_settings: Arc::clone(&repository_settings),
            maintenance: maintenance.clone(),
            changes: changes.clone(),
            held: open_held(&settings.data_dir)?,
            waiters: waiters.clone(),
            lane: lanes.write.clone(),
            approach,
            rules: rules.clone(),
            checks: checks.clone(),
            stop: stop.clone(),
            gate: settings.gate.clone(),
            upstreams,
            git_settings: settings.git.clone(),
            open_max: settings.limits.held_pushes,
        });
        let app = Arc::new(App {
            rules,
            checks,
            repository_settings,
            remembered: Remembered::new(&settings),
            leases,
            maintenance,
            metrics: Metrics::default(),
            throttle: Throttle::default(),
            grants: Grants::default(),
            door: Door::default(),
            keeper,
            changes,
            sinks: outbox.states(),
            peers,
            redis: OnceLock::new(),
            fetch_bodies: Budget::new(FETCHES_MAX.max(settings.limits.request_bytes_max)),
            sweeps: Record::default(),
            front: OnceLock::new(),
            road,
            waiters,
            streams: Streams::new(settings.limits.streams),
            forms: FormKey::new()?,
            differ: OnceLock::new(),
            ready: AtomicBool::new(false),
            responses: responses(&settings),
            settings,
            store,
            reaper,
            git,
            root,
            lanes,
            stop,
            started,
        });
        recovery::settle_earlier_writes(&app)?;
        app.changes.begin_look();
        app.road.recover()?;
        let differ = GitDiffer { road: app.road.clone(), lane: app.lanes.read.clone() };
        app.differ.get_or_init(|| Arc::new(differ));
        let sweeper = start_sweeper(&app)?;
        let heard = app.keeper.attend()?;
        let control = Control::start(Arc::clone(&app))?;
        // Last of what may fail: where his token lies is said once, and not by a start of which nobody hears more.
        greet_first_admin(&app.store)?;
        let front = open_front(&app, listeners)?;
        let source = redis.map(|server| fleet::listen(server, &app)).transpose()?;
        source.iter().for_each(|source| drop(app.redis.set(source.states())));
        app.peers.follow(&app.settings.peers);
        let watchdog = environment.systemd.watchdog.map(Watchdog::new);
        let runtime = Self {
            front,
            control,
            source,
            sweeper,
            heard,
            workers,
            outbox,
            app,
            signals,
            watchdog,
            addresses,
            _lock: lock,
        };
        runtime.announce();
        Ok(runtime)
    }

    /// What the handlers share, for whoever has something to prepare in a gate that serves already.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The first address that is listened on, as a URL where it is one.
    #[must_use]
    pub fn url(&self) -> String {
        self.addresses.first().map(url).unwrap_or_default()
    }

    fn announce(&self) {
        self.app.ready.store(true, Ordering::Release);
        let settings = &self.app.settings;
        log::info!(
            "serving {} with git {}, data in {}",
            settings.sources(),
            self.app.git.version(),
            settings.data_dir.display()
        );
        log::info!("limits: {}", limits_in_force(settings));
        self.addresses.iter().for_each(|address| log::info!("listening on {}", url(address)));
        systemd::tell(News::Ready);
    }

    /// Serves until a signal asks for the end, or a thread ends before its time; then stops in order.
    ///
    /// # Errors
    /// [`DaemonError::ThreadEnded`]; everything has been stopped then as after a signal.
    pub fn run(mut self, reload: &Reload) -> Result<(), DaemonError> {
        let ended = self.serve(reload);
        self.stop(ended.is_none());
        ended.map_or(Ok(()), |thread| Err(DaemonError::ThreadEnded(thread)))
    }

    /// Comes back with the name of a thread that ended, or with `None` when a signal asks for the end.
    fn serve(&mut self, reload: &Reload) -> Option<&'static str> {
        loop {
            // A failed wait is as good as none: the next round waits again.
            let _ = poll::wait([Some((self.signals.fd(), poll::Interest::Read))], Some(ROUND));
            while let Some(order) = self.signals.take() {
                match order {
                    Order::Terminate | Order::Interrupt | Order::Quit => {
                        log::info!("{order:?}: stopping; a second signal ends what is in flight at once");
                        return None;
                    }
                    Order::Reload => self.reload(reload),
                    Order::Ignored(signal) => log::info!("{signal}: means nothing to a gate"),
                }
            }
            if let Some(thread) = self.ended_thread() {
                log::error!("the thread {thread} has ended: stopping");
                return Some(thread);
            }
            self.feed_watchdog();
        }
    }

    fn ended_thread(&self) -> Option<&'static str> {
        let ended = [
            ("reaper", !self.app.reaper.is_alive()),
            ("front", self.front.is_closed()),
            ("control", self.control.has_ended()),
            ("sweeper", self.sweeper.is_finished()),
            ("heard", self.heard.is_finished()),
            ("a worker", self.workers.has_ended()),
            ("outbox", self.outbox.has_ended()),
            ("redis", self.source.as_ref().is_some_and(RedisSource::has_ended)),
        ];
        ended.into_iter().find_map(|(name, has_ended)| has_ended.then_some(name))
    }

    fn reload(&self, reload: &Reload) {
        systemd::tell(News::Reloading);
        match reload() {
            Ok(new) => {
                let waiting = self.app.settings.changes_needing_restart(&new);
                if !waiting.is_empty() {
                    log::warn!("reload: these keys change at the next start only: {}", waiting.join(", "));
                }
                self.app.rules.set(new.rules);
                self.app.checks.set(new.checks);
                self.app.peers.follow(&new.peers);
                if let Err(error) = self.outbox.hurry(&self.app.store) {
                    log::error!("reload: {error}");
                }
                log::info!(
                    "reload: the rules and the checks are replaced, and the peers followed that are named now"
                );
            }
            Err(error) => log::error!("reload: everything stays as it was: {error}"),
        }
        systemd::tell(News::Ready);
    }

    /// The watchdog is fed only when the accept path, the reaper, the sweeper and the store have all answered.
    fn feed_watchdog(&mut self) {
        let Some(watchdog) = self.watchdog.as_mut() else { return };
        if !watchdog.is_due() {
            return;
        }
        let front = self.addresses.first().map_or(Ok(()), |at| probe::answers(at, SELF_TEST_LIMIT));
        let silent = [
            ("front", front.err().map(|error| error.to_string())),
            ("reaper", (!self.app.reaper.is_alive()).then(|| "ended".to_owned())),
            ("sweeper", watchdog.has_stalled(self.app.sweeps.beats()).then(|| "made no round".to_owned())),
            ("store", self.app.store.ping().err().map(|error| error.to_string())),
        ];
        let mut silent =
            silent.into_iter().filter_map(|(part, why)| why.map(|why| format!("{part}: {why}"))).peekable();
        if silent.peek().is_none() {
            systemd::tell(News::Alive);
        }
        silent.for_each(|part| log::error!("watchdog: not fed: {part}"));
    }

    /// Ends everything, in the order of the module's comment.
    fn stop(self, may_drain: bool) {
        let Self { front, control, source, sweeper, heard, workers, outbox, app, signals, .. } = self;
        systemd::tell(News::Stopping);
        app.stop.raise(Level::Draining);
        app.peers.close();
        source.into_iter().for_each(RedisSource::end);
        if may_drain {
            drain(&app, &front, &signals);
        }
        app.stop.raise(Level::Killing);
        let left = app.reaper.end_all(app.settings.git.kill_grace, KILL_CAP);
        if left > 0 {
            log::error!(
                "{left} processes do not die; the kernel ends them with the machine or the container"
            );
        }
        let ended = front.join(Instant::now() + LAST_ANSWERS);
        if let Some(fault) = ended.fault {
            log::error!("front: {fault}");
        }
        app.lanes.close();
        control.close();
        // Who asks an upstream is not waited for: the end of the process is the end of the question.
        let ordinary = workers.gits.into_iter().chain([sweeper, heard]);
        ordinary.filter(|thread| left == 0 || thread.is_finished()).for_each(|thread| {
            if thread.join().is_err() {
                log::error!("a thread had panicked");
            }
        });
        app.peers.join();
        // Nothing changes any more: what has, is told as far as anybody takes it.
        outbox.close();
        // Maintenance that was ended has told the leases what it may have left; nobody is at work any more.
        app.leases.tend();
        if let Err(error) = app.store.checkpoint() {
            log::warn!("closing the database: {error}");
        }
        log::info!("stopped");
    }
}

/// Waits until the last connection has ended, the drain deadline, or a second signal.
fn drain(app: &App, front: &Front, signals: &Signals) {
    let until = Instant::now() + app.settings.limits.drain;
    let view = front.view();
    while view.connections() > 0 && Instant::now() < until {
        let _ = poll::wait([Some((signals.fd(), poll::Interest::Read))], Some(DRAIN_ROUND));
        let again = std::iter::from_fn(|| signals.take()).any(Order::is_end);
        if again {
            log::warn!("a second signal: ending what is in flight");
            return;
        }
    }
}

/// What bounds requests and git, as `check-config` writes it, on one line.
fn limits_in_force(settings: &Settings) -> String {
    let is_limit =
        |key: &str| ["limits.", "git.", "cache.", "gate."].iter().any(|section| key.starts_with(section));
    let pairs = settings.pairs().into_iter().filter(|(key, _)| is_limit(key));
    let pairs: Vec<String> = pairs.filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect();
    pairs.join(" ")
}

fn url(address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(_) => address.to_string(),
    }
}

/// The service manager's sockets if it passed some, else those of the settings.
fn listeners(settings: &Settings) -> Result<Vec<Listener>, DaemonError> {
    let passed = systemd::take_sockets()?;
    if passed.is_empty() {
        return settings.listen.iter().map(listen).collect();
    }
    let listeners: Vec<Listener> = passed.into_iter().map(Listener::inherited).collect::<io::Result<_>>()?;
    let exposed: Vec<ListenAddr> = listeners
        .iter()
        .filter_map(|listener| match listener.address() {
            Address::Tcp(address) => Some(ListenAddr::Tcp(*address)),
            Address::Unix(_) => None,
        })
        .collect();
    settings.check_exposure(&exposed)?;
    Ok(listeners)
}

fn listen(address: &ListenAddr) -> Result<Listener, DaemonError> {
    let listener = match address {
        ListenAddr::Tcp(address) => Listener::tcp(*address),
        ListenAddr::Unix(path) => Listener::unix(path),
    };
    listener.map_err(|source| DaemonError::Listen { address: address.to_string(), source })
}

fn start_sweeper(app: &App) -> io::Result<JoinHandle<()>> {
    let sweeper = Sweeper {
        reaper: app.reaper.clone(),
        kill_grace: app.settings.git.kill_grace,
        leases: app.leases.clone(),
        store: app.store.clone(),
        road: app.road.clone(),
        keeper: app.keeper.clone(),
        changes: app.changes.clone(),
        keep_events: app.settings.fleet.keep_events,
        responses: app.responses.clone(),
    };
    sweeper.start(&app.settings.sweeper, app.stop.clone(), &app.sweeps)
}

fn responses(settings: &Settings) -> Responses {
    Responses::new(responses::Limits {
        tmp: settings.data_dir.join("tmp"),
        bytes_max: settings.cache.pack_bytes_max,
        entries_max: usize::try_from(limits::descriptors() / PACKS_PER_DESCRIPTORS).unwrap_or(usize::MAX),
        age_max: settings.cache.pack_age_max,
        // At the floor itself pushes are refused, and they are never refused for what is kept for convenience.
        floor: settings.limits.disk_floor.saturating_mul(2),
    })
}

fn open_front(app: &Arc<App>, listeners: Vec<Listener>) -> Result<Front, DaemonError> {
    let limits = &app.settings.limits;
    let limits = FrontLimits {
        connections: limits.connections,
        head: limits.head,
        idle: limits.idle,
        min_rate: limits.min_rate,
        write_stall: limits.write_stall,
        ..FrontLimits::default()
    };
    let proxies = TrustedProxies::new(app.settings.trusted_proxies.clone());
    let front =
        Front::start(listeners, limits, proxies, Arc::new(Public(Arc::clone(app))), app.stop.clone())?;
    app.front.get_or_init(|| front.view());
    Ok(front)
}

fn greet_first_admin(store: &Store) -> Result<(), DaemonError> {
    if let Some(path) = store.users().ensure_admin(Timestamp::now())? {
        log::info!("made the user admin; the token is in {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_as_they_are_configured() {
        let told = limits_in_force(&Settings::defaults(None, 2));
        for pair in [
            "limits.head=\"10s\"",
            "limits.push_bytes_max=\"2GiB\"",
            "git.queue=256",
            "gate.approval=\"auto\"",
        ] {
            assert!(told.split(' ').any(|told| told == pair), "{pair} not in {told}");
        }
        assert!(!told.contains("data_dir"), "{told}");
    }
}
