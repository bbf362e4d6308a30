//! The address of a Redis or Valkey server, checked once, at the door.
//!
//! It is taken apart here and nowhere else, and put together again from the parts. It holds no password, and the errors
//! repeat nothing of what was written, since that may.

use super::upstream::{UpstreamUrl, UpstreamUrlError};
use std::fmt;
use thiserror::Error;

/// The port of such servers (IANA), with and without TLS.
const PORT: u16 = 6379;
/// The longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 128;
/// In the clear, and within TLS.
const SCHEMES: [(&str, bool); 2] = [("redis://", false), ("rediss://", true)];

/// `redis://[USER@]HOST[:PORT][/DATABASE]`, or the same with `rediss://` for TLS. Equal addresses are written alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    has_tls: bool,
    user: Option<String>,
    host: String,
    port: u16,
    database: u16,
}

/// Why a text is no address of such a server. None of these repeats the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RedisUrlError {
    /// Another scheme, or none.
    #[error(
        "is no address of a Redis or Valkey server: write redis://HOST:PORT/DATABASE, or rediss:// for TLS; sentinels, \
         clusters and unix sockets are not spoken with"
    )]
    Scheme,
    /// Something behind a colon before the host.
    #[error("holds a password: write it into a file, and its path as redis_password_file")]
    Password,
    /// A user that would have to be decoded, or none before the `@`.
    #[error("has a user that is not 1 to {USER_BYTES_MAX} letters, digits, '.', '_' and '-'")]
    User,
    /// Not a number behind the slash.
    #[error("has a database that is no number from 0 to 65535: write redis://HOST:PORT/0")]
    Database,
    /// What is wrong with the rest.
    #[error("is no address: it {0}")]
    Address(UpstreamUrlError),
}

impl RedisUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// For everything else, and for a password in it.
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let found = SCHEMES.iter().find_map(|(scheme, has_tls)| Some((text.strip_prefix(scheme)?, *has_tls)));
        let (rest, has_tls) = found.ok_or(RedisUrlError::Scheme)?;
        // The last one: a password may hold what would end an address.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(RedisUrlError::Password),
            Some((user, rest)) => (Some(parse_user(user)?), rest),
            None => (None, rest),
        };
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = parse_place(place)?;
        Ok(Self { has_tls, user, host, port, database: parse_database(database)? })
    }

    /// Whether it is spoken to within TLS.
    #[must_use]
    pub const fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// As whom the gate logs in, where that is not the default user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Its name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The number of the database there.
    #[must_use]
    pub const fn database(&self) -> u16 {
        self.database
    }
}

fn parse_user(text: &str) -> Result<String, RedisUrlError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=USER_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(RedisUrlError::User)
    }
}

/// The host and the port, judged as those of other servers are.
fn parse_place(place: &str) -> Result<(String, u16), RedisUrlError> {
    let behind_host = place.rsplit(']').next().unwrap_or(place);
    let port = if behind_host.contains(':') { String::new() } else { format!(":{PORT}") };
    match UpstreamUrl::parse(&format!("http://{place}{port}")) {
        Ok(UpstreamUrl::Http(url)) => Ok((url.host().to_owned(), url.port())),
        Ok(UpstreamUrl::Directory(_)) => Err(RedisUrlError::Scheme),
        Err(error) => Err(RedisUrlError::Address(error)),
    }
}

fn parse_database(text: &str) -> Result<u16, RedisUrlError> {
    match text {
        "" => Ok(0),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| RedisUrlError::Database)
        }
        _ => Err(RedisUrlError::Database),
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, _) = SCHEMES[usize::from(self.has_tls)];
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let Self { host, port, database, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "{scheme}{user}{host}:{port}/{database}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_in_one_form() {
        for (text, shown) in [
            ("redis://Cache.example", "redis://cache.example:6379/0"),
            ("rediss://10.0.0.7:6380/3", "rediss://10.0.0.7:6380/3"),
            ("redis://[::1]/", "redis://[::1]:6379/0"),
            ("redis://[::1]:80", "redis://[::1]:80/0"),
            ("redis://gate-1@cache:6379/0", "redis://gate-1@cache:6379/0"),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(RedisUrl::parse(shown), Ok(url));
        }
    }

    #[test]
    fn whatever_else_is_written_is_refused_and_a_password_is_not_repeated() {
        let address = RedisUrlError::Address;
        for (text, error) in [
            ("cache:6379", RedisUrlError::Scheme),
            ("valkey://cache", RedisUrlError::Scheme),
            ("redis+unix:///run/redis.sock", RedisUrlError::Scheme),
            ("redis://:hunter2@cache", RedisUrlError::Password),
            ("redis://u:hunter2/@cache", RedisUrlError::Password),
            ("redis://hunter%32@cache", RedisUrlError::User),
            ("redis://@cache", RedisUrlError::User),
            ("redis://cache/hunter2", RedisUrlError::Database),
            ("redis://cache/65536", RedisUrlError::Database),
            ("redis://cache/0/1", RedisUrlError::Database),
            ("redis://cache/+1", RedisUrlError::Database),
            ("redis://cache:6379?password=hunter2", address(UpstreamUrlError::Query)),
            ("redis://", address(UpstreamUrlError::Host)),
            ("redis://cache:0", address(UpstreamUrlError::Port)),
            ("redis://cache:", address(UpstreamUrlError::Port)),
        ] {
            assert_eq!(RedisUrl::parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
