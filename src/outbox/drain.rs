//! The threads that empty the outbox.

use super::{Delivered, LAST_PASS, Limits, Publisher, Sink};
use crate::model::fleet::{RepoKey, SinkName};
use crate::model::pause::Doubling;
use crate::store::events::Audience;
use crate::store::outbox::Row;
use crate::store::{Store, StoreError};
use crate::sys::poll::{self, Interest, Watch};
use crate::sys::random;
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use jiff::Timestamp;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a sink that failed is left alone: one that comes back is found within the longest pause.
const PAUSES: Doubling = Doubling { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// How long a repository of which a sink can take nothing is passed over.
const HELD: Duration = Duration::from_secs(60);

/// Repositories that are passed over at a time; with more, the sink is left alone.
const HELD_MAX: usize = 1000;

/// The longest pause that a sink may ask for itself.
const ASKED_MAX: Duration = Duration::from_secs(60 * 60);

/// How long one delivery may take, with all that a sink does for it.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// After how many panics in a row a sink is parked.
const PANICS_MAX: u32 = 3;

/// How long a database that fails is left alone, and a sink whose delivery panicked.
const FAULT_PAUSE: Duration = Duration::from_secs(5);

/// All sinks that are being published to.
#[derive(Debug)]
pub struct Outbox {
    /// Ends deliveries: later than the gate's own stop, so that the last changes are published, too.
    end: Stop,
    states: SinkStates,
    audience: Audience,
    /// Each wakes a thread.
    bells: Vec<Arc<EventFd>>,
    threads: Vec<JoinHandle<()>>,
}

/// How all sinks are, as they are whenever it is asked; clones are one.
#[derive(Clone, Debug, Default)]
pub struct SinkStates(Vec<Arc<Mutex<SinkState>>>);

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine has no room for a thread or a descriptor.
    #[error("starting to publish: {0}")]
    Resources(#[from] io::Error),
}

/// How a sink is.
#[derive(Clone, Debug)]
pub struct SinkState {
    /// Its name.
    pub sink: SinkName,
    /// Deliveries that it acknowledged in this life of the gate.
    pub delivered: u64,
    /// Deliveries that failed since the last one that did not.
    pub failures: u32,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
    /// When it is tried again, if it failed.
    pub again: Option<Timestamp>,
    /// Whether it wants nothing any more.
    pub is_disabled: bool,
    /// Rows that were dropped because it would never have taken them.
    pub given_up: u64,
}

impl Outbox {
    /// Publishes from now on as the gate that calls itself `node`, by a thread `outbox-SINK` for each sink.
    ///
    /// # Errors
    /// When the machine has no room for them, or the store cannot be written.
    pub fn start(store: &Store, node: String, publishers: Vec<Publisher>) -> Result<Self, OutboxError> {
        let sinks = publishers.iter().map(|publisher| publisher.subscription.clone()).collect();
        let audience = Audience { node, sinks };
        let mut now = audience.clone();
        for (subscription, publisher) in now.sinks.iter_mut().zip(&publishers) {
            if publisher.sink.disabled().is_some() {
                subscription.events.clear();
            }
        }
        store.set_audience(now)?;
        let (states, bells, threads) = (SinkStates::default(), Vec::new(), Vec::new());
        let mut outbox = Self { end: Stop::new()?, states, audience, bells, threads };
        for Publisher { subscription, sink } in publishers {
            let name = subscription.sink;
            let state = Arc::new(Mutex::new(SinkState::new(name.clone(), sink.disabled())));
            let bell = Arc::new(
                EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                    .map_err(io::Error::from)?,
            );
            let drain = Drain {
                store: store.clone(),
                end: outbox.end.clone(),
                state: Arc::clone(&state),
                name: name.clone(),
                sink,
                held: BTreeMap::new(),
                dropped: 0,
                bell: Arc::clone(&bell),
            };
            outbox.bells.push(bell);
            outbox.states.0.push(state);
            outbox.threads.push(thread::spawn(format!("outbox-{name}"), move || drain.run())?);
        }
        Ok(outbox)
    }

    /// How every sink is, for whoever shows it.
    #[must_use]
    pub fn states(&self) -> SinkStates {
        self.states.clone()
    }

    /// Has every sink tried at once that is waited for, and those told again that wanted nothing any more.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn hurry(&self, store: &Store) -> Result<(), OutboxError> {
        store.set_audience(self.audience.clone())?;
        // A full counter is readable, which is all that is needed.
        for bell in &self.bells {
            let _ = bell.write(1);
        }
        Ok(())
    }

    /// Whether a thread has ended before its time.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Gives sinks that are not down [`LAST_PASS`] to take what is left, and ends their threads. Nothing is published
    /// after this; rows stay for the next life of the gate.
    pub fn close(self) {
        self.end.raise(Level::Draining);
        let until = Instant::now() + LAST_PASS;
        while !self.has_all_ended() && Instant::now() < until {
            // Nobody raises it meanwhile: this is a sleep.
            let _ = self.end.sleep(Duration::from_millis(10), Level::Killing);
        }
        self.end.raise(Level::Killing);
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread of the outbox had panicked");
            }
        }
    }

    fn has_all_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl SinkStates {
    /// How every sink is now.
    #[must_use]
    pub fn all(&self) -> Vec<SinkState> {
        self.0.iter().map(|state| lock(state).clone()).collect()
    }
}

impl SinkState {
    fn new(sink: SinkName, disabled: Option<&str>) -> Self {
        let (error, is_disabled) = (disabled.map(str::to_owned), disabled.is_some());
        Self { sink, delivered: 0, failures: 0, error, again: None, is_disabled, given_up: 0 }
    }
}

/// One sink and all that its thread needs.
struct Drain {
    store: Store,
    end: Stop,
    state: Arc<Mutex<SinkState>>,
    name: SinkName,
    sink: Box<dyn Sink>,
    /// Repositories that are passed over: until when, and why.
    held: BTreeMap<RepoKey, (Instant, String)>,
    /// Rows that it will never take, of which nothing has been said yet.
    dropped: u64,
    /// Rings when it is to be tried at once.
    bell: Arc<EventFd>,
}

/// What the thread does next.
enum Next {
    /// Looks again at once.
    Look,
    /// Waits for news, or until a repository is passed over no more.
    Wait,
    /// Waits for this time, news or not.
    Pause(Duration),
}

impl Drain {
    fn run(mut self) {
        let mut panics = 0;
        loop {
            let tick = self.store.bus().tick();
            let next = match self.step_or_panic(&mut panics) {
                Some(next) => next,
                None => return self.park(),
            };
            let is_last = self.end.level() >= Level::Draining;
            let is_over = match next {
                Next::Look => self.end.level() == Level::Killing,
                // At the end a sink that is down is not waited for: the next life of the gate tries again.
                Next::Wait | Next::Pause(_) if is_last => true,
                Next::Wait => self.wait(tick.watch(), self.patience(tick.limit())).is_err(),
                Next::Pause(time) => {
                    self.wait(None, Some(time)).is_err() || self.end.level() >= Level::Draining
                }
            };
            if is_over {
                return;
            }
        }
    }

    /// Waits for news, for the end, for the bell, or until the time has passed.
    fn wait(&mut self, news: Watch<'_>, limit: Option<Duration>) -> io::Result<()> {
        let read = |fd| Some((fd, Interest::Read));
        let [_, _, has_rung] =
            poll::wait([news, read(self.end.fd(Level::Draining)), read(self.bell.as_fd())], limit)?;
        if has_rung {
            let _ = self.bell.read();
            self.held.clear();
            self.sink.enable();
            let mut state = lock(&self.state);
            if std::mem::take(&mut state.is_disabled) {
                state.error = None;
            }
        }
        Ok(())
    }

    /// A step whose panic is a failure of the sink; `None` after the third in a row.
    fn step_or_panic(&mut self, panics: &mut u32) -> Option<Next> {
        if let Ok(next) = catch_unwind(AssertUnwindSafe(|| self.step())) {
            *panics = 0;
            return Some(next);
        }
        *panics += 1;
        (*panics < PANICS_MAX).then(|| self.fault("a delivery panicked"))
    }

    /// Publishes nothing more in this life of the gate.
    fn park(self) {
        log::error!("outbox: {} is parked until the next start: its deliveries panic", self.name);
        lock(&self.state).error = Some("parked until the next start: its deliveries panic".to_owned());
        while self.end.sleep(FAULT_PAUSE, Level::Draining) {}
    }

    /// Delivers one row, if there is any.
    fn step(&mut self) -> Next {
        let now = Instant::now();
        self.held.retain(|_, (until, _)| *until > now);
        let held: Vec<&str> = self.held.keys().map(RepoKey::as_str).collect();
        let row = match self.store.outbox().oldest(&self.name, &held) {
            Ok(Some(row)) => row,
            Ok(None) => {
                self.tell_of_dropped();
                return Next::Wait;
            }
            Err(error) => return self.fault(&error.to_string()),
        };
        let limits = Limits { until: Instant::now() + DELIVERY_LIMIT, stop: &self.end };
        let delivered = self.sink.deliver(&row, &limits);
        if !matches!(delivered, Delivered::GivenUp(_)) {
            self.tell_of_dropped();
        }
        let done = match delivered {
            Delivered::Acknowledged => self.acknowledged(&row),
            Delivered::Again { why, after } => return self.failed(&row, &why, after),
            Delivered::Held(why) if self.held.len() < HELD_MAX => self.hold(&row, why),
            Delivered::Held(why) => return self.failed(&row, &why, None),
            Delivered::GivenUp(why) => self.given_up(&row, &why),
            Delivered::Disabled(why) => self.disabled(&why),
        };
        match done {
            Ok(()) => Next::Look,
            Err(error) => self.fault(&error.to_string()),
        }
    }

    fn acknowledged(&self, row: &Row) -> Result<(), StoreError> {
        self.store.outbox().acknowledge(row)?;
        let mut state = lock(&self.state);
        if state.failures > 0 {
            log::info!("outbox: {} takes events again after {} failures", self.name, state.failures);
        }
        state.delivered += 1;
        (state.failures, state.again) = (0, None);
        state.error = self.held.values().next().map(|(_, why)| why.clone());
        Ok(())
    }

    /// The row stays, and those behind it that are about the same.
    fn hold(&mut self, row: &Row, why: String) -> Result<(), StoreError> {
        let why = format!("{}: {why}", row.repo);
        self.store.outbox().failed(row, &why)?;
        let mut state = lock(&self.state);
        if state.error.as_deref() != Some(&why) {
            log::warn!("outbox: {} does not take {} of {why}", self.name, row.event);
        }
        state.error = Some(why.clone());
        drop(state);
        self.held.insert(row.repo.clone(), (Instant::now() + HELD, why));
        Ok(())
    }

    /// How long to wait for news.
    fn patience(&self, limit: Option<Duration>) -> Option<Duration> {
        let held = self.held.values().map(|(until, _)| until.saturating_duration_since(Instant::now()));
        held.chain(limit).min()
    }

    /// The first failure is told, and those that differ from the one before.
    fn failed(&self, row: &Row, why: &str, after: Option<Duration>) -> Next {
        if self.end.level() == Level::Killing {
            return Next::Wait;
        }
        let mut state = lock(&self.state);
        let is_new = state.error.as_deref() != Some(why);
        state.failures = state.failures.saturating_add(1);
        let own = || PAUSES.spread(state.failures, random::fraction());
        let pause = after.map_or_else(own, |after| after.min(ASKED_MAX));
        state.error = Some(why.to_owned());
        state.again = Timestamp::now().checked_add(pause).ok();
        drop(state);
        if is_new {
            log::warn!("outbox: {} does not take {} of {}: {why}", self.name, row.event, row.repo);
        }
        match self.store.outbox().failed(row, why) {
            Ok(()) => Next::Pause(pause),
            Err(error) => self.fault(&error.to_string()),
        }
    }

    /// The first is told as it is, and those that follow it at once by their number.
    fn given_up(&mut self, row: &Row, why: &str) -> Result<(), StoreError> {
        self.store.outbox().acknowledge(row)?;
        if self.dropped == 0 {
            log::warn!("outbox: {} was never told {} of {}: {why}", self.name, row.event, row.repo);
        }
        self.dropped += 1;
        lock(&self.state).given_up += 1;
        Ok(())
    }

    fn tell_of_dropped(&mut self) {
        let more = std::mem::take(&mut self.dropped).saturating_sub(1);
        if more > 0 {
            log::warn!("outbox: {} was never told {more} more events, for the same reason", self.name);
        }
    }

    fn disabled(&self, why: &str) -> Result<(), StoreError> {
        let dropped = self.store.outbox().clear(&self.name)?;
        let mut state = lock(&self.state);
        if !state.is_disabled {
            log::warn!("outbox: {} is told nothing any more: {why}", self.name);
        }
        state.is_disabled = true;
        state.given_up += dropped as u64;
        state.error = Some(why.to_owned());
        Ok(())
    }

    fn fault(&self, why: &str) -> Next {
        log::error!("outbox: {}: {why}", self.name);
        Next::Pause(FAULT_PAUSE)
    }
}

fn lock(state: &Mutex<SinkState>) -> MutexGuard<'_, SinkState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
