//! The versions of repositories: this gate's own, and what was heard of others'.
//!
//! A change that was made here gets the next number of its repository, in the transaction that tells of it. One that may
//! have been made is announced by an [`Intent`] before: whoever finds it later compares the refs with those that were told
//! last, and tells of what differs.

use super::events::{News, Telling};
use super::{Store, StoreError};
use crate::model::fleet::{EventName, Incarnation, RefDigest, RepoKey, SEQ_MAX, Version};
use crate::model::name::RepoName;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Repositories of another publisher that are remembered: those of a large forge. Of one that was forgotten everything is
/// news, and costs a look at its upstream.
const OF_ONE_MAX: u32 = 20_000;

/// Those of all others together: at the longest names that are served, a hundred megabytes.
const OF_ALL_MAX: u32 = 5 * OF_ONE_MAX;

/// How many more there may be before what is too much is forgotten, which takes a tenth of a second.
const TOO_MANY_AT_ONCE: u32 = 2048;

/// The versions of a store.
#[derive(Clone, Copy, Debug)]
pub struct Versions<'a>(&'a Store);

/// The refs of a repository, as they are now.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its name here.
    pub repo: &'a RepoName,
    /// Its name in the fleet.
    pub key: &'a RepoKey,
    /// Its refs; `None` where they are not known.
    pub digest: Option<&'a RefDigest>,
}

/// The announcement that refs of a repository may move. It stays until it is said what came of that; the next start, or the
/// sweeper, takes up what was not said.
#[derive(Debug)]
pub struct Intent {
    store: Store,
    id: i64,
}

/// An announcement of which nobody said what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftIntent {
    id: i64,
    /// Whose refs may have moved.
    pub repo: RepoName,
}

/// The announcements of this life that somebody still has in his hands.
#[derive(Debug, Default)]
pub(super) struct InHand(Mutex<HashSet<i64>>);

/// How often something was heard in this life.
#[derive(Debug, Default)]
pub(super) struct Hearings(AtomicU32);

/// What came of what was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Refs moved.
    Moved,
    /// That is to be found out, by their digest.
    Unknown,
    /// Whatever it was, it is known to the fleet already.
    Told,
}

impl Store {
    /// The versions.
    #[must_use]
    pub fn versions(&self) -> Versions<'_> {
        Versions(self)
    }

    /// The fleet's name for this publisher.
    #[must_use]
    pub fn publisher(&self) -> &Incarnation {
        &self.0.telling.incarnation
    }

    /// Announces that refs of a repository may move; on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written: then nothing may be moved.
    pub fn announce(&self, repo: &RepoName, now: Timestamp) -> Result<Intent, StoreError> {
        self.write("announcing a change", |db| self.announce_in(db, repo, now))
    }

    /// As [`Store::announce`], in the transaction `db`.
    pub(super) fn announce_in(
        &self,
        db: &Connection,
        repo: &RepoName,
        now: Timestamp,
    ) -> Result<Intent, StoreError> {
        db.prepare_cached("INSERT INTO ref_intents (repo, made) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute((repo.as_str(), now.as_millisecond())))
            .map_err(StoreError::database("announcing a change"))?;
        let id = db.last_insert_rowid();
        self.0.in_hand.lock().insert(id);
        Ok(Intent { store: self.clone(), id })
    }
}

impl InHand {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intent {
    /// Refs moved: that is a change, and told, whatever they are now.
    ///
    /// # Errors
    /// When it cannot be written: then it is found out later.
    pub fn moved(self, standing: &Standing<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.end(Came::Moved, standing, now)
    }

    /// Nobody knows whether refs moved: a change is told if they are not what was told last.
    ///
    /// # Errors
    /// As [`Intent::moved`].
    pub fn settle(self, standing: &Standing<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.end(Came::Unknown, standing, now)
    }

    /// Refs moved to what the fleet knows already: nothing is told.
    ///
    /// # Errors
    /// As [`Intent::moved`].
    pub fn told(self, standing: &Standing<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.end(Came::Told, standing, now)
    }

    fn end(self, came: Came, standing: &Standing<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.store.versions().end(self.id, came, standing, now)
    }

    /// Nothing was moved.
    ///
    /// # Errors
    /// When it cannot be written: then that is found out later.
    pub fn withdraw(self) -> Result<(), StoreError> {
        self.store
            .write_by(super::Sync::WithTheNext, "withdrawing an announcement", |db| withdraw(db, self.id))
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        self.store.0.in_hand.lock().remove(&self.id);
    }
}

fn withdraw(db: &Connection, id: i64) -> Result<(), StoreError> {
    let gone = db.execute("DELETE FROM ref_intents WHERE id = ?1", [id]);
    gone.map(drop).map_err(StoreError::database("withdrawing an announcement"))
}

impl Versions<'_> {
    /// Announcements of which nobody says any more what came of them, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn left_intents(&self) -> Result<Vec<LeftIntent>, StoreError> {
        let rows: Vec<(i64, String)> = self.0.read("looking for announcements", |db| {
            let mut rows = db.prepare_cached("SELECT id, repo FROM ref_intents ORDER BY id")?;
            rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let in_hand = self.0.0.in_hand.lock();
        let left = rows.into_iter().filter(|(id, _)| !in_hand.contains(id));
        left.map(|(id, repo)| {
            let repo = RepoName::parse(&repo).map_err(|_| StoreError::Damaged("an announcement"))?;
            Ok(LeftIntent { id, repo })
        })
        .collect()
    }

    /// Takes up an announcement that was left, with the refs as they are now.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn take_up(
        &self,
        left: &LeftIntent,
        standing: &Standing<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.end(left.id, Came::Unknown, standing, now)
    }

    /// Forgets an announcement that was left, of a repository that is not there any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn drop_left(&self, left: &LeftIntent) -> Result<(), StoreError> {
        self.0.write("withdrawing an announcement", |db| withdraw(db, left.id))
    }

    /// Tells of a change that nobody has announced, if the refs are not what was told last; answers whether it did. With
    /// nothing to compare them with, they are noted, and told of if `is_new` says that the repository was made since. Where
    /// a change is announced, whoever did so tells of it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn look(&self, standing: &Standing<'_>, is_new: bool, now: Timestamp) -> Result<bool, StoreError> {
        // Nothing is written where nothing has changed, as at nearly every look.
        let known = self.known(standing.repo)?;
        if known.as_ref() == standing.digest {
            return Ok(false);
        }
        let came = if known.is_some() || is_new { Came::Unknown } else { Came::Told };
        self.0.write("telling of a change by others", |db| {
            if is_announced(db, standing.repo)? {
                return Ok(false);
            }
            self.tell(db, came, standing, now)?;
            Ok(came == Came::Unknown)
        })
    }

    /// Tells that a repository is gone, if anything was ever told of it; answers whether it did.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove(&self, repo: &RepoName, key: &RepoKey, now: Timestamp) -> Result<bool, StoreError> {
        let telling = &self.0.0.telling;
        self.0.write("telling of a removal", |db| {
            db.execute("DELETE FROM known_refs WHERE repo = ?1", [repo.as_str()])
                .map_err(StoreError::database("forgetting refs"))?;
            let last = last(db, key, &telling.incarnation)?;
            let is_told = last.as_ref().is_some_and(|(_, is_removed)| !is_removed);
            if is_told {
                count(db, telling, &Standing { repo, key, digest: None }, EventName::RepoRemoved, now)?;
            }
            Ok(is_told)
        })
    }

    /// Notes what another publisher has said, unless more was heard of him already; answers whether it is news. Of what he
    /// says himself, and says once, everything is that he did not say last: a publisher whose database was set back begins
    /// with lower numbers.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn hear(&self, version: &Version, is_himself: bool, now: Timestamp) -> Result<bool, StoreError> {
        const DOING: &str = "noting what was heard";
        self.0.write_by(super::Sync::WithTheNext, DOING, |db| {
            let is_news = is_news(db, version, is_himself).map_err(StoreError::database(DOING))?;
            if is_news {
                put(db, version, now)?;
                self.bound(db)?;
            }
            Ok(is_news)
        })
    }

    /// Now and then, forgets what was heard the longest ago, where that is more than is remembered.
    fn bound(&self, db: &Connection) -> Result<(), StoreError> {
        let Hearings(heard) = &self.0.0.hearings;
        if heard.fetch_add(1, Ordering::Relaxed) % TOO_MANY_AT_ONCE > 0 {
            return Ok(());
        }
        forget_beyond(db, self.0.publisher(), OF_ONE_MAX, OF_ALL_MAX)
            .map_err(StoreError::database("forgetting what was heard long ago"))
    }

    /// What every publisher has said last of a repository.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn of(&self, key: &RepoKey) -> Result<Vec<Version>, StoreError> {
        self.list("WHERE repo = ?1 ORDER BY incarnation", key.as_str())
    }

    /// Whether these refs are what was said last of a repository, by whomever: then the fleet knows them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_last(&self, key: &RepoKey, digest: &RefDigest) -> Result<bool, StoreError> {
        // Of what was said within the same millisecond nobody knows which was last.
        let last: Option<bool> = self.0.read("reading versions", |db| {
            db.prepare_cached(
                "SELECT min(coalesce(digest = ?2, 0)) FROM versions \
                 WHERE repo = ?1 AND at = (SELECT max(at) FROM versions WHERE repo = ?1)",
            )?
            .query_row((key.as_str(), digest.as_str()), |row| row.get(0))
        })?;
        Ok(last.unwrap_or(false))
    }

    /// What this publisher has said last of each repository.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn own(&self) -> Result<Vec<Version>, StoreError> {
        self.list("WHERE incarnation = ?1 ORDER BY repo", self.0.publisher().as_str())
    }

    fn list(&self, tail: &str, value: &str) -> Result<Vec<Version>, StoreError> {
        type Columns = (String, String, u64, Option<String>, bool);
        let rows: Vec<Columns> = self.0.read("reading versions", |db| {
            let query = format!("SELECT repo, incarnation, seq, digest, removed FROM versions {tail}");
            let mut rows = db.prepare_cached(&query)?;
            let columns = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            rows.query_map([value], columns)?.collect()
        })?;
        let damaged = |_| StoreError::Damaged("a version");
        rows.into_iter()
            .map(|(repo, incarnation, seq, digest, is_removed)| {
                Ok(Version {
                    repo: RepoKey::parse(&repo).map_err(damaged)?,
                    incarnation: Incarnation::parse(&incarnation).map_err(damaged)?,
                    seq,
                    digest: digest.map(|digest| RefDigest::parse(&digest)).transpose().map_err(damaged)?,
                    is_removed,
                })
            })
            .collect()
    }

    /// The refs of a repository as they were told last.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn known(&self, repo: &RepoName) -> Result<Option<RefDigest>, StoreError> {
        self.0.read("reading what is known of refs", |db| known(db, repo))
    }

    fn end(&self, id: i64, came: Came, standing: &Standing<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.0.write("telling of a change", |db| {
            withdraw(db, id)?;
            self.tell(db, came, standing, now)
        })
    }

    fn tell(
        &self,
        db: &Connection,
        came: Came,
        standing: &Standing<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = known(db, standing.repo);
        let known = known.map_err(StoreError::database("reading what is known of refs"))?;
        let differs = known.as_ref() != standing.digest || standing.digest.is_none();
        if came == Came::Moved || (came == Came::Unknown && differs) {
            count(db, &self.0.0.telling, standing, EventName::RepoVersion, now)?;
        }
        if differs { know(db, standing) } else { Ok(()) }
    }
}

/// Whether somebody is going to tell what came of a change of `repo`.
fn is_announced(db: &Connection, repo: &RepoName) -> Result<bool, StoreError> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM ref_intents WHERE repo = ?1)")
        .and_then(|mut row| row.query_row([repo.as_str()], |row| row.get(0)))
        .map_err(StoreError::database("looking for announcements"))
}

/// Counts a change that was made here, in the transaction `db`, and tells of it.
pub(super) fn count(
    db: &Connection,
    telling: &Telling,
    standing: &Standing<'_>,
    event: EventName,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Standing { repo, key, digest } = *standing;
    let last = last(db, key, &telling.incarnation)?.map_or(0, |(seq, _)| seq);
    let seq = last.saturating_add(1).min(SEQ_MAX);
    let version = Version {
        repo: key.clone(),
        incarnation: telling.incarnation.clone(),
        seq,
        digest: digest.cloned(),
        is_removed: event == EventName::RepoRemoved,
    };
    put(db, &version, now)?;
    telling.tell(db, &News { seq: Some(seq), digest, ..News::of(event, key, repo) }, now)
}

/// Notes the refs of a repository as they are now, in the transaction `db`.
pub(super) fn know(db: &Connection, standing: &Standing<'_>) -> Result<(), StoreError> {
    let repo = standing.repo.as_str();
    let noted = match standing.digest {
        Some(digest) => db
            .prepare_cached("INSERT OR REPLACE INTO known_refs (repo, digest) VALUES (?1, ?2)")
            .and_then(|mut put| put.execute((repo, digest.as_str()))),
        None => db.execute("DELETE FROM known_refs WHERE repo = ?1", [repo]),
    };
    noted.map(drop).map_err(StoreError::database("noting refs"))
}

fn known(db: &Connection, repo: &RepoName) -> rusqlite::Result<Option<RefDigest>> {
    let digest: Option<String> = db
        .prepare_cached("SELECT digest FROM known_refs WHERE repo = ?1")?
        .query_row([repo.as_str()], |row| row.get(0))
        .optional()?;
    Ok(digest.and_then(|digest| RefDigest::parse(&digest).ok()))
}

/// The number that a publisher has given last, and whether that was a removal.
fn last(db: &Connection, key: &RepoKey, by: &Incarnation) -> Result<Option<(u64, bool)>, StoreError> {
    db.prepare_cached("SELECT seq, removed FROM versions WHERE repo = ?1 AND incarnation = ?2")
        .and_then(|mut row| {
            row.query_row((key.as_str(), by.as_str()), |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(StoreError::database("reading a version"))
}

/// Whether no such number, and none after it, is known of the publisher; of what he says himself, whether it is anything else
/// than what he said last.
fn is_news(db: &Connection, version: &Version, is_himself: bool) -> rusqlite::Result<bool> {
    let Version { repo, incarnation, seq, digest, is_removed } = version;
    let digest = digest.as_ref().map(RefDigest::as_str);
    db.prepare_cached(
        "SELECT NOT EXISTS (SELECT 1 FROM versions WHERE repo = ?1 AND incarnation = ?2 AND \
         iif(?3, seq = ?4 AND digest IS ?5 AND removed = ?6, seq >= ?4))",
    )?
    .query_row((repo.as_str(), incarnation.as_str(), is_himself, seq, digest, is_removed), |row| row.get(0))
}

/// Forgets what was heard the longest ago of others than `own`, beyond `of_one` of each and `of_all` together.
fn forget_beyond(db: &Connection, own: &Incarnation, of_one: u32, of_all: u32) -> rusqlite::Result<()> {
    let all: u32 = db
        .prepare_cached("SELECT count(*) FROM versions WHERE incarnation <> ?1")?
        .query_row([own.as_str()], |row| row.get(0))?;
    if all <= of_one {
        return Ok(());
    }
    db.prepare_cached(
        "DELETE FROM versions WHERE (repo, incarnation) IN (SELECT repo, incarnation FROM ( \
           SELECT repo, incarnation, row_number() OVER (PARTITION BY incarnation ORDER BY at DESC) AS place \
           FROM versions WHERE incarnation <> ?1) WHERE place > ?2)",
    )?
    .execute((own.as_str(), of_one))?;
    db.prepare_cached(
        "DELETE FROM versions WHERE (repo, incarnation) IN (SELECT repo, incarnation FROM versions \
           WHERE incarnation <> ?1 ORDER BY at DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute((own.as_str(), of_all))
    .map(drop)
}

fn put(db: &Connection, version: &Version, now: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO versions (repo, incarnation, seq, digest, removed, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .and_then(|mut put| {
        put.execute((
            version.repo.as_str(),
            version.incarnation.as_str(),
            version.seq,
            version.digest.as_ref().map(RefDigest::as_str),
            version.is_removed,
            now.as_millisecond(),
        ))
    })
    .map(drop)
    .map_err(StoreError::database("noting a version"))
}

#[cfg(test)]
mod tests;
