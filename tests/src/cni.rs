//! Pod networks: how the four styles of CNI plugins wire a pod to its node.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use egress_config::AddressFamily as Family;
use ipnet::{IpNet, Ipv4Net};

use crate::{
    error::Result,
    lab::{Node, UPLINK},
    netns::NetNs,
    route::Route,
    service::NodeNat,
};

/// What routes a pod finds when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cni {
    /// `default via 10.244.1.1` and the node's own pod subnet, over a bridge:
    /// the reference `bridge` plugin.
    DefaultRoute,
    /// The same and `10.244.0.0/16 via 10.244.1.1`: flannel.
    ClusterRoute,
    /// `default via 169.254.1.1`, address /32, no bridge; the node answers
    /// ARP for everything. IPv6: `default via fe80::ecee:eeff:feee:eeee`.
    /// Calico.
    LinkLocalGateway,
    /// `10.128.0.0/14 dev eth0`, `224.0.0.0/4 dev eth0`, services and default
    /// `via 10.128.2.1`: OpenShift's SDN.
    OpenShift,
}

/// Host part of the gateway in each node's pod subnet.
const GATEWAY: u8 = 1;

/// What Calico's proxy ARP stands for.
const LINK_LOCAL_4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Link-local address of an interface with Calico's `ee:ee:ee:ee:ee:ee`.
const LINK_LOCAL_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultRoute => "default route",
            Self::ClusterRoute => "cluster route",
            Self::LinkLocalGateway => "link-local gateway",
            Self::OpenShift => "openshift",
        })
    }
}

impl Cni {
    /// All styles.
    pub const ALL: [Self; 4] = [
        Self::DefaultRoute,
        Self::ClusterRoute,
        Self::LinkLocalGateway,
        Self::OpenShift,
    ];

    /// Network of all pods.
    #[must_use]
    pub fn pods(self, family: Family) -> IpNet {
        match (self, family) {
            (Self::OpenShift, Family::Ipv4) => v4([10, 128, 0, 0], 14),
            (Self::OpenShift, Family::Ipv6) => v6([0xfd01, 0, 0, 0], 48),
            (_, Family::Ipv4) => v4([10, 244, 0, 0], 16),
            (_, Family::Ipv6) => v6([0xfd00, 0x10, 0x244, 0], 48),
        }
    }

    /// Network of all services.
    #[must_use]
    pub fn services(self, family: Family) -> IpNet {
        match (self, family) {
            (Self::OpenShift, Family::Ipv4) => v4([172, 30, 0, 0], 16),
            (Self::OpenShift, Family::Ipv6) => v6([0xfd02, 0, 0, 0], 112),
            (_, Family::Ipv4) => v4([10, 96, 0, 0], 16),
            (_, Family::Ipv6) => v6([0xfd00, 0x10, 0x96, 0], 112),
        }
    }

    /// Network of one node's pods.
    #[must_use]
    pub fn pods_of(self, node: Node, family: Family) -> IpNet {
        let number = node.number();
        let third = u16::from(number);
        match (self, family) {
            (Self::OpenShift, Family::Ipv4) => v4([10, 128, 2 * number, 0], 23),
            (Self::OpenShift, Family::Ipv6) => v6([0xfd01, 0, 0, third], 64),
            (_, Family::Ipv4) => v4([10, 244, number, 0], 24),
            (_, Family::Ipv6) => v6([0xfd00, 0x10, 0x244, third], 64),
        }
    }

    /// A pod's way out.
    #[must_use]
    pub fn gateway(self, node: Node, family: Family) -> IpAddr {
        match (self, family) {
            (Self::LinkLocalGateway, Family::Ipv4) => LINK_LOCAL_4.into(),
            (Self::LinkLocalGateway, Family::Ipv6) => LINK_LOCAL_6.into(),
            _ => host(self.pods_of(node, family), GATEWAY),
        }
    }

    /// The bridge that joins a node's pods, where there is one.
    fn bridge(self) -> Option<&'static str> {
        match self {
            Self::DefaultRoute | Self::ClusterRoute => Some("cni0"),
            Self::OpenShift => Some("tun0"),
            Self::LinkLocalGateway => None,
        }
    }

    /// What the node's NAT must know.
    pub(crate) fn nat(self, node: Node, family: Family) -> NodeNat {
        NodeNat {
            cluster: self.pods(family),
            bridged: self.bridge().map(|_| self.pods_of(node, family)),
            uplink: UPLINK,
        }
    }

    /// Prepares a node for its pods.
    pub(crate) fn prepare(self, node: Node, netns: &NetNs, families: &[Family]) -> Result<()> {
        let Some(bridge) = self.bridge() else {
            return Ok(());
        };
        netns.add_bridge(bridge)?;
        for family in families {
            let subnet = self.pods_of(node, *family);
            netns.add_address(
                bridge,
                with_prefix(host(subnet, GATEWAY), subnet.prefix_len()),
            )?;
        }
        if self == Self::OpenShift {
            // Pods of other nodes are on-link for a pod; the node answers.
            answer_arp_for_all(netns, bridge)?;
        }
        Ok(())
    }

    /// Gives a pod its `eth0`; `number` is its host part.
    pub(crate) fn attach(
        self,
        node: Node,
        node_netns: &NetNs,
        pod: &NetNs,
        number: u8,
        families: &[Family],
    ) -> Result<Vec<IpAddr>> {
        let host_end = format!("veth{number}");
        node_netns.add_veth(&host_end, pod, "eth0")?;
        match self.bridge() {
            Some(bridge) => node_netns.attach(&host_end, bridge)?,
            None => {
                node_netns.set_up(&host_end)?;
                answer_arp_for_all(node_netns, &host_end)?;
            }
        }
        pod.set_up("eth0")?;
        let mut addresses = Vec::new();
        for family in families {
            let subnet = self.pods_of(node, *family);
            let address = host(subnet, number);
            match self {
                Self::LinkLocalGateway => {
                    let alone = IpNet::from(address);
                    pod.add_address("eth0", alone)?;
                    if *family == Family::Ipv6 {
                        node_netns.add_address(&host_end, with_prefix(LINK_LOCAL_6.into(), 64))?;
                    }
                    node_netns.add_route(&Route::to(alone).dev(&host_end))?;
                }
                _ => pod.add_address("eth0", with_prefix(address, subnet.prefix_len()))?,
            }
            for route in self.pod_routes(node, *family) {
                pod.add_route(&route.dev("eth0"))?;
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Routes of a pod besides the one that its address brings.
    fn pod_routes(self, node: Node, family: Family) -> Vec<Route> {
        let gateway = self.gateway(node, family);
        let default = Route::default_via(gateway);
        match (self, family) {
            (Self::DefaultRoute, _) | (Self::LinkLocalGateway, Family::Ipv6) => vec![default],
            (Self::ClusterRoute, _) => {
                vec![Route::to(self.pods(family)).via(gateway), default]
            }
            (Self::LinkLocalGateway, Family::Ipv4) => {
                vec![Route::to(IpNet::from(gateway)), default]
            }
            (Self::OpenShift, Family::Ipv4) => vec![
                Route::to(self.pods(family)),
                Route::to(MULTICAST),
                Route::to(self.services(family)).via(gateway),
                default,
            ],
            (Self::OpenShift, Family::Ipv6) => vec![
                Route::to(self.pods(family)).via(gateway),
                Route::to(self.services(family)).via(gateway),
                default,
            ],
        }
    }
}

/// Proxy ARP without its usual delay of up to 0.8 s.
fn answer_arp_for_all(netns: &NetNs, link: &str) -> Result<()> {
    netns.sysctl(&[
        (&format!("net/ipv4/conf/{link}/proxy_arp"), "1"),
        (&format!("net/ipv4/neigh/{link}/proxy_delay"), "0"),
    ])
}

/// Address of a host in a network.
pub(crate) fn host(network: IpNet, number: u8) -> IpAddr {
    match network {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()) + u32::from(number)).into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()) + u128::from(number)).into(),
    }
}

/// An address with the prefix of its network.
pub(crate) fn with_prefix(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new_assert(address, prefix)
}

fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    with_prefix(Ipv4Addr::from(octets).into(), prefix)
}

fn v6([a, b, c, d]: [u16; 4], prefix: u8) -> IpNet {
    with_prefix(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(), prefix)
}
