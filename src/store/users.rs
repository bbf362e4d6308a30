//! Users and their tokens.

use super::key::{TokenHash, check_given, random_token};
use super::{Store, StoreError, begin, private};
use crate::model::name::UserName;
use crate::model::role::Role;
use crate::model::secret::Secret;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use std::path::PathBuf;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How exact the time of last use is: finer would turn every request into a write.
const LAST_USED_STEP: Duration = Duration::from_secs(60);
/// The longest label, in bytes: it is shown in one line of a list.
const LABEL_BYTES_MAX: usize = 100;
/// The most tokens of a user: a script that makes one at each run is noticed.
const TOKENS_MAX: i64 = 1000;
/// The user that is made when there is none.
const FIRST_ADMIN: &str = "admin";
/// Where that user's token is left, in the data directory.
const FIRST_TOKEN_FILE: &str = "admin-token";

/// The users of a store.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a>(&'a Store);

/// Who was found to be logging in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// His name, in the case in which it was given to him.
    pub name: UserName,
    /// His role.
    pub role: Role,
    /// Which of his tokens it was.
    pub token_id: i64,
}

/// A token to be.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// The token, where somebody chose it; otherwise it is random.
    pub given: Option<Secret>,
    /// What its owner calls it; may be empty.
    pub label: String,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

/// A token that was made: the only time it can be shown.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its number, for removing it.
    pub id: i64,
    /// The token.
    pub token: Secret,
}

/// One user in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// His name.
    pub name: UserName,
    /// His role.
    pub role: Role,
    /// Since when.
    pub created: Timestamp,
    /// His tokens, the oldest first.
    pub tokens: Vec<Token>,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its number.
    pub id: i64,
    /// What its owner calls it.
    pub label: String,
    /// Since when.
    pub created: Timestamp,
    /// When it was last used, at most a minute behind.
    pub last_used: Option<Timestamp>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

impl Store {
    /// The users and their tokens.
    #[must_use]
    pub fn users(&self) -> Users<'_> {
        Users(self)
    }
}

impl Users<'_> {
    /// Who shows this token. With a user name it must be his, without one (a bearer) the token alone tells.
    ///
    /// `None` for an unknown user, a wrong, an expired and a removed token alike.
    ///
    /// # Errors
    /// When the database cannot be read: then nobody is logged in.
    pub fn authenticate(
        &self,
        username: Option<&str>,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        let hash = self.0.0.key.hash(token.as_bytes());
        let Some(found) = self.0.read("looking up a token", |db| find(db, &hash, now))? else {
            return Ok(None);
        };
        let same_user = username.is_none_or(|username| username.eq_ignore_ascii_case(&found.name));
        if !bool::from(found.hash.ct_eq(&hash)) || !same_user {
            return Ok(None);
        }
        let account =
            Account { name: user_name(&found.name)?, role: role(&found.role)?, token_id: found.token_id };
        self.note_use(&found, now);
        Ok(Some(account))
    }

    /// Makes a user with his first token.
    ///
    /// # Errors
    /// When the name is taken, or the token cannot be.
    pub fn add(
        &self,
        name: &UserName,
        role: Role,
        new: &NewToken,
        now: Timestamp,
    ) -> Result<Issued, StoreError> {
        self.0.write("adding a user", |db| self.insert(db, name, role, new, now))
    }

    /// Gives a user another token.
    ///
    /// # Errors
    /// When there is no such user, he has too many, or the token is in use or cannot be.
    pub fn add_token(&self, name: &UserName, new: &NewToken, now: Timestamp) -> Result<Issued, StoreError> {
        self.0.write("adding a token", |db| {
            let user = user_id(db, name)?;
            let count: i64 = db
                .query_row("SELECT count(*) FROM tokens WHERE user_id = ?1", [user], |row| row.get(0))
                .map_err(StoreError::database("counting tokens"))?;
            if count >= TOKENS_MAX {
                return Err(StoreError::TooManyTokens { user: name.clone(), most: TOKENS_MAX });
            }
            self.insert_token(db, user, new, now)
        })
    }

    /// Removes a user and all his tokens, which fail from now on.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn remove(&self, name: &UserName) -> Result<(), StoreError> {
        self.0.write("removing a user", |db| {
            let user = user_id(db, name)?;
            let removed = db.execute("DELETE FROM users WHERE id = ?1", [user]);
            removed.map(|_| ()).map_err(StoreError::database("removing a user"))
        })
    }

    /// Removes one token of a user, which fails from now on.
    ///
    /// # Errors
    /// When there is no such user, or it is not his.
    pub fn remove_token(&self, name: &UserName, id: i64) -> Result<(), StoreError> {
        self.0.write("removing a token", |db| {
            let user = user_id(db, name)?;
            let removed = db
                .execute("DELETE FROM tokens WHERE id = ?1 AND user_id = ?2", (id, user))
                .map_err(StoreError::database("removing a token"))?;
            if removed == 0 { Err(StoreError::UnknownToken { user: name.clone(), id }) } else { Ok(()) }
        })
    }

    /// Every user with his tokens, by name.
    ///
    /// # Errors
    /// When the database cannot be read, or is damaged.
    pub fn list(&self) -> Result<Vec<User>, StoreError> {
        let rows = self.0.read("listing users", list)?;
        let mut users: Vec<User> = Vec::new();
        for row in rows {
            let name = user_name(&row.name)?;
            if users.last().is_none_or(|user| user.name != name) {
                users.push(User {
                    name,
                    role: role(&row.role)?,
                    created: time(row.created)?,
                    tokens: Vec::new(),
                });
            }
            if let (Some(token), Some(user)) = (row.token, users.last_mut()) {
                user.tokens.push(token.read()?);
            }
        }
        Ok(users)
    }

    /// Whether any user is an admin.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_admin(&self) -> Result<bool, StoreError> {
        self.0.read("looking for an admin", |db| {
            let query = "SELECT EXISTS (SELECT 1 FROM users WHERE role = ?1)";
            db.query_row(query, [Role::Admin.as_str()], |row| row.get(0))
        })
    }

    /// Makes the user `admin` when there is no user at all, and leaves his token in `DATA/admin-token`, mode
    /// 0600; answers that path when it did.
    ///
    /// # Errors
    /// When the file or the database cannot be written; then there is still no user.
    pub fn ensure_admin(&self, now: Timestamp) -> Result<Option<PathBuf>, StoreError> {
        let path = self.0.0.data_dir.join(FIRST_TOKEN_FILE);
        let name = UserName::parse(FIRST_ADMIN).expect("the first user's name is in the grammar");
        self.0.write("making the first user", |db| {
            let some = db.query_row("SELECT EXISTS (SELECT 1 FROM users)", (), |row| row.get(0));
            if some.map_err(StoreError::database("looking for users"))? {
                return Ok(None);
            }
            let new = NewToken { label: "made at the first start".to_owned(), ..NewToken::default() };
            let issued = self.insert(db, &name, Role::Admin, &new, now)?;
            // The file comes before the commit: a crash between them leaves a token that opens nothing and is
            // written again at the next start, never a user whose token nobody has seen.
            private::replace(&path, format!("{}\n", issued.token.reveal()).as_bytes())?;
            Ok(Some(path))
        })
    }

    /// Forgets the tokens that have expired; answers how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn forget_expired(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.0.write("forgetting expired tokens", |db| {
            db.execute("DELETE FROM tokens WHERE expires <= ?1", [now.as_millisecond()])
                .map_err(StoreError::database("forgetting expired tokens"))
        })
    }

    fn insert(
        &self,
        db: &Transaction<'_>,
        name: &UserName,
        role: Role,
        new: &NewToken,
        now: Timestamp,
    ) -> Result<Issued, StoreError> {
        let inserted = db.execute(
            "INSERT INTO users (name, role, created) VALUES (?1, ?2, ?3)",
            (name.as_str(), role.as_str(), now.as_millisecond()),
        );
        inserted.map_err(|error| taken_or(error, || StoreError::NameTaken(name.clone()), "adding a user"))?;
        self.insert_token(db, db.last_insert_rowid(), new, now)
    }

    fn insert_token(
        &self,
        db: &Transaction<'_>,
        user: i64,
        new: &NewToken,
        now: Timestamp,
    ) -> Result<Issued, StoreError> {
        if new.label.len() > LABEL_BYTES_MAX || new.label.chars().any(char::is_control) {
            return Err(StoreError::BadLabel(LABEL_BYTES_MAX));
        }
        let token = match &new.given {
            Some(given) => check_given(given).map(|()| given.clone())?,
            None => random_token()?,
        };
        let hash = self.0.0.key.hash(token.reveal().as_bytes());
        let inserted = db.execute(
            "INSERT INTO tokens (user_id, hash, label, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
            (user, hash, &new.label, now.as_millisecond(), new.expires.map(Timestamp::as_millisecond)),
        );
        inserted.map_err(|error| taken_or(error, || StoreError::TokenTaken, "adding a token"))?;
        Ok(Issued { id: db.last_insert_rowid(), token })
    }

    /// Notes that a token was used, when the last note is old. A login does not wait for a writer that is busy
    /// and does not fail on a disk that is full: the next one notes it.
    fn note_use(&self, found: &Found, now: Timestamp) {
        let step = i64::try_from(LAST_USED_STEP.as_millis()).unwrap_or(i64::MAX);
        let now = now.as_millisecond();
        if found.last_used.is_some_and(|last| now < last.saturating_add(step)) {
            return;
        }
        let mut writer = match self.0.0.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        let noted = begin(&mut writer).and_then(|transaction| {
            transaction.execute("UPDATE tokens SET last_used = ?1 WHERE id = ?2", (now, found.token_id))?;
            transaction.commit()
        });
        if let Err(error) = noted {
            log::debug!("noting the use of token {}: {error}", found.token_id);
        }
    }
}

/// A token that was found by its hash, and whose it is.
struct Found {
    token_id: i64,
    hash: TokenHash,
    last_used: Option<i64>,
    name: String,
    role: String,
}

fn find(db: &Connection, hash: &TokenHash, now: Timestamp) -> rusqlite::Result<Option<Found>> {
    let mut query = db.prepare_cached(
        "SELECT tokens.id, tokens.hash, tokens.last_used, users.name, users.role
         FROM tokens JOIN users ON users.id = tokens.user_id
         WHERE tokens.hash = ?1 AND (tokens.expires IS NULL OR tokens.expires > ?2)",
    )?;
    query
        .query_row((hash, now.as_millisecond()), |row| {
            Ok(Found {
                token_id: row.get(0)?,
                hash: row.get(1)?,
                last_used: row.get(2)?,
                name: row.get(3)?,
                role: row.get(4)?,
            })
        })
        .optional()
}

/// A user beside one of his tokens, or beside none.
struct Listed {
    name: String,
    role: String,
    created: i64,
    token: Option<ListedToken>,
}

struct ListedToken {
    id: i64,
    label: String,
    created: i64,
    last_used: Option<i64>,
    expires: Option<i64>,
}

fn list(db: &Connection) -> rusqlite::Result<Vec<Listed>> {
    let mut query = db.prepare_cached(
        "SELECT users.name, users.role, users.created,
                tokens.id, tokens.label, tokens.created, tokens.last_used, tokens.expires
         FROM users LEFT JOIN tokens ON tokens.user_id = users.id
         ORDER BY users.name, tokens.id",
    )?;
    let rows = query.query_map((), |row| {
        Ok(Listed { name: row.get(0)?, role: row.get(1)?, created: row.get(2)?, token: listed_token(row)? })
    })?;
    rows.collect()
}

fn listed_token(row: &Row<'_>) -> rusqlite::Result<Option<ListedToken>> {
    let Some(id) = row.get(3)? else {
        return Ok(None);
    };
    let (label, created) = (row.get(4)?, row.get(5)?);
    Ok(Some(ListedToken { id, label, created, last_used: row.get(6)?, expires: row.get(7)? }))
}

impl ListedToken {
    fn read(self) -> Result<Token, StoreError> {
        Ok(Token {
            id: self.id,
            label: self.label,
            created: time(self.created)?,
            last_used: self.last_used.map(time).transpose()?,
            expires: self.expires.map(time).transpose()?,
        })
    }
}

fn user_id(db: &Connection, name: &UserName) -> Result<i64, StoreError> {
    db.query_row("SELECT id FROM users WHERE name = ?1", [name.as_str()], |row| row.get(0))
        .optional()
        .map_err(StoreError::database("looking up a user"))?
        .ok_or_else(|| StoreError::UnknownUser(name.clone()))
}

fn taken_or(error: rusqlite::Error, taken: impl FnOnce() -> StoreError, doing: &'static str) -> StoreError {
    let is_taken = error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE);
    if is_taken { taken() } else { StoreError::database(doing)(error) }
}

fn user_name(text: &str) -> Result<UserName, StoreError> {
    UserName::parse(text).map_err(|_| StoreError::Damaged("a user's name"))
}

fn role(text: &str) -> Result<Role, StoreError> {
    Role::parse(text).map_err(|_| StoreError::Damaged("a user's role"))
}

fn time(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|_| StoreError::Damaged("a time"))
}
