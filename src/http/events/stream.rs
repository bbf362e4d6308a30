//! One stream: a loop that waits for all that can happen to it, and passes on what its client may know.
//!
//! The order matters: a round takes the bus's tick, then looks what is new, and only then waits for the tick, the client's
//! end, the stop or the next heartbeat. A client is asked for room by the writer alone, which sees the stop, too.

use super::frame;
use super::streams::Dropped;
use super::turn::Turn;
use super::viewer::Viewer;
use super::wish::{Filter, Lost, Start};
use crate::bus::{After, Tick};
use crate::gate::sight::Sight;
use crate::http::app::App;
use crate::http::writer::{ResponseWriter, WriteError};
use crate::model::fleet::{Notice, event_id};
use crate::store::StoreError;
use crate::sys::net::Socket;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::Level;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of events that leave in one piece.
const PIECE: usize = 32 << 10;

/// How long altogether a client may let us wait for room, since it had everything, before it counts as slow: from then on
/// the database is not read for it when it falls behind what the bus keeps.
const LAG_MAX: Duration = Duration::from_secs(1);

/// How long a client that is dropped may take to make room for the word that says so.
const WORDS_LIMIT: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client left.
    Left,
    /// The gate stops.
    Stopping,
    /// The gate let go of the client.
    Dropped(Dropped),
    /// The database or the system refused.
    Failed(String),
}

/// A stream of events and where it is.
pub(super) struct Stream<'a> {
    app: &'a App,
    client: Arc<Socket>,
    writer: ResponseWriter,
    viewer: Viewer,
    filter: Filter,
    /// The number of the last notice that was passed on, or over.
    known: i64,
    /// Whether it had everything at some time; before, it reads what it missed.
    is_live: bool,
    /// How long the client has let us wait for room since it had everything.
    lag: Duration,
    /// When the next heartbeat is due.
    beat: Instant,
    /// Events that were passed on.
    told: u64,
}

impl End {
    /// The word of the log and the metrics for it.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Stopping => "stopping",
            Self::Dropped(why) => why.label(),
            Self::Failed(_) => "failed",
        }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Gone => Self::Left,
            WriteError::Stalled | WriteError::Deadline => Self::Dropped(Dropped::Stalled),
            WriteError::Stopped => Self::Stopping,
            WriteError::Length => Self::Failed(error.to_string()),
        }
    }
}

impl<'a> Stream<'a> {
    /// To this client, of whose answer nothing was sent yet.
    pub(super) fn new(
        app: &'a App,
        client: Arc<Socket>,
        mut writer: ResponseWriter,
        viewer: Viewer,
        filter: Filter,
    ) -> Self {
        // A stop need not wait until a client has taken what is on its way: it can be told again.
        writer.end_at(Level::Draining);
        let (known, lag, beat) = (0, Duration::ZERO, Instant::now());
        let (is_live, told) = (false, 0);
        Self { app, client, writer, viewer, filter, known, is_live, lag, beat, told }
    }

    /// Streams until something ends it; `serial` spreads the returns of those who are ended together.
    pub(super) fn run(&mut self, start: Start, serial: u64) -> Result<Infallible, End> {
        self.greet(start, serial)?;
        loop {
            self.round()?;
        }
    }

    /// Tells the client why this is the end, as far as it can be told. Answers how many events it was told before.
    pub(super) fn finish(self, end: &End) -> u64 {
        let newest = self.id_of(self.app.store.bus().newest());
        // What is still on its way may be long, and a stop waits for nobody.
        let (words, limit) = match end {
            End::Left => (String::new(), Duration::ZERO),
            End::Stopping => (frame::comment("the gate is stopping"), Duration::ZERO),
            End::Dropped(Dropped::Behind) => (frame::dropped(Dropped::Behind, &newest), WORDS_LIMIT),
            End::Dropped(why @ Dropped::Stalled) => (frame::dropped(*why, &newest), Duration::ZERO),
            End::Dropped(Dropped::Silent) => (String::new(), Duration::ZERO),
            End::Dropped(Dropped::Revoked) => (frame::comment("this token holds no more"), WORDS_LIMIT),
            End::Failed(why) => {
                log::error!("a stream of events: {why}");
                (frame::comment("the gate failed; its log says why"), WORDS_LIMIT)
            }
        };
        let is_heard = match words.is_empty() {
            true => matches!(end, End::Left),
            false => self.writer.last_words(words.as_bytes(), Instant::now() + limit).is_ok(),
        };
        if !is_heard {
            // The kernel would go on offering what it has for such a client, for minutes.
            self.client.reset_on_close();
        }
        self.told
    }

    fn greet(&mut self, start: Start, serial: u64) -> Result<(), End> {
        let newest = self.id_of(self.app.store.bus().newest());
        let heartbeat = self.app.settings.limits.stream_heartbeat;
        self.known = start.number;
        self.beat = Instant::now() + heartbeat;
        let greeting = frame::Hello {
            id: &self.id_of(start.number),
            node: &self.app.store.node(),
            incarnation: self.app.store.publisher(),
            newest: &newest,
            heartbeat,
            serial,
        };
        self.send(&greeting.frame())?;
        start.lost.map_or(Ok(()), |lost| self.reset(lost))
    }

    fn round(&mut self) -> Result<(), End> {
        if !self.app.stop.is_running() {
            return Err(End::Stopping);
        }
        if Instant::now() >= self.beat {
            self.beat()?;
        }
        let bus = self.app.store.bus();
        let tick = bus.tick();
        match bus.after(self.known) {
            After::Notices(notices) if notices.is_empty() => {
                (self.is_live, self.lag) = (true, Duration::ZERO);
                self.wait(&tick)
            }
            After::Notices(notices) => self.pass_on(&notices, None),
            After::Gap if self.is_live && self.lag >= LAG_MAX => Err(End::Dropped(Dropped::Behind)),
            After::Gap => self.read_on(),
        }
    }

    /// Waits for whatever comes first; the next round looks what it was.
    fn wait(&mut self, tick: &Tick) -> Result<(), End> {
        let watches = [
            Some((self.client.fd(), Interest::HangUp)),
            Some((self.app.stop.fd(Level::Draining), Interest::Read)),
            tick.watch(),
        ];
        let left = self.beat.saturating_duration_since(Instant::now());
        let limit = tick.limit().map_or(left, |limit| limit.min(left));
        let [has_left, ..] = poll::wait(watches, Some(limit))?;
        if has_left { Err(self.departure()) } else { Ok(()) }
    }

    /// The kernel loses patience, too, with a client that takes nothing of what it was sent (`TCP_USER_TIMEOUT`).
    fn departure(&self) -> End {
        let has_stalled = self.client.fault().is_some_and(|fault| fault.kind() == ErrorKind::TimedOut);
        if has_stalled { End::Dropped(Dropped::Stalled) } else { End::Left }
    }

    fn beat(&mut self) -> Result<(), End> {
        if self.client.is_gone() {
            return Err(End::Dropped(Dropped::Silent));
        }
        self.viewer.renew(&self.app.store)?;
        self.beat = Instant::now() + self.app.settings.limits.stream_heartbeat;
        self.send(&frame::comment("still here"))
    }

    /// Reads what the bus does not have any more.
    fn read_on(&mut self) -> Result<(), End> {
        let turn = self.app.streams.turn();
        // Many may have been before, and much may have happened.
        if !self.app.stop.is_running() {
            return Err(End::Stopping);
        }
        if poll::wait([Some((self.client.fd(), Interest::HangUp))], Some(Duration::ZERO))? == [true] {
            return Err(self.departure());
        }
        let events = self.app.store.events();
        let notices = events.after(self.known)?;
        // Asked after the look, so that nothing between can have been forgotten before it.
        if notices.is_empty() || !events.has_all_after(self.known)? {
            self.known = self.app.store.bus().newest();
            drop(turn);
            return self.reset(Lost::Expired);
        }
        self.pass_on(&notices, Some(turn))
    }

    /// Passes on what the client may know of these, and has no `turn` while it waits for room.
    fn pass_on<N: Borrow<Notice>>(&mut self, notices: &[N], mut turn: Option<Turn>) -> Result<(), End> {
        self.viewer.renew(&self.app.store)?;
        let rules = self.app.rules.get();
        let sight = Sight { rules: &rules, upstreams: self.app.road.upstreams() };
        let mut piece = String::new();
        for notice in notices.iter().map(Borrow::borrow) {
            if self.filter.wants(notice) && self.viewer.may_know(sight, notice) {
                piece.push_str(&frame::event(notice, &self.id_of(notice.number)));
                self.told += 1;
            }
            if piece.len() >= PIECE {
                drop(turn.take());
                self.send(&std::mem::take(&mut piece))?;
            }
            self.known = notice.number;
        }
        drop(turn);
        if piece.is_empty() { Ok(()) } else { self.send(&piece) }
    }

    /// Tells that there is a gap before what follows.
    fn reset(&mut self, lost: Lost) -> Result<(), End> {
        let id = self.id_of(self.known);
        self.send(&frame::reset(lost, &id))
    }

    fn send(&mut self, text: &str) -> Result<(), End> {
        let began = Instant::now();
        let sent = self.writer.write(text.as_bytes(), began + self.app.settings.limits.write_stall);
        self.lag += began.elapsed();
        Ok(sent?)
    }

    fn id_of(&self, number: i64) -> String {
        event_id(self.app.store.publisher(), number)
    }
}
