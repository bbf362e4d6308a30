//! `[fleet]`: how the gate is known among others, and where it tells them of changes and hears of theirs.

use super::{Problem, Settings, read_authorities};
use crate::model::redis::RedisUrl;
use std::path::PathBuf;
use std::time::Duration;

/// How the gate is known among others, what it remembers for them, and what it has in common with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetSettings {
    /// What it calls itself; by default the name of the host.
    pub node: Option<String>,
    /// How long an event is kept for whoever listens and was away.
    pub keep_events: Duration,
    /// The server that all gates of the fleet tell of their changes.
    pub redis: Option<RedisUrl>,
    /// The file of the password for it, on one line; absolute.
    pub redis_password_file: Option<PathBuf>,
    /// The certificates of the authorities that are trusted about it, in one PEM file; absolute. The system's where none is
    /// named.
    pub redis_ca_file: Option<PathBuf>,
    /// How long a peer may say nothing at all before it is taken for dead: three of its heartbeats.
    pub peer_idle: Duration,
}

impl Default for FleetSettings {
    fn default() -> Self {
        let keep_events = Duration::from_secs(7 * 24 * 60 * 60);
        let peer_idle = Duration::from_secs(45);
        Self {
            node: None,
            keep_events,
            redis: None,
            redis_password_file: None,
            redis_ca_file: None,
            peer_idle,
        }
    }
}

impl FleetSettings {
    /// The files that it names.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.redis_password_file.iter_mut().chain(self.redis_ca_file.iter_mut())
    }

    /// What contradicts itself in it: the key, and a sentence.
    ///
    /// What belongs to an address is not judged where that `is_misread`, which was said.
    pub(super) fn contradictions(&self, is_misread: bool) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        let unused = "is for the server that fleet.redis names: name one, or remove the key";
        let (password, ca_file) = (self.redis_password_file.as_ref(), self.redis_ca_file.as_ref());
        match &self.redis {
            None if is_misread => {}
            None => {
                found.extend(password.map(|_| (PASSWORD_FILE, unused)));
                found.extend(ca_file.map(|_| (CA_FILE, unused)));
            }
            Some(url) => {
                if url.user().is_some() && password.is_none() {
                    let why = "is missing: fleet.redis names a user, and a user logs in with a password";
                    found.push((PASSWORD_FILE, why));
                }
                if ca_file.is_some() && !url.has_tls() {
                    found.push((
                        CA_FILE,
                        "is for servers at rediss:// addresses: remove it, or write rediss://",
                    ));
                }
            }
        }
        for (key, file) in [(PASSWORD_FILE, password), (CA_FILE, ca_file)] {
            if file.is_some_and(|path| path.to_str().is_none()) {
                found.push((key, "the path is not UTF-8, which a configuration cannot hold"));
            }
        }
        found
    }
}

/// The key of the server's address.
pub(super) const REDIS: &str = "fleet.redis";
const PASSWORD_FILE: &str = "fleet.redis_password_file";
const CA_FILE: &str = "fleet.redis_ca_file";

impl Settings {
    /// What is wrong with the fleet by what is on this machine.
    pub(super) fn unusable_in_fleet(&self) -> Option<Problem> {
        let error = read_authorities(self.fleet.redis_ca_file.as_deref()?).err()?;
        Some(Problem { place: String::new(), key: CA_FILE.to_owned(), why: error.to_string() })
    }
}
