//! Pods, nodes and configurations to plan with.

use std::net::IpAddr;

use egress_config::{AddressFamily, MapEnvironment};
use ipnet::IpNet;

use super::kernel::Kernel;
use crate::config::Config;
use crate::state::{Ipv4Settings, Ipv6Settings, Link, MacvlanMode, Node, NodeView, Route, scope};

/// How the namespace of the pod calls the node's.
pub(super) const NODE: i32 = 0;

/// `RTPROT_BOOT`: what ip(8) and CNI plugins write.
const PROTOCOL_BOOT: u8 = 3;

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A configuration that must be a good one.
pub(super) fn config(variables: &[(&str, &str)]) -> Config {
    let environment = variables
        .iter()
        .fold(MapEnvironment::new(), |environment, (name, value)| {
            environment.with(name, value)
        });
    match Config::from_environment(&environment) {
        Ok((config, _)) => config,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

/// The documented example.
pub(super) const REDIRECTS: &str = "80 tcp 203.0.113.25\n\
                                    8080 tcp 203.0.113.26 80\n\
                                    8443 tcp 203.0.113.26 443\n\
                                    203.0.113.27\n";

/// One IPv4 source in a LAN that the node is in.
pub(super) const SIMPLE: [(&str, &str); 4] = [
    ("EGRESS_ROUTER_MODE", "init"),
    ("EGRESS_SOURCE", "192.168.12.99/24"),
    ("EGRESS_GATEWAY", "192.168.12.1"),
    ("EGRESS_DESTINATION", REDIRECTS),
];

/// The same with some variables put or replaced.
pub(super) fn simple_with<'a>(others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let replaced = |name: &str| others.iter().any(|(other, _)| *other == name);
    SIMPLE
        .into_iter()
        .filter(|(name, _)| !replaced(name))
        .chain(others.iter().copied())
        .collect()
}

/// A pod as the container runtime hands it over, before any CNI.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) kernel: Kernel,
}

impl Pod {
    /// With the loopback interface, an unprivileged container's read-only
    /// /proc/sys, and a node in 192.168.12.0/24.
    pub(super) fn bare() -> Self {
        let mut kernel = Kernel::default();
        let state = &mut kernel.state;
        state.firewall_present = Some(false);
        state.ipv6_forwarding = Some(false);
        state.unprivileged_ports = Some(1024);
        state.ipv4_default = Ipv4Settings {
            forwarding: 0,
            arp_ignore: 0,
            arp_announce: 0,
        };
        state.ipv6_default = Ipv6Settings {
            addr_gen_mode: 0,
            accept_ra: 1,
            autoconf: 1,
        };
        state.nameservers = vec![ip("10.96.0.10")];
        state.node = NodeView::Seen(node());
        kernel.add_link("lo", "");
        let mut pod = Self { kernel };
        pod.kernel.link_up("lo").unwrap();
        pod.address("lo", "127.0.0.1/8").address("lo", "::1/128");
        pod
    }

    /// Without IPv6 in the kernel.
    pub(super) fn bare_ipv4() -> Self {
        let mut pod = Self::bare();
        pod.kernel.state.ipv6_forwarding = None;
        pod.kernel
            .state
            .addresses
            .retain(|a| a.family() == AddressFamily::Ipv4);
        for link in &mut pod.kernel.state.links {
            link.ipv6 = None;
        }
        pod
    }

    /// `eth0` as most CNI plugins make it.
    pub(super) fn with_eth0(&mut self) -> &mut Self {
        self.eth0()
            .address("eth0", "10.244.1.5/24")
            .route("default", "10.244.1.1", "eth0")
    }

    /// `eth0` without an address.
    pub(super) fn eth0(&mut self) -> &mut Self {
        let link = self.kernel.add_link("eth0", "veth");
        link.peer_namespace = Some(NODE);
        link.parent = Some(7);
        self.up("eth0")
    }

    /// An interface that a CNI attached beside, a macvlan on the node's `ens3`.
    pub(super) fn macvlan(&mut self, name: &str, mode: MacvlanMode) -> &mut Self {
        let link = self.kernel.add_link(name, "macvlan");
        link.macvlan_mode = Some(mode);
        link.peer_namespace = Some(NODE);
        link.parent = Some(2);
        self
    }

    pub(super) fn link(&mut self, name: &str) -> &mut Link {
        self.kernel
            .state
            .links
            .iter_mut()
            .find(|link| link.name == name)
            .unwrap()
    }

    pub(super) fn up(&mut self, name: &str) -> &mut Self {
        self.kernel.link_up(name).unwrap();
        self
    }

    pub(super) fn address(&mut self, link: &str, address: &str) -> &mut Self {
        self.kernel.insert_address(link, net(address));
        self
    }

    /// `ip route add DESTINATION via GATEWAY dev LINK`; `-` for no gateway.
    pub(super) fn route(&mut self, destination: &str, gateway: &str, link: &str) -> &mut Self {
        let gateway = (gateway != "-").then(|| ip(gateway));
        let destination = match (destination, gateway) {
            ("default", Some(IpAddr::V6(_))) => net("::/0"),
            ("default", _) => net("0.0.0.0/0"),
            (destination, _) => net(destination),
        };
        let is_ipv4 = destination.addr().is_ipv4();
        let on_link = is_ipv4 && gateway.is_none();
        self.raw_route(Route {
            protocol: PROTOCOL_BOOT,
            gateway,
            scope: if on_link {
                scope::LINK
            } else {
                scope::UNIVERSE
            },
            metric: if is_ipv4 { 0 } else { 1024 },
            ..Route::ours(destination, link)
        })
    }

    pub(super) fn raw_route(&mut self, route: Route) -> &mut Self {
        self.kernel.state.routes.push(route);
        self
    }

    /// The last route gets a metric.
    pub(super) fn metric(&mut self, metric: u32) -> &mut Self {
        self.kernel.state.routes.last_mut().unwrap().metric = metric;
        self
    }

    /// The last route gets a protocol.
    pub(super) fn protocol(&mut self, protocol: u8) -> &mut Self {
        self.kernel.state.routes.last_mut().unwrap().protocol = protocol;
        self
    }

    /// A privileged container.
    pub(super) fn privileged(&mut self) -> &mut Self {
        self.kernel.state.sysctl_writable = true;
        self
    }

    /// IPv6 on `eth0`, with a gateway on the link.
    pub(super) fn dual_stack(&mut self) -> &mut Self {
        self.address("eth0", "fd00:10:244:1::5/64")
            .route("default", "fe80::1", "eth0")
    }
}

/// A node with `ens3` in one LAN and `ens4` in another.
pub(super) fn node() -> Node {
    let mut node = Kernel::default();
    node.state.ipv6_forwarding = Some(false);
    for (index, name, address) in [
        (1, "lo", "127.0.0.1/8"),
        (2, "ens3", "192.168.12.5/24"),
        (3, "ens4", "172.20.0.5/16"),
    ] {
        let link = node.add_link(name, "");
        link.index = index;
        link.up = true;
        node.insert_address(name, net(address));
    }
    node.insert_address("ens3", net("2001:db8:12::5/64"));
    Node {
        namespace: NODE,
        links: node.state.links,
        addresses: node.state.addresses,
    }
}
