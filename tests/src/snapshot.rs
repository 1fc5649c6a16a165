//! All of a namespace's configuration as text, one line per object, so that
//! two states can be compared and the difference read.
//!
//! Left out is what differs between two equal states: interface indexes, MAC
//! addresses and the link-local addresses made of them, counters, handles,
//! lifetimes, carrier, neighbours.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    net::IpAddr,
    time::Duration,
};

use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, ExpressionAttribute, ListAttribute, NfTablesMessage,
        RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList,
        SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
    },
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoData, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage},
    rule::{RuleAttribute as PolicyAttribute, RuleMessage as PolicyMessage},
};

use crate::{
    error::{Context, Result},
    eventually::eventually,
    link::{LOOPBACK, link_name},
    netlink::Netlink,
    netns::NetNs,
};

/// State of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: Vec<String>,
}

/// Settings that matter to routing, of every interface, of `all` and of
/// `default`.
const INTERFACE_SYSCTLS: [(&str, &str); 15] = [
    ("ipv4", "accept_local"),
    ("ipv4", "arp_announce"),
    ("ipv4", "arp_ignore"),
    ("ipv4", "arp_notify"),
    ("ipv4", "forwarding"),
    ("ipv4", "proxy_arp"),
    ("ipv4", "route_localnet"),
    ("ipv4", "rp_filter"),
    ("ipv4", "send_redirects"),
    ("ipv6", "accept_dad"),
    ("ipv6", "accept_ra"),
    ("ipv6", "addr_gen_mode"),
    ("ipv6", "autoconf"),
    ("ipv6", "disable_ipv6"),
    ("ipv6", "forwarding"),
];

/// How long the kernel may take to check addresses.
const SETTLING_DEADLINE: Duration = Duration::from_secs(60);

impl Snapshot {
    /// Takes the state of a namespace.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn of(netns: &NetNs) -> Result<Self> {
        let links = netns.links()?;
        let names: HashMap<u32, String> = links
            .iter()
            .map(|link| (link.header.index, link_name(link).to_owned()))
            .collect();
        let mut lines: Vec<_> = links
            .iter()
            .map(|link| describe_link(link, &names))
            .chain(links.iter().filter_map(describe_alias))
            .collect();
        let dump = |message| {
            netns
                .netlink(|netlink| netlink.dump(message))
                .context(|| format!("listing the state of {}", netns.name()))
        };
        for message in dump(Message::GetAddress(AddressMessage::default()))? {
            if let Message::NewAddress(address) = message {
                lines.push(describe_address(&address, &names));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            for message in dump(Message::GetRoute(all))? {
                if let Message::NewRoute(route) = message
                    && !route.header.flags.contains(RouteFlags::Cloned)
                {
                    lines.push(describe_route(&route, &names));
                }
            }
            let mut all = PolicyMessage::default();
            all.header.family = family;
            for message in dump(Message::GetRule(all))? {
                if let Message::NewRule(rule) = message {
                    lines.push(describe_policy(&rule));
                }
            }
        }
        lines.extend(
            netns
                .run(nftables)
                .context(|| format!("listing nft in {}", netns.name()))?,
        );
        lines.extend(netns.run(|| sysctls(names.values())));
        lines.sort_unstable();
        Ok(Self { lines })
    }

    /// As [`Snapshot::of`], once the kernel has done what follows from earlier
    /// changes by itself: links carry packets, IPv6 addresses are no longer
    /// tentative.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    ///
    /// # Panics
    /// When something is still to come after some seconds.
    pub fn settled(netns: &NetNs) -> Result<Self> {
        netns.await_carrier()?;
        // Waits for what the carrier sets off: both take the kernel's one lock.
        netns
            .netlink(|netlink| netlink.set_up(LOOPBACK))
            .context(|| format!("setting lo up in {}", netns.name()))?;
        Ok(eventually(SETTLING_DEADLINE, || {
            let snapshot = Self::of(netns).map_err(|error| error.to_string())?;
            match snapshot.address_without_route() {
                None => Ok(snapshot),
                Some(line) => Err(format!("still tentative: {line}")),
            }
        }))
    }

    /// An IPv6 address of a link that is up without its local route, which it
    /// gets once it is no longer tentative.
    fn address_without_route(&self) -> Option<&str> {
        self.lines("address").find(|line| {
            let mut words = line.split(' ').skip(1);
            let (Some(link), Some(network)) = (words.next(), words.next()) else {
                return false;
            };
            let address = network.split('/').next().unwrap_or_default();
            let up = format!("link {link} up ");
            let route = format!("route Inet6 table 255 Local {address}/128 ");
            let device = format!(" dev {link} ");
            address.contains(':')
                && link != "lo"
                && self.lines("link").any(|line| line.starts_with(&up))
                && !self
                    .lines("route")
                    .any(|line| line.starts_with(&route) && line.contains(&device))
        })
    }

    /// The objects of one kind: `link`, `alias`, `address`, `route`, `rule`,
    /// `nft` or `sysctl`.
    pub fn lines(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(move |line| line.split(' ').next() == Some(kind))
            .map(String::as_str)
    }

    /// The same state without the lines that `is_unwanted` picks.
    #[must_use]
    pub fn without(&self, is_unwanted: impl Fn(&str) -> bool) -> Self {
        let wanted = self.lines.iter().filter(|line| !is_unwanted(line));
        Self {
            lines: wanted.cloned().collect(),
        }
    }

    /// What is only in one of two states: `-` in this one, `+` in the other.
    /// Empty when they are equal.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        for line in &self.lines {
            *counts.entry(line).or_default() -= 1;
        }
        for line in &other.lines {
            *counts.entry(line).or_default() += 1;
        }
        counts
            .into_iter()
            .filter(|(_, count)| *count != 0)
            .map(|(line, count)| format!("{} {line}\n", if count < 0 { '-' } else { '+' }))
            .collect()
    }

    /// Checks that two states are equal.
    ///
    /// # Panics
    /// When they are not; the message is the difference.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let difference = self.difference(other);
        assert!(
            difference.is_empty(),
            "the namespace is not as before:\n{difference}"
        );
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Words joined by blanks.
#[derive(Default)]
struct Line(String);

impl Line {
    fn new(kind: &str, subject: impl fmt::Display) -> Self {
        Self(format!("{kind} {subject}"))
    }

    fn word(&mut self, word: impl fmt::Display) {
        self.0.push_str(&format!(" {word}"));
    }
}

fn name_of(names: &HashMap<u32, String>, index: u32) -> &str {
    names.get(&index).map_or("?", String::as_str)
}

fn describe_link(link: &LinkMessage, names: &HashMap<u32, String>) -> String {
    let mut line = Line::new("link", link_name(link));
    line.word(if link.header.flags.contains(LinkFlags::Up) {
        "up"
    } else {
        "down"
    });
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => line.word(format!("mtu {mtu}")),
            LinkAttribute::Controller(index) => {
                line.word(format!("master {}", name_of(names, *index)));
            }
            LinkAttribute::Group(group) => line.word(format!("group {group:?}")),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => line.word(kind),
                        LinkInfo::Data(InfoData::MacVlan(data)) => {
                            for item in data {
                                if let InfoMacVlan::Mode(mode) = item {
                                    line.word(format!("mode {mode:?}"));
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    line.0
}

/// On a line of its own: it is a label, and says nothing of how the link works.
fn describe_alias(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(format!("alias {} {alias:?}", link_name(link))),
            _ => None,
        })
}

fn describe_address(address: &AddressMessage, names: &HashMap<u32, String>) -> String {
    let header = &address.header;
    let mut line = Line::new("address", name_of(names, header.index));
    let local = address
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
    for attribute in &address.attributes {
        match attribute {
            AddressAttribute::Address(ip) => {
                let own = local.unwrap_or(*ip);
                line.word(format!("{}/{}", stable(own), header.prefix_len));
                if own != *ip {
                    line.word(format!("peer {ip}"));
                }
            }
            AddressAttribute::Flags(flags) => {
                let flags = *flags - AddressFlags::Tentative;
                line.word(format!("{flags:?}"));
            }
            AddressAttribute::RoutePriority(metric) => line.word(format!("metric {metric}")),
            AddressAttribute::Protocol(protocol) => line.word(format!("proto {protocol:?}")),
            _ => {}
        }
    }
    line.word(format!("scope {:?}", header.scope));
    line.0
}

fn describe_route(route: &RouteMessage, names: &HashMap<u32, String>) -> String {
    let header = &route.header;
    let mut destination = String::from("default");
    let mut rest = Line::default();
    let mut table = u32::from(header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                destination = format!("{}/{}", route_address(to), header.destination_prefix_length);
            }
            RouteAttribute::Gateway(via) => rest.word(format!("via {}", route_address(via))),
            RouteAttribute::Oif(index) => rest.word(format!("dev {}", name_of(names, *index))),
            RouteAttribute::PrefSource(from) => rest.word(format!("src {}", route_address(from))),
            RouteAttribute::Priority(metric) => rest.word(format!("metric {metric}")),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_) => {}
            other => rest.word(format!("{other:?}")),
        }
    }
    if header.flags.contains(RouteFlags::Onlink) {
        rest.word("onlink");
    }
    format!(
        "route {:?} table {table} {:?} {destination}{} proto {:?} scope {:?}",
        header.address_family, header.kind, rest.0, header.protocol, header.scope
    )
}

fn describe_policy(rule: &PolicyMessage) -> String {
    let header = &rule.header;
    let mut priority = 0;
    let mut line = Line::default();
    for attribute in &rule.attributes {
        match attribute {
            PolicyAttribute::Priority(number) => priority = *number,
            PolicyAttribute::Source(ip) => line.word(format!("from {ip}/{}", header.src_len)),
            PolicyAttribute::Destination(ip) => line.word(format!("to {ip}/{}", header.dst_len)),
            PolicyAttribute::Iifname(name) => line.word(format!("iif {name}")),
            PolicyAttribute::Oifname(name) => line.word(format!("oif {name}")),
            PolicyAttribute::Table(table) => line.word(format!("lookup {table}")),
            PolicyAttribute::Protocol(protocol) => line.word(format!("proto {protocol:?}")),
            PolicyAttribute::SuppressPrefixLen(u32::MAX) => {}
            other => line.word(format!("{other:?}")),
        }
    }
    format!(
        "rule {:?} {priority}:{} {:?}",
        header.family, line.0, header.action
    )
}

fn route_address(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(v4) => v4.to_string(),
        RouteAddress::Inet6(v6) => stable(IpAddr::V6(*v6)),
        other => format!("{other:?}"),
    }
}

/// An address as text, unless it was made from a MAC address (RFC 4291
/// appendix A).
fn stable(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() && v6.octets()[11..13] == [0xff, 0xfe] => {
            "fe80::<mac>".to_owned()
        }
        other => other.to_string(),
    }
}

fn sysctls<'a>(links: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut keys = vec!["net/ipv4/ip_forward".to_owned()];
    for link in links.map(String::as_str).chain(["all", "default"]) {
        for (family, key) in INTERFACE_SYSCTLS {
            keys.push(format!("net/{family}/conf/{link}/{key}"));
        }
    }
    keys.into_iter()
        .filter_map(|key| {
            let value = fs::read_to_string(format!("/proc/sys/{key}")).ok()?;
            Some(format!("sysctl {key} = {}", value.trim()))
        })
        .collect()
}

/// Every table, chain, rule, set and element, of any family.
fn nftables() -> std::io::Result<Vec<String>> {
    let mut netlink = Netlink::open_netfilter()?;
    let mut dump = |family, request| {
        let header = NetfilterHeader::new(family, 0, 0);
        netlink.dump_netfilter(NetfilterMessage::new(header, request))
    };
    let any = NetfilterProtoFamily::Unspec;
    let mut lines = Vec::new();
    for message in dump(
        any,
        NfTablesMessage::GetTable(TableMessage { attributes: vec![] }),
    )? {
        if let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = message.inner {
            lines.push(format!(
                "nft {:?} table {:?}",
                message.header.family,
                kept(&table.attributes, |attribute| {
                    matches!(
                        attribute,
                        TableAttribute::Name(_) | TableAttribute::Flags(_)
                    )
                })
            ));
        }
    }
    for message in dump(
        any,
        NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }),
    )? {
        if let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = message.inner {
            lines.push(format!(
                "nft {:?} chain {:?}",
                message.header.family,
                kept(&chain.attributes, |attribute| !matches!(
                    attribute,
                    ChainAttribute::Handle(_)
                        | ChainAttribute::Use(_)
                        | ChainAttribute::Counter(_)
                        | ChainAttribute::Id(_)
                        | ChainAttribute::Other(_)
                ))
            ));
        }
    }
    // Rules come in order; a number keeps them so when the lines are sorted.
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for message in dump(
        any,
        NfTablesMessage::GetRule(RuleMessage { attributes: vec![] }),
    )? {
        if let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message.inner {
            let (chain, body) = describe_rule(&rule.attributes);
            let number = numbers.entry(chain.clone()).or_default();
            lines.push(format!(
                "nft {:?} rule{chain} {number:04}:{body}",
                message.header.family
            ));
            *number += 1;
        }
    }
    for message in dump(
        any,
        NfTablesMessage::GetSet(SetMessage { attributes: vec![] }),
    )? {
        let family = message.header.family;
        if let NetfilterMessageInner::NfTables(NfTablesMessage::NewSet(set)) = message.inner {
            let request = (!is_filled_by_packets(&set)).then(|| elements_of(&set));
            lines.push(format!("nft {family:?} set {:?}", described_set(set)));
            let Some(request) = request else { continue };
            for message in dump(family, NfTablesMessage::GetSetElement(request))? {
                if let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(elements)) =
                    message.inner
                {
                    lines.extend(describe_elements(family, elements));
                }
            }
        }
    }
    Ok(lines)
}

fn kept<T>(attributes: &[T], matters: impl Fn(&T) -> bool) -> Vec<&T> {
    attributes
        .iter()
        .filter(|attribute| matters(attribute))
        .collect()
}

/// Table and chain of a rule, and what it does.
fn describe_rule(attributes: &[RuleAttribute]) -> (String, String) {
    let mut place = Line::default();
    let mut body = Line::default();
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) | RuleAttribute::Chain(name) => place.word(name),
            RuleAttribute::Expressions(expressions) => {
                for expression in expressions {
                    body.word(format!("{:?}", without_count(expression)));
                }
            }
            RuleAttribute::UserData(bytes) => body.word(format!("userdata {bytes:?}")),
            _ => {}
        }
    }
    (place.0, body.0)
}

/// A counter without what it counted.
fn without_count(
    expression: &ListAttribute<ExpressionAttribute>,
) -> ListAttribute<ExpressionAttribute> {
    match expression {
        ListAttribute::Element(attributes)
            if attributes.contains(&ExpressionAttribute::Name("counter".to_owned())) =>
        {
            ListAttribute::Element(vec![ExpressionAttribute::Name("counter".to_owned())])
        }
        other => other.clone(),
    }
}

/// What packets put into a set is no more configuration than what a rule has
/// counted.
fn is_filled_by_packets(set: &SetMessage) -> bool {
    set.attributes.iter().any(|attribute| {
        matches!(attribute, SetAttribute::Flags(flags) if flags.contains(SetFlags::Eval))
    })
}

fn elements_of(set: &SetMessage) -> SetElementMessage {
    let attributes = set
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            SetAttribute::Table(name) => Some(SetElementList::Table(name.clone())),
            SetAttribute::Name(name) => Some(SetElementList::Set(name.clone())),
            _ => None,
        })
        .collect();
    SetElementMessage { attributes }
}

fn described_set(set: SetMessage) -> Vec<SetAttribute> {
    set.attributes
        .into_iter()
        .filter(|attribute| {
            !matches!(
                attribute,
                SetAttribute::Handle(_)
                    | SetAttribute::Id(_)
                    | SetAttribute::Count(_)
                    | SetAttribute::Type(_)
                    | SetAttribute::Description(_)
                    | SetAttribute::Expression(_)
                    | SetAttribute::ListExpressions(_)
                    | SetAttribute::Other(_)
            )
        })
        .collect()
}

fn describe_elements(family: NetfilterProtoFamily, message: SetElementMessage) -> Vec<String> {
    let mut place = Line::default();
    let mut elements = Vec::new();
    for attribute in message.attributes {
        match attribute {
            SetElementList::Table(name) | SetElementList::Set(name) => place.word(name),
            SetElementList::Elements(list) => elements.extend(list),
            _ => {}
        }
    }
    let describe = |element| {
        let ListAttribute::Element(attributes) = element else {
            return None;
        };
        let attributes = kept(&attributes, |attribute: &SetElementAttribute| {
            matches!(
                attribute,
                SetElementAttribute::Key(_)
                    | SetElementAttribute::Data(_)
                    | SetElementAttribute::Flags(_)
                    | SetElementAttribute::Timeout(_)
                    | SetElementAttribute::UserData(_)
            )
        });
        Some(format!("nft {family:?} element{} {attributes:?}", place.0))
    };
    elements.into_iter().filter_map(describe).collect()
}
