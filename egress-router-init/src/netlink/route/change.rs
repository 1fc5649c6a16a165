//! Carries out the steps that are netlink requests.

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;

use super::RouteSocket;
use super::convert::{macvlan_mode, netlink_family, route_message, rule_message};
use crate::originals::Setting;
use crate::plan::{NodeLink, Parent, Step, sysctl_name};
use crate::state::{LINK_GROUP, MacvlanMode, PROTOCOL, Route};

/// A change that the kernel refused, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}{advice}")]
pub struct ChangeError {
    step: String,
    #[source]
    source: io::Error,
    advice: String,
}

impl ChangeError {
    fn new(step: &Step, source: io::Error) -> Self {
        let errno = source.raw_os_error().map(Errno::from_raw);
        let advice = errno.and_then(|errno| advice(step, errno));
        Self {
            step: step.to_string(),
            source,
            advice: advice.map(|text| format!("; {text}")).unwrap_or_default(),
        }
    }
}

/// What a refusal means, where the errno alone does not say it.
fn advice(step: &Step, errno: Errno) -> Option<String> {
    Some(match (step, errno) {
        (Step::CreateLink { .. }, Errno::EPERM) => {
            "creating the interface needs NET_ADMIN on the node's side too, which a pod with a \
             user namespace of its own (hostUsers: false) does not have; let Multus or the CNI \
             attach it"
                .to_owned()
        }
        (Step::CreateLink { parent, .. }, Errno::EBUSY) => format!(
            "{parent} is a port of a bridge or carries another kind of interface; set \
             EGRESS_MACVLAN_PARENT to the bridge"
        ),
        (Step::CreateLink { parent, .. }, Errno::EINVAL) => format!(
            "{parent} already carries a macvlan in passthru mode, or is itself an interface that \
             can carry none; set EGRESS_MACVLAN_PARENT to another interface of the node"
        ),
        (Step::CreateLink { parent, .. }, Errno::EOPNOTSUPP | Errno::ENODEV) => format!(
            "the node's kernel has no macvlan module, or {parent} cannot carry one (as on most \
             clouds); load the module (modprobe macvlan), or attach an interface by Multus"
        ),
        (Step::CreateLink { name, .. } | Step::RenameLink { to: name, .. }, Errno::EEXIST) => {
            format!("an interface \"{name}\" is already there; set EGRESS_INTERFACE to it")
        }
        (Step::SetMacvlanMode { link, .. }, Errno::EINVAL) => format!(
            "{link} is in passthru mode, which cannot be left; let the CNI attach it in bridge mode"
        ),
        (Step::AddAddress { .. }, Errno::EACCES) => {
            "IPv6 is off on this interface; the pod needs net.ipv6.conf.all.disable_ipv6=0"
                .to_owned()
        }
        (
            Step::AddRoute(route) | Step::ReplaceRoute(route),
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL,
        ) if route.protocol == PROTOCOL && route.gateway.is_some() => {
            "the gateway is no host that can be reached on that interface; correct \
             EGRESS_GATEWAY, or the prefix length of EGRESS_SOURCE"
                .to_owned()
        }
        (Step::LinkUp { .. }, Errno::EBUSY | Errno::EADDRINUSE) => {
            "the interface's hardware address is in use on its parent; delete the interface that \
             has it"
                .to_owned()
        }
        (Step::Set { .. }, Errno::EROFS | Errno::EACCES) => {
            "/proc/sys is read-only; set it in the pod (spec.securityContext.sysctls), or run the \
             container privileged"
                .to_owned()
        }
        (_, Errno::EPERM) => "the container needs the capability NET_ADMIN \
             (securityContext.capabilities.add)"
            .to_owned(),
        _ => return None,
    })
}

/// The name a link has until it is here and ours: older kernels make it in the
/// node's namespace first, where `macvlan0` may be taken. The kernel puts a
/// free number for `%d`.
const MAKESHIFT_NAME: &str = "egress%d";

impl RouteSocket {
    /// Carries out one step. Steps that are not netlink requests of this
    /// family (packet rules, probes) are none of this socket's business and do
    /// nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change(&self, step: &Step) -> Result<(), ChangeError> {
        self.try_change(step)
            .await
            .map_err(|source| ChangeError::new(step, source))
    }

    async fn try_change(&self, step: &Step) -> io::Result<()> {
        match step {
            Step::CreateLink {
                name,
                parent: Parent::Known(parent),
            } => self.create_link(name, parent).await,
            // Whoever may change the network may look at the node as well.
            Step::CreateLink { parent, .. } => Err(io::Error::other(parent.to_string())),
            Step::RenameLink { from, to } => {
                self.set_link(from, LinkAttribute::IfName(to.clone())).await
            }
            Step::DeleteLink { name } => match self.link_message(name).await {
                Ok(message) => self
                    .request(RouteNetlinkMessage::DelLink(message), 0)
                    .await
                    .or_else(gone),
                Err(error) => gone(error),
            },
            Step::Note { link, note } => {
                self.set_link(link, LinkAttribute::IfAlias(note.to_string()))
                    .await
            }
            Step::ClearNote { link, alias } => self.set_alias(link, alias).await,
            Step::SetMacvlanMode { link, mode } => {
                let mut message = self.link_message(link).await?;
                let info = LinkAttribute::LinkInfo(macvlan(*mode));
                message.attributes.push(info);
                // RTM_SETLINK takes no notice of what a kind of link has of
                // its own.
                let request = RouteNetlinkMessage::NewLink(message);
                self.request(request, 0).await
            }
            Step::Set {
                setting,
                link,
                value,
            } => self.set(*setting, link, *value).await,
            Step::LinkUp { link } => self.set_up(link, true).await,
            Step::LinkDown { link } => self.set_up(link, false).await,
            Step::AddAddress { link, address } => {
                let message = self.address_message(link, *address).await?;
                // Whether somebody else has it we have asked ourselves.
                let request = RouteNetlinkMessage::NewAddress(message);
                self.request(request, NLM_F_CREATE | NLM_F_REPLACE).await?;
                if let IpAddr::V6(address) = address.addr() {
                    self.await_use(address).await;
                }
                Ok(())
            }
            Step::DeleteAddress { link, address } => {
                match self.address_message(link, *address).await {
                    Ok(message) => self
                        .request(RouteNetlinkMessage::DelAddress(message), 0)
                        .await
                        .or_else(gone),
                    Err(error) => gone(error),
                }
            }
            Step::AddRoute(route) => self.add_route(route, add_flag(route)).await.or_else(there),
            Step::ReplaceRoute(route) => self.add_route(route, NLM_F_REPLACE).await,
            Step::DeleteRoute(route) => match self.route_message(route).await {
                Ok(message) => self
                    .request(RouteNetlinkMessage::DelRoute(message), 0)
                    .await
                    .or_else(gone),
                Err(error) => gone(error),
            },
            Step::AddRule(rule) => {
                let request = RouteNetlinkMessage::NewRule(rule_message(rule));
                self.request(request, NLM_F_CREATE | NLM_F_EXCL)
                    .await
                    .or_else(there)
            }
            Step::DeleteRule(rule) => {
                let request = RouteNetlinkMessage::DelRule(rule_message(rule));
                self.request(request, 0).await.or_else(gone)
            }
            Step::ReplaceFirewall | Step::DeleteFirewall | Step::Probe { .. } => Ok(()),
        }
    }

    /// `ip link add ... type macvlan mode bridge`, then `... name NAME`.
    async fn create_link(&self, name: &str, parent: &NodeLink) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(MAKESHIFT_NAME.to_owned()),
            LinkAttribute::Link(parent.index),
            LinkAttribute::LinkNetNsId(parent.namespace),
            LinkAttribute::Mtu(parent.mtu),
            LinkAttribute::Group(LINK_GROUP),
            LinkAttribute::LinkInfo(macvlan(MacvlanMode::Bridge)),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        self.request(request, NLM_F_CREATE | NLM_F_EXCL).await?;
        let links = self.links(None).await?;
        let made = links.iter().find(|link| link.is_ours()).ok_or_else(|| {
            io::Error::other("the kernel says that the interface was made, but it is not there")
        })?;
        self.set_link(&made.name, LinkAttribute::IfName(name.to_owned()))
            .await
    }

    async fn link_message(&self, name: &str) -> io::Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name).await?;
        Ok(message)
    }

    /// Indexes are looked up when they are needed: a plan may name a link that
    /// it makes itself.
    async fn index(&self, name: &str) -> io::Result<u32> {
        nix::net::if_::if_nametoindex(name).map_err(io::Error::from)
    }

    /// `ip link set dev LINK ...`
    async fn set_link(&self, link: &str, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = self.link_message(link).await?;
        message.attributes.push(attribute);
        self.request(RouteNetlinkMessage::SetLink(message), 0).await
    }

    /// `ip link set dev LINK alias TEXT`; an empty one removes it, which is an
    /// attribute without even a closing NUL.
    async fn set_alias(&self, link: &str, alias: &str) -> io::Result<()> {
        const IFLA_IFALIAS: u16 = 20;
        let attribute = LinkAttribute::Other(DefaultNla::new(IFLA_IFALIAS, alias.into()));
        self.set_link(link, attribute).await
    }

    /// `ip link set dev LINK up`
    async fn set_up(&self, link: &str, up: bool) -> io::Result<()> {
        let mut message = self.link_message(link).await?;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        self.request(RouteNetlinkMessage::SetLink(message), 0).await
    }

    async fn set(&self, setting: Setting, link: &str, value: u32) -> io::Result<()> {
        // include/uapi/linux/ip.h
        const IPV4_DEVCONF_FORWARDING: u16 = 1;
        const IPV4_DEVCONF_ARP_ANNOUNCE: u16 = 18;
        const IPV4_DEVCONF_ARP_IGNORE: u16 = 19;
        let kind = match setting {
            Setting::PodForwarding | Setting::EgressForwarding => IPV4_DEVCONF_FORWARDING,
            Setting::ArpIgnore => IPV4_DEVCONF_ARP_IGNORE,
            Setting::ArpAnnounce => IPV4_DEVCONF_ARP_ANNOUNCE,
            Setting::AddrGenMode => {
                let mode = In6AddrGenMode::from(u8::try_from(value).unwrap_or_default());
                let spec = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]);
                return self
                    .set_link(link, LinkAttribute::AfSpecUnspec(vec![spec]))
                    .await;
            }
            Setting::AcceptRa
            | Setting::Autoconf
            | Setting::Ipv6Forwarding
            | Setting::UnprivilegedPorts => {
                let path = sysctl_name(setting, link)
                    .replace('.', "\0")
                    .replace('/', ".");
                return fs::write(
                    format!("/proc/sys/{}", path.replace('\0', "/")),
                    value.to_string(),
                );
            }
        };
        // Not /proc/sys/net/ipv4/conf/..., which may be read-only. Written by
        // hand, because the crate leaves out a value of 0.
        let spec = AfSpecInet::Other(inet_conf(kind, value));
        let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![spec])]);
        self.set_link(link, attribute).await
    }

    async fn address_message(&self, link: &str, address: IpNet) -> io::Result<AddressMessage> {
        let family = egress_config::AddressFamily::of(address.addr());
        let mut message = AddressMessage::default();
        message.header.family = netlink_family(family);
        message.header.prefix_len = address.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.index = self.index(link).await?;
        message.attributes = vec![
            AddressAttribute::Local(address.addr()),
            AddressAttribute::Address(address.addr()),
        ];
        if family == egress_config::AddressFamily::Ipv6 {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        Ok(message)
    }

    async fn route_message(
        &self,
        route: &Route,
    ) -> io::Result<netlink_packet_route::route::RouteMessage> {
        let index = match &route.link {
            Some(link) => Some(self.index(link).await?),
            None => None,
        };
        Ok(route_message(route, |_| index))
    }

    async fn add_route(&self, route: &Route, flags: u16) -> io::Result<()> {
        let message = self.route_message(route).await?;
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flags)
            .await
    }
}

fn macvlan(mode: MacvlanMode) -> Vec<LinkInfo> {
    vec![
        LinkInfo::Kind(InfoKind::MacVlan),
        LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(macvlan_mode(
            mode,
        ))])),
    ]
}

/// `IFLA_INET_CONF` with one setting.
fn inet_conf(kind: u16, value: u32) -> DefaultNla {
    const IFLA_INET_CONF: u16 = 1;
    const NESTED: u16 = netlink_packet_core::NLA_F_NESTED;
    let mut nested = Vec::with_capacity(8);
    nested.extend_from_slice(&8u16.to_ne_bytes());
    nested.extend_from_slice(&kind.to_ne_bytes());
    nested.extend_from_slice(&value.to_ne_bytes());
    DefaultNla::new(IFLA_INET_CONF | NESTED, nested)
}

/// `ip route append`, so that a route of others returns beside one for the
/// same destination; but IPv6 would make one route of two gateways.
fn add_flag(route: &Route) -> u16 {
    if route.destination.addr().is_ipv6() && route.gateway.is_some() {
        NLM_F_EXCL
    } else {
        NLM_F_APPEND
    }
}

/// What is gone need not be deleted: the kernel takes routes along with
/// addresses and links.
fn gone(error: io::Error) -> io::Result<()> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENXIO,
        ) => Ok(()),
        _ => Err(error),
    }
}

/// What is there need not be added: an address brings its route along.
fn there(error: io::Error) -> io::Result<()> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EEXIST) => Ok(()),
        _ => Err(error),
    }
}
