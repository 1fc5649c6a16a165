//! Finds rules on addresses.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::PortRange;
use super::name_index::Earliest;
use super::port_table::{PortTable, PortTableBuilder, Slot};
use super::rule::{RuleIndex, RuleStore, Subject};

/// The rules on networks, by hash: one look-up for each prefix length that
/// the rules use, of which lists have a handful.
#[derive(Clone, Default, Debug)]
pub(super) struct NetworkIndex {
    networks: PortTable,
    /// The prefix lengths of the IPv4 rules, longest first.
    ipv4: Box<[u8]>,
    /// Those of the IPv6 rules.
    ipv6: Box<[u8]>,
}

impl NetworkIndex {
    /// The index of all rules on networks but `0.0.0.0/0`.
    pub(super) fn new(store: &RuleStore) -> Self {
        let mut networks = PortTableBuilder::new(|rule| network(rule, store).map_or(0, hash));
        let mut ipv4 = Vec::new();
        let mut ipv6 = Vec::new();
        for (index, rule) in store.iter() {
            let Subject::Network(subject) = rule.subject else {
                continue;
            };
            if is_everything(subject) {
                continue;
            }
            let lengths = match subject {
                IpNet::V4(_) => &mut ipv4,
                IpNet::V6(_) => &mut ipv6,
            };
            if !lengths.contains(&subject.prefix_len()) {
                lengths.push(subject.prefix_len());
            }
            networks.add(index, |other| network(other, store) == Some(subject), store);
        }
        let longest_first = |mut lengths: Vec<u8>| {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.into_boxed_slice()
        };
        Self {
            networks: networks.build(),
            ipv4: longest_first(ipv4),
            ipv6: longest_first(ipv6),
        }
    }

    /// The first rule on `address` for `port`. Rules whose network is shorter
    /// than `shortest` are left out.
    pub(super) fn first(
        &self,
        address: IpAddr,
        shortest: u8,
        port: u16,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        self.networks_of(IpNet::from(address), shortest, store, |slot| {
            first.offer(self.networks.first(slot, port, store));
        });
        first.rule()
    }

    /// The first rule that takes every one of `ports` of a whole network.
    pub(super) fn covering(
        &self,
        network: IpNet,
        ports: PortRange,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        self.networks_of(network, 0, store, |slot| {
            first.offer(self.networks.covering(slot, ports, store));
        });
        first.rule()
    }

    /// Calls `each` with every network that has a rule and holds `inner`.
    fn networks_of(
        &self,
        inner: IpNet,
        shortest: u8,
        store: &RuleStore,
        mut each: impl FnMut(&Slot),
    ) {
        let lengths = match inner {
            IpNet::V4(_) => &self.ipv4,
            IpNet::V6(_) => &self.ipv6,
        };
        let wide_enough = |&&length: &&u8| shortest <= length && length <= inner.prefix_len();
        for &length in lengths.iter().filter(wide_enough) {
            let Some(outer) = widened(inner, length) else {
                continue;
            };
            let slot = self
                .networks
                .find(hash(outer), |rule| network(rule, store) == Some(outer));
            if let Some(slot) = slot {
                each(slot);
            }
        }
    }
}

/// Whether a network is `0.0.0.0/0`, which stands for everything: the image
/// we replace takes it for its word `all`.
pub(super) fn is_everything(network: IpNet) -> bool {
    matches!(network, IpNet::V4(_)) && network.prefix_len() == 0
}

fn network(rule: RuleIndex, store: &RuleStore) -> Option<IpNet> {
    match store.at(rule)?.subject {
        Subject::Network(network) => Some(network),
        _ => None,
    }
}

fn widened(network: IpNet, length: u8) -> Option<IpNet> {
    Some(match network {
        IpNet::V4(network) => Ipv4Net::new(network.addr(), length).ok()?.trunc().into(),
        IpNet::V6(network) => Ipv6Net::new(network.addr(), length).ok()?.trunc().into(),
    })
}

fn hash(network: IpNet) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let length = u64::from(network.prefix_len());
    let bits = match network {
        IpNet::V4(network) => u64::from(u32::from(network.addr())),
        IpNet::V6(network) => {
            let [high, low] = halves(u128::from(network.addr()));
            (high.wrapping_mul(SPREAD) ^ (high >> 32)).wrapping_add(low)
        }
    };
    let mixed = (bits ^ (length << 56)).wrapping_mul(SPREAD);
    (mixed ^ (mixed >> 32)).wrapping_mul(SPREAD)
}

fn halves(bits: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    ]
}
