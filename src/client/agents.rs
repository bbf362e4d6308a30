//! The clients of other servers: one for each way to them, with the connections that it keeps.

use super::names::{Names, NextHop};
use super::socket::SocketConnector;
use crate::config::read_authorities;
use crate::model::route::Route;
use crate::sys::stop::Stop;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, RustlsConnector};

/// How long a name may take, and then a connection, TLS agreed on: a server that lives needs a second.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// How long the first byte of the answer may take: a server with a million refs needs seconds to list them.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: servers close theirs after a minute or later.
pub const IDLE: Duration = Duration::from_secs(15);

/// Where most systems have the certificates of authorities; libcurl reads the same file.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// All of them, as many as there are ways in the configuration.
pub struct Agents {
    made: Mutex<Vec<Made>>,
    user_agent: &'static str,
    names: Names,
    stop: Stop,
}

/// One of them.
struct Made {
    route: Route,
    /// The file of its authorities as it was then.
    authorities: Option<Stamp>,
    agent: Agent,
}

/// What tells a file from another of the same name: when it was written, which it is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    written: (i64, i64),
    number: u64,
    len: u64,
}

impl Stamp {
    /// Of the file of a way's authorities, if it is there.
    fn of(route: &Route) -> Option<Self> {
        let file = fs::metadata(authorities(route)).ok()?;
        Some(Self { written: (file.mtime(), file.mtime_nsec()), number: file.ino(), len: file.len() })
    }
}

impl Agents {
    /// None yet. They will call themselves `user_agent`, and their connections end when `stop` kills.
    #[must_use]
    pub fn new(stop: Stop, user_agent: &'static str) -> Self {
        Self { made: Mutex::default(), user_agent, names: Names::default(), stop }
    }

    /// Others, whose connections end when `stop` kills; what is known of names is shared.
    #[must_use]
    pub fn beside(&self, stop: Stop) -> Self {
        let (user_agent, names) = (self.user_agent, self.names.clone());
        Self { made: Mutex::default(), user_agent, names, stop }
    }

    /// The client for this way, made where there is none yet. It trusts the authorities that the way names, else the
    /// system's, else those of browsers: git reads their file each time, so a client is made anew once that is another.
    ///
    /// # Errors
    /// When the file of the authorities cannot be used; the error names it.
    pub fn of(&self, route: &Route) -> io::Result<Agent> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before the file is read: what is written meanwhile is read by the next.
        let authorities = Stamp::of(route);
        if let Some(known) =
            made.iter().find(|known| known.route == *route && known.authorities == authorities)
        {
            return Ok(known.agent.clone());
        }
        let agent = self.make(route)?;
        made.retain(|known| known.route != *route);
        made.push(Made { route: route.clone(), authorities, agent: agent.clone() });
        Ok(agent)
    }

    fn make(&self, route: &Route) -> io::Result<Agent> {
        let roots = match &route.ca_file {
            Some(file) => roots(file)?,
            None => roots(Path::new(AUTHORITIES)).unwrap_or(RootCerts::WebPki),
        };
        let config = Agent::config_builder()
            // Ours is made in the connector: the library asks for a tunnel whatever the server is.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(self.user_agent)
            .max_idle_age(IDLE)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(FIRST_BYTE))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let connector = SocketConnector::new(self.stop.clone(), route);
        let connector = ().chain(connector).chain(RustlsConnector::default());
        let hop = NextHop::new(self.names.clone(), route.proxy.clone(), self.stop.clone());
        Ok(Agent::with_parts(config, connector, hop))
    }
}

fn authorities(route: &Route) -> &Path {
    route.ca_file.as_deref().unwrap_or(Path::new(AUTHORITIES))
}

fn roots(file: &Path) -> io::Result<RootCerts> {
    Ok(RootCerts::new_with_certs(&read_authorities(file)?))
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents").finish_non_exhaustive()
    }
}
