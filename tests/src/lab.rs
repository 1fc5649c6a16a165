//! The whole lab: who is there, at which addresses, and how it is built.

use std::{net::IpAddr, ops::Deref};

use egress_config::{AddressFamily as Family, Protocol};
use ipnet::IpNet;
use netlink_packet_route::link::MacVlanMode;

use crate::{
    address,
    cni::{Cni, host, with_prefix},
    error::{LabError, Result},
    host::Host,
    netns::NetNs,
    resolver::Resolver,
    route::Route,
    service::{Service, program_node},
};

/// A node's interface on the LAN.
pub(crate) const UPLINK: &str = "eth0";

/// Host part of the first pod; every pod has another one.
const FIRST_POD: u8 = 10;

/// One of the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// 192.168.12.11
    One,
    /// 192.168.12.12
    Two,
}

impl Node {
    /// Both nodes.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

/// A pod: a [`Host`] on a node.
#[derive(Debug, Clone)]
pub struct Pod {
    host: Host,
    node: Node,
}

impl Pod {
    /// The node it runs on.
    #[must_use]
    pub fn node(&self) -> Node {
        self.node
    }
}

impl Deref for Pod {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

/// What kind of lab to build.
#[derive(Debug, Clone)]
pub struct LabBuilder {
    cni: Cni,
    families: Vec<Family>,
    outside_servers: u8,
    rp_filter: u8,
    pod_forwarding: Forwarding,
    macvlan: Option<(String, MacVlanMode)>,
    router_user_namespace: bool,
}

impl LabBuilder {
    /// Style of the pod network.
    #[must_use]
    pub fn cni(mut self, cni: Cni) -> Self {
        self.cni = cni;
        self
    }

    /// Families of the pod network; nodes, LAN and outside have both. In a
    /// lab with both, the cluster's DNS has IPv4 addresses, as in clusters
    /// whose primary family that is.
    #[must_use]
    pub fn families(mut self, families: &[Family]) -> Self {
        self.families = families.to_vec();
        self
    }

    /// How many outside servers there are, at 203.0.113.25 and up.
    #[must_use]
    pub fn outside_servers(mut self, count: u8) -> Self {
        self.outside_servers = count;
        self
    }

    /// `rp_filter` of nodes and pods, as a machine's setting reaches the pods
    /// on it: 0 off, 1 strict, 2 loose.
    #[must_use]
    pub fn rp_filter(mut self, mode: u8) -> Self {
        self.rp_filter = mode;
        self
    }

    /// Whether pods start with forwarding on, IPv4 and IPv6.
    #[must_use]
    pub fn pod_forwarding(mut self, forwarding: Forwarding) -> Self {
        self.pod_forwarding = forwarding;
        self
    }

    /// Gives the router pod a macvlan on its node's `eth0`, as OpenShift's
    /// annotation (`macvlan0`) or Multus (`net1`) do.
    #[must_use]
    pub fn macvlan(mut self, name: &str, mode: MacVlanMode) -> Self {
        self.macvlan = Some((name.to_owned(), mode));
        self
    }

    /// Gives the router pod a user namespace of its own (`hostUsers: false`).
    #[must_use]
    pub fn router_in_user_namespace(mut self) -> Self {
        self.router_user_namespace = true;
        self
    }

    /// Builds the lab; every link carries packets on return.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn build(&self) -> Result<Lab> {
        let gateway = build_gateway()?;
        let lan = build_lan(&gateway)?;
        let outside = (0..self.outside_servers)
            .map(|index| build_outside(&gateway, index))
            .collect::<Result<_>>()?;
        let nodes = [
            self.build_node(&lan, Node::One)?,
            self.build_node(&lan, Node::Two)?,
        ];
        for node in Node::ALL {
            for family in &self.families {
                let netns = of(&nodes, node).netns();
                let peer = address::on_lan(*family, 10 + node.other().number());
                let there = self.cni.pods_of(node.other(), *family);
                netns.add_route(&Route::to(there).via(peer))?;
            }
        }
        let lan_host = build_lan_host(&lan, "lan-host", &lan_addresses(50))?;

        let mut parts = Parts {
            settings: self.clone(),
            lan,
            nodes,
            next_pod: FIRST_POD,
            services: Vec::new(),
        };
        let router = parts.add_pod("router", Node::One, self.router_user_namespace)?;
        let clients = [
            parts.add_pod("client1", Node::One, false)?,
            parts.add_pod("client2", Node::Two, false)?,
        ];
        let dns = parts.add_pod("dns", Node::Two, false)?;
        let resolver = Resolver::start(&dns)?;
        let ports = [(Protocol::Udp, 53), (Protocol::Tcp, 53)];
        parts.add_service(DNS_SERVICE, dns.addresses(), &ports)?;
        let lab = Lab {
            resolver,
            dns,
            outside,
            gateway,
            lan_host,
            router,
            clients,
            parts,
        };
        if let Some((name, mode)) = &self.macvlan {
            lab.add_macvlan(&lab.router, name, *mode)?;
        }
        for netns in lab.all() {
            netns.await_carrier()?;
        }
        Ok(lab)
    }

    fn build_node(&self, lan: &NetNs, node: Node) -> Result<Host> {
        let number = node.number();
        let netns = NetNs::create(&format!("node{number}"))?;
        set_up(&netns, Forwarding::On, self.rp_filter)?;
        plug(
            lan,
            &netns,
            UPLINK,
            &format!("node{number}"),
            &lan_addresses(10 + number),
        )?;
        for family in Family::ALL {
            netns.add_route(&Route::default_via(address::gateway(family)))?;
        }
        self.cni.prepare(node, &netns, &self.families)?;
        let addresses = Family::ALL.map(|family| address::on_lan(family, 10 + number));
        Ok(Host::new(netns, addresses.to_vec()))
    }
}

/// A running lab. Dropping it ends its servers and frees its namespaces.
#[derive(Debug)]
pub struct Lab {
    resolver: Resolver,
    dns: Pod,
    outside: Vec<Host>,
    gateway: Host,
    lan_host: Host,
    router: Pod,
    clients: [Pod; 2],
    parts: Parts,
}

/// What adding a pod or service needs.
#[derive(Debug)]
struct Parts {
    settings: LabBuilder,
    lan: NetNs,
    nodes: [Host; 2],
    next_pod: u8,
    services: Vec<Service>,
}

/// Host part of the API server's cluster IP.
const API_SERVICE: u8 = 1;

/// Host part of the cluster resolver's.
const DNS_SERVICE: u8 = 10;

/// Host part of the first cluster IP for tests.
const FIRST_SERVICE: u8 = 20;

impl Lab {
    /// A lab to be built: default route CNI, both families, three outside
    /// servers, `rp_filter` and forwarding off, no macvlan.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder {
            cni: Cni::DefaultRoute,
            families: Family::ALL.to_vec(),
            outside_servers: 3,
            rp_filter: 0,
            pod_forwarding: Forwarding::Off,
            macvlan: None,
            router_user_namespace: false,
        }
    }

    /// An outside server, counted from 0: 203.0.113.25 and up.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    #[track_caller]
    pub fn outside(&self, index: usize) -> &Host {
        self.outside
            .get(index)
            .expect("the lab has that many outside servers")
    }

    /// The router between LAN and outside, at [`address::gateway`].
    #[must_use]
    pub fn gateway(&self) -> &Host {
        &self.gateway
    }

    /// The bridge that is the LAN; its namespace has no address.
    #[must_use]
    pub fn lan(&self) -> &NetNs {
        &self.parts.lan
    }

    /// A machine on the LAN that is not a node: 192.168.12.50.
    #[must_use]
    pub fn lan_host(&self) -> &Host {
        &self.lan_host
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: Node) -> &Host {
        self.parts.node(node)
    }

    /// The pod on node 1 in which the egress router runs.
    #[must_use]
    pub fn router_pod(&self) -> &Pod {
        &self.router
    }

    /// A client pod on a node.
    #[must_use]
    pub fn client(&self, node: Node) -> &Pod {
        of(&self.clients, node)
    }

    /// The cluster's DNS server, to script its answers.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Cluster IP of the DNS server.
    #[must_use]
    pub fn resolver_address(&self, family: Family) -> IpAddr {
        host(self.parts.settings.cni.services(family), DNS_SERVICE)
    }

    /// Families of the pod network.
    #[must_use]
    pub fn families(&self) -> &[Family] {
        &self.parts.settings.families
    }

    /// Style of the pod network.
    #[must_use]
    pub fn cni(&self) -> Cni {
        self.parts.settings.cni
    }

    /// Starts another pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_pod(&mut self, name: &str, node: Node) -> Result<Pod> {
        let pod = self.parts.add_pod(name, node, false)?;
        self.node(node).netns().await_carrier()?;
        pod.netns().await_carrier()?;
        Ok(pod)
    }

    /// Adds a machine to the LAN, with any address of it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_lan_host(&mut self, name: &str, addresses: &[IpAddr]) -> Result<Host> {
        let addresses: Vec<_> = addresses.iter().copied().map(in_lan).collect();
        let host = build_lan_host(&self.parts.lan, name, &addresses)?;
        self.parts.lan.await_carrier()?;
        host.netns().await_carrier()?;
        Ok(host)
    }

    /// Puts a new cluster IP in front of a pod or node, on all nodes.
    ///
    /// # Errors
    /// When a node's kernel refuses the NAT.
    pub fn add_service(&mut self, backend: &Host, ports: &[(Protocol, u16)]) -> Result<Service> {
        let number = self.parts.free_service()?;
        self.parts.add_service(number, backend.addresses(), ports)
    }

    /// As [`Lab::add_service`], for a pod that is not of the lab's making.
    ///
    /// # Errors
    /// When a node's kernel refuses the NAT.
    pub fn add_service_to(
        &mut self,
        backend: IpAddr,
        ports: &[(Protocol, u16)],
    ) -> Result<Service> {
        let number = self.parts.free_service()?;
        self.parts.add_service(number, &[backend], ports)
    }

    /// Makes the cluster IP of `KUBERNETES_SERVICE_HOST` answer.
    ///
    /// # Errors
    /// When a node's kernel refuses the NAT.
    pub fn add_api_server(&mut self, backend: &Host, port: u16) -> Result<Service> {
        self.parts
            .add_service(API_SERVICE, backend.addresses(), &[(Protocol::Tcp, port)])
    }

    /// Gives a pod a macvlan on its node's `eth0`, down and without address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_macvlan(&self, pod: &Pod, name: &str, mode: MacVlanMode) -> Result<()> {
        self.node(pod.node)
            .netns()
            .add_macvlan(UPLINK, pod.netns(), name, mode)
    }

    /// Every namespace of the lab, to name them to a visitor.
    pub fn all(&self) -> impl Iterator<Item = &NetNs> {
        let [client1, client2] = &self.clients;
        let pods = [&self.router, client1, client2, &self.dns];
        self.outside
            .iter()
            .chain([&self.gateway, &self.lan_host])
            .chain(&self.parts.nodes)
            .map(Host::netns)
            .chain(pods.map(|pod| pod.netns()))
            .chain([&self.parts.lan])
    }
}

impl Parts {
    fn node(&self, node: Node) -> &Host {
        of(&self.nodes, node)
    }

    fn add_pod(&mut self, name: &str, node: Node, own_users: bool) -> Result<Pod> {
        let cni = self.settings.cni;
        let number = self.next_pod;
        self.next_pod = number
            .checked_add(1)
            .ok_or_else(|| LabError::new("adding a pod", "too many"))?;
        let netns = if own_users {
            NetNs::create_in_user_namespace(name)?
        } else {
            NetNs::create(name)?
        };
        set_up(
            &netns,
            self.settings.pod_forwarding,
            self.settings.rp_filter,
        )?;
        let families = &self.settings.families;
        let node_netns = self.node(node).netns();
        let addresses = cni.attach(node, node_netns, &netns, number, families)?;
        // What comes later finds the kernel's default.
        netns.sysctl(&[
            ("net/ipv6/conf/default/accept_dad", "1"),
            ("net/ipv6/conf/default/dad_transmits", "1"),
        ])?;
        let primary = families.first().copied().unwrap_or(Family::Ipv4);
        let services = cni.services(primary);
        let resolv_conf = format!(
            "search default.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver {}\noptions ndots:5\n",
            host(services, DNS_SERVICE)
        );
        let host = Host::new(netns, addresses)
            .with_resolv_conf(resolv_conf)
            .with_environment(
                "KUBERNETES_SERVICE_HOST",
                host(services, API_SERVICE).to_string(),
            );
        Ok(Pod { host, node })
    }

    fn free_service(&self) -> Result<u8> {
        u8::try_from(self.services.len())
            .ok()
            .and_then(|count| FIRST_SERVICE.checked_add(count))
            .ok_or_else(|| LabError::new("adding a service", "too many"))
    }

    fn add_service(
        &mut self,
        number: u8,
        backends: &[IpAddr],
        ports: &[(Protocol, u16)],
    ) -> Result<Service> {
        let cni = self.settings.cni;
        let families = &self.settings.families;
        let service = Service {
            addresses: families
                .iter()
                .map(|family| host(cni.services(*family), number))
                .collect(),
            backends: backends.to_vec(),
            ports: ports.to_vec(),
        };
        self.services.push(service.clone());
        for node in Node::ALL {
            let nat: Vec<_> = families
                .iter()
                .map(|family| cni.nat(node, *family))
                .collect();
            program_node(self.node(node).netns(), &nat, &self.services)?;
        }
        Ok(service)
    }
}

fn build_gateway() -> Result<Host> {
    let netns = NetNs::create("gateway")?;
    set_up(&netns, Forwarding::On, 0)?;
    // The outside's switch; servers plug into it.
    netns.add_bridge("outside0")?;
    for family in Family::ALL {
        let network = address::outside(family);
        netns.add_address(
            "outside0",
            with_prefix(host(network, 1), network.prefix_len()),
        )?;
    }
    Ok(Host::new(netns, Family::ALL.map(address::gateway).to_vec()))
}

fn build_lan(gateway: &Host) -> Result<NetNs> {
    let lan = NetNs::create("lan")?;
    set_up(&lan, Forwarding::Off, 0)?;
    lan.add_bridge("lan0")?;
    plug(&lan, gateway.netns(), "lan0", "gateway", &lan_addresses(1))?;
    Ok(lan)
}

fn build_outside(gateway: &Host, index: u8) -> Result<Host> {
    let netns = NetNs::create(&format!("outside{}", index + 1))?;
    set_up(&netns, Forwarding::Off, 0)?;
    let port = format!("server{index}");
    gateway.netns().add_veth(&port, &netns, "eth0")?;
    gateway.netns().attach(&port, "outside0")?;
    netns.set_up("eth0")?;
    let mut addresses = Vec::new();
    for family in Family::ALL {
        let network = address::outside(family);
        let address = address::outside_server(family, index);
        netns.add_address("eth0", with_prefix(address, network.prefix_len()))?;
        netns.add_route(&Route::default_via(host(network, 1)))?;
        addresses.push(address);
    }
    Ok(Host::new(netns, addresses))
}

fn build_lan_host(lan: &NetNs, name: &str, addresses: &[IpNet]) -> Result<Host> {
    let netns = NetNs::create(name)?;
    set_up(&netns, Forwarding::Off, 0)?;
    plug(lan, &netns, "eth0", name, addresses)?;
    for family in Family::ALL {
        if addresses.iter().any(|net| Family::of(net.addr()) == family) {
            netns.add_route(&Route::default_via(address::gateway(family)))?;
        }
    }
    Ok(Host::new(
        netns,
        addresses.iter().map(IpNet::addr).collect(),
    ))
}

/// Plugs a namespace into the LAN's bridge.
fn plug(lan: &NetNs, netns: &NetNs, link: &str, port: &str, addresses: &[IpNet]) -> Result<()> {
    lan.add_veth(port, netns, link)?;
    lan.attach(port, "lan0")?;
    netns.set_up(link)?;
    for address in addresses {
        netns.add_address(link, *address)?;
    }
    Ok(())
}

/// Whether a machine passes packets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// `ip_forward` 0
    Off,
    /// `ip_forward` 1
    On,
}

/// Settings of a new namespace, before it gets its links. It took over those
/// of the machine that the lab runs on, so all that matter are set.
pub(crate) fn set_up(netns: &NetNs, forwarding: Forwarding, rp_filter: u8) -> Result<()> {
    let forwarding = match forwarding {
        Forwarding::Off => "0",
        Forwarding::On => "1",
    };
    let rp_filter = rp_filter.to_string();
    netns.sysctl(&[
        ("net/ipv4/ip_forward", forwarding),
        ("net/ipv6/conf/all/forwarding", forwarding),
        ("net/ipv4/conf/all/rp_filter", &rp_filter),
        ("net/ipv4/conf/default/rp_filter", &rp_filter),
        ("net/ipv4/conf/all/arp_ignore", "0"),
        ("net/ipv4/conf/default/arp_ignore", "0"),
        ("net/ipv4/conf/all/arp_announce", "0"),
        ("net/ipv4/conf/default/arp_announce", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        // Duplicate address detection takes a second.
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/dad_transmits", "0"),
    ])
}

/// Addresses of a machine on the LAN, with prefix.
fn lan_addresses(number: u8) -> Vec<IpNet> {
    Family::ALL
        .map(|family| in_lan(address::on_lan(family, number)))
        .to_vec()
}

fn in_lan(address: IpAddr) -> IpNet {
    with_prefix(address, address::lan(Family::of(address)).prefix_len())
}

/// The item of one of the nodes.
fn of<T>([one, two]: &[T; 2], node: Node) -> &T {
    match node {
        Node::One => one,
        Node::Two => two,
    }
}
