//! Which hash names the objects of a repository.

use std::fmt;

/// The hash of a repository's object ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObjectFormat {
    /// 40 digits; what a repository has that says nothing (gitrepository-layout(5)).
    #[default]
    Sha1,
    /// 64 digits.
    Sha256,
}

impl ObjectFormat {
    /// Reads the value of `extensions.objectFormat` or of the capability `object-format`; `None` for a hash of a git newer
    /// than this.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The word in configurations and capabilities.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// How many hexadecimal digits an id has.
    #[must_use]
    pub const fn digits(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
        }
    }

    /// The configuration of a bare repository of ours. Version 0 knows no extensions, and a hash other than SHA-1 is one.
    #[must_use]
    pub fn bare_config(self) -> String {
        match self {
            Self::Sha1 => "[core]\n\trepositoryformatversion = 0\n\tbare = true\n".to_owned(),
            Self::Sha256 => format!(
                "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = {self}\n"
            ),
        }
    }
}

impl fmt::Display for ObjectFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
