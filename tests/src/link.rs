//! Links, addresses and neighbours: what `ip link`, `ip address` and
//! `ip neighbour` do.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{
        BridgePortState, InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage, MacVlanMode, State,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkMacVlan, LinkUnspec, LinkVeth};

use crate::{
    error::{Context, LabError, Result},
    netlink::Netlink,
    netns::NetNs,
};

pub use netlink_packet_route::link::MacVlanMode as MacvlanMode;

/// Index of `lo` in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// How long links may take to get their carrier: no time, but for the one lock
/// that all namespaces of a machine share.
const CARRIER_DEADLINE: Duration = Duration::from_secs(60);

/// A number for a new link. Both ends of a veth get different ones: the kernel
/// announces the carrier of a link whose own index equals its peer's only once
/// a second (`linkwatch_urgent_event`).
fn new_index() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Netlink {
    /// `ip link set INDEX up`
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.change(
            Message::SetLink(LinkUnspec::new_with_index(index).up().build()),
            0,
        )
    }
}

impl NetNs {
    /// `ip link add NAME type veth peer name PEER_NAME netns PEER`; both down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_veth(&self, name: &str, peer: &NetNs, peer_name: &str) -> Result<()> {
        let far_end = LinkUnspec::new_with_name(peer_name)
            .index(new_index())
            .setns_by_fd(peer.as_fd().as_raw_fd())
            .build();
        let link = LinkVeth::new(name, peer_name)
            .index(new_index())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
            .build();
        self.create_link(link, || format!("creating veth {name} to {}", peer.name()))
    }

    /// `ip link add NAME type bridge`, up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        let index = new_index();
        // Given, it stays; otherwise it is that of some port, and changes
        // under the hosts that know it when ports come and go.
        let [a, b, c, d] = index.to_be_bytes();
        let link = LinkBridge::new(name)
            .index(index)
            .address(vec![0x02, 0, a, b, c, d])
            .build();
        self.create_link(link, || format!("creating bridge {name}"))
    }

    /// `ip link add NAME link PARENT netns INTO type macvlan mode MODE`, down
    /// and without address, as OpenShift's SDN leaves it in a pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_macvlan(
        &self,
        parent: &str,
        into: &NetNs,
        name: &str,
        mode: MacVlanMode,
    ) -> Result<()> {
        let link = LinkMacVlan::new(name, self.link_index(parent)?, mode)
            .index(new_index())
            .setns_by_fd(into.as_fd().as_raw_fd())
            .build();
        self.create_link(link, || {
            format!("creating macvlan {name} for {}", into.name())
        })
    }

    fn create_link(&self, link: LinkMessage, what: impl FnOnce() -> String) -> Result<()> {
        self.netlink(|netlink| netlink.change(Message::NewLink(link), CREATE))
            .context(|| format!("{} in {}", what(), self.name()))
    }

    /// `ip link del NAME`
    ///
    /// # Errors
    /// When there is no such link.
    pub fn delete_link(&self, name: &str) -> Result<()> {
        let link = LinkUnspec::new_with_name(name).build();
        self.netlink(|netlink| netlink.change(Message::DelLink(link), 0))
            .context(|| format!("deleting {name} in {}", self.name()))
    }

    /// `ip link set NAME up`
    ///
    /// # Errors
    /// When there is no such link.
    pub fn set_up(&self, name: &str) -> Result<()> {
        self.set_link(name, LinkUnspec::new_with_name(name).up().build())
    }

    /// `ip link set NAME down`
    ///
    /// # Errors
    /// When there is no such link.
    pub fn set_down(&self, name: &str) -> Result<()> {
        self.set_link(name, LinkUnspec::new_with_name(name).down().build())
    }

    /// `ip link set NAME mtu MTU`, in bytes
    ///
    /// # Errors
    /// When there is no such link or it cannot have that MTU.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.set_link(name, LinkUnspec::new_with_name(name).mtu(mtu).build())
    }

    /// `ip link set NAME master BRIDGE up`
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn attach(&self, name: &str, bridge: &str) -> Result<()> {
        let bridge = self.link_index(bridge)?;
        self.set_link(
            name,
            LinkUnspec::new_with_name(name)
                .controller(bridge)
                .up()
                .build(),
        )
    }

    /// Changes a link as a message of `rtnetlink`'s builders says.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_link(&self, name: &str, change: LinkMessage) -> Result<()> {
        self.netlink(|netlink| netlink.change(Message::SetLink(change), 0))
            .context(|| format!("changing {name} in {}", self.name()))
    }

    /// `ip address add ADDRESS dev NAME nodad`
    ///
    /// # Errors
    /// When there is no such link or it has the address.
    pub fn add_address(&self, name: &str, address: IpNet) -> Result<()> {
        let mut message = self.address_message(name, address)?;
        message.header.flags |= AddressHeaderFlags::Nodad;
        self.netlink(|netlink| netlink.change(Message::NewAddress(message), CREATE))
            .context(|| format!("adding {address} to {name} in {}", self.name()))
    }

    /// `ip address del ADDRESS dev NAME`
    ///
    /// # Errors
    /// When the link does not have it.
    pub fn delete_address(&self, name: &str, address: IpNet) -> Result<()> {
        let message = self.address_message(name, address)?;
        self.netlink(|netlink| netlink.change(Message::DelAddress(message), 0))
            .context(|| format!("deleting {address} of {name} in {}", self.name()))
    }

    fn address_message(&self, name: &str, address: IpNet) -> Result<AddressMessage> {
        let index = self.link_index(name)?;
        Ok(match address {
            IpNet::V4(net) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
        })
    }

    /// All addresses of a link, link-local ones included.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let index = self.link_index(name)?;
        let messages = self
            .netlink(|netlink| netlink.dump(Message::GetAddress(AddressMessage::default())))
            .context(|| format!("listing addresses in {}", self.name()))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                Message::NewAddress(address) if address.header.index == index => address
                    .attributes
                    .into_iter()
                    .find_map(|attribute| match attribute {
                        AddressAttribute::Address(ip) => Some(ip),
                        _ => None,
                    }),
                _ => None,
            })
            .collect())
    }

    /// Index of a link.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn link_index(&self, name: &str) -> Result<u32> {
        self.link(name).map(|link| link.header.index)
    }

    /// Hardware address of a link, as `ip link` writes it.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn mac_address(&self, name: &str) -> Result<String> {
        self.link(name)?
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => Some(mac_text(bytes)),
                _ => None,
            })
            .ok_or_else(|| LabError::new(format!("link {name}"), "it has no hardware address"))
    }

    fn link(&self, name: &str) -> Result<LinkMessage> {
        self.links()?
            .into_iter()
            .find(|link| link_name(link) == name)
            .ok_or_else(|| LabError::new(format!("link {name} in {}", self.name()), "absent"))
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&self) -> Result<Vec<LinkMessage>> {
        let messages = self
            .netlink(|netlink| netlink.dump(Message::GetLink(LinkMessage::default())))
            .context(|| format!("listing links in {}", self.name()))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                Message::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// The hardware address that the namespace holds for a neighbour, if any.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn neighbour(&self, address: IpAddr) -> Result<Option<String>> {
        let messages = self
            .netlink(|netlink| netlink.dump(Message::GetNeighbour(NeighbourMessage::default())))
            .context(|| format!("listing neighbours in {}", self.name()))?;
        let wanted = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        Ok(messages.into_iter().find_map(|message| match message {
            Message::NewNeighbour(neighbour)
                if neighbour
                    .attributes
                    .contains(&NeighbourAttribute::Destination(wanted.clone())) =>
            {
                neighbour
                    .attributes
                    .into_iter()
                    .find_map(|attribute| match attribute {
                        NeighbourAttribute::LinkLayerAddress(mac) => Some(mac_text(&mac)),
                        _ => None,
                    })
            }
            _ => None,
        }))
    }

    /// `sysctl net.ipv6.conf.*.accept_dad=0`: IPv6 addresses that the kernel
    /// gives to links, those to come included, are there at once. Checking
    /// them takes it two seconds.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn skip_address_checks(&self) -> Result<()> {
        let links = self.links()?;
        for link in links.iter().map(link_name).chain(["default"]) {
            for setting in ["accept_dad", "dad_transmits"] {
                self.sysctl(&[(&format!("net/ipv6/conf/{link}/{setting}"), "0")])?;
            }
        }
        Ok(())
    }

    /// Waits until every link that is set up carries packets: carrier there,
    /// bridge ports forwarding, IPv6 addresses answering, except those whose
    /// duplicate address detection runs.
    ///
    /// # Errors
    /// When one still does not after some seconds.
    pub fn await_carrier(&self) -> Result<()> {
        let start = Instant::now();
        let monitor = self
            .run(Netlink::open_monitor)
            .context(|| format!("watching links in {}", self.name()))?;
        while let Some(waiting) = self.unfinished()? {
            CARRIER_DEADLINE
                .checked_sub(start.elapsed())
                .ok_or_else(|| io::Error::from(Errno::ETIMEDOUT))
                .and_then(|left| monitor.wait(left))
                .context(|| format!("waiting for {waiting} in {}", self.name()))?;
        }
        Ok(())
    }

    /// Something that the kernel still has to do by itself.
    fn unfinished(&self) -> Result<Option<String>> {
        let links = self.links()?;
        if let Some(link) = links.iter().find(|link| !carries_packets(link)) {
            return Ok(Some(format!("carrier of {}", link_name(link))));
        }
        // An address is the host's own only when its local route is there,
        // and even without duplicate address detection the kernel adds that
        // later, from a work queue (addrconf_dad_completed).
        let is_up = |index| {
            links
                .iter()
                .any(|link| link.header.index == index && link.header.flags.contains(LinkFlags::Up))
        };
        let local = self.local_addresses()?;
        let messages = self
            .netlink(|netlink| netlink.dump(Message::GetAddress(AddressMessage::default())))
            .context(|| format!("listing addresses in {}", self.name()))?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                Message::NewAddress(address) if is_up(address.header.index) => {
                    settled_address(address)
                }
                _ => None,
            })
            .find(|address| !local.contains(address))
            .map(|address| format!("the local route of {address}")))
    }

    /// IPv6 addresses that the namespace takes packets for.
    fn local_addresses(&self) -> Result<Vec<Ipv6Addr>> {
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet6;
        let messages = self
            .netlink(|netlink| netlink.dump(Message::GetRoute(all)))
            .context(|| format!("listing routes in {}", self.name()))?;
        let destination = |route: RouteMessage| {
            route
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(v6),
                    _ => None,
                })
        };
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                Message::NewRoute(route) if route.header.kind == RouteType::Local => {
                    destination(route)
                }
                _ => None,
            })
            .collect())
    }
}

/// An IPv6 address, unless duplicate address detection runs or failed.
fn settled_address(message: &AddressMessage) -> Option<Ipv6Addr> {
    let mut settled = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(IpAddr::V6(v6)) => settled = settled.or(Some(*v6)),
            // The own end of a point-to-point address.
            AddressAttribute::Local(IpAddr::V6(v6)) => settled = Some(*v6),
            AddressAttribute::Flags(flags)
                if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) =>
            {
                return None;
            }
            _ => {}
        }
    }
    settled
}

fn carries_packets(link: &LinkMessage) -> bool {
    if link.header.index == LOOPBACK || !link.header.flags.contains(LinkFlags::Up) {
        return true;
    }
    link.attributes.iter().all(|attribute| match attribute {
        // Unknown is also what a new link has until the kernel looked at it.
        LinkAttribute::OperState(state) => *state == State::Up,
        LinkAttribute::LinkInfo(infos) => infos.iter().all(|info| match info {
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
            }
            _ => true,
        }),
        _ => true,
    })
}

/// Name of a link in a kernel message.
pub(crate) fn link_name(link: &LinkMessage) -> &str {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

fn mac_text(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}
