//! The durable note of a job that writes into a hosted repository: what an earlier life's successor cleans by.

use crate::git::footprint::Footprint;
use crate::store::writes::WriteId;
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use std::path::Path;

/// A note in the store; it goes when this is dropped, which is when nothing of the job is left.
#[derive(Debug)]
pub(super) struct Note {
    store: Store,
    id: WriteId,
}

impl Note {
    /// Notes that a job which may leave `footprint` begins in the repository at `git_dir`.
    pub(super) fn make(store: Store, git_dir: &Path, footprint: &Footprint) -> Result<Self, StoreError> {
        let id = store.writes().begin(git_dir, store.boot(), &footprint.notes(), Timestamp::now())?;
        Ok(Self { store, id })
    }

    /// The note that the store has under `id`.
    pub(super) fn of(store: Store, id: WriteId) -> Self {
        Self { store, id }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Err(error) = self.store.writes().end(self.id) {
            log::warn!("{error}; the next start looks after that job again");
        }
    }
}
