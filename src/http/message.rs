//! The nouns of a request and of an answer, without I/O.

use crate::model::throttle;
use http_net::{HttpDate, reason_phrase};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;
use thiserror::Error;

/// What a request asks to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read something.
    Get,
    /// As [`Method::Get`], but only the head of the answer is sent; the writer sees to that.
    Head,
    /// Do something.
    Post,
    /// A method that no route of ours has, by its name.
    Other(String),
}

impl Method {
    /// The method's name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The version of a request. There are no others behind this door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// No chunks; the connection is kept only when the client asks for it.
    Http10,
    /// Chunks and keep-alive.
    Http11,
}

/// Who sent a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The client's address: the socket's, or behind a trusted proxy the one that the proxy saw. `None` for a unix
    /// socket whose other end says nothing about it.
    pub address: Option<IpAddr>,
    /// Whether the connection itself comes from a trusted proxy.
    pub proxied: bool,
}

impl Peer {
    /// Whose share of the workers a request takes; `None` where everybody may be behind one address: a unix socket, or
    /// loopback without a proxy that is trusted. An IPv6 client is the network that one subscriber has.
    #[must_use]
    pub fn subscriber(&self) -> Option<IpAddr> {
        let address = self.address.map(throttle::subscriber)?;
        let is_anybody =
            !self.proxied && self.address.is_some_and(|address| address.to_canonical().is_loopback());
        (!is_anybody).then_some(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as it was sent: not decoded, not normalised, printable ASCII. It begins with `/`, or is `*`, or is
    /// empty when an absolute target named only a host.
    pub path: String,
    /// What followed the first `?`, not decoded.
    pub query: Option<String>,
    /// The version.
    pub version: Version,
    /// The header fields.
    pub headers: Headers,
    /// Who sent it.
    pub peer: Peer,
}

/// Header fields in the order of their arrival. Names match in any case; repeated ones stay visible.
#[derive(Clone, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

/// Why a header field has no single value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    /// Two values for what can have one.
    #[error("the header field {0} is repeated: send it once")]
    Repeated(String),
    /// Bytes that are not printable ASCII.
    #[error("the header field {0} is not printable ASCII")]
    NotText(String),
}

impl Headers {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. One that could split an answer is found when the answer is written, not here.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The one value of a field, if it is there.
    ///
    /// # Errors
    /// When it is repeated or not text: two readers of such a field may see two things.
    pub fn get(&self, name: &str) -> Result<Option<&str>, FieldError> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(FieldError::Repeated(name.to_owned())),
            (Some(value), None) if !is_printable(value) => Err(FieldError::NotText(name.to_owned())),
            (Some(value), None) => {
                str::from_utf8(value).map(Some).map_err(|_| FieldError::NotText(name.to_owned()))
            }
        }
    }

    /// Every value of a field.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        let named = move |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|(_, value)| value.as_slice())
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// Fields whose values are nobody's business in a log.
const SECRET_FIELDS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| {
            let secret = SECRET_FIELDS.iter().any(|it| name.eq_ignore_ascii_case(it));
            let value = if secret { "<sensitive>".into() } else { String::from_utf8_lossy(value) };
            (name, value.into_owned())
        });
        f.debug_map().entries(shown).finish()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn is_printable(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}

/// The fields that forbid caching, in the words of `git http-backend`.
pub const UNCACHED: [(&str, &str); 3] = [
    ("Expires", "Fri, 01 Jan 1980 00:00:00 GMT"),
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache, max-age=0, must-revalidate"),
];

/// An answer that is whole in memory.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Header fields, without those that the writer owns: `Content-Length`, `Transfer-Encoding`, `Connection`,
    /// `Keep-Alive`, `Date`.
    pub headers: Headers,
    /// The body; not sent to `HEAD`, nor with 204 and 304.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::new(), body: Vec::new() }
    }

    /// A sentence for people; a full line is made of it.
    #[must_use]
    pub fn text(status: u16, sentence: &str) -> Self {
        Self::new(status)
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("X-Content-Type-Options", "nosniff")
            .with_body(format!("{sentence}\n"))
    }

    /// Never to be cached: [`UNCACHED`].
    #[must_use]
    pub fn uncached(self) -> Self {
        UNCACHED.into_iter().fold(self, |response, (name, value)| response.with(name, value))
    }

    /// With one more header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// With this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, whatever the handler writes; the length is what a `GET` would have had.
    Absent(Option<u64>),
    /// After this many bytes.
    Length(u64),
    /// By an empty chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

impl Framing {
    /// The framing of an answer with `status` and a body of `len` bytes (`None`: not known) to `request`.
    pub(super) fn of(request: &Request, status: u16, len: Option<u64>) -> Self {
        match (status, &request.method, len, request.version) {
            (204 | 304, ..) => Self::Absent(None),
            (_, Method::Head, len, _) => Self::Absent(len),
            (_, Method::Get | Method::Post | Method::Other(_), Some(len), _) => Self::Length(len),
            (_, _, None, Version::Http11) => Self::Chunked,
            (_, _, None, Version::Http10) => Self::UntilClose,
        }
    }
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// It is kept for the next request.
    Keep,
    /// It is kept, which HTTP/1.0 must be told.
    KeepAsked,
    /// It is closed.
    Close,
}

/// Fields that only the writer sends, because they say how the connection goes on.
const OWN_FIELDS: [&str; 8] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "server",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a Headers,
    pub(super) framing: Framing,
    pub(super) afterwards: Afterwards,
}

impl Head<'_> {
    /// The bytes to send. A field that could split the answer or contradict its framing is left out and logged: the
    /// answer then lacks a field, but nobody's text becomes one.
    pub(super) fn encode(&self, now: SystemTime) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let status = self.status;
        let line = |head: &mut Vec<u8>, name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        };
        // Writing to a vector does not fail.
        let _ = write!(head, "HTTP/1.1 {status} {}\r\n", reason_phrase(status));
        line(&mut head, "Date", http_date(now).as_bytes());
        for (name, value) in self.headers.iter() {
            match is_sendable(name, value) {
                true => line(&mut head, name, value),
                false => log::error!("left out the header field {:?} of an answer: it cannot be sent", name),
            }
        }
        match self.framing {
            Framing::Length(len) | Framing::Absent(Some(len)) => {
                line(&mut head, "Content-Length", len.to_string().as_bytes());
            }
            Framing::Chunked => line(&mut head, "Transfer-Encoding", b"chunked"),
            Framing::UntilClose | Framing::Absent(None) => {}
        }
        match self.afterwards {
            Afterwards::Keep => {}
            Afterwards::KeepAsked => line(&mut head, "Connection", b"keep-alive"),
            Afterwards::Close => line(&mut head, "Connection", b"close"),
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn is_sendable(name: &str, value: &[u8]) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let safe = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    !name.is_empty()
        && name.bytes().all(token)
        && value.iter().copied().all(safe)
        && !OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// A time as header fields have it (`Sun, 06 Nov 1994 08:49:37 GMT`, RFC 9110 §5.6.7).
#[must_use]
pub fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    HttpDate::from_unix_seconds(seconds).as_str().to_owned()
}

/// Text that came from a client, for a log line or a terminal: what is not printable ASCII is escaped, and it ends
/// after `limit` characters.
#[must_use]
pub fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for character in text.chars().take(limit) {
        match character {
            ' '..='~' => out.push(character),
            // Writing to a string does not fail.
            other => _ = write!(out, "{}", other.escape_unicode()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn encoded(headers: &Headers, framing: Framing, afterwards: Afterwards) -> String {
        let head = Head { status: 200, headers, framing, afterwards };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        String::from_utf8(head.encode(time)).unwrap()
    }

    #[test]
    fn a_head_has_a_date_and_says_how_the_connection_goes_on() {
        let headers = Headers::from_iter([("X-One", "1")]);
        assert_eq!(
            encoded(&headers, Framing::Length(5), Afterwards::Close),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-One: 1\r\nContent-Length: 5\r\n\
             Connection: close\r\n\r\n"
        );
        let none = Headers::new();
        assert!(
            encoded(&none, Framing::Chunked, Afterwards::Keep).contains("Transfer-Encoding: chunked\r\n")
        );
        let kept = encoded(&none, Framing::Absent(None), Afterwards::KeepAsked);
        assert!(kept.contains("Connection: keep-alive\r\n") && !kept.contains("Content-Length"));
    }

    #[test]
    fn a_field_that_could_split_the_answer_is_left_out() {
        let headers = Headers::from_iter([
            ("Location", "/a\r\nSet-Cookie: b"),
            ("X:Y", "name"),
            ("X-Nul", "\0"),
            ("Content-Length", "7"),
            ("X-Good", "caf\u{e9}"),
        ]);
        let head = encoded(&headers, Framing::Length(0), Afterwards::Keep);
        assert_eq!(head.lines().count(), 5, "{head}");
        assert!(head.contains("X-Good: caf\u{e9}\r\n") && head.contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn a_repeated_field_has_no_single_value() {
        let mut headers = Headers::from_iter([("Git-Protocol", "version=2"), ("X-A", "1"), ("x-a", "2")]);
        headers.push("X-Bytes", vec![0xff]);
        assert_eq!(headers.get("git-protocol"), Ok(Some("version=2")));
        assert_eq!(headers.get("absent"), Ok(None));
        assert_eq!(headers.get("X-A"), Err(FieldError::Repeated("X-A".to_owned())));
        assert_eq!(headers.all("x-A").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.get("X-Bytes"), Err(FieldError::NotText("X-Bytes".to_owned())));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let headers = Headers::from_iter([("Authorization", "Bearer abc"), ("Accept", "*/*")]);
        let shown = format!("{headers:?}");
        assert!(!shown.contains("abc") && shown.contains("*/*"), "{shown}");
    }

    #[test]
    fn text_of_a_client_is_escaped_and_cut() {
        assert_eq!(escaped("a\r\n\u{1b}[31mb", 100), "a\\u{d}\\u{a}\\u{1b}[31mb");
        assert_eq!(escaped("abcdef", 3), "abc");
    }

    #[test]
    fn who_may_be_anybody_shares_with_nobody() {
        let of = |address: &str, proxied| {
            Peer { address: Some(address.parse().unwrap()), proxied }.subscriber().map(|it| it.to_string())
        };
        assert_eq!(of("192.0.2.1", false).as_deref(), Some("192.0.2.1"));
        assert_eq!(of("2001:db8::1:2:3:4", true), of("2001:db8::5", false));
        assert_eq!(
            (of("127.0.0.1", false), of("::1", false), of("::ffff:127.0.0.1", false)),
            (None, None, None)
        );
        assert_eq!(of("127.0.0.1", true).as_deref(), Some("127.0.0.1"));
        assert_eq!(Peer::default().subscriber(), None);
    }
}
