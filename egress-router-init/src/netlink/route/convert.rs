//! Between the kernel's messages and our plain types.

use std::collections::HashMap;
use std::net::IpAddr;

use egress_config::AddressFamily as Family;
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoMacVlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage, MacVlanMode,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::state::{
    Address, Ipv4Settings, Link, MacvlanMode, PROTOCOL, Route, RouteKind, RoutingRule, RuleMatch,
};

/// Names of interfaces by their index.
pub(super) type Names = HashMap<u32, String>;

pub(super) fn netlink_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn our_family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::Ipv4),
        AddressFamily::Inet6 => Some(Family::Ipv6),
        _ => None,
    }
}

pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: Vec::new(),
        group: 0,
        alias: None,
        peer_namespace: None,
        parent: None,
        controller: None,
        macvlan_mode: None,
        ipv4: Ipv4Settings::default(),
        ipv6: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(*id),
            LinkAttribute::Link(index) => link.parent = Some(*index),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => link_info(&mut link, infos),
            LinkAttribute::AfSpecUnspec(specs) => link_settings(&mut link, specs),
            _ => {}
        }
    }
    link
}

fn link_info(link: &mut Link, infos: &[LinkInfo]) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => link.kind = kind.to_string(),
            LinkInfo::Data(InfoData::MacVlan(data)) => {
                link.macvlan_mode = data.iter().find_map(|data| match data {
                    InfoMacVlan::Mode(MacVlanMode::Private) => Some(MacvlanMode::Private),
                    InfoMacVlan::Mode(MacVlanMode::Vepa) => Some(MacvlanMode::Vepa),
                    InfoMacVlan::Mode(MacVlanMode::Bridge) => Some(MacvlanMode::Bridge),
                    InfoMacVlan::Mode(MacVlanMode::Passthrough) => Some(MacvlanMode::Passthru),
                    InfoMacVlan::Mode(MacVlanMode::Source) => Some(MacvlanMode::Source),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

fn link_settings(link: &mut Link, specs: &[AfSpecUnspec]) {
    for spec in specs {
        match spec {
            AfSpecUnspec::Inet(specs) => {
                for spec in specs {
                    if let AfSpecInet::DevConf(conf) = spec {
                        link.ipv4 = Ipv4Settings {
                            forwarding: conf.forwarding.cast_unsigned(),
                            arp_ignore: conf.arp_ignore.cast_unsigned(),
                            arp_announce: conf.arp_announce.cast_unsigned(),
                        };
                    }
                }
            }
            AfSpecUnspec::Inet6(specs) => {
                let ipv6 = link.ipv6.get_or_insert_default();
                for spec in specs {
                    match spec {
                        AfSpecInet6::DevConf(conf) => {
                            ipv6.accept_ra = conf.accept_ra.cast_unsigned();
                            ipv6.autoconf = conf.autoconf.cast_unsigned();
                        }
                        AfSpecInet6::AddrGenMode(mode) => ipv6.addr_gen_mode = gen_mode(*mode),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// `enum in6_addr_gen_mode`
fn gen_mode(mode: In6AddrGenMode) -> u32 {
    u8::from(&mode).into()
}

pub(super) fn macvlan_mode(mode: MacvlanMode) -> MacVlanMode {
    match mode {
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
        MacvlanMode::Source => MacVlanMode::Source,
    }
}

/// `None` for an address of an interface that is gone meanwhile.
pub(super) fn address(message: &AddressMessage, names: &Names) -> Option<Address> {
    // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on a
    // point-to-point link, and all there is for IPv6.
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(other) => address = address.or(Some(*other)),
            _ => {}
        }
    }
    Some(Address {
        link: names.get(&message.header.index)?.clone(),
        address: IpNet::new(address?, message.header.prefix_len).ok()?,
        global: message.header.scope == AddressScope::Universe,
    })
}

/// `None` for what we never touch: other families, cached clones, and the
/// tables of local and broadcast addresses.
pub(super) fn route(message: &RouteMessage, names: &Names) -> Option<Route> {
    const LOCAL_TABLE: u32 = 255;
    let family = our_family(message.header.address_family)?;
    if message.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let everything = crate::state::everything(family);
    let mut route = Route {
        destination: IpNet::new(everything.addr(), message.header.destination_prefix_length)
            .ok()?,
        table: message.header.table.into(),
        protocol: message.header.protocol.into(),
        scope: message.header.scope.into(),
        kind: match message.header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Unreachable => RouteKind::Unreachable,
            other => RouteKind::Other(other.into()),
        },
        gateway: None,
        link: None,
        source: None,
        metric: 0,
        onlink: message.header.flags.contains(RouteFlags::Onlink),
        other: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination =
                    IpNet::new(ip(address)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(index) => route.link = names.get(index).cloned(),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            // Ages, not properties.
            RouteAttribute::CacheInfo(_) | RouteAttribute::Expires(_) => {}
            other => route.other.push(opaque(other)),
        }
    }
    if route.kind == RouteKind::Unreachable {
        // The kernel hangs an IPv6 one on `lo`.
        route.link = None;
    }
    (route.table != LOCAL_TABLE).then_some(route)
}

fn opaque(attribute: &RouteAttribute) -> (u16, Vec<u8>) {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    (attribute.kind(), value)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(a) => RouteAddress::Inet(a),
        IpAddr::V6(a) => RouteAddress::Inet6(a),
    }
}

pub(super) fn route_message(route: &Route, index_of: impl Fn(&str) -> Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: netlink_family(route.family()),
        destination_prefix_length: route.destination.prefix_len(),
        // Tables beyond a byte are named by the attribute alone.
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: RouteProtocol::from(route.protocol),
        scope: RouteScope::from(route.scope),
        kind: match route.kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Other(number) => RouteType::from(number),
        },
        flags: if route.onlink {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if !route.is_default() {
        attributes.push(RouteAttribute::Destination(route_address(
            route.destination.addr(),
        )));
    }
    attributes.extend(
        route
            .gateway
            .map(route_address)
            .map(RouteAttribute::Gateway),
    );
    attributes.extend(
        route
            .source
            .map(route_address)
            .map(RouteAttribute::PrefSource),
    );
    attributes.extend(
        route
            .link
            .as_deref()
            .and_then(index_of)
            .map(RouteAttribute::Oif),
    );
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    attributes.extend(
        route
            .other
            .iter()
            .map(|(kind, value)| RouteAttribute::Other(DefaultNla::new(*kind, value.clone()))),
    );
    message
}

/// As the incoming interface of a rule it stands for the pod's own processes.
const LOOPBACK: &str = "lo";

/// `None` for a rule that is not ours.
pub(super) fn rule(message: &RuleMessage) -> Option<RoutingRule> {
    let family = our_family(message.header.family)?;
    let (mut ours, mut priority, mut table) = (false, 0, u32::from(message.header.table));
    let (mut from, mut to, mut iif) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(address) => {
                from = Some(IpNet::new(*address, message.header.src_len).ok()?);
            }
            RuleAttribute::Destination(address) => {
                to = Some(IpNet::new(*address, message.header.dst_len).ok()?);
            }
            RuleAttribute::Iifname(name) => iif = Some(name.as_str()),
            _ => {}
        }
    }
    ours.then_some(())?;
    let matches = match (from, to, iif) {
        (Some(network), None, None) => RuleMatch::From(network),
        (None, Some(network), Some(LOOPBACK)) => RuleMatch::LocalTo(network),
        (None, Some(network), None) => RuleMatch::To(network),
        (None, None, Some(name)) => RuleMatch::Iif(name.to_owned()),
        _ => return None,
    };
    Some(RoutingRule {
        family,
        priority,
        matches,
        table,
    })
}

pub(super) fn rule_message(rule: &RoutingRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = netlink_family(rule.family);
    message.header.action = RuleAction::ToTable;
    match &rule.matches {
        RuleMatch::From(network) => {
            message.header.src_len = network.prefix_len();
            message
                .attributes
                .push(RuleAttribute::Source(network.addr()));
        }
        RuleMatch::LocalTo(network) | RuleMatch::To(network) => {
            message.header.dst_len = network.prefix_len();
            message
                .attributes
                .push(RuleAttribute::Destination(network.addr()));
            if matches!(rule.matches, RuleMatch::LocalTo(_)) {
                message
                    .attributes
                    .push(RuleAttribute::Iifname(LOOPBACK.to_owned()));
            }
        }
        RuleMatch::Iif(name) => message
            .attributes
            .push(RuleAttribute::Iifname(name.clone())),
    }
    message
        .attributes
        .push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Table(rule.table));
    message
        .attributes
        .push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{POD_TABLE, everything, scope};

    const NET1: u32 = 3;

    fn names() -> Names {
        [(1, "lo".to_owned()), (NET1, "net1".to_owned())].into()
    }

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn routes() -> Vec<Route> {
        let gateway = |text: &str| Some(text.parse().unwrap());
        vec![
            Route {
                gateway: gateway("192.168.12.1"),
                source: gateway("192.168.12.99"),
                ..Route::ours(everything(Family::Ipv4), "net1")
            },
            Route {
                gateway: gateway("fe80::1"),
                metric: 1024,
                ..Route::ours(everything(Family::Ipv6), "net1")
            },
            Route {
                scope: scope::LINK,
                table: POD_TABLE,
                protocol: 2,
                ..Route::ours(network("10.244.1.0/24"), "net1")
            },
            Route {
                gateway: gateway("169.254.1.1"),
                onlink: true,
                metric: 100,
                ..Route::ours(network("10.0.0.0/8"), "net1")
            },
            Route {
                kind: RouteKind::Unreachable,
                link: None,
                metric: u32::MAX - 1,
                ..Route::ours(everything(Family::Ipv6), "net1")
            },
            Route {
                kind: RouteKind::Other(6),
                link: None,
                ..Route::ours(network("198.51.100.0/24"), "net1")
            },
        ]
    }

    #[test]
    fn a_route_that_is_sent_is_the_route_that_is_read() {
        for route in routes() {
            let index_of = |name: &str| (name == "net1").then_some(NET1);
            let mut read = super::route(&route_message(&route, index_of), &names()).unwrap();
            assert!(read.matches(&route), "{read} is not {route}");
            // What is only carried along returns as it came, the table aside.
            read.other.push((8, vec![8, 0, 2, 0, 0x78, 5, 0, 0]));
            let again = super::route(&route_message(&read, index_of), &names()).unwrap();
            assert_eq!(again.other, read.other);
        }
    }

    #[test]
    fn routes_that_are_none_of_our_business() {
        let read = |message: &RouteMessage| route(message, &names());
        let example = &routes()[0];
        let mut cached = route_message(example, |_| Some(NET1));
        cached.header.flags = RouteFlags::Cloned;
        assert_eq!(read(&cached), None);
        let mut other_family = route_message(example, |_| Some(NET1));
        other_family.header.address_family = AddressFamily::Mpls;
        assert_eq!(read(&other_family), None);
        let local = Route {
            table: 255,
            ..example.clone()
        };
        assert_eq!(read(&route_message(&local, |_| Some(NET1))), None);
    }

    /// IPv6 hangs it on an interface, IPv4 does not.
    #[test]
    fn an_unreachable_route_has_no_interface() {
        let unreachable = Route {
            kind: RouteKind::Unreachable,
            ..Route::ours(everything(Family::Ipv6), "lo")
        };
        let message = route_message(&unreachable, |_| Some(1));
        assert_eq!(route(&message, &names()).unwrap().link, None);
    }

    #[test]
    fn a_rule_that_is_sent_is_the_rule_that_is_read() {
        for (family, matches) in [
            (Family::Ipv4, RuleMatch::From(network("10.244.1.5/32"))),
            (
                Family::Ipv6,
                RuleMatch::LocalTo(network("fd00:10:96::/108")),
            ),
            (Family::Ipv4, RuleMatch::To(network("10.96.0.10/32"))),
            (Family::Ipv6, RuleMatch::Iif("net1".to_owned())),
        ] {
            let rule = RoutingRule {
                family,
                priority: 6900,
                matches,
                table: POD_TABLE,
            };
            let mut message = rule_message(&rule);
            assert_eq!(super::rule(&message), Some(rule));
            // Another's, in whatever else it is like ours.
            message
                .attributes
                .retain(|a| !matches!(a, RuleAttribute::Protocol(_)));
            assert_eq!(super::rule(&message), None);
        }
    }

    #[test]
    fn an_address_is_the_local_one() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        message.header.index = NET1;
        message.header.scope = AddressScope::Universe;
        message.attributes = vec![
            AddressAttribute::Address("192.168.12.1".parse().unwrap()),
            AddressAttribute::Local("192.168.12.99".parse().unwrap()),
        ];
        let read = address(&message, &names()).unwrap();
        assert_eq!(read.address, network("192.168.12.99/24"));
        assert_eq!((read.link.as_str(), read.global), ("net1", true));
        message.attributes.pop();
        let read = address(&message, &names()).unwrap();
        assert_eq!(read.address, network("192.168.12.1/24"));
        // Its interface is gone.
        message.header.index = 99;
        assert_eq!(address(&message, &names()), None);
    }

    #[test]
    fn a_link_and_what_we_read_of_it() {
        let mut message = LinkMessage::default();
        message.header.index = NET1;
        message.header.flags = LinkFlags::Up;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![
            LinkAttribute::IfName("net1".to_owned()),
            LinkAttribute::Mtu(1450),
            LinkAttribute::IfAlias("lan".to_owned()),
            LinkAttribute::Link(2),
            LinkAttribute::LinkNetNsId(0),
            LinkAttribute::Group(7),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(netlink_packet_route::link::InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                    MacVlanMode::Private,
                )])),
            ]),
        ];
        let read = link(&message);
        assert_eq!(
            (read.index, read.name.as_str(), read.kind.as_str()),
            (NET1, "net1", "macvlan")
        );
        assert!(read.up && read.ethernet && !read.is_ours());
        assert_eq!(
            (read.mtu, read.group, read.alias.as_deref()),
            (1450, 7, Some("lan"))
        );
        assert_eq!((read.parent, read.peer_namespace), (Some(2), Some(0)));
        assert_eq!(read.macvlan_mode, Some(MacvlanMode::Private));
        assert_eq!(read.ipv6, None);
    }

    #[test]
    fn every_mode_of_a_macvlan_is_sent_and_read() {
        for mode in MacvlanMode::ALL {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Data(
                InfoData::MacVlan(vec![InfoMacVlan::Mode(macvlan_mode(mode))]),
            )])];
            assert_eq!(link(&message).macvlan_mode, Some(mode));
        }
    }
}
