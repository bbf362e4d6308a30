//! What a push asks of refs: validated names, old and new values, each ref once.

use crate::model::oid::Oid;
use crate::model::text::is_harmless;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use thiserror::Error;

/// The longest name of a ref, in bytes: what a file system takes as one name, so that no layout of refs fails.
const NAME_BYTES_MAX: usize = 255;

/// What git tries before a name to find the ref that is meant (`git rev-parse` in gitrevisions(7)); it compares so also
/// where a lease names a ref in full.
const TRIED_BEFORE: [&str; 4] = ["refs/", "refs/tags/", "refs/heads/", "refs/remotes/"];

/// A ref's full name, `refs/KIND/…`, as git-check-ref-format(1) wants it.
///
/// Stricter than git: UTF-8 of at most 255 bytes, no segment that begins with `-`, nothing that a terminal would
/// obey or misorder, and nothing that git may find when another ref is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

/// Why a text is no name of a ref that we take.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RefNameError {
    /// Nothing like `refs/heads/main`.
    #[error("a ref is pushed by its full name, such as refs/heads/main")]
    NotFull,
    /// Too long.
    #[error("the name of a ref has at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or with characters that git or a terminal give a meaning.
    #[error(
        "the name of a ref is UTF-8 without spaces, control and bidirectional characters, and without any of ~^:?*[\\"
    )]
    BadCharacter,
    /// Something that git may find where another ref is named.
    #[error(
        "git may take this ref for another one: refs/ stands nowhere after refs/, refs/heads/, refs/tags/ or refs/remotes/"
    )]
    Ambiguous,
    /// A segment or sequence that git keeps for itself.
    #[error(
        "no segment of a ref's name is empty, begins with '.' or '-', or ends in '.' or '.lock', and \"..\" and \"@{{\" \
         stand nowhere in it"
    )]
    BadSegment,
}

/// What happens to one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// Which ref.
    pub name: RefName,
    /// The value that the pusher believes it to have; zero when it is to be made.
    pub old: Oid,
    /// The value that it is to have; zero when it is to be deleted.
    pub new: Oid,
}

/// The kind of a ref update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefKind {
    /// The ref is new.
    Create,
    /// It moves, forward or not.
    Update,
    /// It goes.
    Delete,
}

/// The updates of one push: at least one, each ref once and none below another, all ids of one length, none from nothing
/// to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdates(Vec<RefUpdate>);

/// Why updates make no push.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RefUpdatesError {
    /// There are none.
    #[error("the push updates no ref")]
    Empty,
    /// Git itself would answer `ok` for both.
    #[error("the push names {0} twice")]
    Twice(RefName),
    /// Git takes such a push one ref after the other, and never in the one step in which a held push goes on: it counts a
    /// ref as there until the step is over (tried with 2.39 and 2.47, in either order, loose and packed).
    #[error(
        "{below} lies below {above}: a held push arrives in one step, in which git lets no ref take the place of another; \
         push them one after the other"
    )]
    Below {
        /// The one ref.
        above: RefName,
        /// The ref that would lie in its place.
        below: RefName,
    },
    /// Both hashes in one push.
    #[error("the push mixes object ids of two lengths")]
    MixedLengths,
    /// Neither made nor changed nor deleted.
    #[error("the push deletes {0}, and says that it does not exist")]
    Nothing(RefName),
}

/// What came of one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefAnswer {
    /// It is at its new value.
    Accepted,
    /// It is not; in the words of whoever refused.
    Refused(String),
}

impl RefName {
    /// Reads a name as it came in a command.
    ///
    /// # Errors
    /// When it is outside the grammar.
    pub fn parse(name: &[u8]) -> Result<Self, RefNameError> {
        let text = str::from_utf8(name).map_err(|_| RefNameError::BadCharacter)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(RefNameError::TooLong);
        }
        if !text.chars().all(is_ref_character) {
            return Err(RefNameError::BadCharacter);
        }
        let is_full = text.strip_prefix("refs/").is_some_and(|rest| rest.contains('/'));
        if !is_full {
            return Err(RefNameError::NotFull);
        }
        let has_sequence = text.contains("..") || text.contains("@{");
        if has_sequence || !text.split('/').all(is_ref_segment) {
            return Err(RefNameError::BadSegment);
        }
        let rests = TRIED_BEFORE.iter().filter_map(|before| text.strip_prefix(before));
        if rests.into_iter().any(|rest| rest.starts_with("refs/")) {
            return Err(RefNameError::Ambiguous);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a ref must not be called that is to be there together with this one: the directories that it lies in.
    fn places_above(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }
}

fn is_ref_character(c: char) -> bool {
    is_harmless(c) && !matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')
}

fn is_ref_segment(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with(['.', '-'])
        && !segment.ends_with('.')
        && !segment.ends_with(".lock")
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl RefUpdate {
    /// Whether the ref is made, moved or deleted.
    #[must_use]
    pub fn kind(&self) -> RefKind {
        match (self.old.is_zero(), self.new.is_zero()) {
            (_, true) => RefKind::Delete,
            (true, false) => RefKind::Create,
            (false, false) => RefKind::Update,
        }
    }
}

impl RefUpdates {
    /// Takes updates in the pusher's order.
    ///
    /// # Errors
    /// When they do not make a push together.
    pub fn new(updates: Vec<RefUpdate>) -> Result<Self, RefUpdatesError> {
        let first = updates.first().ok_or(RefUpdatesError::Empty)?;
        let length = first.new.as_str().len();
        let mut seen = HashSet::new();
        for update in &updates {
            if update.old.as_str().len() != length || update.new.as_str().len() != length {
                return Err(RefUpdatesError::MixedLengths);
            }
            if update.old.is_zero() && update.new.is_zero() {
                return Err(RefUpdatesError::Nothing(update.name.clone()));
            }
            if !seen.insert(update.name.as_str()) {
                return Err(RefUpdatesError::Twice(update.name.clone()));
            }
        }
        for below in &updates {
            if let Some(above) = below.name.places_above().find_map(|place| seen.get(place)) {
                return Err(RefUpdatesError::Below {
                    above: RefName(above.to_string()),
                    below: below.name.clone(),
                });
            }
        }
        Ok(Self(updates))
    }
}

impl Deref for RefUpdates {
    type Target = [RefUpdate];

    fn deref(&self) -> &[RefUpdate] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &str, old: u8, new: u8) -> RefUpdate {
        let oid = |digit: u8| Oid::parse(&[digit; 40]).unwrap();
        RefUpdate { name: RefName::parse(name.as_bytes()).unwrap(), old: oid(old), new: oid(new) }
    }

    #[test]
    fn full_names_are_read() {
        for name in [
            "refs/heads/main",
            "refs/tags/v1.0",
            "refs/heads/a/b-c@d",
            "refs/heads/größe",
            "refs/x/@",
            "refs/heads/a/refs/b",
            "refs/heads/refs",
        ] {
            assert_eq!(RefName::parse(name.as_bytes()).unwrap().as_str(), name);
        }
        assert!(RefName::parse(format!("refs/heads/{}", "x".repeat(244)).as_bytes()).is_ok());
    }

    #[test]
    fn what_git_refuses_or_a_terminal_obeys_is_no_name() {
        let cases: [(&[u8], RefNameError); 29] = [
            (b"", RefNameError::NotFull),
            (b"HEAD", RefNameError::NotFull),
            (b"refs/stash", RefNameError::NotFull),
            (b"heads/main/x", RefNameError::NotFull),
            (b"refs/heads/", RefNameError::BadSegment),
            (b"refs//heads", RefNameError::BadSegment),
            (b"refs/heads/.a", RefNameError::BadSegment),
            (b"refs/heads/a.", RefNameError::BadSegment),
            (b"refs/heads/a.lock/b", RefNameError::BadSegment),
            (b"refs/heads/a..b", RefNameError::BadSegment),
            (b"refs/heads/a@{b", RefNameError::BadSegment),
            (b"refs/heads/-d", RefNameError::BadSegment),
            (b"refs/refs/heads/a", RefNameError::Ambiguous),
            (b"refs/heads/refs/heads/a", RefNameError::Ambiguous),
            (b"refs/tags/refs/heads/a", RefNameError::Ambiguous),
            (b"refs/remotes/refs/heads/a/HEAD", RefNameError::Ambiguous),
            (b"refs/heads/refs/stash", RefNameError::Ambiguous),
            (b"refs/heads/a b", RefNameError::BadCharacter),
            (b"refs/heads/a~1", RefNameError::BadCharacter),
            (b"refs/heads/a^", RefNameError::BadCharacter),
            (b"refs/heads/a:b", RefNameError::BadCharacter),
            (b"refs/heads/*", RefNameError::BadCharacter),
            (b"refs/heads/[a", RefNameError::BadCharacter),
            (b"refs/heads/a\\b", RefNameError::BadCharacter),
            (b"refs/heads/a\nb", RefNameError::BadCharacter),
            (b"refs/heads/a\x7f", RefNameError::BadCharacter),
            (b"refs/heads/\xff", RefNameError::BadCharacter),
            ("refs/heads/\u{9b}2J".as_bytes(), RefNameError::BadCharacter),
            ("refs/heads/\u{202e}niam".as_bytes(), RefNameError::BadCharacter),
        ];
        for (name, error) in cases {
            assert_eq!(RefName::parse(name), Err(error), "{}", name.escape_ascii());
        }
        let long = format!("refs/heads/{}", "x".repeat(245));
        assert_eq!(RefName::parse(long.as_bytes()), Err(RefNameError::TooLong));
    }

    #[test]
    fn the_kind_follows_from_the_values() {
        assert_eq!(update("refs/heads/a", b'0', b'1').kind(), RefKind::Create);
        assert_eq!(update("refs/heads/a", b'1', b'2').kind(), RefKind::Update);
        assert_eq!(update("refs/heads/a", b'1', b'0').kind(), RefKind::Delete);
    }

    #[test]
    fn updates_that_contradict_each_other_make_no_push() {
        let (a, b) = (update("refs/heads/a", b'0', b'1'), update("refs/heads/b", b'1', b'0'));
        assert_eq!(RefUpdates::new(vec![a.clone(), b.clone()]).unwrap().len(), 2);
        assert_eq!(RefUpdates::new(Vec::new()), Err(RefUpdatesError::Empty));
        let twice = RefUpdates::new(vec![a.clone(), b, a.clone()]);
        assert_eq!(twice, Err(RefUpdatesError::Twice(a.name.clone())));
        let (beside, below) = (update("refs/heads/a-b", b'0', b'1'), update("refs/heads/a/b/c", b'1', b'0'));
        assert!(RefUpdates::new(vec![a.clone(), beside.clone()]).is_ok());
        for updates in
            [vec![a.clone(), beside.clone(), below.clone()], vec![below.clone(), beside, a.clone()]]
        {
            let error = RefUpdates::new(updates).unwrap_err();
            assert_eq!(error, RefUpdatesError::Below { above: a.name.clone(), below: below.name.clone() });
        }
        let none = update("refs/heads/c", b'0', b'0');
        assert_eq!(RefUpdates::new(vec![none.clone()]), Err(RefUpdatesError::Nothing(none.name)));
        let long = RefUpdate { new: Oid::parse(&[b'1'; 64]).unwrap(), ..a };
        assert_eq!(RefUpdates::new(vec![long]), Err(RefUpdatesError::MixedLengths));
    }
}
