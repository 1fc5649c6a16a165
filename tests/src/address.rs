//! Where things are.
//!
//! The outside is 203.0.113.0/24 and 2001:db8:25::/64, the LAN 192.168.12.0/24
//! and 2001:db8:12::/64; a host has the same digits in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_config::AddressFamily as Family;
use ipnet::IpNet;

use crate::cni::{host, with_prefix};

/// The LAN of the nodes.
#[must_use]
pub fn lan(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => with_prefix(Ipv4Addr::new(192, 168, 12, 0).into(), 24),
        Family::Ipv6 => with_prefix(Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 0).into(), 64),
    }
}

/// The network of the outside servers.
#[must_use]
pub fn outside(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => with_prefix(Ipv4Addr::new(203, 0, 113, 0).into(), 24),
        Family::Ipv6 => with_prefix(Ipv6Addr::new(0x2001, 0xdb8, 0x25, 0, 0, 0, 0, 0).into(), 64),
    }
}

/// The gateway's address on the LAN, `EGRESS_GATEWAY`: 192.168.12.1.
#[must_use]
pub fn gateway(family: Family) -> IpAddr {
    on_lan(family, 1)
}

/// A free address on the LAN, meant for `EGRESS_SOURCE`: 192.168.12.99.
#[must_use]
pub fn source(family: Family) -> IpAddr {
    on_lan(family, 99)
}

/// 192.168.12.N and 2001:db8:12::N; `number` is below 100.
#[must_use]
pub fn on_lan(family: Family, number: u8) -> IpAddr {
    host(lan(family), digits(family, number))
}

/// An outside server, counted from 0: 203.0.113.25 and 2001:db8:25::25.
#[must_use]
pub fn outside_server(family: Family, index: u8) -> IpAddr {
    host(outside(family), digits(family, 25 + index))
}

/// IPv6 is written in hexadecimal; the same digits shall show.
fn digits(family: Family, number: u8) -> u8 {
    match family {
        Family::Ipv4 => number,
        Family::Ipv6 => number / 10 * 16 + number % 10,
    }
}
