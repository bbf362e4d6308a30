//! The proxies whose word about a client's address is believed.
//!
//! `X-Forwarded-For` is text that any client can send. It counts only when the connection comes from a network named
//! in `trusted_proxies`, and then only as far as the chain of trusted hops reaches, read from its end.

use crate::model::net::{NetError, Proxy};
use std::net::IpAddr;

/// The value of `trusted_proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Proxy>);

impl TrustedProxies {
    /// These proxies and no others.
    #[must_use]
    pub fn new(proxies: Vec<Proxy>) -> Self {
        Self(proxies)
    }

    /// Reads the entries as the configuration has them.
    ///
    /// # Errors
    /// On the first entry that is neither `unix` nor a network.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, NetError> {
        entries.into_iter().map(Proxy::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a connection from `peer` (`None`: through a unix socket) comes from a trusted proxy.
    #[must_use]
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|proxy| proxy.is(peer))
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
