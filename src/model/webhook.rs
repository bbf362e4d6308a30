//! Where webhooks are sent to.
//!
//! Many a service puts what lets one in into the path or the query of such an address. So it is shown by its origin alone,
//! and the rest of it is for the request only.

use super::secret::Secret;
use super::upstream::{HttpUrl, Origin, Scheme, UpstreamUrl, UpstreamUrlError};
use sha2::{Digest, Sha256};
use std::fmt;
use thiserror::Error;

/// The longest address, in bytes; many servers take no longer one.
const URL_BYTES_MAX: usize = 8000;

/// The address of a webhook: a server, and a path with a query, which are sent as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    server: HttpUrl,
    /// Begins with a slash.
    target: Secret,
}

/// Why a text is no such address. None of these repeats the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WebhookUrlError {
    /// Another scheme, or none.
    #[error("is no address of a webhook: write https://HOST/PATH or http://HOST/PATH")]
    Kind,
    /// What browsers keep for themselves.
    #[error("holds a #: write the address without the fragment")]
    Fragment,
    /// What no request can ask for.
    #[error("has a path or a query with a character that has to be written as %XX")]
    Target,
    /// Too long to be sent.
    #[error("is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// The part before the path.
    #[error(transparent)]
    Server(#[from] UpstreamUrlError),
}

impl WebhookUrl {
    /// Reads `http://HOST:PORT/PATH?QUERY`, or `https://`; the port, the path and the query may be missing.
    ///
    /// # Errors
    /// For everything else, and for a user or a password in it.
    pub fn parse(text: &str) -> Result<Self, WebhookUrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(WebhookUrlError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WebhookUrlError::Kind)?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if target.contains('#') {
            return Err(WebhookUrlError::Fragment);
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
            return Err(WebhookUrlError::Target);
        }
        let server = match UpstreamUrl::parse(&format!("{scheme}://{authority}")) {
            Ok(UpstreamUrl::Http(server)) => server,
            Ok(UpstreamUrl::Directory(_)) | Err(UpstreamUrlError::Kind | UpstreamUrlError::FileUrl) => {
                return Err(WebhookUrlError::Kind);
            }
            Err(error) => return Err(error.into()),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { server, target: Secret::new(format!("{slash}{target}")) })
    }

    /// The whole of it, for the one who sends something there.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", self.server, self.target.reveal())
    }

    /// As people are shown that there is more of it; no address any more, then.
    #[must_use]
    pub fn masked(&self) -> String {
        let target = if self.target.reveal() == "/" { "/" } else { "/…" };
        format!("{}{target}", self.server)
    }

    /// How the server is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.server.scheme()
    }

    /// The server's name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.server.host()
    }

    /// Whom it leads to.
    #[must_use]
    pub fn origin(&self) -> Origin {
        UpstreamUrl::Http(self.server.clone()).origin()
    }

    /// SHA-256 of the whole, by which it is known again where it is not to be told.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.reveal()).into()
    }
}

/// Shown by the server alone.
impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_sent_as_it_was_written_and_shown_without_what_may_be_secret() {
        for (text, sent) in [
            ("https://Chat.example.com/hooks/T0/s3cret", "https://chat.example.com/hooks/T0/s3cret"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://[::1]/a//b/?sig=s3cret%2f&v=1", "https://[::1]/a//b/?sig=s3cret%2f&v=1"),
            ("https://host?s3cret", "https://host/?s3cret"),
        ] {
            let url = WebhookUrl::parse(text).unwrap();
            assert_eq!(url.reveal(), sent);
            assert!(
                !format!("{url} {url:?} {} {}", url.origin(), url.masked()).contains("s3cret"),
                "{url:?}"
            );
            assert_eq!(WebhookUrl::parse(&url.masked()).is_ok(), sent.ends_with("8080/"), "{}", url.masked());
            assert!(sent.parse::<ureq::http::Uri>().is_ok(), "{sent}");
        }
    }

    #[test]
    fn everything_else_is_refused_and_not_repeated() {
        use WebhookUrlError as E;
        for (text, error) in [
            ("", E::Kind),
            ("chat.example.com/s3cret", E::Kind),
            ("ftp://host/s3cret", E::Kind),
            ("file:///s3cret", E::Kind),
            ("/s3cret", E::Kind),
            ("https://host/s3cret#x", E::Fragment),
            ("https://host/s3cret x", E::Target),
            ("https://host/s3cret\r\nX: y", E::Target),
            ("https://host/s3cret\u{e4}", E::Target),
            ("https://host/s3cret\\x", E::Target),
            ("https://u:s3cret@host/", E::Server(UpstreamUrlError::Userinfo)),
            ("https:///s3cret", E::Server(UpstreamUrlError::Host)),
            ("https://127.1/s3cret", E::Server(UpstreamUrlError::Host)),
            ("https://host:0/s3cret", E::Server(UpstreamUrlError::Port)),
        ] {
            assert_eq!(WebhookUrl::parse(text), Err(error), "{text:?}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        assert_eq!(WebhookUrl::parse(&format!("https://host/{}", "a".repeat(8000))), Err(E::TooLong));
    }

    #[test]
    fn an_address_is_known_again() {
        let of = |text| WebhookUrl::parse(text).unwrap().digest();
        assert_eq!(of("https://host"), of("HTTPS://HOST:443/"));
        assert_ne!(of("https://host/a"), of("https://host/b"));
    }
}
