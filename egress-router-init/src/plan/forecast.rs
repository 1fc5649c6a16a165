//! What a step makes of a state, as far as the steps after it depend on it.
//!
//! What the kernel takes along is foreseen. What it adds of its own accord
//! (routes of an address, the link-local address of an interface) is not: the
//! next plan sees it.

use egress_config::AddressFamily;
use ipnet::IpNet;

use super::step::{Parent, Step};
use crate::originals::Setting;
use crate::state::{Address, LINK_GROUP, Link, MAIN_TABLE, MacvlanMode, State};

/// Steps in the making, and the state that they lead to.
#[derive(Debug)]
pub(super) struct Forecast {
    state: State,
    steps: Vec<Step>,
}

impl Forecast {
    pub(super) fn new(state: &State) -> Self {
        Self {
            state: state.clone(),
            steps: Vec::new(),
        }
    }

    /// The state once the steps so far are carried out.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    pub(super) fn push(&mut self, step: Step) {
        self.apply(&step);
        self.steps.push(step);
    }

    fn apply(&mut self, step: &Step) {
        let state = &mut self.state;
        match step {
            Step::CreateLink { name, parent } => {
                let link = new_link(state, name, parent);
                state.links.push(link);
            }
            Step::RenameLink { from, to } => rename(state, from, to),
            Step::DeleteLink { name } => {
                state.links.retain(|link| link.name != *name);
                state.addresses.retain(|address| address.link != *name);
                state
                    .routes
                    .retain(|route| route.link.as_ref() != Some(name));
            }
            Step::Note { link, note } => {
                change(state, link, |link| link.alias = Some(note.to_string()));
            }
            Step::ClearNote { link, alias } => change(state, link, |link| {
                link.alias = (!alias.is_empty()).then(|| alias.clone());
            }),
            Step::SetMacvlanMode { link, mode } => {
                change(state, link, |link| link.macvlan_mode = Some(*mode));
            }
            Step::Set {
                setting,
                link,
                value,
            } => set(state, *setting, link, *value),
            Step::LinkUp { link } => change(state, link, |link| link.up = true),
            Step::LinkDown { link } => {
                change(state, link, |link| link.up = false);
                state
                    .routes
                    .retain(|route| route.link.as_ref() != Some(link));
                state.addresses.retain(|address| {
                    address.link != *link || address.family() == AddressFamily::Ipv4
                });
            }
            Step::AddAddress { link, address } => state.addresses.push(Address {
                link: link.clone(),
                address: *address,
                global: true,
            }),
            Step::DeleteAddress { link, address } => delete_address(state, link, *address),
            Step::AddRoute(route) => state.routes.push(route.clone()),
            Step::ReplaceRoute(route) => {
                state.routes.retain(|known| !known.is_in_place_of(route));
                state.routes.push(route.clone());
            }
            Step::DeleteRoute(route) => state.routes.retain(|known| !known.matches(route)),
            Step::AddRule(rule) => state.rules.push(rule.clone()),
            Step::DeleteRule(rule) => state.rules.retain(|known| known != rule),
            Step::ReplaceFirewall => state.firewall_present = Some(true),
            Step::DeleteFirewall => state.firewall_present = Some(false),
            Step::Probe { .. } => {}
        }
    }
}

fn new_link(state: &State, name: &str, parent: &Parent) -> Link {
    let known = match parent {
        Parent::Known(link) => Some(link),
        Parent::Open(_) => None,
    };
    Link {
        index: 0,
        name: name.to_owned(),
        kind: "macvlan".to_owned(),
        ethernet: true,
        up: false,
        mtu: parent.mtu(),
        mac: Vec::new(),
        group: LINK_GROUP,
        alias: None,
        peer_namespace: known.map(|link| link.namespace),
        parent: known.map(|link| link.index),
        controller: None,
        macvlan_mode: Some(MacvlanMode::Bridge),
        ipv4: state.ipv4_default,
        ipv6: state.ipv6_forwarding.map(|_| state.ipv6_default),
    }
}

fn change(state: &mut State, name: &str, change: impl FnOnce(&mut Link)) {
    if let Some(link) = state.links.iter_mut().find(|link| link.name == name) {
        change(link);
    }
}

fn rename(state: &mut State, from: &str, to: &str) {
    change(state, from, |link| to.clone_into(&mut link.name));
    let addresses = state.addresses.iter_mut().map(|address| &mut address.link);
    let routes = state
        .routes
        .iter_mut()
        .filter_map(|route| route.link.as_mut());
    for name in addresses.chain(routes).filter(|name| *name == from) {
        to.clone_into(name);
    }
}

/// An address takes along the route to its network and, of IPv4, what names it
/// as the source and, when it is the last one, everything.
fn delete_address(state: &mut State, link: &str, address: IpNet) {
    let family = AddressFamily::of(address.addr());
    state
        .addresses
        .retain(|a| a.link != link || a.address != address);
    let is_ipv4 = family == AddressFamily::Ipv4;
    let left = || state.addresses_of(link).filter(|a| a.family() == family);
    let is_last = left().next().is_none();
    let is_connected = left().any(|a| a.address.trunc() == address.trunc());
    let is_elsewhere = state
        .addresses
        .iter()
        .any(|a| a.address.addr() == address.addr());
    state.routes.retain_mut(|route| {
        let is_its_network = route.table == MAIN_TABLE
            && route.is_of_kernel()
            && route.is_by(link)
            && route.destination == address.trunc();
        if is_its_network && !is_connected {
            return false;
        }
        let is_flushed = is_last && route.is_by(link) && route.family() == family;
        let names_it = route.source == Some(address.addr()) && !is_elsewhere;
        if is_ipv4 {
            let is_void = names_it && route.table == MAIN_TABLE;
            return !is_flushed && !is_void;
        }
        if names_it && route.is_by(link) {
            route.source = None;
        }
        true
    });
}

fn set(state: &mut State, setting: Setting, link: &str, value: u32) {
    match setting {
        Setting::Ipv6Forwarding => {
            state.ipv6_forwarding = Some(value != 0);
            return;
        }
        Setting::UnprivilegedPorts => {
            state.unprivileged_ports = Some(value);
            return;
        }
        _ => {}
    }
    change(state, link, |link| {
        let Link { ipv4, ipv6, .. } = link;
        let place = match setting {
            Setting::PodForwarding | Setting::EgressForwarding => Some(&mut ipv4.forwarding),
            Setting::ArpIgnore => Some(&mut ipv4.arp_ignore),
            Setting::ArpAnnounce => Some(&mut ipv4.arp_announce),
            Setting::AddrGenMode => ipv6.as_mut().map(|ipv6| &mut ipv6.addr_gen_mode),
            Setting::AcceptRa => ipv6.as_mut().map(|ipv6| &mut ipv6.accept_ra),
            Setting::Autoconf => ipv6.as_mut().map(|ipv6| &mut ipv6.autoconf),
            Setting::Ipv6Forwarding | Setting::UnprivilegedPorts => None,
        };
        if let Some(place) = place {
            *place = value;
        }
    });
}
