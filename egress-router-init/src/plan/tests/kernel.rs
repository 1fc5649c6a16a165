//! What the kernel makes of a step: as much of it as plans depend on.
//!
//! The sources named are those of Linux 6.18. Secondary addresses are not
//! promoted, as is the kernel's default.

use std::net::IpAddr;

use egress_config::AddressFamily;
use ipnet::IpNet;

use crate::originals::Setting;
use crate::plan::{Parent, Plan, Step};
use crate::state::{
    Address, Ipv6Settings, LINK_GROUP, Link, MAIN_TABLE, MacvlanMode, PROTOCOL_KERNEL, Route,
    RouteKind, State, host, scope,
};

/// The link-local address of every interface.
const LINK_LOCAL: &str = "fe80::a/64";

/// `RTPROT_RA`
const PROTOCOL_RA: u8 = 9;

/// A network namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    pub(super) state: State,
    /// What the packet rules in force are for.
    pub(super) guarded: Option<Guarded>,
    links_made: u32,
}

/// What packet rules depend on besides the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guarded {
    pub(super) pod: String,
    pub(super) egress: String,
    pub(super) pod_networks: Vec<IpNet>,
}

/// A refusal, as an errno would name it.
pub(super) type Refusal = &'static str;

impl Kernel {
    /// An interface that is down and has no address.
    pub(super) fn add_link(&mut self, name: &str, kind: &str) -> &mut Link {
        self.links_made += 1;
        let state = &mut self.state;
        state.links.push(Link {
            index: self.links_made,
            name: name.to_owned(),
            kind: kind.to_owned(),
            ethernet: name != "lo",
            up: false,
            mtu: 1500,
            mac: vec![2, 0, 0, 0, 0, 9],
            group: 0,
            alias: None,
            peer_namespace: None,
            parent: None,
            controller: None,
            macvlan_mode: None,
            ipv4: state.ipv4_default,
            ipv6: state.ipv6_forwarding.map(|_| state.ipv6_default),
        });
        state.links.last_mut().unwrap()
    }

    /// Carries out a step of a plan or, without one, of an undoing.
    pub(super) fn carry_out(&mut self, step: &Step, plan: Option<&Plan>) -> Result<(), Refusal> {
        match step {
            Step::CreateLink { name, parent } => self.create_link(name, parent)?,
            Step::RenameLink { from, to } => self.rename_link(from, to)?,
            Step::DeleteLink { name } => {
                self.state.links.retain(|link| link.name != *name);
                self.state.addresses.retain(|address| address.link != *name);
                self.state.routes.retain(|route| !route.is_by(name));
            }
            Step::Note { link, note } => {
                let text = note.to_string();
                // IFALIASZ
                if text.len() > 255 {
                    return Err("EINVAL: the alias is too long");
                }
                self.link(link)?.alias = Some(text);
            }
            Step::ClearNote { link, alias } => {
                self.link(link)?.alias = (!alias.is_empty()).then(|| alias.clone());
            }
            Step::SetMacvlanMode { link, mode } => self.link(link)?.macvlan_mode = Some(*mode),
            Step::Set {
                setting,
                link,
                value,
            } => self.set(*setting, link, *value)?,
            Step::LinkUp { link } => self.link_up(link)?,
            Step::LinkDown { link } => self.link_down(link)?,
            Step::ReplaceFirewall => {
                let plan = plan.ok_or("undoing adds no rules")?;
                self.state.firewall_present = Some(true);
                self.guarded = Some(Guarded {
                    pod: plan.pod_interface.clone(),
                    egress: plan.egress.name().to_owned(),
                    pod_networks: plan.pod_networks.clone(),
                });
            }
            Step::DeleteFirewall => {
                self.state.firewall_present = Some(false);
                self.guarded = None;
            }
            Step::Probe { link, .. } => {
                if !self.link(link)?.up {
                    return Err("the link is down");
                }
            }
            Step::AddAddress { link, address } => self.add_address(link, *address)?,
            Step::DeleteAddress { link, address } => self.delete_address(link, *address),
            Step::AddRoute(route) => {
                self.check_route(route)?;
                if !self.state.routes.iter().any(|known| known.excludes(route)) {
                    self.state.routes.push(route.clone());
                }
            }
            Step::ReplaceRoute(route) => {
                self.check_route(route)?;
                let routes = &mut self.state.routes;
                // fib6_add_rt2node prefers one of its kind.
                let is_like = |r: &Route| r.gateway.is_some() == route.gateway.is_some();
                let place = |is_like: &dyn Fn(&Route) -> bool| {
                    routes
                        .iter()
                        .position(|r| r.is_in_place_of(route) && is_like(r))
                };
                let is_ipv4 = route.family() == AddressFamily::Ipv4;
                let position = place(&|r| is_ipv4 || is_like(r)).or_else(|| place(&|_| true));
                match position.and_then(|position| routes.get_mut(position)) {
                    Some(old) => old.clone_from(route),
                    None => routes.push(route.clone()),
                }
            }
            Step::DeleteRoute(route) => {
                let routes = &mut self.state.routes;
                if let Some(position) = routes.iter().position(|r| is_deleted_by(r, route)) {
                    routes.remove(position);
                }
            }
            Step::AddRule(rule) => {
                if !self.state.rules.contains(rule) {
                    self.state.rules.push(rule.clone());
                }
            }
            Step::DeleteRule(rule) => self.state.rules.retain(|known| known != rule),
        }
        Ok(())
    }

    fn link(&mut self, name: &str) -> Result<&mut Link, Refusal> {
        self.state
            .links
            .iter_mut()
            .find(|link| link.name == name)
            .ok_or("ENODEV")
    }

    fn create_link(&mut self, name: &str, parent: &Parent) -> Result<(), Refusal> {
        let Parent::Known(parent) = parent else {
            panic!("{parent}");
        };
        if self.state.link(name).is_some() {
            return Err("EEXIST: a link of that name");
        }
        let link = self.add_link(name, "macvlan");
        link.group = LINK_GROUP;
        link.mtu = parent.mtu;
        link.macvlan_mode = Some(MacvlanMode::Bridge);
        link.peer_namespace = Some(parent.namespace);
        link.parent = Some(parent.index);
        Ok(())
    }

    /// `dev_change_name`, before Linux 6.2 in this respect.
    fn rename_link(&mut self, from: &str, to: &str) -> Result<(), Refusal> {
        if self.state.link(to).is_some() {
            return Err("EEXIST: a link of that name");
        }
        let link = self.link(from)?;
        if link.up {
            return Err("EBUSY: the link is up");
        }
        to.clone_into(&mut link.name);
        for address in &mut self.state.addresses {
            if address.link == from {
                to.clone_into(&mut address.link);
            }
        }
        Ok(())
    }

    fn set(&mut self, setting: Setting, link: &str, value: u32) -> Result<(), Refusal> {
        if setting.is_sysctl() && !self.state.sysctl_writable {
            return Err("EROFS: /proc/sys");
        }
        if setting == Setting::Ipv6Forwarding {
            self.state.ipv6_forwarding.ok_or("ENOENT: no IPv6")?;
            self.state.ipv6_forwarding = Some(value != 0);
            if value != 0 {
                // rt6_purge_dflt_routers
                self.state.routes.retain(|route| {
                    let is_advertised = route.protocol == PROTOCOL_RA && route.is_default();
                    !is_advertised || route.table != MAIN_TABLE
                });
            }
            return Ok(());
        }
        if setting == Setting::UnprivilegedPorts {
            self.state.unprivileged_ports = Some(value);
            return Ok(());
        }
        let link = self.link(link)?;
        let ipv6 = || link.ipv6.ok_or("ENOENT: no IPv6");
        match setting {
            Setting::PodForwarding | Setting::EgressForwarding => link.ipv4.forwarding = value,
            Setting::ArpIgnore => link.ipv4.arp_ignore = value,
            Setting::ArpAnnounce => link.ipv4.arp_announce = value,
            Setting::AddrGenMode => {
                link.ipv6 = Some(Ipv6Settings {
                    addr_gen_mode: value,
                    ..ipv6()?
                });
            }
            Setting::AcceptRa => {
                link.ipv6 = Some(Ipv6Settings {
                    accept_ra: value,
                    ..ipv6()?
                });
            }
            Setting::Autoconf => {
                link.ipv6 = Some(Ipv6Settings {
                    autoconf: value,
                    ..ipv6()?
                });
            }
            Setting::Ipv6Forwarding | Setting::UnprivilegedPorts => {}
        }
        Ok(())
    }

    pub(super) fn link_up(&mut self, name: &str) -> Result<(), Refusal> {
        let link = self.link(name)?;
        if link.up {
            return Ok(());
        }
        link.up = true;
        let makes_address = link.ipv6.is_some_and(|ipv6| ipv6.addr_gen_mode == 0);
        let known: Vec<IpNet> = self.state.addresses_of(name).map(|a| a.address).collect();
        for (position, address) in known.iter().enumerate() {
            let is_secondary = known
                .iter()
                .take(position)
                .any(|a| a.trunc() == address.trunc());
            if !is_secondary {
                self.add_prefix_route(name, *address);
            }
        }
        let link_local: IpNet = LINK_LOCAL.parse().unwrap();
        if makes_address && name != "lo" && !known.contains(&link_local) {
            self.insert_address(name, link_local);
        }
        Ok(())
    }

    /// `fib_disable_ip` and `addrconf_ifdown`: IPv4 addresses stay.
    fn link_down(&mut self, name: &str) -> Result<(), Refusal> {
        self.link(name)?.up = false;
        self.state.routes.retain(|route| !route.is_by(name));
        self.state
            .addresses
            .retain(|a| a.link != name || a.family() == AddressFamily::Ipv4);
        Ok(())
    }

    fn add_address(&mut self, name: &str, address: IpNet) -> Result<(), Refusal> {
        let link = self.link(name)?;
        if address.addr().is_ipv6() && link.ipv6.is_none() {
            return Err("EACCES: IPv6 is off");
        }
        let is_there = |known: &Address| match known.family() {
            AddressFamily::Ipv4 => known.address == address,
            // inet6_addr_modify leaves the length as it is.
            AddressFamily::Ipv6 => known.address.addr() == address.addr(),
        };
        if !self.state.addresses_of(name).any(is_there) {
            self.insert_address(name, address);
        }
        Ok(())
    }

    pub(super) fn insert_address(&mut self, name: &str, address: IpNet) {
        let is_local = match address.addr() {
            IpAddr::V4(a) => a.is_loopback(),
            IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local(),
        };
        let new = Address {
            link: name.to_owned(),
            address,
            global: !is_local,
        };
        let is_secondary = self
            .state
            .addresses_of(name)
            .any(|a| is_same_network(a, &new));
        self.state.addresses.push(new);
        if self.state.link(name).is_some_and(|link| link.up) && !is_secondary {
            self.add_prefix_route(name, address);
        }
    }

    /// `fib_add_ifaddr`, `addrconf_prefix_route`
    fn add_prefix_route(&mut self, name: &str, address: IpNet) {
        let is_ipv4 = address.addr().is_ipv4();
        if name == "lo" || is_ipv4 && address.prefix_len() == 32 {
            return;
        }
        let route = Route {
            protocol: PROTOCOL_KERNEL,
            scope: if is_ipv4 {
                scope::LINK
            } else {
                scope::UNIVERSE
            },
            source: is_ipv4.then(|| address.addr()),
            metric: if is_ipv4 { 0 } else { 256 },
            ..Route::ours(address.trunc(), name)
        };
        if !self.state.routes.iter().any(|known| known.matches(&route)) {
            self.state.routes.push(route);
        }
    }

    /// `__inet_del_ifa` and `fib_del_ifaddr`; `inet6_addr_del`
    fn delete_address(&mut self, name: &str, address: IpNet) {
        let addresses = &mut self.state.addresses;
        let Some(position) = addresses
            .iter()
            .position(|a| a.link == name && a.address == address)
        else {
            return;
        };
        let gone = addresses.remove(position);
        let is_ipv4 = gone.family() == AddressFamily::Ipv4;
        let was_primary = !addresses
            .iter()
            .take(position)
            .any(|a| is_same_network(a, &gone));
        if is_ipv4 && was_primary {
            addresses.retain(|a| !is_same_network(a, &gone));
        }
        let is_connected = addresses.iter().any(|a| is_same_network(a, &gone));
        let is_last = !addresses
            .iter()
            .any(|a| a.link == name && a.family() == gone.family());
        let is_elsewhere = addresses.iter().any(|a| a.address.addr() == address.addr());
        self.state.routes.retain_mut(|route| {
            let is_its_prefix = route.is_by(name)
                && route.is_of_kernel()
                && route.table == MAIN_TABLE
                && route.destination == address.trunc();
            if is_its_prefix && !is_connected {
                return false;
            }
            let names_it = route.source == Some(address.addr()) && !is_elsewhere;
            if is_ipv4 {
                // fib_sync_down_addr, fib_disable_ip
                let is_void = names_it && route.table == MAIN_TABLE;
                let is_flushed =
                    is_last && route.is_by(name) && route.family() == AddressFamily::Ipv4;
                return !is_void && !is_flushed;
            }
            if names_it && route.is_by(name) {
                // fib6_remove_prefsrc
                route.source = None;
            }
            true
        });
    }

    /// `fib_create_info`, `ip6_route_info_create`
    fn check_route(&self, route: &Route) -> Result<(), Refusal> {
        let state = &self.state;
        if let Some(source) = route.source
            && !state.addresses.iter().any(|a| a.address.addr() == source)
        {
            return Err("EINVAL: the source address is not here");
        }
        let Some(name) = &route.link else {
            return Ok(());
        };
        let link = state.link(name).ok_or("ENODEV")?;
        if !link.up {
            return Err("ENETDOWN");
        }
        let Some(gateway) = route.gateway else {
            return Ok(());
        };
        let is_reachable = |known: &Route| {
            [MAIN_TABLE, route.table].contains(&known.table)
                && known.is_by(name)
                && known.gateway.is_none()
                && known.kind == RouteKind::Unicast
                && known.destination.contains(&host(gateway))
        };
        let is_link_local = matches!(gateway, IpAddr::V6(a) if a.is_unicast_link_local());
        if route.onlink || is_link_local || state.routes.iter().any(is_reachable) {
            Ok(())
        } else {
            Err("ENETUNREACH: the gateway is not on the link")
        }
    }

    /// Where the kernel sends what no other route is for.
    pub(super) fn default_route(&self, family: AddressFamily) -> Option<&Route> {
        let defaults = |route: &&Route| {
            route.table == MAIN_TABLE && route.is_default() && route.family() == family
        };
        // The first of those that are as good.
        self.state
            .routes
            .iter()
            .filter(defaults)
            .min_by_key(|route| route.metric)
    }
}

/// `fib_table_delete`, `ip6_route_del`
fn is_deleted_by(route: &Route, request: &Route) -> bool {
    let mut like = route.clone();
    like.onlink = request.onlink;
    if route.family() == AddressFamily::Ipv6 {
        (like.source, like.scope, like.kind) = (request.source, request.scope, request.kind);
    }
    like.matches(request)
}

fn is_same_network(a: &Address, b: &Address) -> bool {
    a.link == b.link && a.address.trunc() == b.address.trunc()
}
