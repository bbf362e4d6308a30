//! Notes of the writes that are under way in hosted repositories.
//!
//! A note is on the disk before git is started and goes when its process group is gone and the repository is
//! clean. What an earlier life of the gate left says exactly where to look for its locks and temporary files,
//! and since when.

use super::versions::Intent;
use super::{Store, StoreError, Sync};
use crate::model::name::RepoName;
use jiff::Timestamp;
use rusqlite::Connection;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The notes of a store.
#[derive(Clone, Copy, Debug)]
pub struct Writes<'a>(&'a Store);

/// A note that ends when it is dropped, which is when nothing of the write is left.
#[derive(Debug)]
pub struct Note {
    store: Store,
    id: WriteId,
}

/// A note that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteId(i64);

/// A note that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWrite {
    /// For ending it.
    pub id: WriteId,
    /// The repository's directory.
    pub repo: PathBuf,
    /// Which life of the gate made it.
    pub boot: String,
    /// The refs that git was told to change.
    pub refs: Vec<String>,
    /// Since when; a file that is older is not of this write.
    pub started: Timestamp,
}

impl Store {
    /// The notes of writes under way.
    #[must_use]
    pub fn writes(&self) -> Writes<'_> {
        Writes(self)
    }
}

impl Note {
    /// Notes that a job of this life, which may leave `traces`, begins in the repository at `git_dir`.
    ///
    /// # Errors
    /// When the note cannot be written: then git must not be started.
    pub fn make(store: Store, git_dir: &Path, traces: &[String]) -> Result<Self, StoreError> {
        let id = store.writes().begin(git_dir, store.boot(), traces, Timestamp::now())?;
        Ok(Self { store, id })
    }

    /// As [`Note::make`], of a push that may move refs of the hosted repository `repo`, in one step with announcing that.
    ///
    /// # Errors
    /// As [`Note::make`].
    pub fn make_announced(
        store: Store,
        git_dir: &Path,
        traces: &[String],
        repo: &RepoName,
    ) -> Result<(Self, Intent), StoreError> {
        let now = Timestamp::now();
        let made = store.write("noting a push", |db| {
            Ok::<_, StoreError>((
                insert(db, git_dir, store.boot(), traces, now)?,
                store.announce_in(db, repo, now)?,
            ))
        });
        let (id, intent) = made?;
        Ok((Self { store, id }, intent))
    }

    /// The note that the store has under `id`.
    #[must_use]
    pub fn of(store: Store, id: WriteId) -> Self {
        Self { store, id }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Err(error) = self.store.writes().end(self.id) {
            log::warn!("{error}; the next start looks once more for what that job may have left");
        }
    }
}

impl Writes<'_> {
    /// Notes that a write to `repo` begins in the life `boot`; on the disk when this returns.
    ///
    /// # Errors
    /// When the note cannot be written: then git must not be started.
    pub fn begin(
        &self,
        repo: &Path,
        boot: &str,
        refs: &[String],
        now: Timestamp,
    ) -> Result<WriteId, StoreError> {
        self.0.write("noting a write", |db| insert(db, repo, boot, refs, now))
    }

    /// Notes that the write is over and nothing of it is left; one that has ended already is none. Nobody waits for the
    /// disk: a note that a crash of the machine brings back costs a look.
    ///
    /// # Errors
    /// When that cannot be written: then the next start looks there in vain.
    pub fn end(&self, id: WriteId) -> Result<(), StoreError> {
        self.0.write_by(Sync::WithTheNext, "noting the end of a write", |db| {
            let ended = db.execute("DELETE FROM writes WHERE id = ?1", [id.0]);
            ended.map(|_| ()).map_err(StoreError::database("noting the end of a write"))
        })
    }

    /// The writes that have not ended, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn open(&self) -> Result<Vec<OpenWrite>, StoreError> {
        let rows: Vec<(i64, Vec<u8>, String, String, i64)> = self.0.read("listing writes", |db| {
            let mut query =
                db.prepare_cached("SELECT id, repo, boot, refs, started FROM writes ORDER BY id")?;
            let rows = query
                .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
            rows.collect()
        })?;
        rows.into_iter()
            .map(|(id, repo, boot, refs, started)| {
                Ok(OpenWrite {
                    id: WriteId(id),
                    repo: OsStr::from_bytes(&repo).into(),
                    boot,
                    refs: serde_json::from_str(&refs).map_err(|_| StoreError::Damaged("a list of refs"))?,
                    started: Timestamp::from_millisecond(started)
                        .map_err(|_| StoreError::Damaged("a time"))?,
                })
            })
            .collect()
    }
}

fn insert(
    db: &Connection,
    repo: &Path,
    boot: &str,
    refs: &[String],
    now: Timestamp,
) -> Result<WriteId, StoreError> {
    let refs = serde_json::Value::from(refs).to_string();
    db.execute(
        "INSERT INTO writes (repo, boot, refs, started) VALUES (?1, ?2, ?3, ?4)",
        (repo.as_os_str().as_bytes(), boot, refs, now.as_millisecond()),
    )
    .map_err(StoreError::database("noting a write"))?;
    Ok(WriteId(db.last_insert_rowid()))
}
