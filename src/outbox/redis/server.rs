//! The server of the configuration: where it is, how it is trusted, what it is shown.

use super::RedisError;
use super::connection::Connection;
use super::line::{self, Line};
use super::script;
use crate::client::Names;
use crate::client::secrets::read_password;
use crate::config::{FleetSettings, read_authorities};
use crate::model::redis::RedisUrl;
use crate::sys::stop::Stop;
use redis::{Cmd, Value, cmd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the name, the connection and TLS may take together: a server that lives needs a second.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a command may take, from its first byte to the last one of the answer. What is asked here takes a server
/// microseconds; one that needs longer is in trouble, and the next attempt is as good.
pub(super) const COMMAND: Duration = Duration::from_secs(5);

/// Where most systems have the certificates of authorities.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What was found at the server, beside that it does what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The policy by which it evicts keys that are to stay, if it is known to have one.
    pub evicts: Option<String>,
}

/// How a connection is made; clones share what was looked up.
#[derive(Clone, Debug)]
pub struct Server {
    url: RedisUrl,
    password_file: Option<PathBuf>,
    tls: Option<Arc<ClientConfig>>,
    names: Names,
}

impl Server {
    /// The server of these settings, if they name one. Its authorities are read now, the password at each connection, since
    /// it is replaced by replacing the file.
    ///
    /// # Errors
    /// When the authorities cannot be read.
    pub fn of(settings: &FleetSettings) -> io::Result<Option<Self>> {
        let Some(url) = settings.redis.clone() else { return Ok(None) };
        let tls = url.has_tls().then(|| trust(settings.redis_ca_file.as_deref())).transpose()?;
        let password_file = settings.redis_password_file.clone();
        Ok(Some(Self { url, password_file, tls, names: Names::default() }))
    }

    /// Where it is.
    #[must_use]
    pub const fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Whether it is there, lets the gate in, shows it what it has, and allows it all that can be tried without changing
    /// anything or telling anybody.
    ///
    /// # Errors
    /// See [`RedisError`].
    pub fn look(&self) -> Result<Found, RedisError> {
        const DOING: &str = "asking for the epoch";
        let stop = Stop::new().map_err(|source| RedisError::Broken { doing: DOING, source })?;
        let mut connection = self.connect(&stop)?;
        let found = connection.ask(&script::ask_epoch(), DOING)?;
        // A server that is new has none.
        if found != Value::Nil {
            script::read_epoch(&found, DOING)?;
        }
        for (doing, command) in script::rehearsal(&self.url) {
            connection.ask(&command, doing)?;
        }
        // A user of ours need not be allowed to ask for it.
        let policy = self.connect(&stop)?.ask(cmd("INFO").arg("memory"), "asking for its policy");
        Ok(Found { evicts: policy.ok().as_ref().and_then(script::read_policy) })
    }

    /// Connects, logs in, and chooses the database.
    pub(super) fn connect(&self, stop: &Stop) -> Result<Connection, RedisError> {
        let begun = Instant::now();
        let opened = self.open(stop, begun + CONNECT);
        let wire = opened.map_err(|error| RedisError::of("connecting", error, begun))?;
        let mut connection = Connection::over(wire);
        for (doing, command, is_secret) in self.greeting()? {
            match connection.ask(&command, doing) {
                // Servers repeat what they did not understand, and that may be a password.
                Err(RedisError::Refused { doing, code, .. }) if is_secret => {
                    return Err(RedisError::Refused { doing, code, says: String::new() });
                }
                answer => answer?,
            };
        }
        Ok(connection)
    }

    /// What is said first on every connection.
    fn greeting(&self) -> Result<Vec<(&'static str, Cmd, bool)>, RedisError> {
        let mut greeting = Vec::new();
        if let Some(path) = &self.password_file {
            let password = read_password(path)?;
            let mut auth = cmd("AUTH");
            self.url.user().into_iter().for_each(|user| {
                auth.arg(user);
            });
            auth.arg(password.reveal());
            greeting.push(("logging in", auth, true));
        }
        if self.url.database() != 0 {
            let mut select = cmd("SELECT");
            select.arg(self.url.database());
            greeting.push(("choosing the database", select, false));
        }
        // Who has not logged in, and should have, is told so of this, and of longer requests that they are malformed.
        greeting.push(("greeting", cmd("PING"), false));
        Ok(greeting)
    }

    fn open(&self, stop: &Stop, until: Instant) -> io::Result<Wire> {
        let left = until.saturating_duration_since(Instant::now());
        let found = self.names.addresses(self.url.host(), left, stop);
        line::heed(stop)?;
        let mut line = Line::connect(&found?, self.url.port(), stop, until)?;
        let Some(tls) = &self.tls else { return Ok(Wire::Plain(line)) };
        let name = ServerName::try_from(self.url.host().to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut line)?;
        }
        Ok(Wire::Tls(Box::new(StreamOwned::new(session, line))))
    }
}

/// A connection, within TLS or without.
#[derive(Debug)]
pub(super) enum Wire {
    /// In the clear.
    Plain(Line),
    /// Within TLS.
    Tls(Box<StreamOwned<ClientConnection, Line>>),
}

impl Wire {
    fn line(&mut self) -> &mut Line {
        match self {
            Self::Plain(line) => line,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Says when what is done next has taken too long.
    pub(super) fn limit(&mut self, until: Instant) {
        self.line().until = until;
    }
}

impl io::Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(line) => line.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(line) => line.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(line) => line.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Trusts the authorities of the file, else the system's.
fn trust(file: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in read_authorities(file.unwrap_or(Path::new(AUTHORITIES)))? {
        // One that rustls cannot use vouches for nobody, and the others of the system's hundreds still do.
        let _ = roots.add(CertificateDer::from(certificate.der().to_vec()));
    }
    if roots.is_empty() {
        let why = "no certificate of an authority can be used: name a file of them as fleet.redis_ca_file";
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
