//! Why a server gave no answer, in the words of whoever is to mend it.

use super::agents::{CONNECT, FIRST_BYTE};
use super::proxy;
use crate::model::route::Proxy;
use std::io::{self, ErrorKind};
use thiserror::Error;
use ureq::Timeout;

/// How a connection ends that had been there.
const BREAKS: [ErrorKind; 4] = [
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::BrokenPipe,
    ErrorKind::UnexpectedEof,
];

/// Each is what is said behind the name of the server.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers there; what the system says.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// No answer within one of the limits; which.
    #[error("did not answer in time: {0} has passed")]
    TimedOut(String),
    /// TLS could not be agreed on, or its certificate is not trusted; what the library says.
    #[error("has no connection that can be trusted: {0}")]
    Tls(String),
    /// The connection ended in the middle; what was seen of it.
    #[error("broke off: {0}")]
    BrokenOff(String),
    /// It answers, and not in HTTP; what is wrong with the answer.
    #[error("does not answer in HTTP: {0}")]
    Malformed(String),
}

impl Fault {
    /// Whether it may be over in a while without anybody mending the configuration.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut(_) | Self::BrokenOff(_))
    }
}

/// Why somebody was not reached by whoever only looked.
#[derive(Clone, Debug)]
pub struct Unreached {
    /// For people.
    pub why: String,
    /// Whether it may be over in a while without anybody mending the configuration.
    pub may_pass: bool,
}

/// What a fault is seen with.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Who passes everything on.
    pub proxy: Option<&'a Proxy>,
    /// The limit of the whole, for people.
    pub deadline: &'a str,
}

impl Sight<'_> {
    /// What an error means. Both enums of the library are open: what is not named here is an answer that is no HTTP, or a
    /// fault on the way there.
    #[must_use]
    pub fn fault(&self, error: ureq::Error) -> Fault {
        let why = error.to_string();
        if let (ureq::Error::ConnectProxyFailed(what), Some(proxy)) = (&error, self.proxy) {
            return Fault::Unreachable(proxy::through(proxy, what));
        }
        if let ureq::Error::Timeout(which) = error {
            self.timed_out_at(which)
        } else if let ureq::Error::Io(error) = error {
            self.broken(&error)
        } else if matches!(error, ureq::Error::HostNotFound) {
            Fault::Unreachable(match self.proxy {
                Some(proxy) => proxy::through(proxy, "has a name without an address"),
                None => "its name has no address".to_owned(),
            })
        } else if matches!(error, ureq::Error::ConnectionFailed) {
            Fault::Unreachable(self.by_way(why))
        } else if matches!(error, ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::Rustls(_)) {
            Fault::Tls(tls_words(why))
        } else {
            Fault::Malformed(why)
        }
    }

    fn timed_out(&self) -> Fault {
        Fault::TimedOut(self.deadline.to_owned())
    }

    fn broken(&self, error: &io::Error) -> Fault {
        let why = error.to_string();
        let kind = error.kind();
        if is_timeout(error) {
            self.timed_out()
        } else if kind == ErrorKind::InvalidData {
            // What the TLS library has against the other side comes in this shape.
            Fault::Tls(tls_words(why))
        } else if BREAKS.contains(&kind) {
            Fault::BrokenOff(self.by_way(why))
        } else {
            Fault::Unreachable(self.by_way(why))
        }
    }

    fn timed_out_at(&self, which: Timeout) -> Fault {
        Fault::TimedOut(if which == Timeout::Resolve {
            self.by_way(format!("the limit of {CONNECT:?} for looking its name up"))
        } else if which == Timeout::Connect {
            self.by_way(format!("the limit of {CONNECT:?} for a connection"))
        } else if which == Timeout::RecvResponse {
            format!("the limit of {FIRST_BYTE:?} for the first byte of its answer")
        } else {
            return self.timed_out();
        })
    }

    /// What happened, and by whose hands everything goes.
    fn by_way(&self, what: String) -> String {
        self.proxy.map_or(what.clone(), |proxy| format!("{what} (through the proxy {proxy})"))
    }
}

/// What the TLS library says, in plain words where its own are the name of a type.
#[must_use]
pub fn tls_words(why: String) -> String {
    if !why.contains("CaUsedAsEndEntity") {
        return why;
    }
    "its certificate is one of an authority (CA:TRUE), as openssl req -x509 makes them, and not of a server: have it sign \
     another one for the server, or make it with -addext basicConstraints=critical,CA:FALSE"
        .to_owned()
}

/// Whether a limit ended a read: while an answer is read, the client hands its own error on inside of another.
#[must_use]
pub fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    error.kind() == ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)))
}
