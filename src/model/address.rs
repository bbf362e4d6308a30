//! Which addresses lead out to the internet, and which to this machine, its networks, or nowhere.
//!
//! What an address is for is IANA's word (the registries of special-purpose addresses of IPv4 and IPv6, RFC 6890). An IPv6
//! address that carries an IPv4 address leads where that leads, and is judged by it. What no registry gives to the internet is
//! refused with the rest: a range that is put to use later is not one that was meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges of IPv4 that do not lead to the internet: the first address, the bits of the prefix, and what it is.
#[rustfmt::skip]
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0),       8,  "an unspecified address"),
    (Ipv4Addr::new(10, 0, 0, 0),      8,  "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0),    10, "an address of a provider's own network"),
    (Ipv4Addr::new(127, 0, 0, 0),     8,  "a loopback address"),
    (Ipv4Addr::new(169, 254, 0, 0),   16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0),    12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0),     24, RESERVED),
    (Ipv4Addr::new(192, 0, 2, 0),     24, DOCUMENTATION),
    (Ipv4Addr::new(192, 88, 99, 0),   24, RESERVED),
    (Ipv4Addr::new(192, 168, 0, 0),   16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0),    15, "an address for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0),  24, DOCUMENTATION),
    (Ipv4Addr::new(203, 0, 113, 0),   24, DOCUMENTATION),
    (Ipv4Addr::new(224, 0, 0, 0),     4,  MULTICAST),
    (Ipv4Addr::new(240, 0, 0, 0),     4,  RESERVED),
];

/// Ranges of IPv6 with an IPv4 address in them, and how many bits stand behind that.
#[rustfmt::skip]
const CARRIERS: &[(Ipv6Addr, u32, u32)] = &[
    // Mapped and translated ones (RFC 4291, 2.5.5.2; RFC 2765, 2.1), NAT64 (RFC 6052, 2.1), 6to4 (RFC 3056, 2).
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),    96, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0),    96, 0),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, 0),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0),    16, 80),
];

/// Ranges of IPv6 that do not lead to the internet, the narrower first where one holds another.
#[rustfmt::skip]
const V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED,                             128, "an unspecified address"),
    (Ipv6Addr::LOCALHOST,                               128, "a loopback address"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),        7,   "a private address"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),        10,  "a link-local address"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0),        10,  "a private address"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),        8,   MULTICAST),
    // Teredo among them, which tunnels to an IPv4 address and a port of somebody's choice.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0),        23,  RESERVED),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),    32,  DOCUMENTATION),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0),        20,  DOCUMENTATION),
];

/// All that is given to the internet: everything else of IPv6 is kept for other uses, or for none yet.
const GLOBAL: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

const DOCUMENTATION: &str = "an address for examples";
const MULTICAST: &str = "a multicast address";
const RESERVED: &str = "a reserved address";

/// What an address is that does not lead to the internet; `None` of one that does.
#[must_use]
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let holds = |network: &Ipv4Addr, prefix: &u32| {
        (address.to_bits() ^ network.to_bits()) >> (u32::BITS - prefix) == 0
    };
    V4.iter().find(|(network, prefix, _)| holds(network, prefix)).map(|(_, _, what)| *what)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let holds = |network: &Ipv6Addr, prefix: &u32| {
        (address.to_bits() ^ network.to_bits()) >> (u128::BITS - prefix) == 0
    };
    if let Some((_, _, behind)) = CARRIERS.iter().find(|(network, prefix, _)| holds(network, prefix)) {
        let carried = (address.to_bits() >> behind) & u128::from(u32::MAX);
        return u32::try_from(carried).map_or(Some(RESERVED), |bits| not_public_v4(bits.into()));
    }
    let special = V6.iter().find(|(network, prefix, _)| holds(network, prefix)).map(|(_, _, what)| *what);
    special.or_else(|| (!holds(&GLOBAL.0, &GLOBAL.1)).then_some(RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(address: &str) -> Option<&'static str> {
        not_public(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_the_internet_are_let_pass() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "128.0.0.0",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:200::1",
            "2a00::1",
            "3ffe::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert_eq!(what(address), None, "{address}");
        }
    }

    #[test]
    fn no_other_address_is_and_its_kind_is_told() {
        for (address, kind) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("100.64.0.1", "provider"),
            ("100.127.255.255", "provider"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.8", "reserved"),
            ("192.0.2.1", "examples"),
            ("192.168.1.1", "private"),
            ("198.19.255.255", "benchmarks"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "reserved"),
            ("fd00::1", "private"),
            ("fc00::1", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "private"),
            ("ff02::1", "multicast"),
            ("100::1", "reserved"),
            ("2001::1", "reserved"),
            ("2001:db8::1", "examples"),
            ("5f00::1", "reserved"),
            ("4000::1", "reserved"),
            ("64:ff9b:1::a00:1", "reserved"),
        ] {
            assert!(what(address).is_some_and(|what| what.contains(kind)), "{address}: {:?}", what(address));
        }
    }

    #[test]
    fn an_address_within_another_is_found() {
        for (address, kind) in [
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:a9fe:a9fe", "link-local"),
            ("::ffff:0:10.0.0.1", "private"),
            ("64:ff9b::7f00:1", "loopback"),
            ("64:ff9b::192.168.0.1", "private"),
            ("2002:7f00:1::", "loopback"),
            ("2002:a00:1:1::7", "private"),
            ("2002:e000:1::1", "multicast"),
        ] {
            assert!(what(address).is_some_and(|what| what.contains(kind)), "{address}: {:?}", what(address));
        }
    }
}
