//! Connection tracking: `conntrack -L`, `conntrack -D`.
//!
//! Packets of a connection whose mapping is gone are refused without our help.
//! But a client that goes on sending datagrams from the same port keeps its
//! entry, and with it the old destination, alive for ever; so does one that
//! was refused, with no destination at all. Such entries are deleted after a
//! reload. And before the router's end they tell whether anybody still has a
//! connection open.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::nft::dump::{first, walk};
use super::nft::socket::serialize;
use super::nft::{NftError, NftSocket};

/// A tracked connection whose destination was translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    /// The port that the client speaks to.
    pub port: u16,
    /// Where its packets go.
    pub target: IpAddr,
    /// The port there.
    pub target_port: u16,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// A connection whose destination was translated.
    Translated(Connection),
    /// One that was left to this network namespace itself.
    Untranslated {
        /// The address of ours that the client speaks to.
        address: IpAddr,
        /// IP protocol number.
        protocol: u8,
        /// The port that the client speaks to.
        port: u16,
    },
}

// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

impl NftSocket {
    /// Forgets the entries that `is_stale` picks, and says how many there were.
    /// Those of connections that processes of this namespace began are left
    /// alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&mut self, is_stale: impl Fn(&Tracked) -> bool) -> Result<usize, NftError> {
        let ours = own_addresses()?;
        let mut stale = Vec::new();
        self.connections(|family, attributes| {
            if let Some((tracked, tuple)) = tracked(attributes, &ours)
                && is_stale(&tracked)
            {
                stale.push((family, tuple.to_vec()));
            }
        })?;
        for (family, tuple) in &stale {
            let tuple = DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple.clone());
            let delete = ConntrackMessage::Delete(vec![ConntrackAttribute::Other(tuple)]);
            let request = serialize(0, NLM_F_REQUEST | NLM_F_ACK, message(*family, delete));
            match self.exchange("deleting a connection", &request, |_, _| Ok(())) {
                // It ended by itself meanwhile.
                Err(NftError::Refused { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(stale.len())
    }

    /// How many translated TCP connections are open: answered, and not closed
    /// by both sides. Datagrams have no end that could be awaited.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_connections(&mut self) -> Result<usize, NftError> {
        let mut open = 0;
        self.connections(|_, attributes| {
            open += usize::from(translated(attributes).is_some() && is_open(attributes));
        })?;
        Ok(open)
    }

    /// `conntrack -L`; hands family and attributes of each entry to `each`.
    fn connections(
        &mut self,
        mut each: impl FnMut(NetfilterProtoFamily, &[u8]),
    ) -> Result<(), NftError> {
        let request = message(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(vec![]));
        let request = serialize(0, NLM_F_REQUEST | NLM_F_DUMP, request);
        self.exchange("listing connections", &request, |_, payload| {
            // struct nfgenmsg
            let Some((header, attributes)) = payload.split_at_checked(4) else {
                return Ok(());
            };
            let family = header
                .first()
                .copied()
                .map_or(NetfilterProtoFamily::Unspec, Into::into);
            each(family, attributes);
            Ok(())
        })
    }
}

/// From `TCP_CONNTRACK_SYN_RECV` to `TCP_CONNTRACK_CLOSE_WAIT`
/// (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
fn is_open(attributes: &[u8]) -> bool {
    let state = first(attributes, CTA_PROTOINFO)
        .and_then(|info| first(info, CTA_PROTOINFO_TCP))
        .and_then(|tcp| first(tcp, CTA_PROTOINFO_TCP_STATE));
    matches!(state, Ok([2..=5]))
}

fn message(family: NetfilterProtoFamily, message: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

/// The addresses of this network namespace.
fn own_addresses() -> Result<HashSet<IpAddr>, NftError> {
    let all = getifaddrs().map_err(|errno| NftError::Refused {
        step: "listing addresses",
        source: errno.into(),
    })?;
    let ip = |address: SockaddrStorage| {
        let v4 = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    };
    Ok(all.filter_map(|interface| ip(interface.address?)).collect())
}

/// What an entry is about, and its original tuple as the kernel wrote it;
/// `None` when it is neither translated nor to an address of `ours`.
fn tracked<'a>(attributes: &'a [u8], ours: &HashSet<IpAddr>) -> Option<(Tracked, &'a [u8])> {
    let original = first(attributes, CTA_TUPLE_ORIG).ok()?;
    let address = destination(original)?;
    let tracked = match translated(attributes) {
        Some(connection) => Tracked::Translated(connection),
        None if ours.contains(&address) => Tracked::Untranslated {
            address,
            protocol: protocol(original)?,
            port: port(original, CTA_PROTO_DST_PORT).unwrap_or(0),
        },
        None => return None,
    };
    Some((tracked, original))
}

/// The connection; `None` when its destination was not translated.
fn translated(attributes: &[u8]) -> Option<Connection> {
    let original = first(attributes, CTA_TUPLE_ORIG).ok()?;
    let reply = first(attributes, CTA_TUPLE_REPLY).ok()?;
    let target = address(reply, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?;
    let connection = Connection {
        protocol: protocol(original)?,
        port: port(original, CTA_PROTO_DST_PORT).unwrap_or(0),
        target,
        target_port: port(reply, CTA_PROTO_SRC_PORT).unwrap_or(0),
    };
    (destination(original)? != target).then_some(connection)
}

fn destination(tuple: &[u8]) -> Option<IpAddr> {
    address(tuple, CTA_IP_V4_DST, CTA_IP_V6_DST)
}

fn protocol(tuple: &[u8]) -> Option<u8> {
    let number = first(first(tuple, CTA_TUPLE_PROTO).ok()?, CTA_PROTO_NUM).ok()?;
    number.first().copied()
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = first(tuple, CTA_TUPLE_IP).ok()?;
    let mut found = None;
    let mut keep = |address: Option<IpAddr>| {
        found = found.or(address);
        Ok(())
    };
    walk(ip, v4, |b| {
        keep(b.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()))
    })
    .ok()?;
    walk(ip, v6, |b| {
        keep(b.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()))
    })
    .ok()?;
    found
}

fn port(tuple: &[u8], kind: u16) -> Option<u16> {
    let value = first(first(tuple, CTA_TUPLE_PROTO).ok()?, kind).ok()?;
    Some(u16::from_be_bytes(*value.first_chunk()?))
}
