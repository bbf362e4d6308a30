//! SQLite: users, tokens, push records, how mirrors are, versions, events and where they are published to, and the durable
//! notes of writes under way. One file of queries per noun.
//!
//! Owns `DATA/tidegate.db`, `DATA/secret.key`, `DATA/admin-token` and `DATA/lock`. A store has one connection
//! that writes and one that reads, each behind a mutex: in WAL mode neither waits for the other, a read is one
//! indexed look-up of microseconds, and no connection is held while anything else is waited for. Other
//! processes (the `user` commands) may open the same database at any time.

pub mod epochs;
mod error;
pub mod events;
mod fingerprint;
mod home;
mod key;
pub mod lock;
mod migrate;
pub mod mirrors;
pub mod outbox;
mod private;
pub mod pushes;
pub mod users;
pub mod versions;
pub mod webhooks;
pub mod writes;

pub use error::StoreError;
pub use fingerprint::Fingerprint;

use crate::model::fleet::Incarnation;
use crate::sys::random;
use events::Telling;
use jiff::Timestamp;
use key::{Key, TokenHash, hex};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use pushes::Entered;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use versions::{Hearings, InHand};

/// The database's name in the data directory.
const DATABASE: &str = "tidegate.db";
/// How long to wait for another process that writes. Its transactions take milliseconds; a disk that is slower
/// than this is better reported than waited for.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How long to wait before another look whether somebody else has finished opening.
const TURN_STEP: Duration = Duration::from_millis(5);

/// The open database; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    key: Key,
    boot: String,
    entered: Entered,
    telling: Telling,
    in_hand: InHand,
    hearings: Hearings,
    /// The level of `PRAGMA synchronous` at which a commit waits for the disk.
    waiting: &'static str,
}

/// When a transaction is on the disk for good. What is committed survives the gate either way, and of a machine that
/// crashes the transactions of this database survive in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// When it is committed.
    Now,
    /// When one is that came after it.
    WithTheNext,
}

impl Store {
    /// Opens the database in `data_dir`, making directory, database and key where they are missing.
    ///
    /// # Errors
    /// When the directory is not ours or open to others, when the database is newer than this program or does not belong to
    /// the key beside it, and when the disk or SQLite refuse.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_waiting(data_dir, "FULL", false)
    }

    /// As [`Store::open`], for the one gate that tells others of what changes here: in a data directory that was copied or
    /// restored it takes another name than the one whose copy it is.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_to_tell(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_waiting(data_dir, "FULL", true)
    }

    fn open_waiting(data_dir: &Path, waiting: &'static str, is_to_tell: bool) -> Result<Self, StoreError> {
        private::directory(data_dir)?;
        let _turn = take_turn(data_dir)?;
        let path = data_dir.join(DATABASE);
        private::touch(&path)?;
        let mut writer = connect(&path).map_err(StoreError::database("opening tidegate.db"))?;
        migrate::migrate(&mut writer, &path)?;
        let (key, mut incarnation) = identify(&mut writer, data_dir)?;
        if is_to_tell {
            incarnation = home::settle(&mut writer, &path, &key, incarnation)?;
        }
        let reader = connect_reader(&path).map_err(StoreError::database("opening tidegate.db to read"))?;
        let telling = Telling::new(incarnation, &writer).map_err(StoreError::database("reading events"))?;
        Ok(Self(Arc::new(Inner {
            data_dir: data_dir.to_owned(),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            key,
            boot: hex(&random::bytes::<16>().map_err(StoreError::Random)?),
            entered: Entered::default(),
            telling,
            in_hand: InHand::default(),
            hearings: Hearings::default(),
            waiting,
        })))
    }

    /// As [`Store::open`], without waiting for the disk: for tests of many thousand transactions.
    #[cfg(test)]
    fn open_relaxed(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_waiting(data_dir, "OFF", false)
    }

    /// Opens a database that is there.
    ///
    /// # Errors
    /// [`StoreError::Absent`] when there is none; otherwise as [`Store::open`].
    pub fn open_existing(data_dir: &Path) -> Result<Self, StoreError> {
        match data_dir.join(DATABASE).try_exists() {
            Ok(true) => Self::open(data_dir),
            Ok(false) => Err(StoreError::Absent(data_dir.to_owned())),
            Err(source) => {
                // Who may not look inside is to hear whose it is.
                private::check_owner_of(data_dir)?;
                Err(StoreError::io("looking into", data_dir)(source))
            }
        }
    }

    /// 128 random bits made by this call of [`Store::open`]: which life of the gate this is.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.0.boot
    }

    /// Reads from the database on both connections: a sign of life for the watchdog.
    ///
    /// # Errors
    /// When SQLite cannot read.
    pub fn ping(&self) -> Result<(), StoreError> {
        let look = |connection: &Connection| connection.query_row("SELECT id FROM gate", (), |_| Ok(()));
        self.read("reading tidegate.db", look)?;
        look(&self.writer()).map_err(StoreError::database("reading tidegate.db"))
    }

    /// Writes the log back into the database and empties it, as far as readers allow.
    ///
    /// # Errors
    /// When SQLite cannot write.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let emptied = self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        emptied.map_err(StoreError::database("writing the log back into tidegate.db"))
    }

    fn read<T>(
        &self,
        doing: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        query(&reader).map_err(StoreError::database(doing))
    }

    /// Runs `look`, all of whose statements see the database of one moment.
    fn snapshot<T>(
        &self,
        doing: &'static str,
        look: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = reader.transaction().map_err(StoreError::database(doing))?;
        look(&moment)
    }

    /// Runs `change` in a transaction, which is undone unless `change` succeeds, and is on the disk when this returns.
    fn write<T, E: From<StoreError>>(
        &self,
        doing: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_by(Sync::Now, doing, change)
    }

    /// As [`Store::write`], on the disk by the time that `sync` says.
    fn write_by<T, E: From<StoreError>>(
        &self,
        sync: Sync,
        doing: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = self.writer();
        let level = match sync {
            Sync::Now => self.0.waiting,
            Sync::WithTheNext => "NORMAL",
        };
        writer.pragma_update(None, "synchronous", level).map_err(StoreError::database(doing))?;
        let told = &self.0.telling;
        let transaction = begin(&mut writer).map_err(StoreError::database(doing))?;
        told.begin();
        let result = change(&transaction)?;
        transaction.commit().map_err(StoreError::database(doing))?;
        // Before the next transaction can begin: events are heard in the order of their commits.
        told.commit(&writer, sync, self.0.waiting);
        Ok(result)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps other processes from opening the same database until it is dropped: an flock(2) on the directory
/// itself.
///
/// SQLite answers "busy" at once, whatever its timeout, when two connections turn a new database to WAL mode
/// together (measured: of 200 new databases that eight threads opened at a time, 15 were "locked" for one of
/// them).
fn take_turn(data_dir: &Path) -> Result<Flock<File>, StoreError> {
    let give_up = Instant::now() + BUSY_WAIT;
    let mut directory = File::open(data_dir).map_err(StoreError::io("opening", data_dir))?;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(turn),
            Err((again, Errno::EWOULDBLOCK)) if Instant::now() < give_up => directory = again,
            Err((_, errno)) => return Err(StoreError::io("taking turns in", data_dir)(errno.into())),
        }
        std::thread::park_timeout(TURN_STEP);
    }
}

/// A transaction that has the right to write from its start: it waits there for other processes, and not in its
/// middle.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// The path is taken as it is, also one that begins with `file:`; whoever holds a connection holds its mutex,
/// so SQLite needs none of its own.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// The key and the incarnation of this database. Both are made once, but for what [`home`] says of copies; a database that has its row never gets
/// another key, for that would silently end every token.
fn identify(writer: &mut Connection, data_dir: &Path) -> Result<(Key, Incarnation), StoreError> {
    const DOING: &str = "reading the identity of tidegate.db";
    let transaction = begin(writer).map_err(StoreError::database(DOING))?;
    let row = transaction
        .query_row("SELECT incarnation, key_check FROM gate", (), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(StoreError::database(DOING))?;
    let (key, incarnation) = match row {
        Some((incarnation, check)) => (matching_key(data_dir, check)?, incarnation),
        None => {
            let key = Key::read_or_make(data_dir)?;
            let incarnation = random::bytes::<16>().map_err(StoreError::Random)?;
            let insert = "INSERT INTO gate (id, incarnation, key_check, created) VALUES (1, ?1, ?2, ?3)";
            let created = Timestamp::now().as_millisecond();
            transaction
                .execute(insert, (incarnation, key.check(), created))
                .map_err(StoreError::database(DOING))?;
            (key, incarnation)
        }
    };
    transaction.commit().map_err(StoreError::database(DOING))?;
    let incarnation: [u8; 16] = incarnation;
    let incarnation = Incarnation::parse(&hex(&incarnation));
    Ok((key, incarnation.expect("16 bytes are 32 hexadecimal digits")))
}

fn matching_key(data_dir: &Path, check: TokenHash) -> Result<Key, StoreError> {
    let key = Key::read(data_dir)?;
    if key.check() == check { Ok(key) } else { Err(StoreError::KeyForeign(key::path(data_dir))) }
}

#[cfg(test)]
mod tests;
