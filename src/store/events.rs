//! The latest events, so that a listener who was away goes on where he was, and their way to the sinks.
//!
//! An event is inserted by the transaction that it tells of, together with the rows of the outbox that publish it: either
//! everybody hears of a change, or it was not made. Once that is committed the bus has it.

use super::outbox::{self, Draft};
use super::{Store, StoreError, Sync};
use crate::bus::Bus;
use crate::model::fleet::{
    EventName, EventPattern, Incarnation, Notice, NoticeBody, RefDigest, RepoKey, SinkName, event_id, written,
};
use crate::model::name::RepoName;
use crate::model::push::{Push, PushView, Target};
use crate::sys::random;
use jiff::Timestamp;
use rusqlite::{Connection, Row};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Events that one look answers at most.
pub const PAGE_MAX: u32 = 200;

/// Numbers that are put aside at a time for events that do not wait for the disk: that wait is shared by so many.
const NUMBERS_AT_ONCE: i64 = 256;

/// Who is told of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Who.
    pub sink: SinkName,
    /// Of what.
    pub events: Vec<EventPattern>,
    /// What may be left out.
    pub keeps: Keeps,
}

/// What of several events of one repository a sink has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Each of them.
    Each,
    /// The last one, with the numbers of those that it stands for.
    Latest,
}

/// What every event says of its publisher, and who is told. Set once, at the start.
#[derive(Clone, Debug, Default)]
pub struct Audience {
    /// What the publisher calls itself.
    pub node: String,
    /// Who is told.
    pub sinks: Vec<Subscription>,
}

/// The way of events from a transaction to the bus.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) incarnation: Incarnation,
    pub(super) bus: Bus,
    /// Numbers up to this one may have been given to something by an earlier life.
    used: i64,
    audience: Mutex<Arc<Audience>>,
    /// Up to this one numbers are used, for all that the disk will ever know.
    reserved: Mutex<i64>,
    /// Of the transaction that is under way.
    fresh: Mutex<Vec<Notice>>,
}

/// What is to be told, but for what is said of every event.
pub(super) struct News<'a> {
    pub(super) event: EventName,
    pub(super) key: &'a RepoKey,
    pub(super) name: &'a RepoName,
    pub(super) seq: Option<u64>,
    pub(super) digest: Option<&'a RefDigest>,
    pub(super) push: Option<&'a Push>,
    pub(super) error: Option<&'a str>,
}

impl<'a> News<'a> {
    pub(super) const fn of(event: EventName, key: &'a RepoKey, name: &'a RepoName) -> Self {
        Self { event, key, name, seq: None, digest: None, push: None, error: None }
    }
}

/// The events of a store.
#[derive(Clone, Copy, Debug)]
pub struct Events<'a>(&'a Store);

impl Store {
    /// The events.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events(self)
    }

    /// Where events come to as they are committed.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.telling.bus
    }

    /// Says who is told of events from now on. What the outbox has for others goes: nobody would ever take it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_audience(&self, audience: Audience) -> Result<(), StoreError> {
        let names: Vec<&str> = audience.sinks.iter().map(|one| one.sink.as_str()).collect();
        let dropped = outbox::keep_only(self, &names)?;
        for sink in audience.sinks.iter().filter(|sink| sink.keeps == Keeps::Latest) {
            outbox::drop_of_others(self, &sink.sink)?;
        }
        if dropped > 0 {
            log::warn!(
                "dropped {dropped} events that were to be published where nothing is published any more"
            );
        }
        *lock(&self.0.telling.audience) = Arc::new(audience);
        Ok(())
    }

    /// What this gate calls itself.
    #[must_use]
    pub fn node(&self) -> String {
        lock(&self.0.telling.audience).node.clone()
    }
}

impl Events<'_> {
    /// What came after the event `number`, the oldest first; [`PAGE_MAX`] at most.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn after(&self, number: i64) -> Result<Vec<Notice>, StoreError> {
        let rows = self.0.read("reading events", |db| {
            let mut rows = db.prepare_cached(
                "SELECT number, event, repo, pusher, body FROM events WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            rows.query_map((number, PAGE_MAX), read)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().map(|notice| notice.ok_or(StoreError::Damaged("an event"))).collect()
    }

    /// The number of the oldest event that is kept; `None` where there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn oldest(&self) -> Result<Option<i64>, StoreError> {
        self.0
            .read("reading events", |db| db.query_row("SELECT min(number) FROM events", (), |row| row.get(0)))
    }

    /// Whether whoever has heard all up to the event `number` can go on from there: none that came after it is gone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_all_after(&self, number: i64) -> Result<bool, StoreError> {
        let newest = self.0.bus().newest();
        Ok(number == newest || (number < newest && self.oldest()?.is_some_and(|oldest| oldest <= number + 1)))
    }

    /// Whether there was an event `number`, as far as is known: it is kept, or all that are kept came after it. There are gaps
    /// between the numbers of two lives, and behind those that a backup has.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn may_have_had(&self, number: i64) -> Result<bool, StoreError> {
        self.0.read("reading events", |db| {
            db.prepare_cached(
                "SELECT NOT EXISTS (SELECT 1 FROM events WHERE number < ?1) \
                 OR EXISTS (SELECT 1 FROM events WHERE number = ?1)",
            )?
            .query_row([number], |row| row.get(0))
        })
    }

    /// Forgets events that are older than `before`, and all but the latest `most`; answers how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn prune(&self, before: Timestamp, most: u32) -> Result<usize, StoreError> {
        const DOING: &str = "forgetting old events";
        self.0.write(DOING, |db| {
            db.execute(
                "DELETE FROM events WHERE at < ?1 OR number <= (SELECT max(number) FROM events) - ?2",
                (before.as_millisecond(), most),
            )
            .map_err(StoreError::database(DOING))
        })
    }

    /// Tells that a mirror was brought up to date, or could not be, for this reason.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn tell_of_mirror(
        &self,
        repo: &RepoName,
        key: &RepoKey,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let event = if error.is_some() { EventName::MirrorFailed } else { EventName::MirrorSynced };
        self.0.write("telling of a mirror", |db| {
            self.0.0.telling.tell(db, &News { error, ..News::of(event, key, repo) }, now)
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<Notice>> {
    let (event, repo): (String, String) = (row.get(1)?, row.get(2)?);
    let (Ok(event), Ok(repo)) = (EventName::parse(&event), RepoName::parse(&repo)) else { return Ok(None) };
    let body: String = row.get(4)?;
    Ok(Some(Notice { number: row.get(0)?, event, repo, pusher: row.get(3)?, body: body.into() }))
}

impl Telling {
    /// For the publisher `incarnation` and the events in `db`.
    pub(super) fn new(incarnation: Incarnation, db: &Connection) -> rusqlite::Result<Self> {
        let used = db
            .prepare_cached("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)")?
            .query_row((), |row| row.get(0))?;
        let newest: Option<i64> =
            db.prepare_cached("SELECT max(number) FROM events")?.query_row((), |row| row.get(0))?;
        let bus = Bus::after_event(newest.unwrap_or(used));
        let (audience, fresh) = (Mutex::default(), Mutex::default());
        Ok(Self { incarnation, bus, used, audience, reserved: Mutex::new(used), fresh })
    }

    /// Adds an event to the transaction `db`.
    pub(super) fn tell(&self, db: &Connection, news: &News<'_>, now: Timestamp) -> Result<(), StoreError> {
        const DOING: &str = "noting an event";
        let audience = Arc::clone(&*lock(&self.audience));
        let pusher = news.push.map(|push| push.pusher.name.clone());
        let number = self.next_number(db).map_err(StoreError::database(DOING))?;
        let body = self.body(number, news, &audience.node, now);
        db.prepare_cached(
            "INSERT INTO events (number, event, repo, pusher, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            let (event, repo) = (news.event.text(), news.name.as_str());
            insert.execute((number, event, repo, &pusher, now.as_millisecond(), &body))
        })
        .map_err(StoreError::database(DOING))?;
        for sink in audience.sinks.iter().filter(|sink| sink.events.iter().any(|it| it.matches(news.event))) {
            let delivery = super::key::hex(&random::bytes::<16>().map_err(StoreError::Random)?);
            let draft = Draft { news, delivery: &delivery, body: &body };
            outbox::put(db, sink, &draft, now)?;
        }
        let (event, repo) = (news.event, news.name.clone());
        lock(&self.fresh).push(Notice { number, event, repo, pusher, body: body.into() });
        Ok(())
    }

    /// Adds what happened to a push to the transaction `db`.
    pub(super) fn tell_of_push(
        &self,
        db: &Connection,
        push: &Push,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let key = self.key_of(push);
        let event = EventName::Push(push.state);
        self.tell(db, &News { push: Some(push), ..News::of(event, &key, &push.repo) }, now)
    }

    /// How the fleet calls the repository that a push goes to.
    pub(super) fn key_of(&self, push: &Push) -> RepoKey {
        match &push.target {
            Target::Hosted { .. } => RepoKey::hosted(&self.incarnation, &push.repo),
            Target::Upstream { url } => RepoKey::of_address(url),
        }
    }

    fn body(&self, number: i64, news: &News<'_>, node: &str, now: Timestamp) -> String {
        let body = NoticeBody {
            id: event_id(&self.incarnation, number),
            event: news.event.text(),
            at: written(now),
            node: node.to_owned(),
            incarnation: self.incarnation.clone(),
            repo: news.key.clone(),
            name: news.name.to_string(),
            seq: news.seq,
            digest: news.digest.cloned(),
            push: news.push.map(PushView::brief),
            error: news.error.map(str::to_owned),
        };
        serde_json::to_string(&body).expect("texts and numbers are what JSON can hold")
    }

    /// A transaction begins. What one before it told that was undone, nobody hears.
    pub(super) fn begin(&self) {
        lock(&self.fresh).clear();
    }

    /// It is committed by `sync`: everybody hears what it told. A machine that crashes may forget it all the same, and its
    /// numbers are never given to anything else: whoever has heard one would take what is new for what he knows.
    pub(super) fn commit(&self, db: &Connection, sync: Sync, waiting: &str) {
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        if let Some(last) = fresh.last() {
            let reserved = match sync {
                Sync::Now => Ok(last.number),
                Sync::WithTheNext => self.reserve(db, last.number, waiting),
            };
            match reserved {
                Ok(number) => {
                    let mut known = lock(&self.reserved);
                    *known = number.max(*known);
                }
                Err(error) => log::error!("putting numbers of events aside: {error}"),
            }
        }
        self.bus.publish(fresh);
    }

    /// Sees to it that the numbers up to `last` are used for good; answers up to which they are.
    fn reserve(&self, db: &Connection, last: i64, waiting: &str) -> rusqlite::Result<i64> {
        let reserved = *lock(&self.reserved);
        if last <= reserved {
            return Ok(reserved);
        }
        let most = last + NUMBERS_AT_ONCE;
        db.pragma_update(None, "synchronous", waiting)?;
        db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'events'", [most])?;
        Ok(most)
    }

    /// The number that an event inserted next will have.
    fn next_number(&self, db: &Connection) -> rusqlite::Result<i64> {
        let kept = db
            .prepare_cached("SELECT coalesce(max(number), 0) FROM events")?
            .query_row((), |row| row.get(0))?;
        Ok(self.bus.newest().max(kept).max(self.used) + 1)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
