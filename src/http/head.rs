//! From the bytes of a request's head to a [`Request`], or to the refusal that the client is told.
//!
//! The grammar is `http-net`'s. What a server of git has no use for is refused here beyond it: versions other than
//! 1.0 and 1.1, transfer codings other than exactly `chunked`, `CONNECT`, `TRACE`, protocol upgrades, and repeated
//! fields of which a reader could pick the wrong one. A refused head ends its connection, because nobody can tell
//! where the next request begins.

use crate::http::limits::{BODY_MAX, FrontLimits};
use crate::http::message::{Headers, Method, Peer, Request, Version};
use crate::sys::proxies::TrustedProxies;
use http_net::{BodyFraming, FieldSpan, HttpError, Limits, Parsed, RequestHead, parse_request_head};
use std::net::IpAddr;
use thiserror::Error;

/// Fields that may come once: what they say decides about rights, framing or the protocol.
const SINGLE_FIELDS: [&str; 6] =
    ["authorization", "content-encoding", "content-type", "expect", "git-protocol", "user-agent"];

/// Why a head was refused, and what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{why}")]
pub(super) struct Refused {
    /// The status of the answer.
    pub(super) status: u16,
    /// The sentence of the answer.
    pub(super) why: String,
}

impl Refused {
    pub(super) fn new(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl From<HttpError> for Refused {
    fn from(error: HttpError) -> Self {
        Self::new(error.status().unwrap_or(400), format!("the request is malformed: {error}"))
    }
}

/// How the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// After this many bytes; 0 without a body.
    Known(u64),
    /// By an empty chunk.
    Chunked,
}

/// A request's head, understood.
#[derive(Debug)]
pub(super) struct RequestParts {
    pub(super) request: Request,
    pub(super) length: Length,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// The client wants to send more requests on this connection.
    pub(super) keep_alive: bool,
    /// How many bytes the head took.
    pub(super) bytes: usize,
}

/// The first byte of every TLS connection (a handshake record, RFC 8446 §5.1). No method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Whether a head can be judged although no line of it is complete: somebody tries TLS, and would wait for the limit.
pub(super) fn is_tls(input: &[u8]) -> bool {
    input.first() == Some(&TLS_HANDSHAKE)
}

/// Reads a head from the start of `input`; `None` when it is not complete.
pub(super) fn parse(
    input: &[u8],
    limits: &FrontLimits,
    proxies: &TrustedProxies,
    socket: Option<IpAddr>,
) -> Result<Option<RequestParts>, Refused> {
    if is_tls(input) {
        return Err(Refused::new(400, "this is TLS, and plain HTTP is spoken here: use http:// in the URL"));
    }
    let mut fields = vec![FieldSpan::default(); limits.headers];
    let Parsed::Complete { head, len: bytes } = parse_request_head(input, &bounds(limits), &mut fields)?
    else {
        return if input.len() < limits.head_bytes { Ok(None) } else { Err(too_long(limits)) };
    };
    if bytes > limits.head_bytes {
        return Err(too_long(limits));
    }
    let head = head.view();
    refuse_the_useless(&head)?;
    Ok(Some(RequestParts {
        request: request(&head, proxies, socket)?,
        length: length(&head)?,
        expects_continue: head.expects_continue(),
        keep_alive: head.keep_alive(),
        bytes,
    }))
}

/// The library bounds the parts of a head; the whole is looked at afterwards.
fn bounds(limits: &FrontLimits) -> Limits {
    Limits::new()
        .with_max_start_line(limits.head_bytes / 2)
        .with_max_header_bytes(limits.head_bytes)
        .with_max_field_line(limits.head_bytes)
        .with_max_headers(limits.headers)
        .with_max_body(BODY_MAX)
}

fn request(
    head: &RequestHead<'_>,
    proxies: &TrustedProxies,
    socket: Option<IpAddr>,
) -> Result<Request, Refused> {
    let headers: Headers = head.headers().collect();
    refuse_repeated(&headers)?;
    let peer = Peer {
        address: proxies.client(socket, headers.all("x-forwarded-for")),
        proxied: proxies.trust(socket),
    };
    Ok(Request {
        method: Method::from(head.method_str()),
        path: head.path().to_owned(),
        query: head.query().map(str::to_owned),
        version: version(head)?,
        headers,
        peer,
    })
}

fn too_long(limits: &FrontLimits) -> Refused {
    Refused::new(431, format!("the request's head is longer than {} bytes", limits.head_bytes))
}

fn refuse_the_useless(head: &RequestHead<'_>) -> Result<(), Refused> {
    match head.method_str() {
        "CONNECT" | "TRACE" => Err(Refused::new(501, "this method is not served")),
        // An offer of `h2c` alone, which curl makes for git's http.version=HTTP/2, does not count as one: it is
        // declined by going on in HTTP/1.1, as RFC 9110 §7.8 has it.
        _ if head.is_upgrade() => Err(Refused::new(501, "no protocol upgrade is served")),
        _ if head.has_unknown_expectation() => Err(Refused::new(417, "only 100-continue may be expected")),
        _ => Ok(()),
    }
}

fn refuse_repeated(headers: &Headers) -> Result<(), Refused> {
    let repeated = |name: &&&str| headers.all(name).count() > 1;
    match SINGLE_FIELDS.iter().find(repeated) {
        Some(name) => Err(Refused::new(400, format!("the header field {name} is repeated: send it once"))),
        None => Ok(()),
    }
}

/// The library reads 1.2 to 1.9 as 1.1, which the standard allows; nobody speaks them, so they are odd and refused.
fn version(head: &RequestHead<'_>) -> Result<Version, Refused> {
    let raw = head.raw();
    match raw.version().get(raw.bytes()) {
        b"HTTP/1.0" => Ok(Version::Http10),
        b"HTTP/1.1" => Ok(Version::Http11),
        _ => Err(Refused::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")),
    }
}

/// The library takes lists and any case in `Transfer-Encoding`; two readers may differ on those, so the field must
/// come once and be exactly `chunked`.
fn length(head: &RequestHead<'_>) -> Result<Length, Refused> {
    match head.framing() {
        BodyFraming::None => Ok(Length::Known(0)),
        BodyFraming::Length(len) => Ok(Length::Known(len)),
        BodyFraming::Chunked => {
            let mut codings = head.header_all("transfer-encoding");
            match (codings.next(), codings.next()) {
                (Some(b"chunked"), None) => Ok(Length::Chunked),
                _ => Err(Refused::new(400, "the only transfer coding is chunked, once and in lower case")),
            }
        }
        // `UntilClose` belongs to answers, and what the library may add later is not known here.
        BodyFraming::UntilClose | _ => Err(Refused::new(400, "the end of the request's body cannot be told")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn try_parse(input: &[u8]) -> Result<Option<RequestParts>, Refused> {
        parse(input, &FrontLimits::default(), &TrustedProxies::default(), None)
    }

    fn status(input: &str) -> u16 {
        match try_parse(input.as_bytes()) {
            Ok(Some(_)) => 200,
            Ok(None) => 100,
            Err(refused) => refused.status,
        }
    }

    #[test]
    fn an_absolute_target_is_its_path() {
        let input = b"GET http://elsewhere/a/b?c=d HTTP/1.1\r\nHost: here\r\n\r\n";
        let parts = try_parse(input).unwrap().unwrap();
        assert_eq!((parts.request.path.as_str(), parts.request.query.as_deref()), ("/a/b", Some("c=d")));
        assert_eq!(parts.bytes, input.len());
    }

    #[test]
    fn odd_transfer_codings_are_refused_though_the_library_would_take_them() {
        let with = |coding: &str| status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{coding}\r\n\r\n"));
        assert_eq!(with("Transfer-Encoding: chunked"), 200);
        assert_eq!(with("Transfer-Encoding: Chunked"), 400);
        assert_eq!(with("Transfer-Encoding: ,chunked"), 400);
        assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: "), 400);
        assert_eq!(with("Transfer-Encoding: gzip, chunked"), 501);
    }

    #[test]
    fn an_offer_of_h2c_is_declined_and_any_other_upgrade_refused() {
        let with = |offer: &str| {
            status(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {offer}\r\n\r\n"))
        };
        assert_eq!(with("h2c"), 200);
        assert_eq!(with("websocket"), 501);
    }

    #[test]
    fn the_whole_head_is_bounded_whatever_its_parts() {
        let big = "a".repeat(20_000);
        let two = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {big}\r\nX-B: {big}\r\n\r\n");
        assert_eq!(status(&two), 431);
        assert_eq!(status(&format!("GET /{big} HTTP/1.1\r\n")), 414);
        let many = "X: y\r\n".repeat(101);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), 431);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}", "b".repeat(40_000))), 431);
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic_and_a_head_is_never_longer_than_its_input(
            input in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            if let Ok(Some(parts)) = try_parse(&input) {
                prop_assert!(parts.bytes <= input.len());
            }
        }

        #[test]
        fn a_head_means_the_same_whatever_follows_it(
            path in "/[a-z/.]{0,40}", value in "[ -~]{0,40}", rest in proptest::collection::vec(any::<u8>(), 0..50)
        ) {
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Value: {value}\r\n\r\n");
            let mut input = head.clone().into_bytes();
            input.extend_from_slice(&rest);
            let parts = try_parse(&input).unwrap().unwrap();
            prop_assert_eq!(parts.bytes, head.len());
            prop_assert_eq!(parts.request.path, path);
            prop_assert_eq!(parts.request.headers.get("x-value").unwrap(), Some(value.trim_matches([' ', '\t'])));
        }
    }
}
