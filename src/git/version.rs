//! Which git is on this machine: reading its version, refusing one that is too old, naming the fixes that it lacks.

use std::fmt;

/// The oldest git that serves all of protocol v2 as we rely on it.
pub const MINIMUM: GitVersion = GitVersion::new(2, 39, 0);

/// A released version of git. What follows the third number (`.windows.1`, `-rc1`, a distribution's suffix) does not
/// take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

/// Why a program cannot be used as git.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The answer to `git --version` was something else.
    #[error(
        "the program answered {answer:?} to --version, which is not a version of git: check the setting git.program"
    )]
    Unknown {
        /// The start of the answer.
        answer: String,
    },
    /// A git below [`MINIMUM`].
    #[error("git {found} is too old: git {MINIMUM} or newer is needed")]
    TooOld {
        /// The version found.
        found: GitVersion,
    },
}

impl GitVersion {
    /// A version by its three numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the answer to `git --version`: `git version 2.47.3`, `git version 2.50.1 (Apple Git-155)`, ….
    ///
    /// # Errors
    /// [`VersionError::Unknown`] when it is no such line, [`VersionError::TooOld`] below [`MINIMUM`].
    pub fn parse(answer: &str) -> Result<Self, VersionError> {
        let unknown = || VersionError::Unknown { answer: answer.chars().take(80).collect() };
        let rest = answer.strip_prefix("git version ").ok_or_else(unknown)?;
        let found = Self::from_numbers(rest).ok_or_else(unknown)?;
        if found < MINIMUM { Err(VersionError::TooOld { found }) } else { Ok(found) }
    }

    /// The published fixes that this version is older than. A distribution may have carried some of them over without
    /// changing the number, so this is a reason for a warning and never for a refusal.
    pub fn missing_fixes(self) -> impl Iterator<Item = &'static str> {
        FIXES.iter().filter(move |fix| !fix.is_in(self)).map(|fix| fix.what)
    }

    /// `2.47` and `2.47.3` alike; a patch that is not a number (`2.51.GIT`) counts as 0.
    fn from_numbers(text: &str) -> Option<Self> {
        let word = text.split([' ', '\n']).next()?;
        let mut parts = word.split(['.', '-']);
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for GitVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One round of security releases: the first fixed version of each line that received it, in ascending order.
struct Fix {
    what: &'static str,
    first: &'static [(u16, u16, u16)],
}

impl Fix {
    /// A line above the last one listed was cut after the fix; any other line has it only if it is listed.
    fn is_in(&self, version: GitVersion) -> bool {
        let of_line =
            |&&(major, minor, _): &&(u16, u16, u16)| (major, minor) == (version.major, version.minor);
        match self.first.iter().find(of_line) {
            Some(&(_, _, patch)) => version.patch >= patch,
            None => self
                .first
                .last()
                .is_some_and(|&(major, minor, _)| (version.major, version.minor) > (major, minor)),
        }
    }
}

/// Rounds of fixes that matter to a server or to a mirror of foreign repositories, from git's release notes.
const FIXES: [Fix; 3] = [
    Fix {
        what: "CVE-2024-32002, CVE-2024-32004, CVE-2024-32465 (untrusted repositories run code)",
        first: &[(2, 39, 4), (2, 40, 2), (2, 41, 1), (2, 42, 2), (2, 43, 4), (2, 44, 1), (2, 45, 1)],
    },
    Fix {
        what: "CVE-2025-48384, CVE-2025-48385 (arbitrary writes by submodules and bundle URIs)",
        first: &[
            (2, 43, 7),
            (2, 44, 4),
            (2, 45, 4),
            (2, 46, 4),
            (2, 47, 3),
            (2, 48, 2),
            (2, 49, 1),
            (2, 50, 1),
        ],
    },
    Fix {
        what: "CVE-2026-113408 (a hostile upstream names HEAD outside of the repository)",
        first: &[(2, 50, 2), (2, 51, 3), (2, 56, 1)],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_real_gits_are_read() {
        let cases = [
            ("git version 2.47.3\n", (2, 47, 3)),
            ("git version 2.39.5", (2, 39, 5)),
            ("git version 2.50.1 (Apple Git-155)\n", (2, 50, 1)),
            ("git version 2.45.2.windows.1\n", (2, 45, 2)),
            ("git version 2.51.0-rc1\n", (2, 51, 0)),
            ("git version 2.51.GIT\n", (2, 51, 0)),
            ("git version 3.0\n", (3, 0, 0)),
        ];
        for (answer, (major, minor, patch)) in cases {
            assert_eq!(GitVersion::parse(answer), Ok(GitVersion::new(major, minor, patch)), "{answer}");
        }
    }

    #[test]
    fn another_program_is_refused_and_so_is_an_old_git() {
        for answer in ["", "busybox v1.36", "git version", "git version two", "hg version 2.47.3"] {
            assert!(matches!(GitVersion::parse(answer), Err(VersionError::Unknown { .. })), "{answer}");
        }
        let old = GitVersion::parse("git version 2.38.9").unwrap_err();
        assert_eq!(old.to_string(), "git 2.38.9 is too old: git 2.39.0 or newer is needed");
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        assert!(GitVersion::new(2, 39, 5) < GitVersion::new(2, 47, 0));
        assert!(GitVersion::new(2, 9, 5) < GitVersion::new(2, 39, 0));
        assert!(GitVersion::new(2, 47, 3) < GitVersion::new(3, 0, 0));
    }

    #[test]
    fn a_fix_counts_per_line_and_for_every_later_line() {
        let missing = |major, minor, patch| GitVersion::new(major, minor, patch).missing_fixes().count();
        assert_eq!(missing(2, 39, 3), 3);
        assert_eq!(missing(2, 39, 5), 2);
        assert_eq!(missing(2, 47, 3), 1);
        assert_eq!(missing(2, 50, 1), 1);
        assert_eq!(missing(2, 50, 2), 0);
        assert_eq!(missing(2, 55, 9), 1);
        assert_eq!(missing(2, 57, 0), 0);
    }
}
