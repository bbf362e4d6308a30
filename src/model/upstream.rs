//! Names and addresses of upstreams, checked once, at the door.
//!
//! A URL is taken apart here and nowhere else: what is handed on, to git as well, is put together again from the parts, so
//! that no second parser can read another host out of it (a backslash, a second `@`, a dot written as `%2e`). It holds no
//! credential, and the errors repeat nothing of what was written, since that may.

use super::name::{self, NameError};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};
use thiserror::Error;

/// The longest URL or path, in bytes: with a repository's name behind it, it still fits the paths of Linux (4096).
const URL_BYTES_MAX: usize = 2048;
/// The longest name of a host, in bytes (RFC 1035, 2.3.4, without the length bytes at both ends).
const HOST_BYTES_MAX: usize = 253;
/// The longest part of it between two dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// What a directory may be written with.
const FILE: &str = "file://";
/// What may stand at the end of a repository's directory.
const SUFFIX: &str = ".git";

/// The name of an upstream, which is the first segment of the names of its repositories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamName(String);

/// A text that is no name of an upstream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("is no name for an upstream, the first segment of its repositories' names: {0}")]
pub struct UpstreamNameError(#[from] NameError);

/// Where an upstream, or one of its repositories, is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamUrl {
    /// A server that speaks git's smart HTTP.
    Http(HttpUrl),
    /// A directory on this machine; absolute, without `.` and `..`.
    Directory(PathBuf),
}

/// An address of the schemes http and https, in parts. Equal addresses are written alike: the host in lower case, the
/// scheme's own port left out, no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Empty, or segments that each have a slash before them.
    path: String,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Within TLS.
    Https,
}

/// Whom a credential is bound to: it is shown to nobody else, whatever the rest of a URL says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A server.
    Http {
        /// How it is spoken to.
        scheme: Scheme,
        /// Its name or address in lower case; an IPv6 address without brackets.
        host: String,
        /// Its port, never left out.
        port: u16,
    },
    /// This machine.
    Directory,
}

/// Why a text is no address of an upstream. None of these repeats the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UpstreamUrlError {
    /// Another scheme, the short form of ssh, a relative path, or nothing.
    #[error(
        "is no address of an upstream: write https://HOST/PATH or http://HOST/PATH, or the absolute path of a directory \
         on this machine"
    )]
    Kind,
    /// A user or a password before the host.
    #[error("holds a user or a password: write the address without what stands before the @")]
    Userinfo,
    /// What a request adds, not an address.
    #[error("holds a ? or a #: write the address without query and fragment")]
    Query,
    /// A byte that printers and parsers differ about.
    #[error("holds a space, a control character or one outside of ASCII")]
    Character,
    /// Too long to put a repository's name behind it.
    #[error("is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// No name or address of a machine.
    #[error("names no host: write a DNS name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// No port.
    #[error("has no port from 1 to 65535 behind its colon")]
    Port,
    /// A path that could mean several places, or one above.
    #[error(
        "has a path that is not plain: its segments are made of letters, digits, '.', '_', '-', '~' and '+', and none \
         is empty, '.' or '..'"
    )]
    Path,
    /// A directory in the form of a URL that would have to be decoded.
    #[error("is a file URL with a host or a %: write the absolute path of the directory")]
    FileUrl,
}

impl UpstreamName {
    /// Reads a name: one segment of a repository's name, see [`RepoName`](name::RepoName).
    ///
    /// # Errors
    /// When the text is outside that grammar.
    pub fn parse(text: &str) -> Result<Self, UpstreamNameError> {
        name::check_segment(text)?;
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UpstreamUrl {
    /// Reads the address of a server, or the absolute path of a directory (also as `file:///PATH`). Slashes at the end
    /// are dropped.
    ///
    /// # Errors
    /// For everything else: other schemes, `ext::`, the short form of ssh, credentials, queries, dot segments.
    pub fn parse(text: &str) -> Result<Self, UpstreamUrlError> {
        if let Some(path) = text.strip_prefix(FILE) {
            let is_plain = path.starts_with('/') && !path.contains('%');
            return if is_plain { parse_directory(path) } else { Err(UpstreamUrlError::FileUrl) };
        }
        if text.starts_with('/') {
            return parse_directory(text);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UpstreamUrlError::Kind)?;
        HttpUrl::parse(Scheme::parse(scheme)?, rest).map(Self::Http)
    }

    /// Where the repository `path` of this upstream is, with or without `.git` at its end. `path` is what follows the
    /// upstream in a name: [`RepoName::upstream_split`](name::RepoName::upstream_split).
    #[must_use]
    pub fn repository(&self, path: &str, has_suffix: bool) -> Self {
        let suffix = if has_suffix { SUFFIX } else { "" };
        match self {
            Self::Http(url) => {
                Self::Http(HttpUrl { path: format!("{}/{path}{suffix}", url.path), ..url.clone() })
            }
            Self::Directory(directory) => Self::Directory(directory.join(format!("{path}{suffix}"))),
        }
    }

    /// The address in one piece; never a credential in it.
    #[must_use]
    pub fn as_text(&self) -> String {
        self.to_string()
    }

    /// Whom a credential for it is bound to.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Http(url) => Origin::Http { scheme: url.scheme, host: url.host.clone(), port: url.port },
            Self::Directory(_) => Origin::Directory,
        }
    }
}

impl HttpUrl {
    fn parse(scheme: Scheme, rest: &str) -> Result<Self, UpstreamUrlError> {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UpstreamUrlError::Userinfo);
        }
        check_bytes(rest)?;
        if rest.contains(['?', '#']) {
            return Err(UpstreamUrlError::Query);
        }
        let (host, port) = split_port(authority)?;
        let path = path.trim_end_matches('/');
        let is_plain = path.split('/').skip(1).all(is_plain_segment);
        if !is_plain {
            return Err(UpstreamUrlError::Path);
        }
        let port = port.map_or(Ok(scheme.port()), parse_port)?;
        Ok(Self { scheme, host: parse_host(host)?, port, path: path.to_owned() })
    }

    /// How the server is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its name or address, as a resolver takes it: an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port, that of the scheme where none was written.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host, in brackets where it is an IPv6 address, and the port where it is not the scheme's: what the `Host` field
    /// of a request says (RFC 9110, 7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        authority(self.scheme, &self.host, self.port)
    }

    /// The path of a request; empty, or beginning with a slash and not ending with one.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Scheme {
    fn parse(word: &str) -> Result<Self, UpstreamUrlError> {
        let known =
            [Self::Http, Self::Https].into_iter().find(|known| word.eq_ignore_ascii_case(known.as_str()));
        known.ok_or(UpstreamUrlError::Kind)
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Its own port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

fn check_bytes(text: &str) -> Result<(), UpstreamUrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UpstreamUrlError::TooLong);
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(()) } else { Err(UpstreamUrlError::Character) }
}

fn parse_directory(text: &str) -> Result<UpstreamUrl, UpstreamUrlError> {
    check_bytes(text)?;
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(UpstreamUrlError::Path);
    }
    // Drops doubled slashes and those at the end.
    let parts = Path::new(text).components().filter(|part| *part != Component::CurDir);
    Ok(UpstreamUrl::Directory(parts.collect()))
}

/// The host as it is written, and what stands behind its colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UpstreamUrlError> {
    let end = if authority.starts_with('[') {
        authority.find(']').map(|at| at + 1).ok_or(UpstreamUrlError::Host)?
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    match authority.split_at(end) {
        (host, "") => Ok((host, None)),
        (host, port) => port.strip_prefix(':').map(|port| (host, Some(port))).ok_or(UpstreamUrlError::Host),
    }
}

fn parse_port(text: &str) -> Result<u16, UpstreamUrlError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or(UpstreamUrlError::Port)
}

fn parse_host(text: &str) -> Result<String, UpstreamUrlError> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| UpstreamUrlError::Host)?;
        return Ok(address.to_string());
    }
    let is_name = text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label);
    // What resolvers take for an address in one of its old forms (127.1, 0x7f000001) is no name.
    let is_number =
        text.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    if is_name && (!is_number || text.parse::<Ipv4Addr>().is_ok()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(UpstreamUrlError::Host)
    }
}

/// Whether `label` may stand between the dots of a host. Underscores are taken: containers are called so.
fn is_label(label: &str) -> bool {
    let is_made_of = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let dashes = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && label.len() <= LABEL_BYTES_MAX && is_made_of && !dashes
}

fn is_plain_segment(segment: &str) -> bool {
    let is_made_of = segment.bytes().all(|byte| name::is_segment_byte(byte) || matches!(byte, b'~' | b'+'));
    is_made_of && !matches!(segment, "" | "." | "..")
}

fn authority(scheme: Scheme, host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == scheme.port() { host } else { format!("{host}:{port}") }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority(), self.path)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A server's origin is written as the beginning of a URL, the port left out where it is the scheme's own.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { scheme, host, port } => write!(f, "{scheme}://{}", authority(*scheme, host, *port)),
            Self::Directory => f.write_str("this machine"),
        }
    }
}

#[cfg(test)]
mod tests;
