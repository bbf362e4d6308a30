//! What a user may do in general; rules say where.

use std::fmt;
use thiserror::Error;

/// A user's role. Roles are cumulative: each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Fetches.
    Reader,
    /// Fetches and pushes.
    Pusher,
    /// Decides on pushes of others as well.
    Reviewer,
    /// Runs the gate.
    Admin,
}

/// A word that names no role.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a role: write reader, pusher, reviewer or admin")]
pub struct RoleError(String);

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Pusher, Self::Reviewer, Self::Admin];

    /// The role that is written `word`.
    ///
    /// # Errors
    /// When `word` is none of the four, in lower case.
    pub fn parse(word: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == word).ok_or_else(|| RoleError(word.to_owned()))
    }

    /// The word for it in configurations, the database and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Pusher => "pusher",
            Self::Reviewer => "reviewer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_read_back_and_each_contains_those_before_it() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Ok(role));
        }
        assert!(Role::ALL.is_sorted());
    }

    #[test]
    fn another_word_or_case_is_no_role() {
        for word in ["", "Admin", "owner", "admin "] {
            assert!(Role::parse(word).is_err(), "{word:?}");
        }
    }
}
