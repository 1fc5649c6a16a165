//! What a network namespace holds, as plain data.
//!
//! [`crate::netlink`] fills it in; the plan reads it. Devices are known by
//! name, because a plan may name one that does not exist yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_config::AddressFamily;
use ipnet::IpNet;
use serde::Serialize;

/// Marks every route and rule of ours in places that we share with others
/// (`rtm_protocol`, `FRA_PROTOCOL`), so that a later run finds exactly its
/// own. Not assigned in `/etc/iproute2/rt_protos`.
pub const PROTOCOL: u8 = 69;

/// Link group of an interface that we created (`IFLA_GROUP`).
pub const LINK_GROUP: u32 = 0x0065_6772;

/// Routes of the pod network: a copy of what leads out by the pod interface,
/// and the pod's default route. The table is ours; its routes keep the
/// protocol of their originals, so that `undo` restores them to the letter.
pub const POD_TABLE: u32 = 6900;

/// Routes that were in the way and wait for `undo`.
pub const SHELF_TABLE: u32 = 6901;

/// `RT_TABLE_MAIN`
pub const MAIN_TABLE: u32 = 254;

/// `RTPROT_KERNEL`: the kernel made the route for an address.
pub const PROTOCOL_KERNEL: u8 = 2;

/// A network namespace, and what could be seen of the node's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses of all interfaces.
    pub addresses: Vec<Address>,
    /// Routes of all tables but `local`.
    pub routes: Vec<Route>,
    /// Routing rules of ours.
    pub rules: Vec<RoutingRule>,
    /// The node's side.
    pub node: NodeView,
    /// Name servers of the pod (`/etc/resolv.conf`).
    pub nameservers: Vec<IpAddr>,
    /// `net.ipv6.conf.all.forwarding`; `None` when the kernel has no IPv6.
    pub ipv6_forwarding: Option<bool>,
    /// `net.ipv4.ip_unprivileged_port_start`; `None` when the kernel has none.
    pub unprivileged_ports: Option<u32>,
    /// Whether a router's container can write /proc/sys here.
    pub sysctl_writable: bool,
    /// Whether our packet rules are there; `None` when we may not ask.
    pub firewall_present: Option<bool>,
    /// IPv4 settings that a new interface gets.
    pub ipv4_default: Ipv4Settings,
    /// IPv6 settings that a new interface gets.
    pub ipv6_default: Ipv6Settings,
}

impl State {
    /// The interface of that name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The addresses of an interface.
    pub fn addresses_of<'a>(&'a self, link: &'a str) -> impl Iterator<Item = &'a Address> {
        self.addresses
            .iter()
            .filter(move |address| address.link == link)
    }
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `ifindex`
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind (`macvlan`, `veth`, ...); empty for hardware.
    pub kind: String,
    /// Whether it is an Ethernet device (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Administratively up.
    pub up: bool,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Vec<u8>,
    /// Link group.
    pub group: u32,
    /// Alias (`ip link set ... alias`).
    pub alias: Option<String>,
    /// How our namespace calls the one of the peer or parent.
    pub peer_namespace: Option<i32>,
    /// Index of the parent, in the parent's own namespace.
    pub parent: Option<u32>,
    /// Index of the bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// Mode, of a macvlan.
    pub macvlan_mode: Option<MacvlanMode>,
    /// IPv4 settings that we change.
    pub ipv4: Ipv4Settings,
    /// IPv6 settings that we change; `None` where IPv6 is off.
    pub ipv6: Option<Ipv6Settings>,
}

impl Link {
    /// Whether one of our runs created it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.group == LINK_GROUP
    }
}

/// Mode of a macvlan (ip-link(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// No traffic between macvlans of one parent.
    Private,
    /// By way of the switch.
    Vepa,
    /// Directly.
    Bridge,
    /// One macvlan takes the parent whole.
    Passthru,
    /// Only from listed hardware addresses.
    Source,
}

impl MacvlanMode {
    /// Every mode.
    pub const ALL: [Self; 5] = [
        Self::Private,
        Self::Vepa,
        Self::Bridge,
        Self::Passthru,
        Self::Source,
    ];

    /// As ip-link(8) writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Bridge => "bridge",
            Self::Passthru => "passthru",
            Self::Source => "source",
        }
    }
}

/// Settings of a device under `net.ipv4.conf`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ipv4Settings {
    /// `forwarding`
    pub forwarding: u32,
    /// `arp_ignore`
    pub arp_ignore: u32,
    /// `arp_announce`
    pub arp_announce: u32,
}

/// Settings of a device under `net.ipv6.conf`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ipv6Settings {
    /// `addr_gen_mode`: 0 makes a link-local address when the link goes up, 1
    /// does not.
    pub addr_gen_mode: u32,
    /// `accept_ra`
    pub accept_ra: u32,
    /// `autoconf`
    pub autoconf: u32,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's name.
    pub link: String,
    /// Address and prefix length.
    pub address: IpNet,
    /// Whether it reaches beyond its link (`RT_SCOPE_UNIVERSE`).
    pub global: bool,
}

impl Address {
    /// Its family.
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        AddressFamily::of(self.address.addr())
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination; a length of 0 is the default route.
    pub destination: IpNet,
    /// Routing table.
    pub table: u32,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
    /// How far the destination is (`rtm_scope`).
    pub scope: u8,
    /// What becomes of a packet.
    pub kind: RouteKind,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface.
    pub link: Option<String>,
    /// Source address of what the pod itself sends.
    pub source: Option<IpAddr>,
    /// Preference, lower first (`RTA_PRIORITY`).
    pub metric: u32,
    /// `RTNH_F_ONLINK`: the gateway need not be in a connected network.
    pub onlink: bool,
    /// Attributes that we only carry along: kind and value.
    pub other: Vec<(u16, Vec<u8>)>,
}

impl Route {
    /// A unicast route to `destination` in the main table, of ours.
    #[must_use]
    pub fn ours(destination: IpNet, link: &str) -> Self {
        Self {
            destination,
            table: MAIN_TABLE,
            protocol: PROTOCOL,
            scope: scope::UNIVERSE,
            kind: RouteKind::Unicast,
            gateway: None,
            link: Some(link.to_owned()),
            source: None,
            metric: 0,
            onlink: false,
            other: Vec::new(),
        }
    }

    /// Whether the route is for everything.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }

    /// Whether both say the same; what we only carry along is not compared,
    /// because the kernel adds to it.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let key = |route: &Self| {
            (
                route.destination,
                route.table,
                route.protocol,
                route.scope,
                route.kind,
            )
        };
        let way = |route: &Self| (route.gateway, route.source, route.metric, route.onlink);
        key(self) == key(other) && way(self) == way(other) && self.link == other.link
    }

    /// Whether one of the two replaces the other: both are for the same
    /// destination, with the same metric.
    #[must_use]
    pub fn is_in_place_of(&self, other: &Self) -> bool {
        (self.destination, self.table, self.metric)
            == (other.destination, other.table, other.metric)
    }

    /// Whether a table that has one of the two cannot take the other beside
    /// it. IPv6 makes one route of two gateways to a destination; IPv4 keeps
    /// both, and the first is used.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        let has_gateway = self.gateway.is_some() || other.gateway.is_some();
        self.is_same_way(other)
            || self.family() == AddressFamily::Ipv6 && has_gateway && self.is_in_place_of(other)
    }

    /// As [`Self::matches`]; whether a gateway is known to be on the link does
    /// not count.
    #[must_use]
    pub fn is_same_way(&self, other: &Self) -> bool {
        Self {
            onlink: other.onlink,
            ..self.clone()
        }
        .matches(other)
    }

    /// Whether the kernel made it, for an address.
    #[must_use]
    pub fn is_of_kernel(&self) -> bool {
        self.protocol == PROTOCOL_KERNEL
    }

    /// Whether it is in the main table and not ours.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.table == MAIN_TABLE && self.protocol != PROTOCOL
    }

    /// Whether it leads out by that interface.
    #[must_use]
    pub fn is_by(&self, link: &str) -> bool {
        self.link.as_deref() == Some(link)
    }

    /// The same route in another table.
    #[must_use]
    pub fn in_table(&self, table: u32) -> Self {
        Self {
            table,
            ..self.clone()
        }
    }

    /// Family of the destination.
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        AddressFamily::of(self.destination.addr())
    }
}

/// `rtm_scope` numbers.
pub mod scope {
    /// Beyond a gateway.
    pub const UNIVERSE: u8 = 0;
    /// On the link.
    pub const LINK: u8 = 253;
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Answers that the destination is unreachable.
    Unreachable,
    /// Another `RTN_*` number, carried along.
    Other(u8),
}

/// A routing rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutingRule {
    /// Family of what it matches.
    pub family: AddressFamily,
    /// Order, lower first.
    pub priority: u32,
    /// What it matches.
    pub matches: RuleMatch,
    /// Table that it leads to.
    pub table: u32,
}

/// What a [`RoutingRule`] matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleMatch {
    /// Source address.
    From(IpNet),
    /// Destination address, of what processes of the pod send (`iif lo`): what
    /// is forwarded there goes its own way.
    LocalTo(IpNet),
    /// Destination address, of everything: earlier versions made such rules.
    To(IpNet),
    /// Incoming interface.
    Iif(String),
}

/// The node's network namespace, as far as it can be seen from the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeView {
    /// Nobody looked.
    #[default]
    NotAsked,
    /// It cannot be seen, and why.
    Hidden(String),
    /// We lack the capability to see it, which a router's container has.
    NotPermitted,
    /// It can.
    Seen(Node),
}

/// The node's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// How our namespace calls the node's.
    pub namespace: i32,
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
}

/// The network that is one address.
#[must_use]
pub fn host(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(a) => IpNet::V4(ipnet::Ipv4Net::from(a)),
        IpAddr::V6(a) => IpNet::V6(ipnet::Ipv6Net::from(a)),
    }
}

/// `0.0.0.0/0` or `::/0`.
#[must_use]
pub fn everything(family: AddressFamily) -> IpNet {
    match family {
        AddressFamily::Ipv4 => IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        AddressFamily::Ipv6 => IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    }
}
