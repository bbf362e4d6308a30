//! Which epoch was met last at each server that all gates of a fleet tell of their changes: another one means that it was
//! emptied or replaced.

use super::{Store, StoreError};
use rusqlite::OptionalExtension;

/// The epochs of a store.
#[derive(Clone, Copy, Debug)]
pub struct Epochs<'a>(&'a Store);

impl Store {
    /// The epochs.
    #[must_use]
    pub fn epochs(&self) -> Epochs<'_> {
        Epochs(self)
    }
}

impl Epochs<'_> {
    /// The epoch that was met last at the server of this address.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn of(&self, server: &str) -> Result<Option<String>, StoreError> {
        self.0.read("reading an epoch", |db| {
            let mut row = db.prepare_cached("SELECT epoch FROM epochs WHERE server = ?1")?;
            row.query_row([server], |row| row.get(0)).optional()
        })
    }

    /// This one was met.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set(&self, server: &str, epoch: &str) -> Result<(), StoreError> {
        const DOING: &str = "noting an epoch";
        self.0.write(DOING, |db| {
            let put = "INSERT OR REPLACE INTO epochs (server, epoch) VALUES (?1, ?2)";
            db.execute(put, (server, epoch)).map(drop).map_err(StoreError::database(DOING))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_epoch_of_each_server_is_known_to_the_next_life() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let (one, other) = ("0".repeat(32), "1".repeat(32));
        let store = Store::open(&data).unwrap();
        assert_eq!(store.epochs().of("redis://a:1/0").unwrap(), None);
        store.epochs().set("redis://a:1/0", &one).unwrap();
        store.epochs().set("redis://a:1/0", &other).unwrap();
        store.epochs().set("redis://b:1/0", &one).unwrap();
        drop(store);
        let store = Store::open(&data).unwrap();
        assert_eq!(store.epochs().of("redis://a:1/0").unwrap(), Some(other));
        assert_eq!(store.epochs().of("redis://b:1/0").unwrap(), Some(one));
    }
}
