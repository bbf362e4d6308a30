//! Addresses to listen at.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use thiserror::Error;

/// The port of the default address.
const DEFAULT_PORT: u16 = 8418;
/// What a unix address begins with.
const UNIX: &str = "unix:";
/// The longest path of a unix socket, in bytes, without the NUL at its end (unix(7)).
const UNIX_BYTES_MAX: usize = 107;

/// Where the public front listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

/// A text that is no address to listen at.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no address to listen at: write \"127.0.0.1:8418\", \"[::1]:8418\", \"localhost:8418\" or \
     \"unix:/absolute/path\" of at most {UNIX_BYTES_MAX} bytes"
)]
pub struct ListenError(String);

impl ListenAddr {
    /// Reads `ADDRESS:PORT` or `unix:/PATH`. Names are not looked up; `localhost` is 127.0.0.1.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        let bad = || ListenError(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            let usable = path.len() > 1 && path.len() <= UNIX_BYTES_MAX && path.starts_with('/');
            return if usable && !path.contains('\0') { Ok(Self::Unix(path.into())) } else { Err(bad()) };
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port: u16 = port.parse().ok().filter(|_| digits).ok_or_else(bad)?;
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| bad())
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether the kernel chooses the port, so that the address may stand twice.
    pub(super) fn takes_any_port(&self) -> bool {
        match self {
            Self::Tcp(address) => address.port() == 0,
            Self::Unix(_) => false,
        }
    }
}

impl Default for ListenAddr {
    fn default() -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into())
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for text in ["127.0.0.1:8418", "[::1]:0", "0.0.0.0:80", "unix:/run/tidegate/http.sock"] {
            assert_eq!(ListenAddr::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ListenAddr::parse("localhost:8418").unwrap(), ListenAddr::default());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("unix:/{}", "x".repeat(UNIX_BYTES_MAX));
        let refused = [
            "",
            "8418",
            ":8418",
            "127.0.0.1",
            "example.com:80",
            "unix:",
            "unix:/",
            "unix:x",
            "localhost:+1",
            &long,
        ];
        for text in refused {
            assert!(ListenAddr::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn loopback_and_unix_are_local_and_nothing_else() {
        for text in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/x"] {
            assert!(ListenAddr::parse(text).unwrap().is_local(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!ListenAddr::parse(text).unwrap().is_local(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_a_sentence(text in "\\PC{0,30}|(unix:)?[0-9./:a-f\\[\\]]{0,30}") {
            if let Ok(address) = ListenAddr::parse(&text) {
                prop_assert_eq!(ListenAddr::parse(&address.to_string()).unwrap(), address);
            }
        }
    }
}
