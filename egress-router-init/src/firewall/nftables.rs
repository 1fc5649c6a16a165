//! nftables over netlink: the default.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_config::{AddressFamily, Port, Protocol};
use tracing::debug;

use super::rules::{
    FORWARD_CHAIN, FROM_LAN_CHAIN, Firewall, REFUSE_CHAIN, TABLE, count_set, fallback_set, flow_set,
};
use super::table::Elements;
use super::{Count, Counters, Driver, DriverError, Flow, Replaced};
use crate::netlink::conntrack::{Connection, Tracked};
use crate::netlink::nft::{self, NftSocket, Shape};

/// Our table, and nothing else.
#[derive(Debug)]
pub(super) struct Nftables {
    socket: NftSocket,
    /// What the last replacement made.
    made: Option<Shape>,
    /// Generation of the rules at which the table was found to be that.
    seen: Option<u32>,
}

impl Nftables {
    pub(super) fn open() -> Result<Self, DriverError> {
        Ok(Self {
            socket: NftSocket::open()?,
            made: None,
            seen: None,
        })
    }

    fn chain_count(&mut self, chain: &str) -> Result<Count, DriverError> {
        let counts = self.socket.rule_counts(TABLE, chain)?;
        Ok(counts.first().copied().unwrap_or_default().into())
    }
}

impl Driver for Nftables {
    fn replace(&mut self, firewall: &Firewall<'_>) -> Result<Replaced, DriverError> {
        let table = firewall.table();
        let changes = self.socket.replace_without(&table, &firewall.retired())?;
        self.made = Some(Shape::of(&table));
        let mut stale = Stale::after(&changes);
        if !stale.is_empty() {
            if !stale.fallbacks.is_empty() {
                stale.mappings = firewall
                    .redirects
                    .mappings()
                    .iter()
                    .map(Flow::from)
                    .collect();
            }
            let forgotten = self.socket.forget(|tracked| stale.contains(tracked))?;
            debug!(forgotten, "connections of changed mappings");
        }
        Ok(stale.replaced)
    }

    fn remove(&mut self) -> Result<bool, DriverError> {
        self.made = None;
        Ok(self.socket.delete_table(TABLE)?)
    }

    fn is_present(&mut self) -> Result<bool, DriverError> {
        Ok(self.socket.has_table(TABLE)?)
    }

    fn is_intact(&mut self) -> Result<bool, DriverError> {
        let Some(made) = &self.made else {
            return Ok(true);
        };
        // Before the table is looked at: what changes meanwhile is looked at
        // the next time.
        let generation = self.socket.generation()?;
        if self.seen == Some(generation) {
            return Ok(true);
        }
        let intact = self.socket.shape(TABLE)?.holds(made);
        self.seen = intact.then_some(generation);
        Ok(intact)
    }

    fn counters(&mut self) -> Result<Counters, DriverError> {
        let mut counters = Counters::default();
        for family in AddressFamily::ALL {
            // A family without a source address has no sets.
            if !self.socket.has_set(TABLE, flow_set(family))? {
                continue;
            }
            let counts: HashMap<_, _> = self
                .socket
                .element_counts(TABLE, count_set(family))?
                .into_iter()
                .map(|element| (element.key, Count::from(element.count)))
                .collect();
            let flows = self.socket.element_counts(TABLE, flow_set(family))?;
            counters.mappings.extend(flows.iter().filter_map(|flow| {
                // What no packet needed is not counted.
                let count = counts.get(&flow.key).copied().unwrap_or_default();
                Some((flow_of(&flow.key)?, count))
            }));
            let fallbacks = self.socket.element_counts(TABLE, fallback_set(family))?;
            counters.fallbacks.extend(
                fallbacks
                    .iter()
                    .filter_map(|c| Some((address(&c.key)?, c.count.into()))),
            );
        }
        counters.mappings.sort_unstable_by_key(|(flow, _)| *flow);
        counters.refused = self.chain_count(REFUSE_CHAIN)?;
        let (to_pod, through) = (
            self.chain_count(FROM_LAN_CHAIN)?,
            self.chain_count(FORWARD_CHAIN)?,
        );
        counters.dropped = Count {
            packets: to_pod.packets + through.packets,
            bytes: to_pod.bytes + through.bytes,
        };
        Ok(counters)
    }
}

/// Connections that the rules in force no longer allow.
///
/// They are refused without our help. But the answer to a packet that was
/// translated already takes the way of its translated address, which need not
/// be that to the client; and datagrams have nothing that would end them.
#[derive(Default)]
struct Stale {
    /// Mappings that are gone.
    flows: HashSet<Flow>,
    /// Ports that have a new mapping, which a fallback may have served, or
    /// nobody.
    ports: HashSet<(AddressFamily, Protocol, Port)>,
    /// Mappings that are new.
    new: HashSet<Flow>,
    /// Fallbacks that are gone.
    fallbacks: HashSet<IpAddr>,
    /// Where a fallback is gone, the mappings in force, which may lead to the
    /// same place.
    mappings: HashSet<Flow>,
    /// Families that have a new fallback.
    newly_served: Vec<AddressFamily>,
    replaced: Replaced,
}

impl Stale {
    fn after(changes: &[nft::SetChange]) -> Self {
        let mut stale = Self::default();
        // Without rules before there were no connections of theirs.
        let first_time = changes.iter().all(|c| c.kept == 0 && c.removed.is_empty());
        for family in AddressFamily::ALL {
            if let Some(change) = change_of(changes, flow_set(family)) {
                stale.replaced.added += change.added.len();
                stale.replaced.removed += change.removed.len();
                stale.replaced.kept += change.kept;
                if !first_time {
                    let had_fallback = change_of(changes, fallback_set(family))
                        .is_some_and(|change| change.kept > 0 || !change.removed.is_empty());
                    // Nobody had a connection to a port that nobody served.
                    let may_be_in_use =
                        |flow: &Flow| flow.protocol != Protocol::Tcp || had_fallback;
                    stale.flows.extend(flows_of(&change.removed));
                    stale
                        .new
                        .extend(flows_of(&change.added).filter(may_be_in_use));
                }
            }
            if let Some(change) = change_of(changes, fallback_set(family)) {
                stale
                    .fallbacks
                    .extend(change.removed.iter().filter_map(|(key, _)| address(key)));
                if !first_time && !change.added.is_empty() {
                    stale.newly_served.push(family);
                }
            }
        }
        let port = |flow: &Flow| (AddressFamily::of(flow.target), flow.protocol, flow.port);
        stale.ports = stale.new.iter().map(port).collect();
        stale
    }

    fn is_empty(&self) -> bool {
        self.flows.is_empty()
            && self.ports.is_empty()
            && self.fallbacks.is_empty()
            && self.newly_served.is_empty()
    }

    fn contains(&self, tracked: &Tracked) -> bool {
        match *tracked {
            Tracked::Translated(connection) => self.no_longer_allows(&connection),
            // The reset that refused it ended it.
            Tracked::Untranslated { protocol, .. } if protocol == Protocol::Tcp.number() => false,
            // It was refused, and would be so for as long as the client tries.
            Tracked::Untranslated {
                address,
                protocol: number,
                port,
            } => {
                let family = AddressFamily::of(address);
                let key = protocol(number).zip(Port::new(port));
                self.newly_served.contains(&family)
                    || key.is_some_and(|(protocol, port)| {
                        self.ports.contains(&(family, protocol, port))
                    })
            }
        }
    }

    fn no_longer_allows(&self, connection: &Connection) -> bool {
        let flow = flow_of_connection(connection);
        if self.fallbacks.contains(&connection.target) && connection.port == connection.target_port
        {
            return flow.is_none_or(|flow| !self.mappings.contains(&flow));
        }
        let Some(flow) = flow else { return false };
        self.flows.contains(&flow)
            || self
                .ports
                .contains(&(AddressFamily::of(flow.target), flow.protocol, flow.port))
                && !self.new.contains(&flow)
    }
}

fn change_of<'a>(changes: &'a [nft::SetChange], set: &str) -> Option<&'a nft::SetChange> {
    changes.iter().find(|change| change.set == set)
}

fn flows_of(elements: &Elements) -> impl Iterator<Item = Flow> {
    elements.iter().filter_map(|(key, _)| flow_of(key))
}

fn flow_of_connection(connection: &Connection) -> Option<Flow> {
    Some(Flow {
        port: Port::new(connection.port)?,
        protocol: protocol(connection.protocol)?,
        target: connection.target,
        target_port: Port::new(connection.target_port)?,
    })
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|protocol| protocol.number() == number)
}

impl From<nft::Count> for Count {
    fn from(count: nft::Count) -> Self {
        Self {
            packets: count.packets,
            bytes: count.bytes,
        }
    }
}

/// The key of a flow set: protocol, port, address, port, each padded to 32
/// bits.
fn flow_of(key: &[u8]) -> Option<Flow> {
    let port = |bytes: &[u8]| Port::new(u16::from_be_bytes(*bytes.first_chunk()?));
    let protocol = protocol(*key.first()?)?;
    let (local, remote) = (key.get(4..8)?, key.get(8..)?);
    let (target, target_port) = remote.split_at_checked(remote.len().checked_sub(4)?)?;
    Some(Flow {
        protocol,
        port: port(local)?,
        target: address(target)?,
        target_port: port(target_port)?,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}
