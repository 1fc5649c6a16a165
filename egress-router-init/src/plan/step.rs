//! One change to the network namespace.

use std::fmt::{self, Display, Formatter};

use egress_config::AddressFamily;
use ipnet::IpNet;

use crate::originals::{Originals, Setting};
use crate::state::{
    MAIN_TABLE, MacvlanMode, POD_TABLE, PROTOCOL, Route, RouteKind, RoutingRule, RuleMatch,
    SHELF_TABLE, scope,
};

/// A change that the apply step makes with one netlink request (creating a
/// link takes two).
///
/// Deleting what is gone already counts as done: the kernel takes routes along
/// with an address or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a macvlan in bridge mode on an interface of the node.
    CreateLink {
        /// Its name here.
        name: String,
        /// Where it hangs.
        parent: Parent,
    },
    /// Gives an interface that an interrupted run left the name it should
    /// have.
    RenameLink {
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// Deletes an interface of ours.
    DeleteLink {
        /// Its name.
        name: String,
    },
    /// Notes what was there before us.
    Note {
        /// The interface that carries the note.
        link: String,
        /// The note.
        note: Originals,
    },
    /// Puts back the alias that was there.
    ClearNote {
        /// The interface that carried the note.
        link: String,
        /// The alias to put back; empty for none.
        alias: String,
    },
    /// Changes the mode of a macvlan.
    SetMacvlanMode {
        /// The macvlan.
        link: String,
        /// Its new mode.
        mode: MacvlanMode,
    },
    /// Changes a setting.
    Set {
        /// The setting.
        setting: Setting,
        /// The interface; `all` for a setting of the namespace.
        link: String,
        /// Its new value.
        value: u32,
    },
    /// `ip link set dev ... up`
    LinkUp {
        /// The interface.
        link: String,
    },
    /// `ip link set dev ... down`
    LinkDown {
        /// The interface.
        link: String,
    },
    /// Makes the packet rules those of the plan.
    ReplaceFirewall,
    /// Deletes our packet rules.
    DeleteFirewall,
    /// Asks the physical network whether somebody has these addresses.
    Probe {
        /// The interface to ask on.
        link: String,
        /// The addresses.
        addresses: Vec<std::net::IpAddr>,
    },
    /// `ip address add`
    AddAddress {
        /// The interface.
        link: String,
        /// Address and prefix length.
        address: IpNet,
    },
    /// `ip address del`
    DeleteAddress {
        /// The interface.
        link: String,
        /// Address and prefix length.
        address: IpNet,
    },
    /// `ip route add`
    AddRoute(Route),
    /// `ip route replace`: in the place of one with the same destination and
    /// metric, without an instant in between.
    ReplaceRoute(Route),
    /// `ip route del`
    DeleteRoute(Route),
    /// `ip rule add`
    AddRule(RoutingRule),
    /// `ip rule del`
    DeleteRule(RoutingRule),
}

/// The node's interface under a macvlan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// This one.
    Known(NodeLink),
    /// Told by a run, which may look at the node: how it chooses.
    Open(String),
}

impl Parent {
    /// Bytes of an IP packet; where the parent is open, Ethernet's.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        match self {
            Self::Known(link) => link.mtu,
            Self::Open(_) => 1500,
        }
    }
}

/// Its name on the node.
impl Display for Parent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(link) => f.write_str(&link.name),
            Self::Open(choice) => write!(f, "<chosen when it runs: {choice}>"),
        }
    }
}

/// An interface of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLink {
    /// Its name on the node.
    pub name: String,
    /// Its index on the node.
    pub index: u32,
    /// How our namespace calls the node's (`IFLA_LINK_NETNSID`).
    pub namespace: i32,
    /// Its MTU, which the macvlan takes over.
    pub mtu: u32,
}

impl Step {
    /// Whether the step leaves the namespace as it was, or may be repeated
    /// for nothing: a namespace where only such steps are left is done.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::ReplaceFirewall | Self::Probe { .. })
    }
}

/// The command that would do the same.
impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateLink { name, parent } => {
                write!(f, "ip link add {name} link {parent} netns-of-node ")?;
                if let Parent::Known(link) = parent {
                    write!(f, "mtu {} ", link.mtu)?;
                }
                f.write_str("type macvlan mode bridge")
            }
            Self::RenameLink { from, to } => write!(f, "ip link set dev {from} name {to}"),
            Self::DeleteLink { name } => write!(f, "ip link del dev {name}"),
            Self::Note { link, note } => write!(f, "ip link set dev {link} alias \"{note}\""),
            Self::ClearNote { link, alias } => {
                write!(f, "ip link set dev {link} alias \"{alias}\"")
            }
            Self::SetMacvlanMode { link, mode } => {
                write!(
                    f,
                    "ip link set dev {link} type macvlan mode {}",
                    mode.as_str()
                )
            }
            Self::Set {
                setting,
                link,
                value,
            } => {
                write!(f, "sysctl -w {}={value}", sysctl_name(*setting, link))
            }
            Self::LinkUp { link } => write!(f, "ip link set dev {link} up"),
            Self::LinkDown { link } => write!(f, "ip link set dev {link} down"),
            Self::ReplaceFirewall => f.write_str("nft -f - (the packet rules, in one batch)"),
            Self::DeleteFirewall => f.write_str("nft delete table inet egress_router"),
            Self::Probe { link, addresses } => {
                for (index, address) in addresses.iter().enumerate() {
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    let tool = if address.is_ipv4() {
                        "arping -D"
                    } else {
                        "ndisc6 -m"
                    };
                    write!(f, "{tool} -I {link} {address}")?;
                }
                Ok(())
            }
            Self::AddAddress { link, address } => {
                let nodad = if address.addr().is_ipv6() {
                    " nodad"
                } else {
                    ""
                };
                write!(f, "ip address add {address} dev {link}{nodad}")
            }
            Self::DeleteAddress { link, address } => {
                write!(f, "ip address del {address} dev {link}")
            }
            Self::AddRoute(route) => write!(f, "ip route add {route}"),
            Self::ReplaceRoute(route) => write!(f, "ip route replace {route}"),
            Self::DeleteRoute(route) => write!(f, "ip route del {route}"),
            Self::AddRule(rule) => write!(f, "ip{} rule add {rule}", option(rule.family)),
            Self::DeleteRule(rule) => write!(f, "ip{} rule del {rule}", option(rule.family)),
        }
    }
}

/// A rule need not name an address that tells its family.
fn option(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "",
        AddressFamily::Ipv6 => " -6",
    }
}

/// The setting's name for sysctl(8).
#[must_use]
pub fn sysctl_name(setting: Setting, link: &str) -> String {
    let (family, name) = match setting {
        Setting::PodForwarding | Setting::EgressForwarding => ("ipv4", "forwarding"),
        Setting::ArpIgnore => ("ipv4", "arp_ignore"),
        Setting::ArpAnnounce => ("ipv4", "arp_announce"),
        Setting::AddrGenMode => ("ipv6", "addr_gen_mode"),
        Setting::AcceptRa => ("ipv6", "accept_ra"),
        Setting::Autoconf => ("ipv6", "autoconf"),
        Setting::Ipv6Forwarding => ("ipv6", "forwarding"),
        Setting::UnprivilegedPorts => return "net.ipv4.ip_unprivileged_port_start".to_owned(),
    };
    // A dot within a name is a slash for sysctl(8).
    format!("net.{family}.conf.{}.{name}", link.replace('.', "/"))
}

/// As ip-route(8) writes it.
impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Other(number) => write!(f, "type {number} ")?,
        }
        match (self.is_default(), self.destination) {
            (true, IpNet::V4(_)) => f.write_str("default")?,
            (true, IpNet::V6(_)) => f.write_str("::/0")?,
            (false, destination) => write!(f, "{destination}")?,
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        match self.table {
            MAIN_TABLE => {}
            POD_TABLE => f.write_str(" table 6900")?,
            SHELF_TABLE => f.write_str(" table 6901")?,
            table => write!(f, " table {table}")?,
        }
        if self.scope == scope::LINK {
            f.write_str(" scope link")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        write!(f, " proto {}", self.protocol)
    }
}

/// As ip-rule(8) writes it.
impl Display for RoutingRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.matches {
            RuleMatch::From(network) => write!(f, "from {network}")?,
            RuleMatch::LocalTo(network) => write!(f, "to {network} iif lo")?,
            RuleMatch::To(network) => write!(f, "to {network}")?,
            RuleMatch::Iif(link) => write!(f, "iif {link}")?,
        }
        write!(
            f,
            " lookup {} priority {} proto {PROTOCOL}",
            self.table, self.priority
        )
    }
}
