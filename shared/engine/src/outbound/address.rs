//! The addresses that outbound calls may reach.
//!
//! Every address that is not public unicast by IANA's special-purpose registries (RFC 6890 and its updates) is refused.
//! Manifests and parameters therefore cannot reach what only this machine or its network can reach: loopback, private ranges,
//! a cloud's metadata service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A non-public address that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedAddress {
    /// Every address of a network, on every port.
    Network(IpNet),
    /// One address on one port; only for URLs with a literal address.
    Socket(SocketAddr),
}

impl FromStr for AllowedAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        text.parse().map(Self::Network).map_err(|_| {
            format!("{text:?} is not an address; write 10.0.0.0/8, 10.1.2.3, 127.0.0.1:9000 or [::1]:9000")
        })
    }
}

/// Whether calls may reach `address`. `port` is set only for a literal address in a URL.
pub(super) fn is_permitted(allowed: &[AllowedAddress], address: IpAddr, port: Option<u16>) -> bool {
    is_public(address) || is_allowed(allowed, address, port)
}

/// Whether the operator allowed `address`, public or not.
pub(super) fn is_allowed(allowed: &[AllowedAddress], address: IpAddr, port: Option<u16>) -> bool {
    allowed.iter().any(|entry| match entry {
        AllowedAddress::Network(network) => network.contains(&address),
        AllowedAddress::Socket(socket) => Some(*socket) == port.map(|port| SocketAddr::new(address, port)),
    })
}

/// Whether an address is public unicast.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IPv4 networks that are not public unicast.
const SPECIAL_V4: [Ipv4Net; 16] = [
    network([0, 0, 0, 0], 8),        // this network
    network([10, 0, 0, 0], 8),       // private
    network([100, 64, 0, 0], 10),    // shared by a carrier's customers
    network([127, 0, 0, 0], 8),      // loopback
    network([168, 63, 129, 16], 32), // Azure's host, reachable from every machine there
    network([169, 254, 0, 0], 16),   // link-local, with the metadata services
    network([172, 16, 0, 0], 12),    // private
    network([192, 0, 0, 0], 24),     // protocol assignments
    network([192, 0, 2, 0], 24),     // documentation
    network([192, 88, 99, 0], 24),   // 6to4 relays
    network([192, 168, 0, 0], 16),   // private
    network([198, 18, 0, 0], 15),    // benchmarks
    network([198, 51, 100, 0], 24),  // documentation
    network([203, 0, 113, 0], 24),   // documentation
    network([224, 0, 0, 0], 4),      // multicast
    network([240, 0, 0, 0], 4),      // reserved, broadcast
];

const fn network([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|network| network.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments with Teredo, documentation, and 6to4, which wraps IPv4 addresses.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Global unicast. Outside it are unspecified, loopback, IPv4-mapped and -compatible, NAT64, unique local,
        // link-local, site-local and multicast addresses.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!is_public(refused.parse().unwrap()), "{refused}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn operator_may_allow_addresses() {
        let allowed: Vec<AllowedAddress> =
            ["10.1.0.0/16", "192.168.0.7", "127.0.0.1:8787"].iter().map(|text| text.parse().unwrap()).collect();
        for (address, port, expected) in [
            ("10.1.2.3", None, true),
            ("10.2.0.1", None, false),
            ("192.168.0.7", Some(1), true),
            ("192.168.0.8", Some(1), false),
            ("127.0.0.1", Some(8787), true),
            ("127.0.0.1", Some(8788), false),
            ("127.0.0.1", None, false),
        ] {
            assert_eq!(is_permitted(&allowed, address.parse().unwrap(), port), expected, "{address} {port:?}");
        }
    }

    #[test]
    fn allowed_address_is_an_ip_address() {
        assert!("10.1".parse::<AllowedAddress>().is_err());
        assert!("example.com".parse::<AllowedAddress>().is_err());
    }
}
