//! Addresses that no host on a network can have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address can never be that of another host reached through a router
/// (IANA special-purpose address registries; RFC 6890).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SpecialAddress {
    /// `0.0.0.0`, `::`.
    Unspecified,
    /// The rest of `0.0.0.0/8`, RFC 791 section 3.2.
    ThisNetwork,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`: one link only; in a cloud, the
    /// instance's metadata.
    LinkLocal,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// `::ffff:0:0/96`: an IPv4 address in IPv6 dress, never on the wire.
    Ipv4Mapped,
}

impl SpecialAddress {
    /// What is special about `address`, `None` when a host may have it.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Self::of_ipv4(address),
            IpAddr::V6(address) => Self::of_ipv6(address),
        }
    }

    fn of_ipv4(address: Ipv4Addr) -> Option<Self> {
        let [first, ..] = address.octets();
        match first {
            0 if address.is_unspecified() => Some(Self::Unspecified),
            0 => Some(Self::ThisNetwork),
            _ if address.is_loopback() => Some(Self::Loopback),
            _ if address.is_link_local() => Some(Self::LinkLocal),
            _ if address.is_multicast() => Some(Self::Multicast),
            _ if address.is_broadcast() => Some(Self::Broadcast),
            _ => None,
        }
    }

    fn of_ipv6(address: Ipv6Addr) -> Option<Self> {
        if address.is_unspecified() {
            Some(Self::Unspecified)
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_unicast_link_local() {
            Some(Self::LinkLocal)
        } else if address.is_multicast() {
            Some(Self::Multicast)
        } else if address.to_ipv4_mapped().is_some() {
            Some(Self::Ipv4Mapped)
        } else {
            None
        }
    }
}

impl fmt::Display for SpecialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "the unspecified address",
            Self::ThisNetwork => "an address of 0.0.0.0/8",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Ipv4Mapped => "an IPv4-mapped IPv6 address",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_told_from_hosts() {
        use SpecialAddress as S;
        for (text, special) in [
            ("0.0.0.0", Some(S::Unspecified)),
            ("0.1.2.3", Some(S::ThisNetwork)),
            ("1.0.0.0", None),
            ("127.255.255.255", Some(S::Loopback)),
            ("128.0.0.0", None),
            ("169.253.255.255", None),
            ("169.254.169.254", Some(S::LinkLocal)),
            ("223.255.255.255", None),
            ("224.0.0.0", Some(S::Multicast)),
            ("239.255.255.255", Some(S::Multicast)),
            ("240.0.0.1", None),
            ("255.255.255.255", Some(S::Broadcast)),
            ("::", Some(S::Unspecified)),
            ("::1", Some(S::Loopback)),
            ("::2", None),
            ("::ffff:192.0.2.1", Some(S::Ipv4Mapped)),
            ("fe80::1", Some(S::LinkLocal)),
            ("febf::1", Some(S::LinkLocal)),
            ("fec0::1", None),
            ("fd00::1", None),
            ("ff02::1", Some(S::Multicast)),
        ] {
            assert_eq!(SpecialAddress::of(text.parse().unwrap()), special, "{text}");
        }
    }
}
