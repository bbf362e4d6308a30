//! Names of repositories and users, checked once, at the door.
//!
//! Both are matched on the bytes as they came: nothing is decoded, folded or trimmed, so one repository has one
//! name and no alias slips past a rule.

use std::fmt;
use thiserror::Error;

/// How deep a repository may lie below its root.
const SEGMENTS_MAX: usize = 10;
/// The longest segment, in bytes: far below the 255 of file systems, with room for suffixes such as `.git`.
const SEGMENT_BYTES_MAX: usize = 100;
/// What may be appended to a repository's name and is dropped, once.
const SUFFIX: &str = ".git";
/// The longest user name, in bytes: the longest e-mail address that mail can deliver to (RFC 5321, 4.5.3.1.3).
const USER_BYTES_MAX: usize = 254;

/// A repository's canonical name: 1 to 10 segments of `[A-Za-z0-9._-]{1,100}` between slashes, without `.git`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(String);

/// A user's name: 1 to 254 visible ASCII characters, e-mail addresses included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing is left, or nothing stands between two slashes.
    #[error("a repository name has an empty segment: write it without leading, trailing or double slashes")]
    EmptySegment,
    /// The git directory in a working tree.
    #[error("for NAME/.git write NAME: the .git inside is found by itself")]
    InnerGit,
    /// Too deep.
    #[error("a repository name has at most {SEGMENTS_MAX} segments")]
    TooManySegments,
    /// Too long a segment.
    #[error("a segment of a repository name has at most {SEGMENT_BYTES_MAX} characters")]
    SegmentTooLong,
    /// A byte outside the alphabet.
    #[error("a repository name is made of letters, digits, '.', '_', '-' and '/'")]
    BadCharacter,
    /// Hidden, relative, or an option.
    #[error("no segment of a repository name begins with '.' or '-'")]
    BadStart,
    /// A name that git keeps for itself.
    #[error("no segment of a repository name ends in '.lock', and '.git' ends only the last one, once")]
    BadEnd,
    /// A user name that is empty or too long.
    #[error("a user name has 1 to {USER_BYTES_MAX} characters")]
    UserLength,
    /// A byte that means something in a header, a path, a reflog or a terminal.
    #[error(
        "a user name is made of visible ASCII characters other than ':', '<', '>', '\"', '\\' and '/', and does not \
         begin with '-'"
    )]
    UserCharacter,
}

impl RepoName {
    /// Reads a name as it stands in a URL or a command, and drops one `.git` from its end.
    ///
    /// What is left must not end in `.git` again, nor may a segment before it: `a.git.git` would be found on
    /// disk as `a.git`, which is `a`, and `a.git/b` lies inside the repository `a`.
    ///
    /// # Errors
    /// When the text is outside the grammar.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.strip_suffix(SUFFIX).is_some_and(|name| name.len() > 1 && name.ends_with('/')) {
            return Err(NameError::InnerGit);
        }
        let name = text.strip_suffix(SUFFIX).unwrap_or(text);
        let mut segments = 0;
        for segment in name.split('/') {
            segments += 1;
            if segments > SEGMENTS_MAX {
                return Err(NameError::TooManySegments);
            }
            check_segment(segment)?;
        }
        Ok(Self(name.to_owned()))
    }

    /// The canonical name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment and the rest, where there is one: if the first is the name of an upstream, the rest is the path
    /// of the repository there.
    #[must_use]
    pub fn upstream_split(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

/// Whether `byte` may stand in a segment of a repository name.
#[must_use]
pub fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Whether `segment` may stand between the slashes of a repository's name.
pub(super) fn check_segment(segment: &str) -> Result<(), NameError> {
    if segment.is_empty() {
        return Err(NameError::EmptySegment);
    }
    if segment.len() > SEGMENT_BYTES_MAX {
        return Err(NameError::SegmentTooLong);
    }
    if !segment.bytes().all(is_segment_byte) {
        return Err(NameError::BadCharacter);
    }
    if segment.starts_with(['.', '-']) {
        return Err(NameError::BadStart);
    }
    if segment.ends_with(".lock") || segment.ends_with(SUFFIX) {
        return Err(NameError::BadEnd);
    }
    Ok(())
}

impl UserName {
    /// Reads a user name; case is kept.
    ///
    /// Not allowed are `:` (Basic ends the name there, RFC 7617), `<` and `>` (they end it in a reflog),
    /// quotes, backslash and slash, a leading `-`, and whatever is not visible ASCII.
    ///
    /// # Errors
    /// When the text is outside the grammar.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > USER_BYTES_MAX {
            return Err(NameError::UserLength);
        }
        if text.starts_with('-') || !text.bytes().all(is_user_byte) {
            return Err(NameError::UserCharacter);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` means the same user: no two names of users differ by case alone.
    #[must_use]
    pub fn is_spelling_of(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }
}

fn is_user_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b':' | b'<' | b'>' | b'"' | b'\\' | b'/')
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_spellings_of_a_repository_are_one_name() {
        let with = RepoName::parse("acme/tools/app.git").unwrap();
        assert_eq!(with, RepoName::parse("acme/tools/app").unwrap());
        assert_eq!(with.as_str(), "acme/tools/app");
    }

    #[test]
    fn a_name_is_an_upstream_and_a_path_only_with_a_slash_in_it() {
        let split =
            |text| RepoName::parse(text).unwrap().upstream_split().map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(split("github/org/app.git"), Some(("github".into(), "org/app".into())));
        assert_eq!(split("github/app"), Some(("github".into(), "app".into())));
        assert_eq!(split("github"), None);
    }

    #[test]
    fn a_segment_of_a_hundred_characters_and_ten_segments_are_the_most() {
        let segment = "x".repeat(SEGMENT_BYTES_MAX);
        let name = [segment.as_str(); SEGMENTS_MAX].join("/");
        assert_eq!(RepoName::parse(&format!("{name}.git")).unwrap().as_str(), name);
        assert_eq!(RepoName::parse(&format!("{name}/x")), Err(NameError::TooManySegments));
        assert_eq!(RepoName::parse(&format!("{segment}x")), Err(NameError::SegmentTooLong));
        assert!(RepoName::parse(&"x/".repeat(2500)).is_err());
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        let refused = [
            ("", NameError::EmptySegment),
            (".git", NameError::EmptySegment),
            ("a/.git", NameError::InnerGit),
            ("/.git", NameError::EmptySegment),
            ("/a", NameError::EmptySegment),
            ("a/", NameError::EmptySegment),
            ("a//b", NameError::EmptySegment),
            ("..", NameError::BadStart),
            ("a/../b", NameError::BadStart),
            ("./a", NameError::BadStart),
            ("...git", NameError::BadStart),
            (".git/config", NameError::BadStart),
            ("-upload-pack", NameError::BadStart),
            ("a/-b", NameError::BadStart),
            ("a.lock", NameError::BadEnd),
            ("a.lock.git", NameError::BadEnd),
            ("a.lock/b", NameError::BadEnd),
            ("a.git.git", NameError::BadEnd),
            ("a.git/b", NameError::BadEnd),
            ("a%2eb", NameError::BadCharacter),
            ("a\\b", NameError::BadCharacter),
            ("a\0b", NameError::BadCharacter),
            ("a b", NameError::BadCharacter),
            ("a\nb", NameError::BadCharacter),
            ("é", NameError::BadCharacter),
            ("a?b", NameError::BadCharacter),
        ];
        for (text, error) in refused {
            assert_eq!(RepoName::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_user_may_be_an_address_but_not_break_a_header_a_path_or_a_reflog() {
        for name in ["alice", "bob@example.com", "o'neil+git@mail.example", "a", "x".repeat(254).as_str()] {
            assert_eq!(UserName::parse(name).unwrap().as_str(), name);
        }
        let refused = [
            "",
            "-x",
            "a:b",
            "a b",
            "a\tb",
            "a\nb",
            "a\u{7f}",
            "a\u{202e}b",
            "<a>",
            "a/b",
            "\"a\"",
            "a\\b",
            "é",
            "a\0",
        ];
        for name in refused {
            assert!(UserName::parse(name).is_err(), "{name:?}");
        }
        assert_eq!(UserName::parse(&"x".repeat(255)), Err(NameError::UserLength));
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_stays_below_its_root_and_is_its_own_canonical_form(text in "\\PC{0,40}|[-a-z./%\\\\]{0,24}(\\.git)?(\\.lock)?") {
            if let Ok(name) = RepoName::parse(&text) {
                prop_assert_eq!(&RepoName::parse(name.as_str()).unwrap(), &name);
                prop_assert_eq!(&RepoName::parse(&format!("{name}.git")).unwrap(), &name);
                let path = std::path::Path::new(name.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), name.as_str().split('/').count());
            }
        }

        #[test]
        fn every_name_of_the_grammar_is_taken(text in "[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_-]{0,99}){0,9}(\\.git)?") {
            prop_assert!(RepoName::parse(&text).is_ok());
        }

        #[test]
        fn a_user_name_never_holds_what_ends_it_elsewhere(text in "\\PC{0,20}|[ -~]{0,20}") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
            }
        }
    }
}
