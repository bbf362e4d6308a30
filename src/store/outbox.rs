//! What is to be published and has not been acknowledged yet: a row for each event and sink.
//!
//! Rows leave in the order in which they came, one sink at a time, when their sink acknowledges them. A sink that wants the
//! latest only has one row a repository, which stands for all changes that it does not know of.

use super::events::{Keeps, News, Subscription};
use super::{Store, StoreError, Sync};
use crate::model::fleet::{EventName, RepoKey, SinkName};
use crate::model::text::{clip, sanitize};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

/// The longest reason of a failed delivery that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 500;

/// The outbox of a store.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a>(&'a Store);

/// Something to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub id: i64,
    /// Where to.
    pub sink: SinkName,
    /// What about.
    pub repo: RepoKey,
    /// What happened.
    pub event: EventName,
    /// The changes that it stands for, the first and the last, of `repo.version` and `repo.removed`.
    pub changes: Option<(u64, u64)>,
    /// Random, the same at every attempt.
    pub delivery: String,
    /// Since when it waits.
    pub made: Timestamp,
    /// Deliveries that failed.
    pub attempts: u32,
    /// What is said of it, on one line of JSON.
    pub body: String,
}

/// How much waits for a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The sink.
    pub sink: SinkName,
    /// How many rows.
    pub rows: u64,
    /// Since when the oldest waits.
    pub oldest: Timestamp,
    /// Why the last delivery of the oldest failed, if it did.
    pub error: Option<String>,
}

/// A row that is to be.
pub(super) struct Draft<'a> {
    pub(super) news: &'a News<'a>,
    pub(super) delivery: &'a str,
    pub(super) body: &'a str,
}

impl Store {
    /// The outbox.
    #[must_use]
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(self)
    }
}

impl Outbox<'_> {
    /// What the sink is to be given next, of all repositories but those that are `held`.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn oldest(&self, sink: &SinkName, held: &[&str]) -> Result<Option<Row>, StoreError> {
        const DOING: &str = "looking into the outbox";
        let held = serde_json::Value::from(held).to_string();
        let found = self.0.read(DOING, |db| {
            let mut oldest = db.prepare_cached(
                "SELECT id, repo, event, first, seq, delivery, made, attempts, body FROM outbox \
                 WHERE sink = ?1 AND repo NOT IN (SELECT value FROM json_each(?2)) ORDER BY id LIMIT 1",
            )?;
            let columns = |row: &rusqlite::Row<'_>| {
                let (repo, event): (String, String) = (row.get(1)?, row.get(2)?);
                let changes: Option<u64> = row.get(3)?;
                let changes = changes.zip(row.get(4)?);
                let (made, row) =
                    (row.get(6)?, (row.get(0)?, changes, row.get(5)?, row.get(7)?, row.get(8)?));
                Ok((repo, event, made, row))
            };
            oldest.query_row((sink.as_str(), held), columns).optional()
        })?;
        let damaged = || StoreError::Damaged("the outbox");
        found
            .map(|(repo, event, made, (id, changes, delivery, attempts, body))| {
                Ok(Row {
                    id,
                    sink: sink.clone(),
                    repo: RepoKey::parse(&repo).map_err(|_| damaged())?,
                    event: EventName::parse(&event).map_err(|_| damaged())?,
                    changes,
                    delivery,
                    made: Timestamp::from_millisecond(made).map_err(|_| damaged())?,
                    attempts,
                    body,
                })
            })
            .transpose()
    }

    /// The sink has it. A row that stands for more changes by now stays, for the rest of them.
    ///
    /// # Errors
    /// When the database cannot be written: then it is delivered once more.
    pub fn acknowledge(&self, row: &Row) -> Result<(), StoreError> {
        const DOING: &str = "taking out of the outbox what has arrived";
        let (id, seq) = (row.id, row.changes.map(|(_, seq)| seq));
        self.0.write_by(Sync::WithTheNext, DOING, |db| {
            let gone = db.execute("DELETE FROM outbox WHERE id = ?1 AND seq IS ?2", (id, seq));
            if gone.map_err(StoreError::database(DOING))? == 0 {
                let rest = db.execute(
                    "UPDATE outbox SET first = ?2 + 1, attempts = 0, error = NULL WHERE id = ?1 AND seq > ?2",
                    (id, seq),
                );
                rest.map_err(StoreError::database(DOING))?;
            }
            Ok(())
        })
    }

    /// The sink does not have it, for this reason.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn failed(&self, row: &Row, why: &str) -> Result<(), StoreError> {
        const DOING: &str = "noting why something was not delivered";
        let why = clip(&sanitize(why), ERROR_BYTES_MAX);
        self.0.write_by(Sync::WithTheNext, DOING, |db| {
            let noted = db.execute(
                "UPDATE outbox SET attempts = attempts + 1, error = ?2 WHERE id = ?1",
                (row.id, why),
            );
            noted.map(drop).map_err(StoreError::database(DOING))
        })
    }

    /// Drops all that waits for a sink; answers how much.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn clear(&self, sink: &SinkName) -> Result<usize, StoreError> {
        const DOING: &str = "dropping what a sink does not take";
        self.0.write(DOING, |db| {
            db.execute("DELETE FROM outbox WHERE sink = ?1", [sink.as_str()])
                .map_err(StoreError::database(DOING))
        })
    }

    /// How much waits, of every sink that something waits for.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn depths(&self) -> Result<Vec<Depth>, StoreError> {
        let rows: Vec<(String, u64, i64, Option<String>)> = self.0.read("measuring the outbox", |db| {
            let mut depths = db.prepare_cached(
                "SELECT sink, count(*), min(made), \
                        (SELECT error FROM outbox AS oldest WHERE oldest.sink = outbox.sink ORDER BY id LIMIT 1) \
                 FROM outbox GROUP BY sink",
            )?;
            depths.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
        })?;
        let depth = |(sink, rows, oldest, error): (String, u64, i64, Option<String>)| {
            let (Ok(sink), Ok(oldest)) = (SinkName::parse(&sink), Timestamp::from_millisecond(oldest)) else {
                return Err(StoreError::Damaged("the outbox"));
            };
            Ok(Depth { sink, rows, oldest, error })
        };
        rows.into_iter().map(depth).collect()
    }
}

/// Adds a row for a sink to the transaction `db`, or lets the one that is there stand for this event, too.
pub(super) fn put(
    db: &Connection,
    to: &Subscription,
    draft: &Draft<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    const DOING: &str = "putting an event into the outbox";
    let Draft { news, delivery, body } = draft;
    let (sink, repo, event) = (to.sink.as_str(), news.key.as_str(), news.event.text());
    let merged = match to.keeps {
        Keeps::Each => 0,
        Keeps::Latest => db
            .prepare_cached(
                "UPDATE outbox SET event = ?3, first = coalesce(first, ?4), seq = ?4, body = ?5 \
                 WHERE sink = ?1 AND repo = ?2",
            )
            .and_then(|mut update| update.execute((sink, repo, &event, news.seq, body)))
            .map_err(StoreError::database(DOING))?,
    };
    if merged == 0 {
        db.prepare_cached(
            "INSERT INTO outbox (sink, repo, event, first, seq, delivery, made, body) \
             VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            insert.execute((sink, repo, &event, news.seq, delivery, now.as_millisecond(), body))
        })
        .map_err(StoreError::database(DOING))?;
    }
    Ok(())
}

/// Drops what waits for other sinks than these; answers how much.
pub(super) fn keep_only(store: &Store, sinks: &[&str]) -> Result<usize, StoreError> {
    const DOING: &str = "dropping what no sink takes any more";
    let sinks = serde_json::Value::from(sinks).to_string();
    store.write(DOING, |db| {
        db.execute("DELETE FROM outbox WHERE sink NOT IN (SELECT value FROM json_each(?1))", [sinks])
            .map_err(StoreError::database(DOING))
    })
}

/// Drops what a sink, which is to know the latest only, was to be told under a name that this publisher goes by no more: under
/// the new one it is told again.
pub(super) fn drop_of_others(store: &Store, sink: &SinkName) -> Result<(), StoreError> {
    const DOING: &str = "dropping what was to be told under another name";
    store.write(DOING, |db| {
        db.execute(
            "DELETE FROM outbox WHERE sink = ?1 AND body ->> 'incarnation' <> ?2",
            (sink.as_str(), store.publisher().as_str()),
        )
        .map(drop)
        .map_err(StoreError::database(DOING))
    })
}
