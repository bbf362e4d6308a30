//! The two services of smart HTTP and the protocol version that a client asks for.
//!
//! Names, media types and banners are those of `gitprotocol-http(5)` and of `git http-backend`.

/// Longest `Git-Protocol` header value that is read; git's own clients send at most 9 bytes.
const PROTOCOL_HEADER_MAX: usize = 256;

/// One of the two services that a repository offers over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Clone and fetch.
    UploadPack,
    /// Push.
    ReceivePack,
}

impl Service {
    /// Both services.
    pub const ALL: [Self; 2] = [Self::UploadPack, Self::ReceivePack];

    /// The name in URLs and in `?service=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// The service called `name`, exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// The git command that serves it.
    #[must_use]
    pub const fn command(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }

    /// The media type of a request's body.
    #[must_use]
    pub const fn request_type(self) -> &'static str {
        match self {
            Self::UploadPack => "application/x-git-upload-pack-request",
            Self::ReceivePack => "application/x-git-receive-pack-request",
        }
    }

    /// The media type of the answer to such a request.
    #[must_use]
    pub const fn result_type(self) -> &'static str {
        match self {
            Self::UploadPack => "application/x-git-upload-pack-result",
            Self::ReceivePack => "application/x-git-receive-pack-result",
        }
    }

    /// The media type of the answer to `GET info/refs?service=…`.
    #[must_use]
    pub const fn advertisement_type(self) -> &'static str {
        match self {
            Self::UploadPack => "application/x-git-upload-pack-advertisement",
            Self::ReceivePack => "application/x-git-receive-pack-advertisement",
        }
    }

    /// What stands before git's own advertisement: `# service=…` and a flush, except in protocol v2.
    #[must_use]
    pub const fn banner(self, protocol: Protocol) -> &'static [u8] {
        match (protocol, self) {
            (Protocol::V2, _) => b"",
            (Protocol::V0 | Protocol::V1, Self::UploadPack) => b"001e# service=git-upload-pack\n0000",
            (Protocol::V0 | Protocol::V1, Self::ReceivePack) => b"001f# service=git-receive-pack\n0000",
        }
    }
}

/// A version of the wire protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// The original one.
    #[default]
    V0,
    /// The original one, announced by a `version 1` line.
    V1,
    /// Commands and capabilities; upload-pack only.
    V2,
}

/// Why a `Git-Protocol` header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// More than 256 bytes.
    #[error("the Git-Protocol header is longer than {PROTOCOL_HEADER_MAX} bytes")]
    TooLong,
    /// A control character or a byte beyond ASCII.
    #[error("the Git-Protocol header holds a byte that is not printable ASCII")]
    NotPrintable,
}

impl Protocol {
    /// Reads a `Git-Protocol` header value as git does: a list separated by colons, of which the highest
    /// known `version=` counts; unknown keys and versions are for the future and ignored.
    ///
    /// # Errors
    /// When the value is longer than 256 bytes or not printable ASCII.
    pub fn from_header(value: &[u8]) -> Result<Self, ProtocolError> {
        if value.len() > PROTOCOL_HEADER_MAX {
            return Err(ProtocolError::TooLong);
        }
        if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ProtocolError::NotPrintable);
        }
        let known = value.split(|&byte| byte == b':').filter_map(Self::from_key);
        Ok(known.max().unwrap_or_default())
    }

    /// The version in which `service` answers. Pushing has no v2: git answers such a request in v0, but
    /// `git http-backend` then forgets the banner that a v0 client needs.
    #[must_use]
    pub const fn settled(self, service: Service) -> Self {
        match (self, service) {
            (Self::V2, Service::ReceivePack) => Self::V0,
            (Self::V0 | Self::V1 | Self::V2, _) => self,
        }
    }

    /// The value of `GIT_PROTOCOL` for git: ours, never the client's bytes.
    #[must_use]
    pub const fn variable(self) -> Option<&'static str> {
        match self {
            Self::V0 => None,
            Self::V1 => Some("version=1"),
            Self::V2 => Some("version=2"),
        }
    }

    fn from_key(key: &[u8]) -> Option<Self> {
        match key {
            b"version=0" => Some(Self::V0),
            b"version=1" => Some(Self::V1),
            b"version=2" => Some(Self::V2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_known_version_counts_and_the_rest_is_ignored() {
        let cases: [(&[u8], Protocol); 8] = [
            (b"", Protocol::V0),
            (b"version=2", Protocol::V2),
            (b"version=1", Protocol::V1),
            (b"version=0:version=1", Protocol::V1),
            (b"version=2:version=1", Protocol::V2),
            (b"hello:version=2:agent=x", Protocol::V2),
            (b"version=3", Protocol::V0),
            (b"Version=2", Protocol::V0),
        ];
        for (value, protocol) in cases {
            assert_eq!(Protocol::from_header(value), Ok(protocol), "{value:?}");
        }
    }

    #[test]
    fn long_and_unprintable_headers_are_refused() {
        assert_eq!(Protocol::from_header(&[b'a'; 257]), Err(ProtocolError::TooLong));
        for value in [&b"version=2\n"[..], b"version=2\0", b"\x1b[2J", "versi\u{f6}n".as_bytes()] {
            assert_eq!(Protocol::from_header(value), Err(ProtocolError::NotPrintable), "{value:?}");
        }
    }

    #[test]
    fn a_push_is_never_answered_in_v2() {
        assert_eq!(Protocol::V2.settled(Service::ReceivePack), Protocol::V0);
        assert_eq!(Protocol::V2.settled(Service::UploadPack), Protocol::V2);
        assert_eq!(Protocol::V1.settled(Service::ReceivePack), Protocol::V1);
    }

    #[test]
    fn the_banner_has_the_length_it_claims() {
        for service in Service::ALL {
            let banner = service.banner(Protocol::V0);
            let line = format!("# service={}\n", service.name());
            let expected = format!("{:04x}{line}0000", line.len() + 4);
            assert_eq!(banner, expected.as_bytes());
            assert!(service.banner(Protocol::V2).is_empty());
            assert_eq!(Service::from_name(service.name()), Some(service));
        }
        assert_eq!(Service::from_name("git-upload-archive"), None);
    }
}
