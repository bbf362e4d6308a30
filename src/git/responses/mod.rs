//! Answers to fetches that several clients get: each is made once and read by whoever asks for the same meanwhile, and kept
//! for who asks later.
//!
//! Only answers come here that depend on nothing but what their [`Key`] holds. Whoever asks gets a [`Reader`]; the first one
//! of a key also gets the [`Producer`], which he hands to a worker. So a slow client holds no worker, and who gets what is
//! kept, or follows, needs none. When the last reader has left, the git is ended; when the git fails, every reader is told,
//! and nothing is kept.
//!
//! An answer is kept for a moment when it was asked for once, and for long when it was asked for again, also after it had
//! gone: a pipeline asks a hundred times within seconds, and most other answers are never asked for again. What is kept has
//! bounds: all files together, the age of each, and the room that must stay free on the volume. Files have no names, so
//! nothing is left of them, whatever ends the process.
//!
//! No rights are known here: who may not read a repository must not come this far.

mod counts;
mod disk;
mod framing;
mod key;
mod objects;
mod production;
mod pump;
mod recent;

pub use crate::git::recipe::Bypass;
pub use counts::{Cause, Source};
pub use framing::Maker;
pub use key::{Key, is_plain};
pub use objects::Objects;
pub use production::{Cut, Ending, Look};
pub use pump::{Flow, Made, Pumped, Until};

use crate::git::pool::{NotRun, Ticket};
use crate::git::sideband::Tracker;
use counts::{Counts, count};
use disk::Disk;
use nix::sys::eventfd::EventFd;
use production::{Demand, Joined, Production};
use recent::Recent;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer is kept that was asked for once: the requests of one pipeline come within this time.
const LINGER: Duration = Duration::from_secs(10);

/// The part of all room that one answer may have that is kept: others are to stay. While it is made it may have all of it.
const LARGEST: u64 = 4;

/// How many bytes the ids of all objects may take that are wanted in what is kept.
const IDS_MAX: usize = 32 << 20;

/// How many bytes are written between two looks at the free space.
const LOOK_EVERY: u64 = 1 << 20;

/// What is kept at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Where the files are.
    pub tmp: PathBuf,
    /// Bytes of all files.
    pub bytes_max: u64,
    /// How many are kept: each holds a descriptor.
    pub entries_max: usize,
    /// How long one is kept.
    pub age_max: Duration,
    /// Bytes of the volume that must stay free.
    pub floor: u64,
}

/// The store; clones share it.
#[derive(Clone, Debug)]
pub struct Responses(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    entries_max: usize,
    age_max: Duration,
    /// Bytes of the largest answer that is kept.
    largest: u64,
    disk: Arc<Disk>,
    table: Mutex<Table>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<Key, Arc<Production>>,
    kept: HashMap<Key, Kept>,
    /// Counts uses; the entry with the smallest number goes first.
    clock: u64,
    /// Answers that were made before.
    made: Recent,
    /// Answers that took all room and more: once is enough.
    large: Recent,
}

#[derive(Debug)]
struct Kept {
    production: Arc<Production>,
    until: Instant,
    /// Whether it was asked for once.
    lingers: bool,
    used: u64,
}

impl Table {
    /// What is kept goes before what is being made, which is then on its way to be kept.
    fn find(&self, key: Key, now: Instant) -> Option<(Arc<Production>, Source)> {
        let kept = self.kept.get(&key).filter(|kept| kept.until > now);
        let kept = kept.map(|kept| (Arc::clone(&kept.production), Source::Hit));
        kept.or_else(|| Some((Arc::clone(self.running.get(&key)?), Source::Follower)))
    }
}

/// What somebody gets who asks for an answer.
#[derive(Debug)]
pub enum Entry {
    /// It is his to have it made.
    Lead(Reader, Producer),
    /// Somebody has asked before.
    Join(Reader),
    /// He gets one of his own.
    Alone(Bypass),
}

impl Responses {
    /// A store with nothing in it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let Limits { tmp, bytes_max, entries_max, age_max, floor } = limits;
        let disk = Arc::new(Disk::new(tmp, bytes_max, floor));
        let (table, counts) = (Mutex::default(), Counts::default());
        Self(Arc::new(Shared { entries_max, age_max, largest: bytes_max / LARGEST, disk, table, counts }))
    }

    /// Asks for the answer of `key`, which is made of `objects`.
    #[must_use]
    pub fn enter(&self, key: Key, objects: Objects) -> Entry {
        if let Err(error) = self.check(key) {
            log::warn!("looking for the objects of an answer: {error}");
            return Entry::Alone(Bypass::Room);
        }
        if let Some(entry) = self.join(key) {
            return entry;
        }
        if self.lock().large.has(&key) {
            return Entry::Alone(Bypass::Large);
        }
        if !self.make_free_space() {
            return Entry::Alone(Bypass::Room);
        }
        let made = self.prepare(key, objects);
        let Ok((reader, producer)) = made.inspect_err(|error| log::warn!("a file for an answer: {error}"))
        else {
            return Entry::Alone(Bypass::Room);
        };
        while !self.offer(&producer.production) {
            if let Some(entry) = self.join(key) {
                return entry;
            }
        }
        Entry::Lead(reader, producer)
    }

    /// Drops what is kept for `key` when its repository has not the objects any more. What is being made for others may
    /// still be joined: git itself had them a moment ago.
    fn check(&self, key: Key) -> io::Result<()> {
        let kept = self.lock().kept.get(&key).map(|kept| Arc::clone(&kept.production));
        let Some(kept) = kept else { return Ok(()) };
        if !kept.objects.are_there()? {
            let lost = self.lock().kept.remove(&key);
            lost.iter().for_each(|_| count(self.0.counts.eviction(Cause::Gone)));
        }
        Ok(())
    }

    /// An answer that nobody else knows of.
    fn prepare(&self, key: Key, objects: Objects) -> io::Result<(Reader, Producer)> {
        let Shared { disk, .. } = &*self.0;
        let bell = Arc::new(production::event()?);
        let (production, joined) =
            Production::new(key, disk.file()?, objects, Arc::clone(disk), Arc::downgrade(&bell))?;
        let reader = self.reader(&production, joined, Source::Miss);
        let (responses, unlooked, is_over) = (self.clone(), AtomicU64::new(0), AtomicBool::new(false));
        Ok((reader, Producer { responses, production, bell, unlooked, is_over }))
    }

    /// Has it found by others, unless one is there by now that they can join.
    fn offer(&self, production: &Arc<Production>) -> bool {
        let mut table = self.lock();
        let other = table.find(production.key, Instant::now());
        let is_first = !other.is_some_and(|(other, _)| other.is_open());
        if is_first {
            table.running.insert(production.key, Arc::clone(production));
        }
        is_first
    }

    /// A place at what is kept or being made.
    fn join(&self, key: Key) -> Option<Entry> {
        let (production, source) = self.find(key)?;
        match production.join() {
            Ok(Some(joined)) => Some(Entry::Join(self.reader(&production, joined, source))),
            Ok(None) => None,
            Err(_) => Some(Entry::Alone(Bypass::Room)),
        }
    }

    fn find(&self, key: Key) -> Option<(Arc<Production>, Source)> {
        let now = Instant::now();
        let mut table = self.lock();
        table.clock += 1;
        let clock = table.clock;
        let found = table.find(key, now)?;
        // What is found may be in the making, in the place of what has become too old.
        if let Some(kept) = table.kept.get_mut(&key).filter(|kept| kept.until > now) {
            kept.used = clock;
            // The second one makes it worth keeping; the time of what is kept so is not prolonged.
            if std::mem::take(&mut kept.lingers) {
                kept.until = now + self.0.age_max;
            }
        }
        Some(found)
    }

    fn reader(&self, production: &Arc<Production>, joined: Joined, source: Source) -> Reader {
        let Joined { seat, bell } = joined;
        Reader { responses: self.clone(), production: Arc::clone(production), seat, bell, source, sent: 0 }
    }

    /// Drops what is too old, and what the volume needs the room of.
    pub fn expire(&self) {
        let now = Instant::now();
        let old: Vec<Kept> = {
            let mut table = self.lock();
            let keys: Vec<Key> =
                table.kept.iter().filter(|(_, kept)| kept.until <= now).map(|(key, _)| *key).collect();
            keys.iter().filter_map(|key| table.kept.remove(key)).collect()
        };
        old.iter().for_each(|_| count(self.0.counts.eviction(Cause::Age)));
        drop(old);
        let _ = self.make_free_space();
    }

    /// Drops what is kept, what was used last at the end, until the volume is above its floor; answers whether it is.
    fn make_free_space(&self) -> bool {
        self.0.disk.missing().is_some_and(|missing| missing == 0 || self.free(missing))
    }

    /// Drops so much, once: where a file system frees late, it would all be dropped before there is anything to see.
    fn free(&self, missing: u64) -> bool {
        let mut freed = 0;
        while freed < missing {
            match self.evict(Cause::Floor) {
                Some(bytes) => freed += bytes,
                None => break,
            }
        }
        self.0.disk.missing() == Some(0)
    }

    /// Takes room for `bytes`, at the cost of what is kept.
    fn make_room(&self, bytes: u64) -> bool {
        while !self.0.disk.take(bytes) {
            if self.evict(Cause::Bytes).is_none() {
                return false;
            }
        }
        true
    }

    /// Drops what was used the longest time ago; answers how many bytes it had. Where the room is wanted nothing goes that
    /// somebody reads, since it keeps its room until he has left.
    fn evict(&self, cause: Cause) -> Option<u64> {
        let frees_room = matches!(cause, Cause::Bytes | Cause::Floor);
        let oldest = {
            let mut table = self.lock();
            let may_go = table.kept.iter().filter(|(_, kept)| !(frees_room && kept.production.is_read()));
            let key = may_go.min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key)?;
            table.kept.remove(&key)?
        };
        count(self.0.counts.eviction(cause));
        Some(oldest.production.filed())
    }

    /// Nobody finds it any more who has not found it by now.
    fn forget(&self, production: &Arc<Production>) {
        let mut table = self.lock();
        if table.running.get(&production.key).is_some_and(|running| Arc::ptr_eq(running, production)) {
            table.running.remove(&production.key);
        }
    }

    /// Keeps what has been made.
    fn keep(&self, production: &Arc<Production>) {
        while self.is_crowded(production.objects.bytes()) && self.evict(Cause::Entries).is_some() {}
        let mut table = self.lock();
        table.clock += 1;
        let lingers = table.made.note(production.key) && production.joined() == 1;
        let time = if lingers { LINGER.min(self.0.age_max) } else { self.0.age_max };
        let until = Instant::now() + time;
        let kept = Kept { production: Arc::clone(production), until, lingers, used: table.clock };
        table.running.remove(&production.key);
        let replaced = table.kept.insert(production.key, kept);
        drop(table);
        // Nobody is to wait for the table while a file is freed.
        replaced.iter().for_each(|_| count(self.0.counts.eviction(Cause::Age)));
    }

    /// Whether there is no place for one more, with so many bytes of ids.
    fn is_crowded(&self, more: usize) -> bool {
        let table = self.lock();
        let ids: usize = table.kept.values().map(|kept| kept.production.objects.bytes()).sum();
        table.kept.len() >= self.0.entries_max || ids + more > IDS_MAX
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many answers were dropped so.
    #[must_use]
    pub fn evictions(&self, cause: Cause) -> u64 {
        self.0.counts.eviction(cause).load(Ordering::Relaxed)
    }

    /// Bytes that gits have made for this store.
    #[must_use]
    pub fn generated(&self) -> u64 {
        self.0.counts.generated.load(Ordering::Relaxed)
    }

    /// Bytes that readers have taken from it.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.counts.sent.load(Ordering::Relaxed)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.disk.used()
    }

    /// How many answers are kept.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.lock().kept.len()
    }
}

/// A place in an answer. Dropping it gives it up, and with the last place of an answer its git.
#[derive(Debug)]
pub struct Reader {
    responses: Responses,
    production: Arc<Production>,
    seat: u64,
    bell: Option<Arc<EventFd>>,
    source: Source,
    sent: u64,
}

impl Reader {
    /// How this one came by its answer.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The length, where the whole answer is there already.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.production.length()
    }

    /// What there is at this place.
    #[must_use]
    pub fn look(&self) -> Look {
        self.production.look(self.seat, self.sent)
    }

    /// The file, to be read at [`Reader::at`]: its own position is nobody's.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.production.file
    }

    /// Where the stream stands behind all that is in the file.
    #[must_use]
    pub fn edge(&self) -> Tracker {
        self.production.edge()
    }

    /// Bytes that were taken.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.sent
    }

    /// Goes on behind the next `bytes`.
    pub fn take(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// Readable when a look that found [`Look::Nothing`] may find something; `None` where everything is there.
    #[must_use]
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(|bell| bell.as_fd())
    }

    /// Makes the bell unreadable, before the next look.
    pub fn hush(&self) {
        // Empty already is as good.
        let _ = self.bell.as_ref().map(|bell| bell.read());
    }

    /// How the git ended that made it, for the log.
    #[must_use]
    pub fn detail(&self) -> String {
        self.production.detail()
    }

    /// Keeps the place of the answer in the queue of a lane.
    pub fn wait_in(&self, ticket: Ticket<()>) {
        self.production.wait_in(ticket);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.responses.0.counts.sent.fetch_add(self.sent, Ordering::Relaxed);
        if self.production.leave(self.seat) {
            self.responses.forget(&self.production);
        }
    }
}

/// The duty to make an answer. Dropped before its end it tells every reader that nothing comes.
#[derive(Debug)]
pub struct Producer {
    responses: Responses,
    production: Arc<Production>,
    /// Rung when [`Producer::demand`] may have another answer. Readers know it for as long as there is somebody to wake:
    /// what is kept holds one descriptor, the file.
    bell: Arc<EventFd>,
    /// Bytes since the last look at the free space.
    unlooked: AtomicU64,
    is_over: AtomicBool,
}

impl Producer {
    /// A worker is at it; `false` when nobody wants it any more.
    #[must_use]
    pub fn begin(&self) -> bool {
        self.production.begin()
    }

    fn append(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len() as u64;
        self.responses.0.counts.generated.fetch_add(len, Ordering::Relaxed);
        let was_filed = self.production.is_filed();
        let has_room = was_filed && self.make_room(len);
        self.production.append(bytes, has_room);
        if was_filed && !self.production.is_filed() {
            self.responses.forget(&self.production);
        }
    }

    /// Whether the file may grow by `bytes`, which are taken then.
    fn make_room(&self, bytes: u64) -> bool {
        if !self.responses.0.disk.could_have(self.production.filed() + bytes) {
            self.responses.lock().large.note(self.production.key);
            return false;
        }
        let unlooked = self.unlooked.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unlooked >= LOOK_EVERY {
            self.unlooked.store(0, Ordering::Relaxed);
            if !self.responses.make_free_space() {
                return false;
            }
        }
        self.responses.make_room(bytes)
    }

    /// How it ended: with `keeps`, a whole answer is kept for others, if all of it is on the disk and leaves room for more.
    pub fn end(&self, ending: Ending, detail: String, keeps: bool) {
        self.is_over.store(true, Ordering::Relaxed);
        let is_whole = matches!(ending, Ending::Whole) && self.production.is_filed();
        let keeps = keeps && is_whole && self.production.filed() <= self.responses.0.largest;
        self.production.end(ending, detail);
        match keeps && self.demand() != Demand::Abandoned {
            true => self.responses.keep(&self.production),
            false => self.responses.forget(&self.production),
        }
    }

    /// Whether nobody has to be waited for.
    fn is_filed(&self) -> bool {
        self.production.is_filed()
    }

    fn demand(&self) -> Demand {
        self.production.demand(Instant::now())
    }

    fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn hush(&self) {
        // Empty already is as good.
        let _ = self.bell.read();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed) {
            // The lane would not take it, or its worker panicked: either way there is no more to come.
            self.end(Ending::NotRun(NotRun::Full), String::new(), false);
        }
    }
}

#[cfg(test)]
mod tests;
