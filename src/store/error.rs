//! What can go wrong with the data directory and the database.

use crate::model::name::UserName;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system refused a file operation.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory or a file in it belongs to another user of the machine.
    #[error(
        "{} belongs to uid {owner} and this is uid {us}: run tidegate as its owner, or give it a directory of its own",
        path.display()
    )]
    ForeignOwner {
        /// Whose it is not.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others could read it.
    #[error(
        "{} is open to other users (mode {mode:o}): close it with chmod go-rwx, or give tidegate a directory of its own",
        path.display()
    )]
    Exposed {
        /// What is open.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else's files are where ours would be, and what of ours is left over is removed.
    #[error(
        "{} holds files though no tidegate has been here: what tidegate finds there it removes, so give it a data \
         directory of its own",
        .0.display()
    )]
    Occupied(PathBuf),
    /// There is no database, and none was to be made.
    #[error("there is no tidegate data in {}: name it with --data-dir", .0.display())]
    Absent(PathBuf),
    /// A newer tidegate has been here.
    #[error(
        "{} was written by a newer tidegate (schema {found}, this one knows {known}): run that version, or restore a backup",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// The key is gone, and with it the meaning of every stored token.
    #[error("{} is missing, and no stored token can be checked without it: restore it from the same backup as tidegate.db", .0.display())]
    KeyMissing(PathBuf),
    /// The key is not the one that the tokens were stored under.
    #[error("{} does not belong to this tidegate.db: restore both from the same backup", .0.display())]
    KeyForeign(PathBuf),
    /// SQLite refused.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A row holds what we never write.
    #[error("{0} in tidegate.db is damaged: restore a backup")]
    Damaged(&'static str),
    /// The kernel gave no random bytes.
    #[error("asking the kernel for random bytes: {0}")]
    Random(io::Error),
    /// The name is in use, perhaps in another case.
    #[error("there is a user {0} already: `tidegate user token {0}` gives another token")]
    NameTaken(UserName),
    /// Nobody has that name.
    #[error("there is no user {0}: `tidegate user list` shows all")]
    UnknownUser(UserName),
    /// The user has no such token.
    #[error("user {user} has no token {id}: `tidegate user list` shows them")]
    UnknownToken {
        /// The user.
        user: UserName,
        /// The token's number.
        id: i64,
    },
    /// Another token reads the same, and a bearer could not be told apart.
    #[error("this token is in use already: choose another")]
    TokenTaken,
    /// The token is too easily guessed, or could not be sent.
    #[error("a given token has {least} to {most} characters, none of them a control character")]
    BadToken {
        /// The fewest characters.
        least: usize,
        /// The most bytes.
        most: usize,
    },
    /// The label does not fit on a line.
    #[error("a label has at most {0} bytes and no control characters")]
    BadLabel(usize),
    /// The user has as many tokens as are allowed.
    #[error("user {user} has {most} tokens, which is the most: remove one first")]
    TooManyTokens {
        /// The user.
        user: UserName,
        /// The most.
        most: i64,
    },
}

impl StoreError {
    /// Whether what was asked for is wrong in itself, and would be refused by any store.
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::BadToken { .. } | Self::BadLabel(_))
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(super) fn database(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}
