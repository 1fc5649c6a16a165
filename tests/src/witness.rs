//! Counts what reaches a host, whether or not somebody answers it there.

use std::net::IpAddr;

use egress_config::AddressFamily as Family;
use egress_router_init::{
    firewall::table::{Chain, Hook, Rule, Statement, Table, dsl},
    netlink::nft::NftSocket,
};
use ipnet::IpNet;

use crate::{
    error::{LabError, Result},
    host::Host,
    netns::NetNs,
};

const TABLE: &str = "lab-witness";
const CHAIN: &str = "input";

/// TCP, UDP and ICMP. ICMPv6 is left out: neighbours speak it among
/// themselves.
const PROTOCOLS: [u8; 3] = [6, 17, 1];

/// Counters of what a host receives: [`Host::watch_for`].
#[derive(Debug)]
pub struct Witness {
    netns: NetNs,
    expected: usize,
}

/// Packets that reached a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrivals {
    /// From the addresses that were expected.
    pub expected: u64,
    /// From any other address.
    pub strangers: u64,
}

impl Host {
    /// Counts from now on the TCP, UDP and ICMP packets that arrive here,
    /// apart by whether they come from one of the `expected` addresses.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn watch_for(&self, expected: &[IpAddr]) -> Result<Witness> {
        let netns = self.netns().clone();
        let table = table(expected);
        netns
            .run(|| NftSocket::open().and_then(|mut nft| nft.replace(&table)))
            .map_err(|error| failed(&netns, &error))?;
        Ok(Witness {
            netns,
            expected: expected.len() * PROTOCOLS.len(),
        })
    }
}

impl Witness {
    /// What arrived so far.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn arrivals(&self) -> Result<Arrivals> {
        let counts = self
            .netns
            .run(|| NftSocket::open().and_then(|mut nft| nft.rule_counts(TABLE, CHAIN)))
            .map_err(|error| failed(&self.netns, &error))?;
        let packets = |counts: &[egress_router_init::netlink::nft::Count]| {
            counts.iter().map(|count| count.packets).sum()
        };
        let (expected, strangers) = counts
            .split_at_checked(self.expected)
            .unwrap_or((&counts, &[]));
        Ok(Arrivals {
            expected: packets(expected),
            strangers: packets(strangers),
        })
    }
}

fn failed(netns: &NetNs, error: &egress_router_init::netlink::nft::NftError) -> LabError {
    LabError::new(
        format!("counting packets in {}", netns.name()),
        error.to_string(),
    )
}

/// `ip saddr EXPECTED ip protocol tcp counter accept`, and a counter for the
/// rest.
fn table(expected: &[IpAddr]) -> Table {
    let known = expected.iter().flat_map(|address| {
        PROTOCOLS.map(|protocol| {
            Rule::new(vec![
                dsl::nfproto(Family::of(*address)),
                dsl::l4proto(protocol),
                dsl::saddr_in(IpNet::from(*address), true),
                Statement::Counter,
                Statement::Accept,
            ])
        })
    });
    let others =
        PROTOCOLS.map(|protocol| Rule::new(vec![dsl::l4proto(protocol), Statement::Counter]));
    Table {
        name: TABLE.to_owned(),
        sets: Vec::new(),
        chains: vec![Chain::base(
            CHAIN,
            Hook::FilterInput,
            known.chain(others).collect(),
        )],
    }
}
