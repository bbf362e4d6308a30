//! `[[upstream]]`: the servers that repositories are mirrored from and pushes are passed on to.
//!
//! `draft` reads and prints them, and refuses one that contradicts itself; `mirror` is one of its sections. `conflicts` is about what they may not have in
//! common with the rest of the settings: places on the disk, and rules for users that their pushers are not.

mod conflicts;
mod draft;
mod mirror;

pub use mirror::MirrorSettings;

pub(super) use draft::{UpstreamDraft, parse_flag, to_toml};

use super::Settings;
use super::gate::{GateSettings, Word};
use crate::model::access::Pattern;
use crate::model::name::RepoName;
use crate::model::route::Route;
use crate::model::upstream::{UpstreamName, UpstreamUrl};
use std::path::PathBuf;
use std::time::Duration;

/// How long a yes of an upstream holds where nobody says: as long as the requests of one clone or push take.
const ACCESS_CACHE: Duration = Duration::from_secs(10);

/// A server, or a directory, whose repositories are served below its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The first segment of the names of its repositories.
    pub name: UpstreamName,
    /// Where it is.
    pub url: UpstreamUrl,
    /// Which of its repositories are served, by their paths there; all where this is empty.
    pub repos: Vec<Pattern>,
    /// Which are not, even where `repos` names them.
    pub deny: Vec<Pattern>,
    /// What it is shown for clients.
    pub credential: CredentialSettings,
    /// What it is shown by syncs that no client asks for, and for clients too with [`CredentialSettings::Service`].
    pub service: Option<ServiceAccount>,
    /// Who may read the mirrors, if the rules agree.
    pub access: ReadAccess,
    /// How long its yes to a credential holds.
    pub access_cache: Duration,
    /// How it is reached, where it is a server.
    pub route: Route,
    /// How its mirrors are kept.
    pub mirror: MirrorSettings,
    /// How pushes to it are held and passed on.
    pub gate: GateSettings,
}

/// What an upstream is shown to let us in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialSettings {
    /// Nothing.
    #[default]
    None,
    /// The gate's own credential.
    Service,
    /// The credential that the client sent, which is for the upstream to judge.
    Passthrough,
}

impl Word for CredentialSettings {
    const ALL: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("service", Self::Service), ("passthrough", Self::Passthrough)];
}

/// A credential of the gate's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The user name.
    pub username: String,
    /// The file of the token; absolute.
    pub token_file: PathBuf,
}

/// Who may read what is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAccess {
    /// Everybody.
    Public,
    /// The users of this gate.
    Users,
    /// Whoever the upstream lets in with his own credential.
    Passthrough,
}

impl Word for ReadAccess {
    const ALL: &'static [(&'static str, Self)] =
        &[("public", Self::Public), ("users", Self::Users), ("passthrough", Self::Passthrough)];
}

impl UpstreamSettings {
    /// The upstream of this name and address, and nothing else set.
    fn plain(name: UpstreamName, url: UpstreamUrl) -> Self {
        Self {
            name,
            url,
            repos: Vec::new(),
            deny: Vec::new(),
            credential: CredentialSettings::None,
            service: None,
            access: ReadAccess::Public,
            access_cache: ACCESS_CACHE,
            route: Route::default(),
            mirror: MirrorSettings::default(),
            gate: GateSettings::default(),
        }
    }

    /// The name here of its repository at `path`; `None` where that is too long.
    #[must_use]
    pub fn repo(&self, path: &RepoName) -> Option<RepoName> {
        RepoName::parse(&format!("{}/{path}", self.name)).ok()
    }

    /// Whether its repository at `path` is served: [`Settings::upstream_of`] says the path.
    #[must_use]
    pub fn serves(&self, path: &str) -> bool {
        let is_named = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches_path(path));
        (self.repos.is_empty() || is_named(&self.repos)) && !is_named(&self.deny)
    }
}

impl Settings {
    /// Where what is served comes from, for people: the directory of the repositories, and the upstreams.
    #[must_use]
    pub fn sources(&self) -> String {
        let root = self.root.iter().map(|root| root.display().to_string());
        let upstreams =
            self.upstreams.iter().map(|upstream| format!("{} from {}", upstream.name, upstream.url));
        root.chain(upstreams).collect::<Vec<_>>().join(", ")
    }

    /// The upstream that `repo` belongs to, and the repository's path there. It may still not be served:
    /// [`UpstreamSettings::serves`].
    #[must_use]
    pub fn upstream_of<'a>(&'a self, repo: &'a RepoName) -> Option<(&'a UpstreamSettings, &'a str)> {
        let (name, path) = repo.upstream_split()?;
        let upstream = self.upstreams.iter().find(|upstream| upstream.name.as_str() == name)?;
        Some((upstream, path))
    }
}
