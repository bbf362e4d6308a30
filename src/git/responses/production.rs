//! One answer in the making: a file that one writes and any number read meanwhile.
//!
//! The file has no name and vanishes with its last descriptor. Whoever reads it keeps its own place; nobody waits for
//! anybody, but where the file may not grow any more: from there on the rest passes through a window of memory, at the pace
//! of the slowest. Nobody can join then, since the beginning is not kept for him alone; and who lets others wait for too
//! long is given up.
//!
//! Who waits has a descriptor that becomes readable when there is news, so that he can watch his own client too. A lost
//! wake-up cannot be: whether there is something to wait for is decided under the lock that news are told under.

use super::Key;
use super::disk::Disk;
use super::objects::Objects;
use crate::git::pool::{NotRun, Ticket};
use crate::git::sideband::Tracker;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How much is held in memory of an answer that does not fit the disk, in bytes: what the pipe from git brings in four
/// reads, so that git packs on while the slowest client takes the last piece.
const WINDOW: u64 = 1 << 20;

/// How long others wait for one reader, each byte that he takes meanwhile making up for a microsecond: who takes a megabyte
/// a second is never given up, also while he is sent a piece of 8 MiB of the file and nobody sees how far he is.
const PATIENCE: Duration = Duration::from_secs(10);

/// How an answer ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// All of it is there.
    Whole,
    /// No worker took it.
    NotRun(NotRun),
    /// Its git could not be started; whether that may be otherwise in a moment.
    NotStarted {
        /// The machine is short of something.
        is_busy: bool,
    },
    /// It ended early.
    Cut(Cut),
}

/// How an answer ended that is not whole.
#[derive(Clone, Debug)]
pub struct Cut {
    /// What is said to every client behind the last byte, where there is a place for it.
    pub words: Option<Arc<[u8]>>,
    /// How long that may take.
    pub patience: Duration,
    /// What logs and metrics call it.
    pub outcome: &'static str,
}

/// What a reader finds at its place.
#[derive(Debug)]
pub enum Look {
    /// So many bytes more in the file.
    Filed(u64),
    /// Bytes that are in memory only.
    Held(Arc<[u8]>),
    /// Nothing yet; whether a worker is at it.
    Nothing {
        /// Whether its turn has come.
        is_begun: bool,
    },
    /// There will be no more.
    Over(Ending),
    /// There will be no more for this reader: others have waited for him for too long, and go on without him.
    TooSlow,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Production {
    pub(super) key: Key,
    /// What it is made of.
    pub(super) objects: Objects,
    disk: Arc<Disk>,
    /// Rung for the one who writes.
    bell: Weak<EventFd>,
    state: Mutex<State>,
    /// Closed last, since that takes its time where much of it has to be freed.
    pub(super) file: File,
}

#[derive(Debug, Default)]
struct State {
    /// The place in the queue, until its turn comes.
    queued: Option<Ticket<()>>,
    is_begun: bool,
    /// Bytes in the file.
    filed: u64,
    /// Where the stream stands behind them.
    edge: Tracker,
    /// Whether the file grows no more.
    is_full: bool,
    /// What follows the file, each piece with its offset.
    window: VecDeque<(u64, Arc<[u8]>)>,
    /// Bytes in all.
    len: u64,
    /// The places of those who are not given up.
    seats: HashMap<u64, Seat>,
    /// When one reader was seen last to wait for others.
    held_up: Option<Instant>,
    /// How many have ever read it.
    joined: u64,
    /// The last reader has left before the end: nobody can join any more.
    is_abandoned: bool,
    ending: Option<Ending>,
    detail: String,
}

/// The place of one reader.
#[derive(Debug)]
struct Seat {
    at: u64,
    /// `None` where everything is there and nobody waits.
    bell: Option<Arc<EventFd>>,
    waits: bool,
    /// How long others have waited for him, less what he has made up for.
    debt: Duration,
}

/// A place that was taken.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) seat: u64,
    pub(super) bell: Option<Arc<EventFd>>,
}

impl Production {
    /// One with its first reader. Who writes has the `bell`.
    pub(super) fn new(
        key: Key,
        file: File,
        objects: Objects,
        disk: Arc<Disk>,
        bell: Weak<EventFd>,
    ) -> io::Result<(Arc<Self>, Joined)> {
        let mut state = State::default();
        let joined = state.seat(Some(Arc::new(event()?)));
        Ok((Arc::new(Self { key, objects, disk, bell, state: Mutex::new(state), file }), joined))
    }

    /// Takes a place at the beginning; `None` when it is too late for that.
    pub(super) fn join(&self) -> io::Result<Option<Joined>> {
        let bell = match self.length() {
            Some(_) => None,
            None => Some(Arc::new(event()?)),
        };
        let mut state = self.lock();
        Ok(state.is_open().then(|| state.seat(bell)))
    }

    /// Gives a place up; answers whether nobody is left to whom the answer matters.
    pub(super) fn leave(&self, seat: u64) -> bool {
        let mut state = self.lock();
        state.seats.remove(&seat);
        let is_last = state.seats.is_empty() && state.ending.is_none();
        state.is_abandoned |= is_last;
        let queued = state.queued.take_if(|_| is_last);
        drop(state);
        // Dropped outside of the lock, since what waits in the queue holds this production.
        drop(queued);
        self.ring();
        is_last
    }

    /// What there is at `at` for the reader in `seat`.
    pub(super) fn look(&self, seat: u64, at: u64) -> Look {
        let mut state = self.lock();
        let Some(place) = state.seats.get_mut(&seat) else { return Look::TooSlow };
        place.come_to(at);
        if state.is_full && state.trim() {
            self.ring();
        }
        if at < state.filed {
            return Look::Filed(state.filed - at);
        }
        if let Some(piece) = state.piece(at) {
            return Look::Held(piece);
        }
        if let Some(ending) = &state.ending {
            return Look::Over(ending.clone());
        }
        let is_begun = state.is_begun;
        if let Some(seat) = state.seats.get_mut(&seat) {
            seat.waits = true;
        }
        Look::Nothing { is_begun }
    }

    /// The length of an answer that lies in its file as a whole.
    pub(super) fn length(&self) -> Option<u64> {
        let state = self.lock();
        (matches!(state.ending, Some(Ending::Whole)) && !state.is_full).then_some(state.filed)
    }

    /// How many have asked for it.
    pub(super) fn joined(&self) -> u64 {
        self.lock().joined
    }

    pub(super) fn detail(&self) -> String {
        self.lock().detail.clone()
    }

    /// Keeps the place in the queue, which is given up with the last reader.
    pub(super) fn wait_in(&self, ticket: Ticket<()>) {
        let mut state = self.lock();
        let unneeded = match state.is_begun || state.is_abandoned || state.ending.is_some() {
            true => Some(ticket),
            false => state.queued.replace(ticket),
        };
        drop(state);
        drop(unneeded);
    }

    /// Its turn has come; `false` when nobody wants it any more.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.lock();
        state.is_begun = true;
        // Whoever waits for a worker waits for a git now.
        state.tell_all();
        let (queued, is_wanted) = (state.queued.take(), !state.is_abandoned);
        drop(state);
        drop(queued);
        is_wanted
    }

    /// Adds `bytes`, to the file where the disk `has_room`, which was taken for them, else to the window.
    pub(super) fn append(&self, bytes: &[u8], has_room: bool) {
        let filed = if has_room { self.file_away(bytes) } else { 0 };
        if has_room {
            self.disk.give_back((bytes.len() - filed) as u64);
        }
        let mut state = self.lock();
        state.filed += filed as u64;
        state.edge.feed(bytes.get(..filed).unwrap_or_default());
        state.len += filed as u64;
        if filed < bytes.len() {
            state.is_full = true;
            let (at, rest) = (state.len, &bytes[filed..]);
            state.window.push_back((at, rest.into()));
            state.len += rest.len() as u64;
        }
        state.tell_all();
    }

    /// Writes as much as the disk takes behind what is there; only the one who writes comes here.
    fn file_away(&self, bytes: &[u8]) -> usize {
        let at = self.lock().filed;
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], at + done as u64) {
                Ok(count @ 1..) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => break,
                Err(error) => {
                    log::warn!("keeping the answer to a fetch: {error}; it goes on without the disk");
                    break;
                }
            }
        }
        done
    }

    /// Says how it ended, once.
    pub(super) fn end(&self, ending: Ending, detail: String) {
        let mut state = self.lock();
        if state.ending.is_none() {
            (state.ending, state.detail) = (Some(ending), detail);
        }
        state.tell_all();
    }

    /// What the one who writes has to know. While he is to wait he asks again from time to time, since whoever keeps others
    /// waiting for too long is given up here.
    pub(super) fn demand(&self, now: Instant) -> Demand {
        let mut state = self.lock();
        if state.is_abandoned {
            return Demand::Abandoned;
        }
        if state.is_full {
            state.trim();
            state.give_up_the_slow(now);
        }
        if state.held() < WINDOW { Demand::More } else { Demand::Wait }
    }

    /// Whether all of it is in the file.
    pub(super) fn is_filed(&self) -> bool {
        !self.lock().is_full
    }

    /// Whether somebody reads it.
    pub(super) fn is_read(&self) -> bool {
        !self.lock().seats.is_empty()
    }

    /// Bytes in the file.
    pub(super) fn filed(&self) -> u64 {
        self.lock().filed
    }

    /// Where the stream stands behind the file.
    pub(super) fn edge(&self) -> Tracker {
        self.lock().edge.clone()
    }

    /// Whether one could join.
    pub(super) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    fn ring(&self) {
        // A counter that is full is readable.
        let _ = self.bell.upgrade().map(|bell| bell.write(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Production {
    fn drop(&mut self) {
        let filed = self.lock().filed;
        self.disk.give_back(filed);
    }
}

/// What is wanted of the one who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// The next bytes.
    More,
    /// Nothing before the slowest reader has come further.
    Wait,
    /// Nothing any more.
    Abandoned,
}

impl State {
    fn seat(&mut self, bell: Option<Arc<EventFd>>) -> Joined {
        self.joined += 1;
        let place = Seat { at: 0, bell: bell.clone(), waits: false, debt: Duration::ZERO };
        self.seats.insert(self.joined, place);
        Joined { seat: self.joined, bell }
    }

    /// Whether one can still begin at the beginning, and it will come to a good end for all that is known.
    fn is_open(&self) -> bool {
        let is_lost =
            matches!(self.ending, Some(Ending::NotRun(_) | Ending::NotStarted { .. } | Ending::Cut(_)));
        !self.is_abandoned && !self.is_full && !is_lost
    }

    fn tell_all(&mut self) {
        for seat in self.seats.values_mut().filter(|seat| seat.waits) {
            seat.waits = false;
            let _ = seat.bell.as_ref().map(|bell| bell.write(1));
        }
    }

    /// Goes on without whoever has kept others waiting for too long. Somebody who waits stays, so never all are given up.
    fn give_up_the_slow(&mut self, now: Instant) {
        let is_held_up = self.held() >= WINDOW && self.seats.values().any(|seat| seat.waits);
        let since = std::mem::replace(&mut self.held_up, is_held_up.then_some(now));
        let waited = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        for seat in self.seats.values_mut() {
            seat.debt = if seat.waits { Duration::ZERO } else { seat.debt + waited };
        }
        if is_held_up {
            self.seats.retain(|_, seat| seat.debt <= PATIENCE);
            self.trim();
        }
    }

    /// Bytes in the window.
    fn held(&self) -> u64 {
        self.window.front().map_or(0, |(at, _)| self.len - at)
    }

    /// Forgets what every reader is past; answers whether there was something.
    fn trim(&mut self) -> bool {
        let slowest = self.seats.values().map(|seat| seat.at).min().unwrap_or(self.len);
        let before = self.window.len();
        while self.window.front().is_some_and(|(at, piece)| at + piece.len() as u64 <= slowest) {
            self.window.pop_front();
        }
        self.window.len() < before
    }

    /// The rest of the piece of the window that `at` lies in.
    fn piece(&self, at: u64) -> Option<Arc<[u8]>> {
        let (start, piece) = self.window.iter().rev().find(|(start, _)| *start <= at)?;
        let skip = usize::try_from(at - start).ok()?;
        let rest = piece.get(skip..).filter(|rest| !rest.is_empty())?;
        Some(if skip == 0 { Arc::clone(piece) } else { rest.into() })
    }
}

impl Seat {
    fn come_to(&mut self, at: u64) {
        self.debt = self.debt.saturating_sub(Duration::from_micros(at - self.at));
        (self.at, self.waits) = (at, false);
    }
}

/// Readable once it was written to, until it is read.
pub(super) fn event() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
}
