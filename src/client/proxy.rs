//! What an HTTP proxy is told between us and another server: a tunnel to a server behind TLS, and the whole address of
//! what is wanted from any other.
//!
//! Its login is read from its file for each connection, so that it is replaced by replacing the file. It stands in what is
//! sent to the proxy and nowhere else.

use super::secrets::{SecretError, read_login};
use super::socket::{Limit, Line};
use crate::model::credential::UpstreamCredential;
use crate::model::route::{Proxy, ProxyLogin};
use crate::model::secret::Secret;
use ureq::Error;
use ureq::http::Uri;

/// The longest head of an answer to CONNECT, in bytes; the longest that are known are pages without a page.
const ANSWER_MAX: usize = 16 << 10;

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// What a proxy says who is not content with the login, as a sentence about it.
pub const NO_LOGIN: &str = "wants a login, or does not take the one that it was shown";

/// The login for a proxy, if it wants one.
fn login(proxy: &Proxy) -> Result<Option<UpstreamCredential>, SecretError> {
    match &proxy.login {
        ProxyLogin::None => Ok(None),
        ProxyLogin::Told(login) => Ok(Some(login.clone())),
        ProxyLogin::File(path) => read_login(path).map(Some),
    }
}

/// The address of a proxy with the login for it, if it wants one: a git takes it so.
///
/// # Errors
/// A sentence for clients, when the login cannot be read.
pub fn address_with_login(proxy: &Proxy) -> Result<Option<Secret>, String> {
    let login = login(proxy).map_err(|error| through(proxy, unreadable(&error)))?;
    Ok(login.map(|login| proxy.with_login(&login)))
}

/// A sentence about what happened at a proxy.
#[must_use]
pub fn through(proxy: &Proxy, what: &str) -> String {
    format!("the proxy {proxy} {what}")
}

/// Clients are shown this, and the path is not for them.
fn unreadable(error: &SecretError) -> &'static str {
    log::error!("{error}");
    "cannot be shown its login, which the gate cannot read; its log says why"
}

/// The field for a proxy that wants a login; empty for others.
fn field(proxy: &Proxy) -> Result<Secret, Error> {
    let login = login(proxy).map_err(|error| Error::ConnectProxyFailed(unreadable(&error).to_owned()))?;
    let line = login.map(|login| format!("Proxy-Authorization: {}\r\n", login.authorization().reveal()));
    Ok(Secret::new(line.unwrap_or_default()))
}

/// Asks for a tunnel to the server at `uri`, and reads until there is one.
pub(super) fn open_tunnel(line: &mut Line, proxy: &Proxy, uri: &Uri, limit: &Limit) -> Result<(), Error> {
    let target = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
    let field = field(proxy)?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", field.reveal());
    line.send(request.as_bytes(), limit)?;
    let (mut answer, mut slice) = (Vec::new(), [0; 1024]);
    // Who answers a connection in TLS says nothing before he is asked, so nothing may follow the head.
    while !answer.ends_with(END) {
        match line.receive(&mut slice, limit)? {
            0 => return Err(failed("broke off when it was asked for a connection")),
            more => answer.extend_from_slice(&slice[..more]),
        }
        if let Some(status) = status(&answer).filter(|status| !(200..300).contains(status)) {
            return Err(match status {
                407 => failed(NO_LOGIN),
                _ => failed(&format!("answered with status {status} when it was asked for a connection")),
            });
        }
        if answer.len() > ANSWER_MAX {
            return Err(failed("does not answer like a proxy"));
        }
    }
    status(&answer).map(drop).ok_or_else(|| failed("does not answer like a proxy"))
}

/// The status in the first line of an answer, if that has come.
fn status(answer: &[u8]) -> Option<u16> {
    let end = answer.windows(2).position(|two| two == b"\r\n")?;
    let mut words = str::from_utf8(&answer[..end]).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

fn failed(what: &str) -> Error {
    Error::ConnectProxyFailed(what.to_owned())
}

/// What is added to the heads of requests that a proxy passes on as they are.
#[derive(Debug)]
pub(super) struct Forwarding {
    /// What goes before the path.
    server: String,
    /// The line of the login, or nothing.
    field: Secret,
    /// Whether what is sent next begins a request. After its head comes its body, and before the next one an answer.
    is_head: bool,
}

impl Forwarding {
    /// For requests to the server of `uri`.
    pub(super) fn by(proxy: &Proxy, uri: &Uri) -> Result<Self, Error> {
        let server = uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Self { server: format!("http://{server}"), field: field(proxy)?, is_head: true })
    }

    /// What is sent in the place of `bytes`, where these begin a request: `GET /path HTTP/1.1`.
    pub(super) fn amend(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_head) {
            return None;
        }
        let path = bytes.iter().position(|byte| *byte == b' ')? + 1;
        let fields = path + bytes[path..].windows(2).position(|two| two == b"\r\n")? + 2;
        let parts = [
            &bytes[..path],
            self.server.as_bytes(),
            &bytes[path..fields],
            self.field.reveal().as_bytes(),
            &bytes[fields..],
        ];
        Some(parts.concat())
    }

    /// An answer comes.
    pub(super) const fn answered(&mut self) {
        self.is_head = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_amended_and_no_body() {
        let proxy = Proxy::parse_variable("http://u:p@proxy:1").unwrap();
        let mut forwarding = Forwarding::by(&proxy, &"http://forge:81/a".parse().unwrap()).unwrap();
        let mut sent = |bytes: &[u8]| forwarding.amend(bytes).map(|it| String::from_utf8(it).unwrap());
        let head = b"POST /a HTTP/1.1\r\nHost: forge:81\r\n\r\nbody";
        let amended = "POST http://forge:81/a HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nHost: forge:81\r\n\r\nbody";
        assert_eq!(sent(head).as_deref(), Some(amended));
        assert_eq!(sent(b"GET /b HTTP/1.1\r\n"), None, "it is of the body");
        forwarding.answered();
        let next = forwarding.amend(b"GET /b HTTP/1.1\r\n\r\n").unwrap();
        assert!(next.starts_with(b"GET http://forge:81/b HTTP/1.1\r\nProxy-"));
    }

    #[test]
    fn only_an_answer_in_http_has_a_status() {
        assert_eq!(status(b"HTTP/1.0 200 Connection established\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.1 407"), None);
        assert_eq!(status(b"SSH-2.0 200\r\n"), None);
    }
}
