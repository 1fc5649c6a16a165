//! An address as the kernel would dial it, and the address it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The one spelling of an address: an IPv4-mapped (RFC 4291 section 2.5.5.2) or
/// IPv4-compatible (section 2.5.5.1) address is the IPv4 address.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ipv6) => match ipv6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] => low_32_bits(ipv6).into(),
            _ => address,
        },
    }
}

/// One destination address in the form that is dialled, together with the
/// second address that it stands for. Rules and guard see both: `!10.0.0.0/8`
/// refuses `64:ff9b::10.0.0.1` as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct JudgedAddress {
    dialled: IpAddr,
    also: Option<IpAddr>,
}

impl JudgedAddress {
    /// What `address` leads to:
    /// - `0.0.0.0` and `::` reach the local host, so they are dialled as
    ///   loopback addresses;
    /// - IPv4-mapped and IPv4-compatible addresses are dialled as the IPv4
    ///   address;
    /// - NAT64 (`64:ff9b::/96`, RFC 6052), IPv4-translated (`::ffff:0:0:0/96`,
    ///   RFC 2765), 6to4 (RFC 3056) and Teredo (RFC 4380) addresses are
    ///   dialled as they are and carry an IPv4 address.
    ///
    /// Which IPv4 address is carried in `64:ff9b:1::/48` (RFC 8215) depends on
    /// a prefix length that only its network knows; the guard refuses those.
    pub(super) fn of(address: IpAddr) -> Self {
        match canonical(address) {
            IpAddr::V4(address) => Self::ipv4(address),
            IpAddr::V6(address) => Self::ipv6(address),
        }
    }

    fn ipv4(address: Ipv4Addr) -> Self {
        if address.is_unspecified() {
            Self::both(Ipv4Addr::LOCALHOST.into(), address.into())
        } else {
            Self::alone(address.into())
        }
    }

    fn ipv6(address: Ipv6Addr) -> Self {
        if address.is_unspecified() {
            return Self::both(Ipv6Addr::LOCALHOST.into(), address.into());
        }
        let carried = |high: u16, low: u16| {
            let ipv4 = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
            Self::both(address.into(), ipv4.into())
        };
        match address.segments() {
            [0, 0, 0, 0, 0xffff, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                carried(high, low)
            }
            [0x2002, high, low, ..] => carried(high, low),
            // The client's address is inverted, section 4 of RFC 4380.
            [0x2001, 0, .., high, low] => carried(!high, !low),
            _ => Self::alone(address.into()),
        }
    }

    const fn alone(dialled: IpAddr) -> Self {
        Self {
            dialled,
            also: None,
        }
    }

    const fn both(dialled: IpAddr, also: IpAddr) -> Self {
        Self {
            dialled,
            also: Some(also),
        }
    }

    /// The address to dial.
    pub(super) const fn dialled(self) -> IpAddr {
        self.dialled
    }

    /// Every address that rules and guard look at.
    pub(super) fn views(self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.dialled).chain(self.also)
    }
}

fn low_32_bits(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_leads_to() {
        for (text, views) in [
            ("198.51.100.1", &["198.51.100.1"][..]),
            ("0.0.0.0", &["127.0.0.1", "0.0.0.0"]),
            ("0.0.0.1", &["0.0.0.1"]),
            ("::", &["::1", "::"]),
            ("::1", &["::1"]),
            ("::ffff:198.51.100.1", &["198.51.100.1"]),
            ("::ffff:0.0.0.0", &["127.0.0.1", "0.0.0.0"]),
            ("::198.51.100.1", &["198.51.100.1"]),
            ("::2", &["0.0.0.2"]),
            (
                "::ffff:0:198.51.100.1",
                &["::ffff:0:c633:6401", "198.51.100.1"],
            ),
            ("64:ff9b::10.0.0.1", &["64:ff9b::a00:1", "10.0.0.1"]),
            ("64:ff9b:1::10.0.0.1", &["64:ff9b:1::a00:1"]),
            ("2002:a00:1::5", &["2002:a00:1::5", "10.0.0.1"]),
            (
                "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                &["2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"],
            ),
            ("2001:db8::1", &["2001:db8::1"]),
        ] {
            let judged = JudgedAddress::of(text.parse().unwrap());
            let expected: Vec<IpAddr> = views.iter().map(|view| view.parse().unwrap()).collect();
            assert_eq!(judged.views().collect::<Vec<_>>(), expected, "{text}");
            assert_eq!(Some(&judged.dialled()), expected.first(), "{text}");
        }
    }

    #[test]
    fn what_is_dialled_stays_the_same_when_judged_again() {
        for text in ["0.0.0.0", "::", "::ffff:1.2.3.4", "::1.2.3.4", "64:ff9b::1"] {
            let dialled = JudgedAddress::of(text.parse().unwrap()).dialled();
            assert_eq!(JudgedAddress::of(dialled).dialled(), dialled, "{text}");
        }
    }
}
