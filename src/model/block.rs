//! What a configuration may block: texts, patterns, paths, refs, parts of mail addresses, kinds of files.
//!
//! Each is read once, at the door, and keeps the text that it was written as. All of them match bytes, because what a push
//! carries need not be UTF-8, and all of them match in time linear in what they are shown.

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use thiserror::Error;

/// The longest text, pattern or glob, in bytes: what one line of a configuration can hold and be read.
const WRITTEN_BYTES_MAX: usize = 1024;
/// The most memory that one compiled pattern may take, in bytes; a nested repetition asks for far more.
const COMPILED_BYTES_MAX: usize = 4 << 20;

/// A text or a regular expression to be looked for in lines and messages.
#[derive(Clone, Debug)]
pub struct Needle {
    text: String,
    regex: Regex,
}

/// A glob over the paths of a repository.
#[derive(Clone, Debug)]
pub struct PathGlob {
    text: String,
    /// Paths that are meant themselves.
    itself: GlobMatcher,
    /// Paths below those.
    below: GlobMatcher,
    /// Whether only a directory is meant.
    is_directory: bool,
}

/// A glob over full names of refs: `*` and `?` stay within a segment, `**` crosses them, `{a,b}` chooses.
#[derive(Clone, Debug)]
pub struct RefGlob {
    text: String,
    matcher: GlobMatcher,
}

/// A glob over the part of a mail address before its `@`, whatever its case.
#[derive(Clone, Debug)]
pub struct LocalGlob {
    text: String,
    matcher: GlobMatcher,
}

/// A domain of mail addresses, or with `*.` in front all domains below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

/// Why something cannot be blocked as it is written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BlockError {
    /// Nothing, too much, or not on one line.
    #[error("{0:?} is empty, longer than {WRITTEN_BYTES_MAX} bytes, or holds a control character")]
    Text(String),
    /// Not a regular expression, or too big a one.
    #[error("{text:?} is no pattern: {why}")]
    Pattern {
        /// As it was written.
        text: String,
        /// What the compiler of patterns says, on one line.
        why: String,
    },
    /// It is found in the empty text, so in every text.
    #[error("{0:?} matches an empty text, and so would block every push: write what must be there")]
    MatchesAll(String),
    /// Not a glob over paths.
    #[error(
        "{0:?} is no pattern for paths: write \"*.pem\" for a name at any depth, \"secrets/\" for a directory, \
         \"config/*.key\" for paths from the top, without a leading slash"
    )]
    Path(String),
    /// Not a glob over refs.
    #[error("{0:?} is no pattern for refs: write full names such as \"refs/heads/main\" or \"refs/tags/**\"")]
    Ref(String),
    /// Not a glob over the local part of addresses.
    #[error(
        "{0:?} is no pattern for the part of an address before its @: write such as \"noreply\" or \"bot-*\""
    )]
    Local(String),
    /// Not a domain.
    #[error("{0:?} is no domain: write \"example.com\", or \"*.example.com\" for the domains below it")]
    Domain(String),
}

impl Needle {
    /// A text that is found as it stands, whatever its case.
    ///
    /// # Errors
    /// When it is empty, too long or of several lines.
    pub fn literal(text: &str) -> Result<Self, BlockError> {
        Self::compile(text, RegexBuilder::new(&regex::escape(text)).case_insensitive(true))
    }

    /// A regular expression in the syntax of the `regex` crate; `^` and `$` stand for the ends of a line, however it ends.
    ///
    /// # Errors
    /// When it is malformed, too big, or matches everything.
    pub fn pattern(text: &str) -> Result<Self, BlockError> {
        Self::compile(text, RegexBuilder::new(text).multi_line(true).crlf(true))
    }

    fn compile(text: &str, builder: &mut RegexBuilder) -> Result<Self, BlockError> {
        check_written(text)?;
        let regex = builder.size_limit(COMPILED_BYTES_MAX).build().map_err(|error| BlockError::Pattern {
            text: text.to_owned(),
            why: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })?;
        if regex.is_match(b"") {
            return Err(BlockError::MatchesAll(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether it is found in `bytes`.
    #[must_use]
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.regex.is_match(bytes)
    }
}

impl PathGlob {
    /// Reads a glob as people know it from `.gitignore`: without a slash inside it means a name at any depth, with one a
    /// path from the top, and with one at its end a directory. What is below a path that is meant is meant as well.
    ///
    /// # Errors
    /// When it is malformed or can match no path.
    pub fn parse(text: &str) -> Result<Self, BlockError> {
        let bad = || BlockError::Path(text.to_owned());
        check_written(text).map_err(|_| bad())?;
        let directory = text.strip_suffix('/');
        let name = directory.unwrap_or(text);
        if name.is_empty() || name.starts_with(['/', '!']) || name.contains("//") {
            return Err(bad());
        }
        let anywhere = if name.contains('/') { "" } else { "**/" };
        let matcher = |below| glob(&format!("{anywhere}{name}{below}"), false).ok_or_else(bad);
        let (itself, below) = (matcher("")?, matcher("/**")?);
        Ok(Self { text: text.to_owned(), itself, below, is_directory: directory.is_some() })
    }

    /// Whether the path, as git has it, is one of those that are meant. Of directories git has no paths but those below
    /// them, and submodules, for which `is_directory` is true.
    #[must_use]
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.below.is_match(path) || (self.itself.is_match(path) && (is_directory || !self.is_directory))
    }
}

impl RefGlob {
    /// Reads a glob.
    ///
    /// # Errors
    /// When it is malformed or can match no ref.
    pub fn parse(text: &str) -> Result<Self, BlockError> {
        let bad = || BlockError::Ref(text.to_owned());
        check_written(text).map_err(|_| bad())?;
        let is_full = text.strip_prefix("refs/").is_some_and(|rest| !rest.is_empty() && !rest.ends_with('/'));
        let matcher = glob(text, false).filter(|_| is_full && !text.contains("//")).ok_or_else(bad)?;
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// Whether the ref of this full name is one of those that are meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}

impl LocalGlob {
    /// Reads a glob.
    ///
    /// # Errors
    /// When it is malformed or holds an `@`.
    pub fn parse(text: &str) -> Result<Self, BlockError> {
        let bad = || BlockError::Local(text.to_owned());
        check_written(text).map_err(|_| bad())?;
        let matcher = glob(text, true).filter(|_| !text.contains(['@', '/'])).ok_or_else(bad)?;
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// Whether the local part is one of those that are meant.
    #[must_use]
    pub fn matches(&self, local: &[u8]) -> bool {
        self.matcher.is_match(Path::new(OsStr::from_bytes(local)))
    }
}

impl Domain {
    /// Reads a domain; case does not matter.
    ///
    /// # Errors
    /// When it is not made of labels of letters, digits and hyphens.
    pub fn parse(text: &str) -> Result<Self, BlockError> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(BlockError::Domain(text.to_owned()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Whether addresses at `domain` are meant.
    #[must_use]
    pub fn matches(&self, domain: &[u8]) -> bool {
        match self.0.strip_prefix('*') {
            Some(parent) => {
                let split = domain.len().saturating_sub(parent.len());
                split > 0 && domain[split..].eq_ignore_ascii_case(parent.as_bytes())
            }
            None => domain.eq_ignore_ascii_case(self.0.as_bytes()),
        }
    }
}

fn check_written(text: &str) -> Result<(), BlockError> {
    let plain = !text.is_empty() && text.len() <= WRITTEN_BYTES_MAX && !text.contains(char::is_control);
    if plain { Ok(()) } else { Err(BlockError::Text(text.to_owned())) }
}

fn glob(text: &str, any_case: bool) -> Option<GlobMatcher> {
    let built = GlobBuilder::new(text).literal_separator(true).case_insensitive(any_case).build();
    built.ok().map(|glob| glob.compile_matcher())
}

/// Two are the same when they are written the same.
macro_rules! is_as_written {
    ($($kind:ident),*) => {$(
        impl PartialEq for $kind {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }

        impl Eq for $kind {}

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }
    )*};
}

is_as_written!(Needle, PathGlob, RefGlob, LocalGlob);

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_found_whatever_its_case_and_its_marks_mean_nothing() {
        let needle = Needle::literal("a.b (WIP)").unwrap();
        assert!(needle.is_in(b"this is A.B (wip)!") && !needle.is_in(b"axb (WIP)"));
        assert!(Needle::literal("").is_err() && Needle::literal("a\nb").is_err());
    }

    #[test]
    fn a_pattern_works_on_lines_and_on_any_bytes() {
        let needle = Needle::pattern("^fixup!").unwrap();
        assert!(Needle::pattern("one$").unwrap().is_in(b"one\r\ntwo"));
        assert!(needle.is_in(b"one\nfixup! two") && !needle.is_in(b"a fixup!"));
        assert!(Needle::pattern("key=[0-9]+").unwrap().is_in(b"\xff\xfekey=7"));
    }

    #[test]
    fn patterns_that_cannot_be_or_would_block_all_are_refused() {
        assert!(matches!(Needle::pattern("("), Err(BlockError::Pattern { .. })));
        assert!(matches!(Needle::pattern(r"(\w{500}){500}"), Err(BlockError::Pattern { .. })));
        assert!(matches!(Needle::pattern("a*"), Err(BlockError::MatchesAll(_))));
        assert!(!Needle::pattern("(").unwrap_err().to_string().contains('\n'));
    }

    #[test]
    fn paths_are_matched_as_people_know_it() {
        let matches = |glob: &str, path: &[u8]| PathGlob::parse(glob).unwrap().matches(path, false);
        assert!(
            matches("*.pem", b"a/b/c.pem") && matches("*.pem", b"c.pem") && matches("*.pem", b"a/c.pem/d/e")
        );
        let submodule = |glob: &str, path: &[u8]| PathGlob::parse(glob).unwrap().matches(path, true);
        assert!(submodule("secrets/", b"a/secrets") && submodule("*.pem", b"c.pem"));
        assert!(!submodule("secrets/", b"secrets2") && !matches("*.pem", b"c.pem2/d"));
        assert!(matches("docs/**", b"docs/a/b") && matches("/docs".trim_start_matches('/'), b"docs/a"));
        assert!(matches("secrets/", b"a/secrets/b/c") && !matches("secrets/", b"secrets"));
        assert!(matches("config/*.key", b"config/a.key") && !matches("config/*.key", b"x/config/a.key"));
        assert!(!matches("config/*.key", b"config/a/b.key") && matches("config/**/*.key", b"config/a/b.key"));
        assert!(matches("*.pem", b"gr\xfc\xdfe.pem"));
        for bad in ["", "/", "/a", "a//b", "[", "!a"] {
            assert!(PathGlob::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refs_are_meant_by_their_full_names() {
        let matches = |glob: &str, name: &str| RefGlob::parse(glob).unwrap().matches(name);
        assert!(
            matches("refs/heads/main", "refs/heads/main") && !matches("refs/heads/main", "refs/heads/main2")
        );
        assert!(matches("refs/heads/release/*", "refs/heads/release/1"));
        assert!(!matches("refs/heads/*", "refs/heads/a/b") && matches("refs/heads/**", "refs/heads/a/b"));
        for bad in ["main", "refs/", "heads/main", "refs/heads/", "refs//x", "refs/["] {
            assert!(RefGlob::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_of_addresses_are_matched_whatever_their_case() {
        let domain = |text: &str, of: &str| Domain::parse(text).unwrap().matches(of.as_bytes());
        assert!(domain("Example.com", "exAmple.COM") && !domain("example.com", "a.example.com"));
        assert!(domain("*.example.com", "a.b.example.com") && !domain("*.example.com", "example.com"));
        assert!(!domain("*.example.com", "badexample.com") && !domain("example.com", ""));
        for bad in ["", "*", "*.", "a..b", "a@b", "exämple.com", "-a.com", "*.*.com"] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
        let local = LocalGlob::parse("Bot-*").unwrap();
        assert!(local.matches(b"bot-7") && !local.matches(b"robot-7"));
        assert!(LocalGlob::parse("a@b").is_err());
    }
}
