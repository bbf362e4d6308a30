//! How the syncs of mirrors went, so that a new life of the gate knows how old they are and when to try again.

use super::{Store, StoreError};
use crate::model::name::RepoName;
use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use std::time::Duration;

/// The rows of mirrors in a store.
#[derive(Clone, Copy, Debug)]
pub struct MirrorRows<'a>(&'a Store);

/// What is known of one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRow {
    /// Its canonical name.
    pub repo: RepoName,
    /// When the last sync began.
    pub attempted: Timestamp,
    /// When the last one began that succeeded.
    pub succeeded: Option<Timestamp>,
    /// How old what the upstream showed then was by its own word, cut off to milliseconds: it may be a mirror itself.
    pub behind: Duration,
    /// How many failed since, and why the last one did.
    pub failed: Option<Failed>,
    /// The upstream has said no to the gate itself since it last gave it anything: being down unsays none of it.
    pub is_denied: bool,
    /// When the schedule comes to it.
    pub due: Option<Timestamp>,
    /// What it takes on the disk.
    pub bytes: u64,
}

/// Syncs that failed, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How many, at least one.
    pub times: u32,
    /// Why the last one did.
    pub why: String,
    /// That it did since the upstream says that the repository is elsewhere; and where, if it said so.
    pub moved: Option<Option<String>>,
}

impl Store {
    /// The rows of mirrors.
    #[must_use]
    pub fn mirrors(&self) -> MirrorRows<'_> {
        MirrorRows(self)
    }
}

impl MirrorRows<'_> {
    /// Every row, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all(&self) -> Result<Vec<MirrorRow>, StoreError> {
        self.0.read("listing the mirrors", |db| {
            let columns = "repo, attempted, succeeded, failures, error, due, bytes, moved_to, denied, behind";
            let mut rows = db.prepare_cached(&format!("SELECT {columns} FROM mirrors ORDER BY repo"))?;
            rows.query_map((), read)?.collect()
        })
    }

    /// Writes a row, new or in the place of an old one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, row: &MirrorRow) -> Result<(), StoreError> {
        const DOING: &str = "noting how a mirror is";
        self.0.write(DOING, |db| {
            let put = "INSERT OR REPLACE INTO mirrors \
                       (repo, attempted, succeeded, failures, error, due, bytes, moved_to, denied, behind) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
            let moved = row.failed.as_ref().and_then(|failed| failed.moved.as_ref());
            let values = (
                row.repo.as_str(),
                row.attempted.as_millisecond(),
                row.succeeded.map(Timestamp::as_millisecond),
                row.failed.as_ref().map_or(0, |failed| failed.times),
                row.failed.as_ref().map(|failed| &failed.why),
                row.due.map(Timestamp::as_millisecond),
                i64::try_from(row.bytes).unwrap_or(i64::MAX),
                moved.map(|to| to.as_deref().unwrap_or_default()),
                row.is_denied,
                i64::try_from(row.behind.as_millis()).unwrap_or(i64::MAX),
            );
            db.execute(put, values).map(drop).map_err(StoreError::database(DOING))
        })
    }

    /// Forgets a mirror; one that is not known is none.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn remove(&self, repo: &RepoName) -> Result<(), StoreError> {
        const DOING: &str = "forgetting a mirror";
        self.0.write(DOING, |db| {
            let removed = db.execute("DELETE FROM mirrors WHERE repo = ?1", [repo.as_str()]);
            removed.map(drop).map_err(StoreError::database(DOING))
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<MirrorRow> {
    let name: String = row.get(0)?;
    let unfit = |at, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(at, Type::Integer, error)
    };
    let time = |at, millis| Timestamp::from_millisecond(millis).map_err(|error| unfit(at, error.into()));
    let times: u32 = row.get(3)?;
    let why: Option<String> = row.get(4)?;
    let moved: Option<String> = row.get(7)?;
    let moved = moved.map(|to| Some(to).filter(|to| !to.is_empty()));
    Ok(MirrorRow {
        repo: RepoName::parse(&name).map_err(|error| unfit(0, error.into()))?,
        attempted: time(1, row.get(1)?)?,
        succeeded: row.get::<_, Option<i64>>(2)?.map(|millis| time(2, millis)).transpose()?,
        failed: why.map(|why| Failed { times, why, moved }),
        is_denied: row.get(8)?,
        behind: Duration::from_millis(row.get::<_, i64>(9)?.unsigned_abs()),
        due: row.get::<_, Option<i64>>(5)?.map(|millis| time(5, millis)).transpose()?,
        bytes: row.get::<_, i64>(6)?.unsigned_abs(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, fresh};
    use super::*;

    #[test]
    fn what_is_known_of_a_mirror_is_there_in_the_next_life() {
        let (place, store) = fresh();
        let name = |name| RepoName::parse(name).unwrap();
        let young = MirrorRow {
            repo: name("forge/b"),
            attempted: at(5),
            succeeded: Some(at(5)),
            failed: None,
            is_denied: false,
            behind: Duration::from_millis(1500),
            due: None,
            bytes: 7,
        };
        let failed = Failed { times: 2, why: "it is down".to_owned(), moved: None };
        let moved = |to: Option<&str>| Some(Failed { moved: Some(to.map(str::to_owned)), ..failed.clone() });
        let old = MirrorRow {
            repo: name("forge/a"),
            failed: moved(Some("https://forge.example/b")),
            is_denied: true,
            due: Some(at(9)),
            bytes: 0,
            ..young.clone()
        };
        let never = MirrorRow { succeeded: None, failed: moved(None), repo: name("Forge/a"), ..old.clone() };
        let down = MirrorRow { failed: Some(failed.clone()), repo: name("Forge/b"), ..old.clone() };
        for row in [&young, &old, &never, &down, &old] {
            store.mirrors().put(row).unwrap();
        }
        drop(store);
        let store = Store::open(&place.path().join("data")).unwrap();
        assert_eq!(
            store.mirrors().all().unwrap(),
            [never, down, old.clone(), young.clone()],
            "names differ by case"
        );
        store.mirrors().put(&MirrorRow { repo: old.repo.clone(), ..young.clone() }).unwrap();
        store.mirrors().remove(&name("Forge/a")).unwrap();
        store.mirrors().remove(&name("Forge/b")).unwrap();
        store.mirrors().remove(&name("forge/x")).unwrap();
        let left = store.mirrors().all().unwrap();
        assert_eq!(left, [MirrorRow { repo: old.repo, ..young.clone() }, young]);
    }
}
