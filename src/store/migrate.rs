//! The schema, step by step.

use super::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// Every step in its order; the number of the last one that was taken is SQLite's `user_version`. A step never
/// changes once it has landed.
const STEPS: &[&str] = &[
    include_str!("migrations/0001_users_and_writes.sql"),
    include_str!("migrations/0002_pushes.sql"),
    include_str!("migrations/0003_mirrors.sql"),
    include_str!("migrations/0004_fleet.sql"),
    include_str!("migrations/0005_moved_mirrors.sql"),
    include_str!("migrations/0006_webhooks.sql"),
    include_str!("migrations/0007_epochs.sql"),
    include_str!("migrations/0008_denied_mirrors.sql"),
    include_str!("migrations/0009_mirrors_of_mirrors.sql"),
    include_str!("migrations/0010_numbers.sql"),
    include_str!("migrations/0011_home.sql"),
];

/// Takes the steps that the database has not taken, each in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    for (number, step) in (1..=known).zip(STEPS) {
        take(connection, number, step).map_err(StoreError::database("bringing tidegate.db up to date"))?;
    }
    let found = version(connection).map_err(StoreError::database("reading the schema of tidegate.db"))?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Takes one step unless it has been taken; looks again under the lock, since another process may be taking it
/// now.
fn take(connection: &mut Connection, number: i64, step: &str) -> rusqlite::Result<()> {
    if version(connection)? >= number {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? < number {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
    }
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
