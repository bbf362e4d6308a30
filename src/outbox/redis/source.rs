//! Hears of changes from the server, and mends what it has lost.
//!
//! One thread, with one connection that subscribes. Whatever was published while there was none is read afterwards, from the
//! versions that the server keeps, over a second connection that lasts no longer than that: so nothing is missed, and what is
//! heard twice is known. The same look finds what the server lacks of ours, since it was emptied, replaced or set back, and
//! tells it again. Another epoch than the one that is known means that others may have told what nobody has any more: then
//! no mirror is believed to be fresh.
//!
//! A server that is gone without a word is found out by its silence: it is asked for a sign of life, and then left.

use super::connection::Connection;
use super::pauses::Pauses;
use super::script::{self, Epoch, START};
use super::{RedisError, Server};
use crate::model::fleet::{RepoKey, SEQ_MAX, Version, written};
use crate::model::peer::{PeerState, RedisView};
use crate::model::redis::RedisUrl;
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use jiff::Timestamp;
use redis::{Value, cmd};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the server may say nothing before it is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(20);

/// How long that may take.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// After how many panics in a row nothing is tried any more.
const PANICS_MAX: u32 = 3;
/// How long one sleeps who has nothing to do until the end.
const PARKED: Duration = Duration::from_secs(60);

/// In how many pieces the versions of one repository are read at most: half a million of them. What is beyond is passed over,
/// for the others' sake.
const PIECES_MAX: usize = 500;

/// How long the names of all repositories of a fleet may be together, in bytes: half a million of them are as long.
const REPOS_BYTES_MAX: usize = 64 << 20;

/// What is wrong where two gates go by one name.
const TWIN: &str = "another gate tells of changes in this one's name: it runs on a copy of this data directory; stop one of \
                    them, or start it with a data directory of its own";

/// What is told of an attempt that failed.
const EPOCH: &str = "asking for the epoch";
const REPOS: &str = "listing repositories";
const VERSIONS: &str = "reading versions";
const AGAIN: &str = "publishing versions again";
const SUBSCRIBE: &str = "subscribing";
const LISTEN: &str = "listening";

/// The gate that listens.
pub trait Home: Send {
    /// What it has said last itself of each repository.
    ///
    /// # Errors
    /// A sentence, when that cannot be read.
    fn own(&self) -> Result<Vec<Version>, String>;

    /// Somebody says this; it may have been heard before.
    fn hear(&self, version: &Version);

    /// Whether this bears the gate's own name, and is a later change than it has made. It counts behind that from now on.
    fn is_outdone(&self, version: &Version) -> bool;

    /// From now on the gate counts from this number, and has told of it: the server has heard more in its name than it knows
    /// of, so it was set back itself.
    fn remember(&self, version: &Version);

    /// What was said may be lost: nothing is believed to be fresh.
    fn doubt_all(&self);

    /// The epoch that was met last.
    ///
    /// # Errors
    /// A sentence, when it cannot be read.
    fn epoch(&self) -> Result<Option<Epoch>, String>;

    /// Another one was met, and all is done that has to be.
    ///
    /// # Errors
    /// A sentence, when it cannot be kept.
    fn set_epoch(&self, epoch: &Epoch) -> Result<(), String>;
}

/// Why nothing is heard just now.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The gate's own side.
    #[error("{0}")]
    Home(String),
    /// A fault of the program.
    #[error("panicked: the log says more")]
    Panicked,
}

/// How it stands with the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// In a word.
    pub state: PeerState,
    /// Since when changes are heard; `None` where they are not.
    pub connected: Option<Timestamp>,
    /// When the last event came.
    pub last_event: Option<Timestamp>,
    /// Why the last connection ended, or the last attempt failed; while there is one, what is wrong all the same, if anything.
    pub error: Option<String>,
}

/// How it stands with the server whenever it is asked; clones are one.
#[derive(Clone, Debug)]
pub struct SourceStates {
    url: RedisUrl,
    state: Arc<Mutex<SourceState>>,
}

/// The thread that listens.
#[derive(Debug)]
pub struct RedisSource {
    thread: JoinHandle<()>,
    states: SourceStates,
    /// Its own, since it ends before others do.
    stop: Stop,
}

impl RedisSource {
    /// Starts to listen.
    ///
    /// # Errors
    /// When there is no room for the thread, or for a descriptor.
    pub fn start(server: Server, home: Box<dyn Home>) -> io::Result<Self> {
        let before =
            SourceState { state: PeerState::Connecting, connected: None, last_event: None, error: None };
        let (state, stop) = (Arc::new(Mutex::new(before)), Stop::new()?);
        let states = SourceStates { url: server.url().clone(), state: Arc::clone(&state) };
        let mut listener = Listener { server, home, stop: stop.clone(), state, known: None, has_twin: false };
        let thread = thread::spawn("redis", move || listener.run())?;
        Ok(Self { thread, states, stop })
    }

    /// How it stands, for whoever shows it.
    #[must_use]
    pub fn states(&self) -> SourceStates {
        self.states.clone()
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> SourceState {
        self.states.now()
    }

    /// Whether the thread is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread, whatever it waits for, and waits for that.
    pub fn end(self) {
        self.stop.raise(Level::Killing);
        if self.thread.join().is_err() {
            log::error!("the thread redis had panicked");
        }
    }
}

impl SourceStates {
    /// How it stands now.
    #[must_use]
    pub fn now(&self) -> SourceState {
        lock(&self.state).clone()
    }

    /// As the API shows it.
    #[must_use]
    pub fn view(&self) -> RedisView {
        let SourceState { state, connected, last_event, error } = self.now();
        RedisView {
            url: self.url.to_string(),
            state: state.as_str().to_owned(),
            connected: connected.map(written),
            last_event: last_event.map(written),
            error,
        }
    }
}

struct Listener {
    server: Server,
    home: Box<dyn Home>,
    stop: Stop,
    state: Arc<Mutex<SourceState>>,
    /// The epoch for which nothing is left to be done.
    known: Option<Epoch>,
    /// Whether somebody else has told of changes in the gate's name.
    has_twin: bool,
}

impl Listener {
    fn run(&mut self) {
        let mut pauses = Pauses::default();
        let mut told = String::new();
        let mut panics = 0;
        loop {
            let failed = self.listen_or_panic(&mut panics);
            if self.stop.level() == Level::Killing {
                return;
            }
            let was_connected = lock(&self.state).connected.take().is_some();
            let why = failed.err().map_or_else(String::new, |failed| failed.to_string());
            let level = if why == told && !was_connected { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "redis {}: not heard: {why}", self.server.url());
            self.set(PeerState::Waiting, Some(why.clone()));
            told = why;
            if panics == PANICS_MAX {
                return self.park();
            }
            if was_connected {
                pauses = Pauses::default();
            }
            if !self.stop.sleep(pauses.next(), Level::Killing) {
                return;
            }
        }
    }

    /// As [`Listener::listen`], where a panic is one more thing that goes wrong.
    fn listen_or_panic(&mut self, panics: &mut u32) -> Result<(), Failed> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.listen()));
        *panics = if outcome.is_err() { *panics + 1 } else { 0 };
        outcome.unwrap_or(Err(Failed::Panicked))
    }

    /// Hears nothing more in this life of the gate.
    fn park(&self) {
        let why = "parked until the next start: it panics";
        log::error!("redis {}: {why}", self.server.url());
        self.set(PeerState::Parked, Some(why.to_owned()));
        while self.stop.sleep(PARKED, Level::Killing) {}
    }

    /// Listens until something goes wrong.
    fn listen(&mut self) -> Result<(), Failed> {
        lock(&self.state).state = PeerState::Connecting;
        let mut connection = self.subscribe()?;
        // What is published from now on waits in the connection.
        self.settle()?;
        log::info!("redis {}: heard from now on", self.server.url());
        self.set(PeerState::Listening, self.has_twin.then(|| TWIN.to_owned()));
        lock(&self.state).connected = Some(Timestamp::now());
        loop {
            match connection.receive(LISTEN, Instant::now() + SILENCE)? {
                Some(told) => self.take(&told)?,
                None => self.look_for_life(&mut connection)?,
            }
        }
    }

    fn set(&self, state: PeerState, error: Option<String>) {
        let mut now = lock(&self.state);
        (now.state, now.error) = (state, error);
    }

    fn subscribe(&self) -> Result<Connection, RedisError> {
        let mut connection = self.server.connect(&self.stop)?;
        let mut subscribe = cmd("SUBSCRIBE");
        subscribe.arg(script::channel(self.server.url()));
        let answer = connection.ask(&subscribe, SUBSCRIBE)?;
        matches!(answer, Value::Array(_)).then_some(connection).ok_or(RedisError::Odd { doing: SUBSCRIBE })
    }

    fn take(&mut self, told: &Value) -> Result<(), Failed> {
        // Others may publish there what they like.
        let Some((epoch, version)) = script::read_event(told) else { return Ok(()) };
        lock(&self.state).last_event = Some(Timestamp::now());
        if self.home.is_outdone(&version) {
            self.note_twin(&version);
        } else {
            self.home.hear(&version);
        }
        if self.known.as_ref() == Some(&epoch) { Ok(()) } else { self.look_at_epoch() }
    }

    /// Somebody else goes by the gate's name. What he has changed, no mirror is believed to have.
    fn note_twin(&mut self, version: &Version) {
        if !std::mem::replace(&mut self.has_twin, true) {
            log::error!("redis {}: {TWIN}: {} was changed by it", self.server.url(), version.repo);
        }
        lock(&self.state).error = Some(TWIN.to_owned());
        self.home.doubt_all();
    }

    fn look_for_life(&mut self, connection: &mut Connection) -> Result<(), Failed> {
        let until = Instant::now() + SIGN_OF_LIFE;
        connection.send(&cmd("PING"), LISTEN, until)?;
        let late = RedisError::Late { doing: LISTEN, after: SILENCE + SIGN_OF_LIFE };
        let told = connection.receive(LISTEN, until)?.ok_or(late)?;
        self.take(&told)?;
        self.look_at_epoch()
    }

    /// Whether the server was emptied since the last look.
    fn look_at_epoch(&mut self) -> Result<(), Failed> {
        let mut aside = self.server.connect(&self.stop)?;
        let epoch = ask_epoch(&mut aside)?;
        if self.known.as_ref() == Some(&epoch) { Ok(()) } else { self.settle_over(&mut aside) }
    }

    fn settle(&mut self) -> Result<(), Failed> {
        let mut aside = self.server.connect(&self.stop)?;
        self.settle_over(&mut aside)
    }

    /// Hears what there is to be heard, tells again what the server lacks of ours, and then believes in its epoch.
    fn settle_over(&mut self, aside: &mut Connection) -> Result<(), Failed> {
        self.known = None;
        let epoch = ask_epoch(aside)?;
        let own = self.home.own().map_err(Failed::Home)?;
        let lost = self.catch_up(aside, own)?;
        self.tell_again(aside, &lost)?;
        if self.home.epoch().map_err(Failed::Home)?.as_ref() != Some(&epoch) {
            log::info!(
                "redis {}: it is new, or was emptied: every mirror is looked after",
                self.server.url()
            );
            self.home.doubt_all();
            self.home.set_epoch(&epoch).map_err(Failed::Home)?;
        }
        self.known = Some(epoch);
        Ok(())
    }

    /// Reads all versions that there are, and answers those of ours that the server does not have.
    fn catch_up(&self, aside: &mut Connection, own: Vec<Version>) -> Result<Vec<Version>, RedisError> {
        let mut own: BTreeMap<RepoKey, Version> =
            own.into_iter().map(|version| (version.repo.clone(), version)).collect();
        let mut repos = list(aside)?;
        repos.extend(own.keys().cloned());
        read_all(aside, repos, |repo, versions| {
            for version in versions {
                match own.get_mut(repo).filter(|own| own.incarnation == version.incarnation) {
                    None if self.home.is_outdone(&version) => self.home.remember(&version),
                    None => self.home.hear(&version),
                    Some(ours) if ours.seq > version.seq => {}
                    Some(ours) if ours.seq == version.seq => drop(own.remove(repo)),
                    // It was made and told since.
                    Some(_) if !self.home.is_outdone(&version) => drop(own.remove(repo)),
                    // What it has told since bore numbers that others know already. So one more is told, of which nothing is
                    // known but that it is news.
                    Some(ours) => {
                        (ours.seq, ours.digest) = ((version.seq + 1).min(SEQ_MAX), None);
                        self.home.remember(ours);
                    }
                }
            }
        })?;
        Ok(own.into_values().collect())
    }

    fn tell_again(&self, aside: &mut Connection, lost: &[Version]) -> Result<(), RedisError> {
        let own = Epoch::new().map_err(|source| RedisError::Broken { doing: AGAIN, source })?;
        let url = self.server.url();
        let apply = |version: &Version| script::apply(version, &script::reminder(version), &own, url);
        aside.ask_all(lost, AGAIN, apply, |_, answer| script::read_applied(answer, AGAIN).map(drop))
    }
}

/// Every repository of which the server knows.
fn list(aside: &mut Connection) -> Result<BTreeSet<RepoKey>, RedisError> {
    let (mut repos, mut bytes) = (BTreeSet::new(), 0);
    let mut cursor = START.to_owned();
    loop {
        let (next, some) = script::read_repos(&aside.ask(&script::ask_repos(&cursor), REPOS)?, REPOS)?;
        bytes += some.iter().map(|repo| repo.as_str().len()).sum::<usize>();
        repos.extend(some);
        cursor = next;
        if cursor == START {
            return Ok(repos);
        }
        if bytes > REPOS_BYTES_MAX {
            return Err(RedisError::Foreign { doing: REPOS });
        }
    }
}

/// Hands over the versions of each of these, those of one repository in pieces.
fn read_all(
    aside: &mut Connection,
    repos: BTreeSet<RepoKey>,
    mut take: impl FnMut(&RepoKey, Vec<Version>),
) -> Result<(), RedisError> {
    let mut left: Vec<_> = repos.into_iter().map(|repo| (repo, START.to_owned())).collect();
    for _ in 0..PIECES_MAX {
        if left.is_empty() {
            break;
        }
        let mut more = Vec::new();
        let ask = |(repo, cursor): &(RepoKey, String)| script::ask_versions(repo, cursor);
        aside.ask_all(&left, VERSIONS, ask, |(repo, _), answer| {
            let (cursor, versions) = script::read_versions(repo, answer, VERSIONS)?;
            take(repo, versions);
            if cursor != START {
                more.push((repo.clone(), cursor));
            }
            Ok(())
        })?;
        left = more;
    }
    for (repo, _) in left {
        log::warn!("{repo}: more gates have told the server of changes of it than are asked for");
    }
    Ok(())
}

fn ask_epoch(aside: &mut Connection) -> Result<Epoch, RedisError> {
    let own = Epoch::new().map_err(|source| RedisError::Broken { doing: EPOCH, source })?;
    aside.ask(&script::make_epoch(&own), EPOCH)?;
    script::read_epoch(&aside.ask(&script::ask_epoch(), EPOCH)?, EPOCH)
}

fn lock(state: &Mutex<SourceState>) -> MutexGuard<'_, SourceState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
