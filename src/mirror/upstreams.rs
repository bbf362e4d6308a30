//! The upstreams of the gate: which one a repository belongs to, and what it is shown.

use super::{MirrorSettings, Mirrors};
use crate::config::{CredentialSettings, ReadAccess, Settings, UpstreamSettings};
use crate::git::layout::{LayoutError, Repository, Root};
use crate::model::credential::UpstreamCredential;
use crate::model::name::RepoName;
use crate::model::secret::Secret;
use crate::model::upstream::UpstreamUrl;
use crate::sys::stop::Stop;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// All upstreams; clones share them.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    list: Vec<UpstreamSettings>,
    mirrors: Mirrors,
    /// Whether symbolic links may lead out of an upstream that is a directory.
    follow_symlinks: bool,
}

/// A repository of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Whose.
    pub upstream: &'a UpstreamSettings,
    /// Its path there.
    pub path: &'a str,
}

/// A service's token that cannot be read.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("reading the token_file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing is in it, or more than one line.
    #[error("the token_file {} has to hold the token on one line, and nothing else", path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
}

impl Place<'_> {
    /// Whether this repository is served at all.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.upstream.serves(self.path)
    }

    /// Whether the upstream, and not the gate, knows who pushes.
    #[must_use]
    pub fn judges_pushers(&self) -> bool {
        self.upstream.credential == CredentialSettings::Passthrough
    }

    /// Whether the upstream, and not the gate, knows who may read.
    #[must_use]
    pub fn judges_readers(&self) -> bool {
        self.upstream.access == ReadAccess::Passthrough
    }
}

impl Upstreams {
    /// Those of the settings, with the mirrors below their data directory.
    ///
    /// # Errors
    /// As [`Mirrors::open`].
    pub fn open(settings: &Settings, stop: &Stop) -> io::Result<Self> {
        let follow_symlinks = settings.follow_symlinks;
        let kept = |upstream: &UpstreamSettings| (upstream.name.to_string(), upstream.mirror.clone());
        let kept = settings.upstreams.iter().map(kept).collect();
        let mirrors = MirrorSettings { authorities: None, follow_symlinks, kept };
        let mirrors = Mirrors::open(&settings.data_dir, mirrors, stop)?;
        Ok(Self::new(settings.upstreams.clone(), mirrors, follow_symlinks))
    }

    /// Of these settings.
    #[must_use]
    pub fn new(list: Vec<UpstreamSettings>, mirrors: Mirrors, follow_symlinks: bool) -> Self {
        Self(Arc::new(Shared { list, mirrors, follow_symlinks }))
    }

    /// The copies of their repositories, and the way to them.
    #[must_use]
    pub fn mirrors(&self) -> &Mirrors {
        &self.0.mirrors
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[UpstreamSettings] {
        &self.0.list
    }

    /// Where `repo` is, if it belongs to an upstream.
    #[must_use]
    pub fn find<'a>(&'a self, repo: &'a RepoName) -> Option<Place<'a>> {
        let (name, path) = repo.upstream_split()?;
        let upstream = self.0.list.iter().find(|upstream| upstream.name.as_str() == name)?;
        Some(Place { upstream, path })
    }

    /// The repository whose git directory was found at `git_dir` before, in one of the upstreams that are directories.
    ///
    /// # Errors
    /// [`LayoutError::NotFound`] when it is in none of them; see [`LayoutError`].
    pub fn directory_at(&self, git_dir: &Path) -> Result<Repository, LayoutError> {
        let around = self.0.list.iter().filter_map(|upstream| match &upstream.url {
            UpstreamUrl::Directory(directory) => Some(directory),
            UpstreamUrl::Http(_) => None,
        });
        for directory in around {
            match Root::open(directory, self.0.follow_symlinks).and_then(|root| root.at(git_dir)) {
                Err(LayoutError::NotFound | LayoutError::Outside { .. }) => {}
                found => return found,
            }
        }
        Err(LayoutError::NotFound)
    }

    /// What an upstream is shown: the gate's own credential, the client's, or nothing.
    ///
    /// # Errors
    /// When the gate's own cannot be read.
    pub fn shown(
        &self,
        upstream: &UpstreamSettings,
        client: Option<UpstreamCredential>,
    ) -> Result<Option<UpstreamCredential>, TokenError> {
        match &upstream.credential {
            CredentialSettings::None => Ok(None),
            CredentialSettings::Passthrough => Ok(client),
            // Read each time: a token is replaced by replacing the file.
            CredentialSettings::Service { username, token_file } => {
                let secret = read_token(token_file)?;
                Ok(Some(UpstreamCredential { username: username.clone(), secret }))
            }
        }
    }
}

/// The token in the file at `path`.
///
/// # Errors
/// When it cannot be read, or is not one line.
pub fn read_token(path: &Path) -> Result<Secret, TokenError> {
    let text = fs::read_to_string(path)
        .map_err(|source| TokenError::Unreadable { path: path.to_path_buf(), source })?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    if token.is_empty() || token.chars().any(char::is_control) {
        return Err(TokenError::NotAToken { path: path.to_path_buf() });
    }
    Ok(Secret::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_nothing_of_it_is_told() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_token(&path)
        };
        assert_eq!(read("s3cret\n").unwrap().reveal(), "s3cret");
        assert_eq!(read("s3cret\r\n").unwrap().reveal(), "s3cret");
        assert_eq!(read("two words").unwrap().reveal(), "two words");
        for text in ["", "\n", "s3cret\nmore", "s3\tcret"] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, TokenError::NotAToken { .. }), "{text:?}");
            assert!(!format!("{error} {error:?}").contains("s3"));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_token(&path), Err(TokenError::Unreadable { .. })));
    }
}
