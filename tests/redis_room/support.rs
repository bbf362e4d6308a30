//! Gates of a fleet, as far as their server is concerned.

use crate::redis::RedisServer;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::config::FleetSettings;
use tidegate::model::fleet::{Incarnation, RefDigest, RepoKey, Version};
use tidegate::model::redis::RedisUrl;
use tidegate::outbox::Limits;
use tidegate::outbox::redis::sink::RedisSink;
use tidegate::outbox::redis::source::{Home, RedisSource};
use tidegate::outbox::redis::{Applied, Epoch, RedisError, Server};
use tidegate::sys::stop::Stop;

/// After this long anything at all counts as hung.
pub(crate) const HANG: Duration = Duration::from_secs(180);

/// What is done at once takes no longer, however loaded the machine is.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(20);

/// The repository that the tests are about.
pub(crate) const REPO: &str = "https://forge.example/acme/app";

pub(crate) fn settings(url: &str) -> FleetSettings {
    FleetSettings { redis: Some(RedisUrl::parse(url).unwrap()), ..FleetSettings::default() }
}

pub(crate) fn reach(settings: &FleetSettings) -> Server {
    Server::of(settings).unwrap().unwrap()
}

pub(crate) fn incarnation(number: u8) -> Incarnation {
    Incarnation::parse(&format!("{number:02x}").repeat(16)).unwrap()
}

pub(crate) fn repo() -> RepoKey {
    RepoKey::parse(REPO).unwrap()
}

/// The change `seq` of the publisher `by`.
pub(crate) fn change(by: u8, seq: u64) -> Version {
    let digest = RefDigest::parse(&format!("{seq:064x}")).unwrap();
    Version { repo: repo(), incarnation: incarnation(by), seq, digest: Some(digest), is_removed: false }
}

/// The same where that was the removal of the repository.
pub(crate) fn removal(by: u8, seq: u64) -> Version {
    Version { digest: None, is_removed: true, ..change(by, seq) }
}

/// The event for it, with what others want to know as well.
pub(crate) fn event(version: &Version) -> String {
    let Version { repo, incarnation, seq, is_removed, .. } = version;
    let event = if *is_removed { "repo.removed" } else { "repo.version" };
    let digest = version.digest.as_ref().map_or("null".to_owned(), |digest| format!("{digest:?}"));
    let digest = digest.replace("RefDigest(", "").replace(')', "");
    format!(
        "{{\"id\":\"{incarnation}-1\",\"event\":\"{event}\",\"incarnation\":\"{incarnation}\",\"repo\":\"{repo}\",\
         \"seq\":{seq},\"digest\":{digest},\"push\":{{\"id\":1}}}}"
    )
}

/// One who tells the server of changes.
pub(crate) struct Teller {
    pub(crate) sink: RedisSink,
    pub(crate) stop: Stop,
}

impl Teller {
    pub(crate) fn of(settings: &FleetSettings) -> Teller {
        Teller { sink: RedisSink::new(reach(settings)), stop: Stop::new().unwrap() }
    }

    pub(crate) fn to(url: &str) -> Teller {
        Teller::of(&settings(url))
    }

    pub(crate) fn try_tell(&mut self, version: &Version) -> Result<Applied, RedisError> {
        let limits = Limits { until: Instant::now() + HANG, stop: &self.stop };
        self.sink.publish(version, &event(version), &limits)
    }

    /// The version after it, and whether it was news.
    #[track_caller]
    pub(crate) fn tell(&mut self, version: &Version) -> (u64, bool) {
        let applied = self.try_tell(version).unwrap();
        (applied.version, applied.is_news)
    }
}

/// What a gate has to do with its server, kept for the test.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Notes>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) heard: Vec<Version>,
    pub(crate) remembered: Vec<Version>,
    pub(crate) own: Vec<Version>,
    pub(crate) doubts: usize,
    pub(crate) epochs: Vec<Epoch>,
    /// Whether the gate has a fault.
    pub(crate) panics: bool,
}

impl Home for Kept {
    fn own(&self) -> Result<Vec<Version>, String> {
        Ok(self.notes().own)
    }

    fn hear(&self, version: &Version) {
        let panics = self.0.lock().unwrap().panics;
        assert!(!panics, "a fault of the gate");
        self.0.lock().unwrap().heard.push(version.clone());
    }

    fn is_outdone(&self, version: &Version) -> bool {
        let is_outdone = |own: &Version| {
            (&own.repo, &own.incarnation) == (&version.repo, &version.incarnation) && own.seq < version.seq
        };
        self.notes().own.iter().any(is_outdone)
    }

    fn remember(&self, version: &Version) {
        self.0.lock().unwrap().remembered.push(version.clone());
    }

    fn doubt_all(&self) {
        self.0.lock().unwrap().doubts += 1;
    }

    fn epoch(&self) -> Result<Option<Epoch>, String> {
        Ok(self.notes().epochs.last().cloned())
    }

    fn set_epoch(&self, epoch: &Epoch) -> Result<(), String> {
        self.0.lock().unwrap().epochs.push(epoch.clone());
        Ok(())
    }
}

impl Kept {
    pub(crate) fn notes(&self) -> Notes {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn set_panics(&self, panics: bool) {
        self.0.lock().unwrap().panics = panics;
    }

    pub(crate) fn own(&self, versions: Vec<Version>) {
        self.0.lock().unwrap().own = versions;
    }
}

/// One who hears of changes.
pub(crate) struct Listener {
    pub(crate) kept: Kept,
    pub(crate) source: Option<RedisSource>,
}

impl Listener {
    pub(crate) fn start(url: &str, kept: &Kept) -> Listener {
        Listener::of(&settings(url), kept)
    }

    pub(crate) fn of(settings: &FleetSettings, kept: &Kept) -> Listener {
        let source = RedisSource::start(reach(settings), Box::new(kept.clone())).unwrap();
        Listener { kept: kept.clone(), source: Some(source) }
    }

    /// One that hears of whatever happens next.
    #[track_caller]
    pub(crate) fn ready(url: &str) -> Listener {
        let listener = Listener::start(url, &Kept::default());
        listener.await_connection();
        listener
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.source.as_ref().unwrap().state().connected.is_some()
    }

    #[track_caller]
    pub(crate) fn await_connection(&self) {
        eventually("it listens", || self.is_connected());
    }

    /// Waits for the present connection to be given up.
    #[track_caller]
    pub(crate) fn await_failure(&self, words: &str) {
        let error = || self.source.as_ref().unwrap().state().error.unwrap_or_default();
        eventually(&format!("it fails with {words:?}"), || error().contains(words));
    }

    #[track_caller]
    pub(crate) fn await_version(&self, version: &Version) {
        eventually(&format!("{version:?} is heard"), || self.kept.notes().heard.contains(version));
    }

    /// Ends it; answers how long that took.
    pub(crate) fn end(mut self) -> Duration {
        let begun = Instant::now();
        self.source.take().unwrap().end();
        begun.elapsed()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.source.take().into_iter().for_each(RedisSource::end);
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < HANG, "did not happen: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many listen at the server.
pub(crate) fn listeners(server: &RedisServer) -> String {
    server.ask(&["PUBSUB", "NUMSUB", "tidegate:events"])
}
