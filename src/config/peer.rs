//! `[[peer]]`: the other gates that this one listens to. It follows the file while the gate runs, as rules do.

use super::entry::{Entry, Fault};
use super::keys::{Written, parse_path, parsed, quoted};
use super::{ListenAddr, Problem, Settings, read_authorities};
use crate::model::net::is_this_machine;
use crate::model::peer::PeerName;
use crate::model::upstream::{HttpUrl, Scheme, UpstreamUrl, UpstreamUrlError};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The most peers: each is a thread and a connection.
const PEERS_MAX: usize = 256;

/// Another gate that is listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// What it is called here.
    pub name: PeerName,
    /// Where it is.
    pub url: HttpUrl,
    /// The file of the token of a user there; absolute.
    pub token_file: PathBuf,
    /// The certificates of the authorities that are trusted about it, absolute; the system's where none is named.
    pub ca_file: Option<PathBuf>,
}

impl PeerSettings {
    /// The files that it names.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        std::iter::once(&mut self.token_file).chain(&mut self.ca_file)
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let ca_file = self.ca_file.as_deref().map(|path| ("ca_file", path));
        std::iter::once(("token_file", self.token_file.as_path())).chain(ca_file)
    }
}

/// A peer in the making.
#[derive(Debug, Default)]
pub(super) struct PeerDraft {
    name: Option<PeerName>,
    url: Option<HttpUrl>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Entry for PeerDraft {
    const PATH: &'static str = "peer";
    const NOUN: &'static str = "a peer";
    const NAMES: &'static str = "name, url, token_file, ca_file";
    type Done = PeerSettings;

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        Some(match name {
            "name" => parsed(written, "a name", PeerName::parse).map(|name| self.name = Some(name)),
            "url" => parsed(written, "an address", parse_url).map(|url| self.url = Some(url)),
            "token_file" => parsed(written, "a path", parse_path).map(|path| self.token_file = Some(path)),
            "ca_file" => parsed(written, "a path", parse_path).map(|path| self.ca_file = Some(path)),
            _ => return None,
        })
    }

    fn objection(&self) -> Option<Fault> {
        let is_plain = self.url.as_ref().is_some_and(|url| url.scheme() == Scheme::Http);
        let why = "is for the certificates of gates at https:// addresses: remove it";
        (is_plain && self.ca_file.is_some()).then_some(Fault { name: "ca_file", why })
    }

    fn finish(self) -> Result<PeerSettings, Fault> {
        let missing = |name, why| Fault { name, why };
        let why = "is missing: a peer has a name, by which status and the log call it";
        let name = self.name.ok_or(missing("name", why))?;
        let why = "is missing: a peer is at an address, such as \"https://edge-2.example.com\"";
        let url = self.url.ok_or(missing("url", why))?;
        let why = "is missing: a peer tells what a user of it may read, and this names the file of his token";
        let token_file = self.token_file.ok_or(missing("token_file", why))?;
        Ok(PeerSettings { name, url, token_file, ca_file: self.ca_file })
    }
}

fn parse_url(text: &str) -> Result<HttpUrl, String> {
    let refused = |error: UpstreamUrlError| match error {
        UpstreamUrlError::Kind | UpstreamUrlError::FileUrl => NO_URL.to_owned(),
        UpstreamUrlError::Userinfo
        | UpstreamUrlError::Query
        | UpstreamUrlError::Character
        | UpstreamUrlError::TooLong
        | UpstreamUrlError::Host
        | UpstreamUrlError::Port
        | UpstreamUrlError::Path => error.to_string(),
    };
    match UpstreamUrl::parse(text).map_err(refused)? {
        UpstreamUrl::Http(url) if url.path().is_empty() => Ok(url),
        UpstreamUrl::Http(_) => {
            Err("has a path, and a gate is at the top of its host: write https://HOST".to_owned())
        }
        UpstreamUrl::Directory(_) => Err(NO_URL.to_owned()),
    }
}

/// What is said of anything but the address of a server.
const NO_URL: &str = "is no address of a gate: write https://HOST or http://HOST";

impl Settings {
    /// What is wrong with peers by what was written.
    pub(super) fn conflicts_of_peers(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut add = |key: &str, why: String| {
            let key = format!("{}.{key}", PeerDraft::PATH);
            found.push(Problem { place: String::new(), key, why });
        };
        if self.peers.len() > PEERS_MAX {
            add("name", format!("stands there {} times: at most {PEERS_MAX} are possible", self.peers.len()));
        }
        for (at, peer) in self.peers.iter().enumerate() {
            let before = &self.peers[..at];
            if before.iter().any(|other| other.name == peer.name) {
                add("name", format!("{:?} stands there twice", peer.name.as_str()));
            }
            if before.iter().any(|other| other.url == peer.url) {
                add("url", format!("{} stands there twice, and a gate is listened to once", peer.url));
            }
            if self.is_at(&peer.url) {
                add("url", format!("{} is where this gate is itself: name the others", peer.url));
            }
            let is_clear = peer.url.scheme() == Scheme::Http && !is_this_machine(peer.url.host());
            if is_clear && !self.insecure_http {
                let why = "is asked in the clear, and whoever listens would read the token: write https://, or set \
                           insecure_http = true";
                add("url", format!("{} {why}", peer.url));
            }
            for (key, _) in peer.files().filter(|(_, path)| path.to_str().is_none()) {
                add(key, "the path is not UTF-8, which a configuration cannot hold".to_owned());
            }
        }
        found
    }

    /// Whether this gate is at an address, as far as its own settings tell.
    fn is_at(&self, url: &HttpUrl) -> bool {
        let origin = |url: &HttpUrl| UpstreamUrl::Http(url.clone()).origin();
        let public = match self.public_url.as_deref().map(UpstreamUrl::parse) {
            Some(Ok(UpstreamUrl::Http(public))) => Some(origin(&public)),
            Some(Ok(UpstreamUrl::Directory(_)) | Err(_)) | None => None,
        };
        let host = match url.host() {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        };
        let is_listened_at = |address: &ListenAddr| match address {
            ListenAddr::Tcp(at) => host.is_some_and(|host| {
                let is_same = at.ip() == host || (at.ip().is_unspecified() && host.is_loopback());
                is_same && at.port() == url.port() && url.scheme() == Scheme::Http
            }),
            ListenAddr::Unix(_) => false,
        };
        public == Some(origin(url)) || self.listen.iter().any(is_listened_at)
    }

    /// What is wrong with peers by what is on this machine.
    pub(super) fn misplaced_peers(&self) -> impl Iterator<Item = Problem> {
        let read = |peer: &PeerSettings| peer.ca_file.as_deref().map(read_authorities)?.err();
        let wrong = self.peers.iter().filter_map(move |peer| Some((peer, read(peer)?)));
        wrong.map(|(peer, error)| Problem {
            place: String::new(),
            key: format!("{}.ca_file", PeerDraft::PATH),
            why: format!("{}: {error}", peer.name),
        })
    }
}

/// The peers as TOML.
pub(super) fn to_toml(peers: &[PeerSettings]) -> String {
    let mut toml = String::new();
    for peer in peers {
        let (name, url) = (quoted(&peer.name), quoted(&peer.url));
        // Writing to a String cannot fail.
        let _ = write!(toml, "\n[[{}]]\nname = {name}\nurl = {url}\n", PeerDraft::PATH);
        for (key, path) in peer.files() {
            let _ = writeln!(toml, "{key} = {}", quoted(path.display()));
        }
    }
    toml
}
