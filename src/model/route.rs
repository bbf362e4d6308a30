//! How an upstream server is reached, and by whom it is known to be the one that is meant.

use super::address::not_public;
use super::credential::UpstreamCredential;
use super::secret::Secret;
use super::upstream::{UpstreamUrl, UpstreamUrlError};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The only scheme of proxies that git and our own requests take alike, whatever libcurl was built with.
const SCHEME: &str = "http://";

/// The way to a server. Upstreams with the same one share their connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The certificates of the authorities that are trusted, in one PEM file, absolute; the system's where none is named.
    pub ca_file: Option<PathBuf>,
    /// Who passes everything on, and looks the server's name up.
    pub proxy: Option<Proxy>,
    /// Where it may lead.
    pub reach: Reach,
}

/// Which addresses are connected to. Whatever a name says is judged at each connection, by the address that is then
/// connected to: a name that says another address now than when it was looked at leads nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All of them: who wrote the name down answers for it.
    #[default]
    Anywhere,
    /// Those of the internet, and nothing that is near the gate.
    Internet,
}

impl Reach {
    /// Why an address is not connected to, as a sentence; `None` of one that is.
    #[must_use]
    pub fn refusal(self, address: IpAddr) -> Option<String> {
        match self {
            Self::Anywhere => None,
            Self::Internet => not_public(address)
                .map(|what| format!("{address} is {what}, and allow_private = true is not written for it")),
        }
    }
}

/// An HTTP proxy: it is asked with CONNECT for a server behind TLS, and otherwise with the whole address of what is wanted
/// (RFC 9110, 9.3.6; RFC 9112, 3.2.2). Shown without what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// What it is shown.
    pub login: ProxyLogin,
}

/// What a proxy is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyLogin {
    /// Nothing.
    None,
    /// What a file has: `USER:PASSWORD` on one line; absolute.
    File(PathBuf),
    /// What an environment said.
    Told(UpstreamCredential),
}

/// Why a text is no address of a proxy. None of these repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProxyError {
    /// Another scheme, or none.
    #[error(
        "is no proxy that can be used: write http://HOST:PORT; https:// and socks proxies are not spoken with"
    )]
    Scheme,
    /// Without a port programs differ about which is meant: 80 or 1080.
    #[error("has no port: write http://HOST:PORT")]
    Port,
    /// A user or a password before the host.
    #[error(
        "holds a user or a password: write them as USER:PASSWORD into a file, and its path as proxy_auth_file"
    )]
    Login,
    /// A user and a password that cannot be decoded, or have no colon between them.
    #[error(
        "has a user and a password that cannot be read: write USER:PASSWORD before the @, other bytes as %XX"
    )]
    Undecoded,
    /// Something behind the port.
    #[error("has a path, which a proxy has not: write http://HOST:PORT")]
    Path,
    /// What is wrong with the rest.
    #[error("is no address: it {0}")]
    Address(UpstreamUrlError),
}

impl Route {
    /// The way that needs no setting.
    pub const PLAIN: &'static Self = &Self { ca_file: None, proxy: None, reach: Reach::Anywhere };

    /// The files that it names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let login = self.proxy.as_mut().and_then(|proxy| match &mut proxy.login {
            ProxyLogin::File(path) => Some(path),
            ProxyLogin::None | ProxyLogin::Told(_) => None,
        });
        self.ca_file.iter_mut().chain(login)
    }

    /// The file of the proxy's login.
    #[must_use]
    pub fn proxy_auth_file(&self) -> Option<&Path> {
        match &self.proxy.as_ref()?.login {
            ProxyLogin::File(path) => Some(path),
            ProxyLogin::None | ProxyLogin::Told(_) => None,
        }
    }
}

impl Proxy {
    /// Reads `http://HOST:PORT`.
    ///
    /// # Errors
    /// For everything else, and for a user or password in it.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        if text.contains('@') {
            return Err(ProxyError::Login);
        }
        Self::of(text.strip_prefix(SCHEME).ok_or(ProxyError::Scheme)?, ProxyLogin::None)
    }

    /// Reads what environments say: the scheme may be missing, and `USER:PASSWORD@` may stand before the host.
    ///
    /// # Errors
    /// For everything else.
    pub fn parse_variable(text: &str) -> Result<Self, ProxyError> {
        let rest = match text.split_once("://") {
            Some(_) => text.strip_prefix(SCHEME).ok_or(ProxyError::Scheme)?,
            None => text,
        };
        match rest.rsplit_once('@') {
            Some((login, place)) => {
                let (username, secret) = login.split_once(':').ok_or(ProxyError::Undecoded)?;
                let decoded = |text| decode(text).ok_or(ProxyError::Undecoded);
                let (username, secret) = (decoded(username)?, Secret::new(decoded(secret)?));
                Self::of(place, ProxyLogin::Told(UpstreamCredential { username, secret }))
            }
            None => Self::of(rest, ProxyLogin::None),
        }
    }

    fn of(place: &str, login: ProxyLogin) -> Result<Self, ProxyError> {
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains('/') {
            return Err(ProxyError::Path);
        }
        let url = UpstreamUrl::parse(&format!("{SCHEME}{place}")).map_err(ProxyError::Address)?;
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        match url {
            UpstreamUrl::Http(_) if !has_port => Err(ProxyError::Port),
            UpstreamUrl::Http(url) => Ok(Self { host: url.host().to_owned(), port: url.port(), login }),
            UpstreamUrl::Directory(_) => Err(ProxyError::Scheme),
        }
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

    /// The address with a login in it, as git reads it.
    #[must_use]
    pub fn with_login(&self, login: &UpstreamCredential) -> Secret {
        let (user, password) = (encode(&login.username), encode(login.secret.reveal()));
        Secret::new(format!("{SCHEME}{user}:{password}@{}", self.authority()))
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// `%XX` for every byte that is no letter and no digit, so that nothing in it ends anything.
fn encode(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// The text that is meant; `None` where it is none, or has a control character, which no field of a request takes.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { digit(rest.next()?)? << 4 | digit(rest.next()?)? } else { byte });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| digit.try_into().ok())
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_with_a_port_and_nothing_else() {
        for (text, shown) in [
            ("http://Proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy:80/", "http://proxy:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(Proxy::parse(text).unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("https://proxy:3128", ProxyError::Scheme),
            ("socks5://proxy:1080", ProxyError::Scheme),
            ("proxy:3128", ProxyError::Scheme),
            ("http://proxy", ProxyError::Port),
            ("http://[::1]", ProxyError::Port),
            ("http://u:hunter2@proxy:3128", ProxyError::Login),
            ("http://proxy:3128/x", ProxyError::Path),
            ("http://proxy:0", ProxyError::Address(UpstreamUrlError::Port)),
            ("http://:3128", ProxyError::Address(UpstreamUrlError::Host)),
        ] {
            assert_eq!(Proxy::parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_login_is_read_from_a_variable_and_told_to_git_in_an_address() {
        let proxy = Proxy::parse_variable("a%40b:p:%c3%A4@proxy:3128").unwrap();
        let ProxyLogin::Told(login) = &proxy.login else { panic!("{proxy:?}") };
        assert_eq!((login.username.as_str(), login.secret.reveal()), ("a@b", "p:ä"));
        assert_eq!(proxy.with_login(login).reveal(), "http://a%40b:p%3A%C3%A4@proxy:3128");
        assert!(!format!("{proxy} {proxy:?}").contains("ä"));
        assert_eq!(Proxy::parse_variable("proxy:3128").unwrap().login, ProxyLogin::None);
        for text in ["u@proxy:1", "u:%4@proxy:1", "u:%zz@proxy:1", "u:%0a@proxy:1", "u:%ff@proxy:1"] {
            assert_eq!(Proxy::parse_variable(text), Err(ProxyError::Undecoded), "{text}");
        }
        assert_eq!(Proxy::parse_variable("socks5h://proxy:1080"), Err(ProxyError::Scheme));
    }
}
