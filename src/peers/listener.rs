//! The life of one listener: asks, follows, waits, and asks again, until it is stopped or comes to rest.

use super::connection::Connection;
use super::error::PeerError;
use super::patience::{Ended, Next, Patience, Timing};
use super::restraint::Restraint;
use super::row::Row;
use super::speakers::{Speaker, Speakers};
use super::stream::{Event, Parser};
use super::{Ear, Turn};
use crate::client::Agents;
use crate::config::PeerSettings;
use crate::model::fleet::{EventName, Incarnation, NoticeBody, Version, is_seq};
use crate::model::peer::PeerState;
use crate::model::text::sanitize;
use crate::sys::random;
use crate::sys::stop::{Level, Stop};
use jiff::Timestamp;
use serde::Deserialize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How much of an answer is read at a time, in bytes.
const SLICE: usize = 16 << 10;

/// The event with which a gate greets whoever listens.
const HELLO: &str = "hello";

/// The event by which it says that it does not have what came before any more.
const RESET: &str = "reset";

/// A listener. Its thread is all that there is of it.
pub(super) struct Listener {
    pub(super) peer: PeerSettings,
    /// The how-manieth listener of this gate's life it is.
    pub(super) generation: u64,
    pub(super) timing: Timing,
    /// Of all listeners.
    pub(super) agents: Agents,
    pub(super) ear: Arc<dyn Ear>,
    /// Who is listened to.
    pub(super) speakers: Speakers,
    pub(super) row: Arc<Row>,
    pub(super) stop: Stop,
}

/// What is known of a connection while it lasts.
struct Life<'a> {
    begun: Instant,
    has_heard: bool,
    /// Who it has said that it is.
    speaker: Option<Speaker>,
    restraint: &'a mut Restraint,
    /// Why nothing that it says is heard any more.
    fault: Option<PeerError>,
}

/// What is read of a greeting.
#[derive(Deserialize)]
struct Greeting {
    incarnation: Incarnation,
}

impl Listener {
    /// Listens when whoever had the name before has ended.
    pub(super) fn run(self, turn: &Turn) {
        let _alone = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut patience, mut restraint) = (Patience::default(), Restraint::default());
        while !self.is_stopped() {
            let ended = self.attempt(&mut restraint);
            if self.is_stopped() {
                break;
            }
            match patience.next(&ended, &self.timing, random::fraction()) {
                Next::Wait(pause) => {
                    self.tell(&ended, patience.failures(), PeerState::Waiting, Some(pause));
                    if !self.stop.sleep(pause, Level::Killing) {
                        break;
                    }
                }
                Next::Rest(state) => {
                    self.tell(&ended, patience.failures(), state, None);
                    break;
                }
            }
        }
        if restraint.doubts.is_wanted() {
            self.ear.missed();
        }
        log::debug!("peer {}: listener {} has ended", self.peer.name, self.generation);
    }

    fn is_stopped(&self) -> bool {
        self.stop.level() == Level::Killing
    }

    /// One connection. A panic is how a defect shows: it ends the connection, and is counted.
    fn attempt(&self, restraint: &mut Restraint) -> Ended {
        self.row.connecting();
        self.doubt_in_time(restraint);
        let begun = Instant::now();
        let mut life = Life { begun, has_heard: false, speaker: None, restraint, fault: None };
        let error = catch_unwind(AssertUnwindSafe(|| self.follow(&mut life))).unwrap_or(PeerError::Defect);
        if error.is_malformed() {
            // Whatever it was would come again.
            self.row.set_place(None);
        }
        Ended { error, lived: life.begun.elapsed(), has_heard: life.has_heard }
    }

    fn follow(&self, life: &mut Life<'_>) -> PeerError {
        // A client of this connection's own: when that is over, nothing of it is kept open.
        let agents = self.agents.beside(self.stop.clone());
        let last = self.row.place();
        let opened = Connection::open(&self.peer, &agents, self.timing.idle, last.as_deref());
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        life.begun = Instant::now();
        self.row.listening(Timestamp::now());
        if last.is_none() {
            // From now on nothing is missed; before, anything may have been.
            life.restraint.doubts.want();
        }
        let (mut parser, mut slice) = (Parser::default(), vec![0; SLICE]);
        loop {
            self.doubt_in_time(life.restraint);
            let length = match connection.read(&mut slice) {
                Ok(0) => return PeerError::Closed,
                Ok(length) => length,
                Err(error) => return error,
            };
            let read = parser.feed(&slice[..length], |event| self.take(event, life));
            if let Some(fault) = life.fault.take() {
                return fault;
            }
            if let Err(error) = read {
                return error.into();
            }
        }
    }

    /// Says that anything may have been missed, where there is reason and it is time; a peer gives a sign of life every few
    /// seconds, or is left.
    fn doubt_in_time(&self, restraint: &mut Restraint) {
        if restraint.doubts.is_due(&self.timing, Instant::now()) {
            self.ear.missed();
        }
    }

    fn take(&self, event: Event, life: &mut Life<'_>) {
        if self.is_stopped() || life.fault.is_some() {
            return;
        }
        if event.name == HELLO {
            match self.greet(&event) {
                Ok(speaker) => life.speaker = Some(speaker),
                Err(fault) => {
                    life.fault = Some(fault);
                    return;
                }
            }
        }
        if !std::mem::replace(&mut life.has_heard, true) {
            self.row.heard();
            log::info!("peer {}: listening (listener {})", self.peer.name, self.generation);
        }
        match event.name.as_str() {
            HELLO => {}
            RESET => life.restraint.doubts.want(),
            name => match EventName::parse(name) {
                Ok(EventName::RepoVersion | EventName::RepoRemoved) => self.hear(&event, life),
                Ok(EventName::Push(_) | EventName::MirrorSynced | EventName::MirrorFailed) | Err(_) => {}
            },
        }
        if event.name != HELLO {
            self.row.event(event.id.as_deref(), Timestamp::now());
        }
        if event.id.is_some() {
            self.row.set_place(event.id);
        }
    }

    /// Takes note of who it says that it is.
    fn greet(&self, event: &Event) -> Result<Speaker, PeerError> {
        let Ok(Greeting { incarnation }) = serde_json::from_str(&event.data) else {
            return Err(PeerError::Nameless);
        };
        if incarnation == *self.ear.own() {
            return Err(PeerError::Ourselves);
        }
        let entered = self.speakers.enter(incarnation, &self.peer.name, self.generation, &self.stop);
        entered.map_err(|other| PeerError::Another { other })
    }

    fn hear(&self, event: &Event, life: &mut Life<'_>) {
        let is_removed = event.name == EventName::RepoRemoved.text();
        let speaker = life.speaker.as_ref().map(|speaker| &speaker.incarnation);
        let why = match serde_json::from_str::<NoticeBody>(&event.data) {
            Ok(body) if Some(&body.incarnation) != speaker => "it is not of its own doing".to_owned(),
            Ok(NoticeBody { repo, incarnation, seq: Some(seq), digest, .. }) if is_seq(seq) => {
                let version = Version { repo, incarnation, seq, digest, is_removed };
                return self.ear.hear(&self.peer, &version);
            }
            Ok(NoticeBody { seq, .. }) => format!("its number is {seq:?}"),
            Err(error) => error.to_string(),
        };
        let Some(before) = life.restraint.complaints.add(Instant::now()) else { return };
        let more = if before > 0 { format!("; so were {before} more before it") } else { String::new() };
        log::warn!("peer {}: an event is passed over: {}{more}", self.peer.name, sanitize(&why));
    }

    /// Says how it goes on: aloud the first time, and quietly while nothing changes.
    fn tell(&self, ended: &Ended, retries: u32, state: PeerState, pause: Option<Duration>) {
        let next = pause.and_then(|pause| Timestamp::now().checked_add(pause).ok());
        let (name, why) = (&self.peer.name, ended.error.to_string());
        let is_news = self.row.over(state, why.clone(), retries, next);
        let level = if is_news { log::Level::Warn } else { log::Level::Debug };
        match pause {
            Some(pause) => log::log!(level, "peer {name}: {why}; it is asked again in {pause:.1?}"),
            None => log::log!(level, "peer {name}: {why}; it is asked again after a reload"),
        }
    }
}
