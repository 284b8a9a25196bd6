//! Addresses that deserve suspicion or trust: those of a machine's metadata service, and those where TLS may be missing. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is link-local or a cloud's metadata service: no reply may send us there.
#[must_use]
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_metadata_v4(address),
        IpAddr::V6(address) => {
            let segments = address.segments();
            // The well-known and the private prefixes that hide an IPv4 address: mapped, compatible, NAT64, 6to4.
            let [.., high, low] = segments;
            let hidden = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
            let hides = address.to_ipv4_mapped().is_some() || segments[..6] == [0; 6] || segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            let sixth = Ipv4Addr::from((u32::from(segments[1]) << 16) | u32::from(segments[2]));
            segments[0] & 0xffc0 == 0xfe80
                || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || (hides && is_metadata_v4(hidden))
                || (segments[0] == 0x2002 && is_metadata_v4(sixth))
        }
    }
}

fn is_metadata_v4(address: Ipv4Addr) -> bool {
    // Alibaba's and Oracle's services lie outside of the link-local network.
    address.is_link_local() || address == Ipv4Addr::new(100, 100, 100, 200) || address == Ipv4Addr::new(192, 0, 0, 192)
}

/// A network: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `ADDRESS/BITS`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    /// Whether an address lies inside.
    pub(crate) fn contains(self, other: IpAddr) -> bool {
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

/// Splits `HOST[:PORT]`; the host without brackets.
pub(crate) fn split_host(text: &str) -> (&str, Option<u16>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_known_in_every_disguise() {
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert!(is_metadata(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.1", "192.168.0.1", "::1", "fec0::1", "2001:db8::1", "8.8.8.8"] {
            assert!(!is_metadata(good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn networks_contain() {
        let inside = |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "1.2.3.4") && inside("::/0", "::1") && !inside("::/0", "1.2.3.4"));
        assert!(inside("127.0.0.0/8", "::ffff:127.0.0.1") && inside("fd00::/8", "fd12::1"));
        for bad in ["10.0.0.0/33", "10.0.0.0", "x/8", "::/129", "/8", ""] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_split() {
        for (text, wanted) in [
            ("a:5000", ("a", Some(5000))),
            ("a", ("a", None)),
            ("[::1]:5000", ("::1", Some(5000))),
            ("[::1]", ("::1", None)),
            ("::1", ("::1", None)),
            ("a:99999", ("a", None)),
        ] {
            assert_eq!(split_host(text), wanted, "{text}");
        }
    }
}
