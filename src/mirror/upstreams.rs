//! The upstreams of the gate: which one a repository belongs to, and what it is shown.

use super::{MirrorSettings, Mirrors};
use crate::client::secrets::{SecretError, read_token};
use crate::config::{CredentialSettings, ReadAccess, ServiceAccount, Settings, UpstreamSettings};
use crate::git::layout::{LayoutError, Repository, Root};
use crate::model::credential::UpstreamCredential;
use crate::model::fleet::RepoKey;
use crate::model::name::RepoName;
use crate::model::upstream::UpstreamUrl;
use crate::sys::stop::Stop;
use std::io;
use std::path::Path;
use std::sync::Arc;

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

impl Place<'_> {
    /// Whether this repository is served at all.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.upstream.serves(self.path)
    }

    /// How the fleet calls it.
    #[must_use]
    pub fn key(&self) -> RepoKey {
        RepoKey::of_upstream(&self.upstream.url, self.path)
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
        let routes = settings.upstreams.iter().map(|upstream| upstream.route.clone()).collect();
        let kept = |upstream: &UpstreamSettings| (upstream.name.to_string(), upstream.mirror.clone());
        let kept = settings.upstreams.iter().map(kept).collect();
        let mirrors = MirrorSettings { routes, follow_symlinks, kept };
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

    /// What an upstream is shown for a client: the gate's own credential, the client's, or nothing.
    ///
    /// # Errors
    /// When the gate's own cannot be read.
    pub fn shown(
        &self,
        upstream: &UpstreamSettings,
        client: Option<UpstreamCredential>,
    ) -> Result<Option<UpstreamCredential>, SecretError> {
        match upstream.credential {
            CredentialSettings::None => Ok(None),
            CredentialSettings::Passthrough => Ok(client),
            CredentialSettings::Service => self.own(upstream),
        }
    }

    /// What it is shown when no client asks: the gate's own credential, if there is one.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn own(&self, upstream: &UpstreamSettings) -> Result<Option<UpstreamCredential>, SecretError> {
        let shown = |service: &ServiceAccount| {
            // Read each time: a token is replaced by replacing the file.
            let secret = read_token(&service.token_file)?;
            Ok(UpstreamCredential { username: service.username.clone(), secret })
        };
        upstream.service.as_ref().map(shown).transpose()
    }
}
