//! Networks in CIDR notation, the proxies that are believed, and what is this machine.

use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// How a proxy before a unix socket is written.
const UNIX: &str = "unix";

/// A network: the addresses that share the first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    network: IpAddr,
    prefix: u32,
}

/// Whose word about a client's address is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// Whoever connects to a unix socket of ours.
    Unix,
    /// Whoever connects from this network.
    Net(IpNet),
}

/// Why a text is no network.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NetError {
    /// Neither an address nor an address with a prefix.
    #[error(
        "{0:?} is no network: write it as 10.0.0.0/8, fd00::/8 or a single address, or unix for a unix socket"
    )]
    Malformed(String),
    /// Bits are set that the prefix does not cover, so the writer meant another network or one address.
    #[error("{text:?} has bits set behind its prefix: write {meant} or a single address")]
    HostBits {
        /// What was written.
        text: String,
        /// The network that the prefix gives.
        meant: IpNet,
    },
    /// The whole address space.
    #[error("{0:?} holds every address, so every client would be believed: name the proxies' own network")]
    Everything(String),
}

impl IpNet {
    /// Reads `ADDRESS/PREFIX`, or `ADDRESS` for a network of one.
    ///
    /// # Errors
    /// When the text is malformed, has bits behind its prefix, or names the whole address space.
    pub fn parse(text: &str) -> Result<Self, NetError> {
        let malformed = || NetError::Malformed(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(parse_prefix(prefix).ok_or_else(malformed)?)),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits = width(address);
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(malformed());
        }
        if prefix == 0 {
            return Err(NetError::Everything(text.to_owned()));
        }
        let net = Self { network: masked(address, prefix), prefix };
        if net.network != address {
            return Err(NetError::HostBits { text: text.to_owned(), meant: net });
        }
        Ok(net)
    }

    /// Whether `address` belongs to the network. An IPv4 address that a dual-stack socket shows as
    /// `::ffff:a.b.c.d` is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.network) && masked(address, self.prefix) == self.network
    }
}

impl Proxy {
    /// Reads `unix`, or a network.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, NetError> {
        if text == UNIX { Ok(Self::Unix) } else { IpNet::parse(text).map(Self::Net) }
    }

    /// Whether a connection from `peer` (`None`: through a unix socket) comes from this proxy.
    #[must_use]
    pub fn is(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Self::Unix, None) => true,
            (Self::Net(net), Some(address)) => net.contains(address),
            (Self::Unix, Some(_)) | (Self::Net(_), None) => false,
        }
    }
}

fn parse_prefix(text: &str) -> Option<u32> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

fn masked(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::BITS - prefix).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u128::BITS - prefix).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.network) {
            return write!(f, "{}", self.network);
        }
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str(UNIX),
            Self::Net(net) => net.fmt(f),
        }
    }
}

/// Whether a host, a name or an address without brackets, is this machine itself.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        IpNet::parse(text).unwrap()
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_other() {
        assert!(net("10.0.0.0/8").contains("10.255.255.255".parse().unwrap()));
        assert!(!net("10.0.0.0/8").contains("11.0.0.0".parse().unwrap()));
        assert!(net("192.0.2.7").contains("192.0.2.7".parse().unwrap()));
        assert!(!net("192.0.2.7").contains("192.0.2.6".parse().unwrap()));
        assert!(net("fd00::/8").contains("fdff::1".parse().unwrap()));
        assert!(!net("fd00::/8").contains("10.0.0.1".parse().unwrap()));
        assert!(net("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "::/129", "localhost", "10.0.0.0/8/8"]
        {
            assert_eq!(IpNet::parse(text), Err(NetError::Malformed(text.to_owned())), "{text:?}");
        }
        assert!(matches!(IpNet::parse("0.0.0.0/0"), Err(NetError::Everything(_))));
        let error = IpNet::parse("10.1.2.3/8").unwrap_err();
        assert!(error.to_string().contains("write 10.0.0.0/8"), "{error}");
    }

    #[test]
    fn a_proxy_is_known_by_its_network_or_by_the_unix_socket() {
        let (unix, net) = (Proxy::parse("unix").unwrap(), Proxy::parse("10.0.0.0/8").unwrap());
        let inside = Some("10.1.2.3".parse().unwrap());
        assert!(unix.is(None) && !unix.is(inside));
        assert!(net.is(inside) && !net.is(None));
        assert_eq!((unix.to_string().as_str(), net.to_string().as_str()), ("unix", "10.0.0.0/8"));
        assert!(Proxy::parse("elsewhere").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bits in any::<u32>(), prefix in 1u32..=32) {
            let net = IpNet { network: masked(IpAddr::V4(bits.into()), prefix), prefix };
            prop_assert_eq!(IpNet::parse(&net.to_string()).unwrap(), net);
            prop_assert!(net.contains(IpAddr::V4(bits.into())));
        }

        #[test]
        fn any_text_is_a_network_or_a_sentence(text in "\\PC{0,30}|[0-9a-f:./]{0,30}") {
            let _ = IpNet::parse(&text);
        }
    }
}
