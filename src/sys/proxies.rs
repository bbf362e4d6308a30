//! The proxies whose word about a client's address is believed.
//!
//! `X-Forwarded-For` is text that any client can send. It counts only when the connection comes from a network named
//! in `trusted_proxies`, and then only as far as the chain of trusted hops reaches, read from its end.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text does not name a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// Not an address, or not one with a prefix length that fits it.
    #[error(
        "cannot read {0:?} as a network: write an address, or one with a prefix length such as 10.0.0.0/8"
    )]
    Malformed(String),
    /// The address has bits beyond its prefix, so one of the two is a mistake.
    #[error("the network {0} has address bits beyond its prefix length: clear them or lengthen the prefix")]
    HostBits(String),
}

impl Network {
    /// Whether `address` lies in this network; an IPv4 address mapped into IPv6 is taken for the IPv4 one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(it)) => (net.to_bits() ^ it.to_bits()) & self.mask_v4() == 0,
            (IpAddr::V6(net), IpAddr::V6(it)) => (net.to_bits() ^ it.to_bits()) & self.mask_v6() == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    fn mask_v4(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    fn mask_v6(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0)
    }

    fn has_host_bits(&self) -> bool {
        match self.address {
            IpAddr::V4(net) => net.to_bits() & !self.mask_v4() != 0,
            IpAddr::V6(net) => net.to_bits() & !self.mask_v6() != 0,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Malformed(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| malformed())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let network = Self { address, bits: bits.unwrap_or(most) };
        match network {
            Self { bits, .. } if bits > most => Err(malformed()),
            network if network.has_host_bits() => Err(NetworkError::HostBits(text.to_owned())),
            network => Ok(network),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The value of `trusted_proxies`: networks, and `unix` for whoever connects to a unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    unix: bool,
}

impl TrustedProxies {
    /// Reads the entries of the configuration.
    ///
    /// # Errors
    /// On the first entry that is neither `unix` nor a network.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        let mut proxies = Self::default();
        for entry in entries {
            match entry {
                "unix" => proxies.unix = true,
                network => proxies.networks.push(network.parse()?),
            }
        }
        Ok(proxies)
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether a connection from `peer` (`None`: through a unix socket) comes from a trusted proxy.
    #[must_use]
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.contains(address)),
            None => self.unix,
        }
    }

    /// The address of the client behind `peer`. `forwarded` holds the values of the `X-Forwarded-For` fields in the
    /// order of their arrival; hops are taken from the end while each is trusted. A hop that cannot be read ends the
    /// chain: the client is then known only as its last proxy.
    #[must_use]
    pub fn client<'a>(
        &self,
        peer: Option<IpAddr>,
        forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Option<IpAddr> {
        let mut client = peer;
        let mut hops = forwarded.rev().flat_map(|value| value.rsplit(|&byte| byte == b','));
        while self.trust(client) {
            match hops.next().and_then(parse_hop) {
                Some(hop) => client = Some(hop),
                None => break,
            }
        }
        client
    }
}

fn parse_hop(text: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = str::from_utf8(text).ok()?.trim().parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn client(proxies: &[&str], peer: Option<IpAddr>, forwarded: &[&str]) -> Option<IpAddr> {
        let proxies = TrustedProxies::parse(proxies.iter().copied()).unwrap();
        proxies.client(peer, forwarded.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(contains("::1/128", "::1"));
        assert!(!contains("::1", "::2"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"), "a mapped address is the address");
        assert!(!contains("::/0", "127.0.0.1"), "the families are apart");
    }

    #[test]
    fn a_network_that_cannot_be_meant_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "::/129", "localhost", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Malformed(text.to_owned())), "{text}");
        }
        assert_eq!("10.0.0.1/8".parse::<Network>(), Err(NetworkError::HostBits("10.0.0.1/8".to_owned())));
        assert!(TrustedProxies::parse(["unix", "elsewhere"]).is_err());
    }

    #[test]
    fn forwarded_addresses_of_strangers_are_ignored() {
        assert_eq!(client(&["10.0.0.0/8"], ip("192.0.2.1"), &["198.51.100.7"]), ip("192.0.2.1"));
        assert_eq!(client(&[], None, &["198.51.100.7"]), None);
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_proxy() {
        let proxies = ["10.0.0.0/8", "unix"];
        let spoofed = "127.0.0.1, 198.51.100.7, 10.0.0.2";
        assert_eq!(client(&proxies, ip("10.0.0.1"), &[spoofed]), ip("198.51.100.7"));
        assert_eq!(client(&proxies, None, &["127.0.0.1", "198.51.100.7"]), ip("198.51.100.7"));
        assert_eq!(client(&proxies, ip("10.0.0.1"), &["rubbish, 10.0.0.2"]), ip("10.0.0.2"));
        assert_eq!(client(&proxies, ip("10.0.0.1"), &[]), ip("10.0.0.1"));
    }
}
