//! Services, as kube-proxy makes them on every node: NAT in nftables.

use std::net::IpAddr;

use egress_config::{AddressFamily as Family, Protocol};
use egress_router_init::{
    firewall::table::{
        CT_STATUS_DNAT, Chain, Comparison, Hook, Match, Rule, Selector, Statement, Table, dsl,
    },
    netlink::nft::NftSocket,
};
use ipnet::IpNet;

use crate::{
    error::{LabError, Result},
    netns::NetNs,
};

/// A cluster IP per family in front of one host.
#[derive(Debug, Clone)]
pub struct Service {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) backends: Vec<IpAddr>,
    pub(crate) ports: Vec<(Protocol, u16)>,
}

impl Service {
    /// The service's cluster IP.
    ///
    /// # Panics
    /// When the lab was built without that family.
    #[must_use]
    #[track_caller]
    pub fn address(&self, family: Family) -> IpAddr {
        match self.addresses.iter().find(|ip| Family::of(**ip) == family) {
            Some(ip) => *ip,
            None => panic!("the service has no {family} address"),
        }
    }

    fn backend(&self, family: Family) -> Option<IpAddr> {
        self.backends
            .iter()
            .copied()
            .find(|ip| Family::of(*ip) == family)
    }
}

/// What a node needs to know of one family's pod network to translate.
#[derive(Debug, Clone)]
pub(crate) struct NodeNat {
    /// All pods of the cluster.
    pub(crate) cluster: IpNet,
    /// This node's pods, when a bridge joins them: there an answer to a
    /// translated connection would not pass the node on its way back.
    pub(crate) bridged: Option<IpNet>,
    /// Interface to the LAN.
    pub(crate) uplink: &'static str,
}

/// Replaces the node's NAT.
pub(crate) fn program_node(node: &NetNs, nat: &[NodeNat], services: &[Service]) -> Result<()> {
    let table = table(nat, services);
    node.run(|| NftSocket::open().and_then(|mut nft| nft.replace(&table)))
        .map(drop)
        .map_err(|error| {
            LabError::new(
                format!("loading services on {}", node.name()),
                error.to_string(),
            )
        })
}

fn table(nat: &[NodeNat], services: &[Service]) -> Table {
    let to_services = || vec![Rule::new(vec![dsl::jump("services")])];
    Table {
        name: "lab-services".to_owned(),
        sets: Vec::new(),
        chains: vec![
            Chain::regular("services", services.iter().flat_map(dnat).collect()),
            Chain::base("prerouting", Hook::NatPrerouting, to_services()),
            Chain::base("output", Hook::NatOutput, to_services()),
            Chain::base(
                "postrouting",
                Hook::NatPostrouting,
                nat.iter().flat_map(masquerade).collect(),
            ),
        ],
    }
}

/// `ip daddr CLUSTER_IP tcp dport PORT dnat to BACKEND`
fn dnat(service: &Service) -> Vec<Rule> {
    let mut rules = Vec::new();
    for address in &service.addresses {
        let family = Family::of(*address);
        let Some(backend) = service.backend(family) else {
            continue;
        };
        for (protocol, port) in &service.ports {
            rules.push(Rule::new(vec![
                dsl::nfproto(family),
                dsl::daddr(*address),
                dsl::l4proto(protocol.number()),
                dsl::dport(*port),
                Statement::Dnat {
                    to: backend,
                    port: None,
                },
            ]));
        }
    }
    rules
}

fn masquerade(nat: &NodeNat) -> Vec<Rule> {
    let family = dsl::nfproto(Family::of(nat.cluster.addr()));
    // Pods reach what is not the cluster with the node's address.
    let mut rules = vec![Rule::new(vec![
        family.clone(),
        dsl::saddr_in(nat.cluster, true),
        dsl::daddr_in(nat.cluster, false),
        dsl::oifname(nat.uplink),
        Statement::Masquerade,
    ])];
    // ct status dnat
    let translated = Statement::Match(Match {
        selector: Selector::CtStatus,
        mask: Some(CT_STATUS_DNAT.to_ne_bytes().to_vec()),
        comparison: Comparison::NotEqual,
        value: vec![0; 4],
    });
    // Who is not a pod uses a service with the node's address.
    rules.push(Rule::new(vec![
        family.clone(),
        translated.clone(),
        dsl::saddr_in(nat.cluster, false),
        Statement::Masquerade,
    ]));
    if let Some(bridged) = nat.bridged {
        rules.push(Rule::new(vec![
            family,
            translated,
            dsl::saddr_in(bridged, true),
            dsl::daddr_in(bridged, true),
            Statement::Masquerade,
        ]));
    }
    rules
}
