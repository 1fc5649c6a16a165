//! What is there.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use egress_config::AddressFamily as Family;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::RouteSocket;
use super::convert::{self, Names, netlink_family};
use crate::capabilities::{self, Capability};
use crate::state::{
    Address, Ipv4Settings, Ipv6Settings, Link, Node, NodeView, Route, RoutingRule, State,
};

/// Why the namespace could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {what}: {source}")]
pub struct ObserveError {
    what: &'static str,
    #[source]
    source: io::Error,
}

impl RouteSocket {
    /// Reads the namespace, and the node's as far as it lets us.
    ///
    /// Whether our packet rules are there is not asked here.
    ///
    /// # Errors
    /// When the kernel refuses a list.
    pub async fn observe(&self) -> Result<State, ObserveError> {
        let error = |what| move |source| ObserveError { what, source };
        let links = self.links(None).await.map_err(error("interfaces"))?;
        let names = names(&links);
        let addresses = self
            .addresses(None, &names)
            .await
            .map_err(error("addresses"))?;
        let mut routes = Vec::new();
        let mut rules = Vec::new();
        for family in Family::ALL {
            routes.extend(self.routes(family, &names).await.map_err(error("routes"))?);
            rules.extend(self.rules(family).await.map_err(error("routing rules"))?);
        }
        let node = self.node(&links).await;
        Ok(State {
            links,
            addresses,
            routes,
            rules,
            node,
            nameservers: nameservers(Path::new("/etc/resolv.conf")),
            ipv6_forwarding: ipv6_forwarding(),
            unprivileged_ports: unprivileged_ports(),
            sysctl_writable: sysctl_writable(),
            firewall_present: None,
            ipv4_default: Ipv4Settings {
                forwarding: default_setting("ipv4", "forwarding"),
                arp_ignore: default_setting("ipv4", "arp_ignore"),
                arp_announce: default_setting("ipv4", "arp_announce"),
            },
            ipv6_default: Ipv6Settings {
                addr_gen_mode: default_setting("ipv6", "addr_gen_mode"),
                accept_ra: default_setting("ipv6", "accept_ra"),
                autoconf: default_setting("ipv6", "autoconf"),
            },
        })
    }

    /// `ip link show`
    pub(super) async fn links(&self, namespace: Option<i32>) -> io::Result<Vec<Link>> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .extend(namespace.map(LinkAttribute::IfNetnsId));
        let answers = self.dump(RouteNetlinkMessage::GetLink(request)).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(convert::link(message)),
                _ => None,
            })
            .collect())
    }

    /// `ip address show`
    async fn addresses(&self, namespace: Option<i32>, names: &Names) -> io::Result<Vec<Address>> {
        let mut request = AddressMessage::default();
        request
            .attributes
            .extend(namespace.map(AddressAttribute::TargetNetNsId));
        let answers = self.dump(RouteNetlinkMessage::GetAddress(request)).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => convert::address(message, names),
                _ => None,
            })
            .collect())
    }

    /// `ip route show table all`
    async fn routes(&self, family: Family, names: &Names) -> io::Result<Vec<Route>> {
        let mut request = RouteMessage::default();
        request.header.address_family = netlink_family(family);
        let answers = self.dump(RouteNetlinkMessage::GetRoute(request)).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => convert::route(message, names),
                _ => None,
            })
            .collect())
    }

    /// `ip rule show`
    async fn rules(&self, family: Family) -> io::Result<Vec<RoutingRule>> {
        let mut request = RuleMessage::default();
        request.header.family = netlink_family(family);
        let answers = self.dump(RouteNetlinkMessage::GetRule(request)).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => convert::rule(message),
                _ => None,
            })
            .collect())
    }

    /// The namespace at the other end of the pod's interface, which is the
    /// node's: `IFLA_TARGET_NETNSID` lists it without entering it.
    async fn node(&self, links: &[Link]) -> NodeView {
        let peers = links.iter().filter(|link| !link.is_ours());
        let Some(namespace) = peers.filter_map(|link| link.peer_namespace).min() else {
            return NodeView::Hidden(
                "no interface of the pod has its other end in the node's network namespace"
                    .to_owned(),
            );
        };
        let look = async {
            let links = self.links(Some(namespace)).await?;
            let addresses = self.addresses(Some(namespace), &names(&links)).await?;
            io::Result::Ok(Node {
                namespace,
                links,
                addresses,
            })
        };
        match look.await {
            Ok(node) => NodeView::Seen(node),
            Err(error) if is_permission(&error) && !has_net_admin() => NodeView::NotPermitted,
            Err(error) => NodeView::Hidden(hidden_reason(&error)),
        }
    }
}

fn hidden_reason(error: &io::Error) -> String {
    if is_permission(error) {
        "the container may not look at the node's interfaces (it has a user namespace of its own: \
         hostUsers: false)"
            .to_owned()
    } else {
        format!("the node's interfaces cannot be listed: {error}")
    }
}

fn is_permission(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPERM | Errno::EACCES))
}

fn names(links: &[Link]) -> Names {
    links
        .iter()
        .map(|link| (link.index, link.name.clone()))
        .collect()
}

/// The name servers that the pod's processes ask (resolv.conf(5)). A file that
/// cannot be read names none.
fn nameservers(path: &Path) -> Vec<IpAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().split('%').next()?.parse().ok())
        .collect()
}

const IPV6_FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// One that every kernel has, to ask whether it could be written.
const ANY_SYSCTL: &str = "/proc/sys/net/ipv4/ip_forward";

const UNPRIVILEGED_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// `net.FAMILY.conf.default.NAME`; 0 where the kernel does not have it.
fn default_setting(family: &str, name: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/sys/net/{family}/conf/default/{name}"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// `None` where the kernel has no IPv6.
fn ipv6_forwarding() -> Option<bool> {
    fs::read_to_string(IPV6_FORWARDING)
        .ok()
        .map(|text| text.trim() == "1")
}

/// `None` where the kernel is older than the setting.
fn unprivileged_ports() -> Option<u32> {
    fs::read_to_string(UNPRIVILEGED_PORTS)
        .ok()
        .and_then(|text| text.trim().parse().ok())
}

/// A container's /proc/sys is read-only unless it is privileged. Who may not
/// write there anyway only makes plans for a container that may.
fn sysctl_writable() -> bool {
    match fs::OpenOptions::new().write(true).open(ANY_SYSCTL) {
        Ok(_) => true,
        Err(error) if is_permission(&error) && !has_net_admin() => !is_read_only(),
        Err(_) => false,
    }
}

fn has_net_admin() -> bool {
    capabilities::missing().is_ok_and(|missing| !missing.contains(&Capability::NetAdmin))
}

fn is_read_only() -> bool {
    statvfs(ANY_SYSCTL).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_RDONLY))
}
