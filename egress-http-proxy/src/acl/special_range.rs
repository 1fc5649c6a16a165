//! The special-purpose address registries of IANA, and the addresses at which
//! clouds answer with credentials.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// How far a range reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// This host, its link or its cloud instance: nothing an egress proxy
    /// should be asked for.
    Local,
    /// A private network, or a range with another special purpose.
    Private,
}

/// A range of addresses that is not simply the Internet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SpecialRange {
    network: IpNet,
    /// The network's bits and the bits that count, so that the guard's look
    /// at every address that is dialled is cheap.
    bits: u128,
    mask: u128,
    reach: Reach,
    name: &'static str,
    source: &'static str,
}

impl SpecialRange {
    /// The first range of the table that holds `address`.
    pub(super) fn of(address: IpAddr) -> Option<&'static Self> {
        let (table, bits) = match address {
            IpAddr::V4(address) => (IPV4, u128::from(u32::from(address))),
            IpAddr::V6(address) => (IPV6, u128::from(address)),
        };
        table.iter().find(|range| bits & range.mask == range.bits)
    }

    /// How far it reaches.
    pub(super) const fn reach(&self) -> Reach {
        self.reach
    }
}

/// `loopback (127.0.0.0/8, RFC 1122)`.
impl fmt::Display for SpecialRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.network, self.source)
    }
}

const fn v4(
    octets: [u8; 4],
    length: u8,
    reach: Reach,
    name: &'static str,
    source: &'static str,
) -> SpecialRange {
    let [a, b, c, d] = octets;
    SpecialRange {
        network: IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length),
        bits: u32::from_be_bytes(octets) as u128,
        mask: (u32::MAX << (32 - length)) as u128,
        reach,
        name,
        source,
    }
}

const fn v6(
    segments: [u16; 8],
    length: u8,
    reach: Reach,
    name: &'static str,
    source: &'static str,
) -> SpecialRange {
    let [a, b, c, d, e, f, g, h] = segments;
    let address = Ipv6Addr::new(a, b, c, d, e, f, g, h);
    SpecialRange {
        network: IpNet::new_assert(IpAddr::V6(address), length),
        bits: address.to_bits(),
        mask: u128::MAX << (128 - length),
        reach,
        name,
        source,
    }
}

use Reach::{Local, Private};

/// A narrower range stands before a wider one that holds it. IPv4-mapped and
/// -compatible addresses are judged as IPv4, and NAT64 (`64:ff9b::/96`) by the
/// address it carries, so they are not in here.
#[rustfmt::skip]
const IPV4: &[SpecialRange] = &[
    v4([0, 0, 0, 0], 8, Local, "this network", "RFC 791 section 3.2"),
    v4([127, 0, 0, 0], 8, Local, "loopback", "RFC 1122 section 3.2.1.3"),
    v4([169, 254, 0, 0], 16, Local, "link-local, cloud metadata", "RFC 3927"),
    v4([100, 100, 100, 200], 32, Local, "cloud metadata", "Alibaba Cloud"),
    v4([168, 63, 129, 16], 32, Local, "cloud metadata", "Azure"),
    v4([224, 0, 0, 0], 4, Local, "multicast", "RFC 1112"),
    v4([255, 255, 255, 255], 32, Local, "broadcast", "RFC 919"),
    v4([10, 0, 0, 0], 8, Private, "private use", "RFC 1918"),
    v4([172, 16, 0, 0], 12, Private, "private use", "RFC 1918"),
    v4([192, 168, 0, 0], 16, Private, "private use", "RFC 1918"),
    v4([100, 64, 0, 0], 10, Private, "shared address space", "RFC 6598"),
    v4([192, 0, 0, 0], 24, Private, "IETF protocol assignments", "RFC 6890"),
    v4([192, 0, 2, 0], 24, Private, "documentation", "RFC 5737"),
    v4([198, 51, 100, 0], 24, Private, "documentation", "RFC 5737"),
    v4([203, 0, 113, 0], 24, Private, "documentation", "RFC 5737"),
    v4([192, 31, 196, 0], 24, Private, "AS112", "RFC 7535"),
    v4([192, 175, 48, 0], 24, Private, "AS112", "RFC 7534"),
    v4([192, 52, 193, 0], 24, Private, "AMT", "RFC 7450"),
    v4([192, 88, 99, 0], 24, Private, "6to4 relay", "RFC 7526"),
    v4([198, 18, 0, 0], 15, Private, "benchmarking", "RFC 2544"),
    v4([240, 0, 0, 0], 4, Private, "reserved", "RFC 1112 section 4"),
];

/// The same for IPv6.
#[rustfmt::skip]
const IPV6: &[SpecialRange] = &[
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, Local, "unspecified", "RFC 4291 section 2.5.2"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Local, "loopback", "RFC 4291 section 2.5.3"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Local, "link-local", "RFC 4291 section 2.5.6"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Local, "multicast", "RFC 4291 section 2.7"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, Local, "cloud metadata", "AWS"),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, Local, "cloud metadata", "Google Cloud"),
    // Which IPv4 address it leads to, nobody outside its network can tell.
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Local, "local-use NAT64", "RFC 8215"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Private, "unique local", "RFC 4193"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Private, "site-local", "RFC 3879"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, Private, "discard only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, Private, "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Private, "Teredo", "RFC 4380"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, Private, "benchmarking", "RFC 5180"),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, Private, "ORCHID", "RFC 4843"),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, Private, "ORCHIDv2", "RFC 7343"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Private, "IETF protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Private, "documentation", "RFC 3849"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Private, "documentation", "RFC 9637"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Private, "6to4", "RFC 3056"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, Private, "AS112", "RFC 7534"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, Private, "segment routing", "RFC 9602"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, Private, "IPv4-translated", "RFC 2765"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_no_host_bits_and_narrow_ones_come_first() {
        for table in [IPV4, IPV6] {
            for (index, range) in table.iter().enumerate() {
                assert_eq!(range.network.trunc(), range.network, "{range}");
                for end in [range.network.network(), range.network.broadcast()] {
                    assert!(SpecialRange::of(end).is_some(), "{range}");
                }
                for later in table.iter().skip(index + 1) {
                    assert!(
                        !range.network.contains(&later.network),
                        "{range} hides {later}"
                    );
                }
            }
        }
    }

    #[test]
    fn ends_of_ranges() {
        for (text, expected) in [
            ("0.0.0.0", Some(Local)),
            ("0.255.255.255", Some(Local)),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some(Private)),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.1", Some(Private)),
            ("100.100.100.200", Some(Local)),
            ("100.128.0.0", None),
            ("127.255.255.255", Some(Local)),
            ("169.254.169.254", Some(Local)),
            ("168.63.129.16", Some(Local)),
            ("172.15.255.255", None),
            ("172.31.255.255", Some(Private)),
            ("172.32.0.0", None),
            ("192.0.0.192", Some(Private)),
            ("192.0.1.0", None),
            ("192.88.99.1", Some(Private)),
            ("192.167.255.255", None),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.19.255.255", Some(Private)),
            ("223.255.255.255", None),
            ("224.0.0.1", Some(Local)),
            ("239.255.255.255", Some(Local)),
            ("240.0.0.1", Some(Private)),
            ("255.255.255.255", Some(Local)),
            ("8.8.8.8", None),
            ("::", Some(Local)),
            ("::1", Some(Local)),
            ("64:ff9b::808:808", None),
            ("64:ff9b:1::1", Some(Local)),
            ("fe80::1", Some(Local)),
            ("febf::1", Some(Local)),
            ("fec0::1", Some(Private)),
            ("fd00::1", Some(Private)),
            ("fd00:ec2::254", Some(Local)),
            ("fbff::1", None),
            ("ff02::2", Some(Local)),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Some(Private)),
            ("2001:1ff::1", Some(Private)),
            ("2001:200::1", None),
            ("2001:db8::1", Some(Private)),
            ("2001:db9::1", None),
            ("2002::1", Some(Private)),
            ("2003::1", None),
            ("2606:4700::1111", None),
            ("3fff:fff::1", Some(Private)),
            ("3fff:1000::1", None),
        ] {
            let range = SpecialRange::of(text.parse().unwrap());
            assert_eq!(range.map(SpecialRange::reach), expected, "{text}");
        }
        let shown = SpecialRange::of("127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(
            shown.to_string(),
            "loopback (127.0.0.0/8, RFC 1122 section 3.2.1.3)"
        );
    }
}
