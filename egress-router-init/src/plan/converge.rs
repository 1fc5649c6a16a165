//! What is missing to the configured router.

use std::net::IpAddr;

use egress_config::AddressFamily;
use ipnet::IpNet;

use super::error::PlanError;
use super::forecast::Forecast;
use super::interfaces::{EgressInterface, egress_interface, pod_interface};
use super::release::{
    add_lost, current_setting, delete_addresses, give_back, note_of, occupied, put_back,
};
use super::routing::{Routing, Situation, default_metric, in_table, is_saved, pod_networks};
use super::step::{Parent, Step};
use crate::config::{Config, Mode};
use crate::firewall::rules::Firewall;
use crate::firewall::table::Table;
use crate::originals::{Originals, Setting};
use crate::state::{
    Address, Link, MAIN_TABLE, MacvlanMode, NodeView, POD_TABLE, Route, RouteKind, RoutingRule,
    SHELF_TABLE, State,
};

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Interface of the pod network.
    pub pod_interface: String,
    /// Interface of the physical network, and whether it must be made.
    pub egress: EgressInterface,
    /// IPv6 networks that lead out by the pod interface.
    pub pod_networks: Vec<IpNet>,
    /// The changes.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether the namespace is as it should be.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.steps.iter().all(Step::is_repeatable)
    }

    /// The packet rules that the plan's interfaces call for.
    #[must_use]
    pub fn table(&self, config: &Config) -> Table {
        let sources: Vec<IpAddr> = config
            .legs()
            .iter()
            .map(|leg| leg.source().addr())
            .collect();
        Firewall {
            pod_interface: &self.pod_interface,
            egress_interface: self.egress.name(),
            sources: &sources,
            redirects: config.redirects(),
            local_ports: config.local_ports(),
            pod_networks: &self.pod_networks,
        }
        .table()
    }
}

/// Plans the way from `state` to what `config` asks for.
///
/// The order is the order of safety: the packet rules stand before the
/// interface is up, the way back to the pod network before the default route
/// moves. Where older rules of ours guard the interface they are replaced
/// last, so that a failure on the way leaves them.
///
/// A deletion may take more along than it says (an interface's last address
/// takes its routes), so a plan is made again once it is carried out, until
/// nothing is left to do.
///
/// # Errors
/// When this namespace or node cannot carry the configuration.
pub fn converge(config: &Config, state: &State) -> Result<Plan, PlanError> {
    let pod = pod_interface(config, state)?;
    let egress = egress_interface(config, state, &pod)?;
    check_node(config, state, &egress)?;
    check_families(config, state)?;
    let forecast = Forecast::new(state);
    let mut planner = Planner {
        config,
        pod: &pod,
        egress: egress.name(),
        forecast,
    };
    let is_protected = planner.is_protected();
    planner.close();
    planner.release_others(&egress);
    planner.link(&egress);
    if !is_protected {
        planner.firewall();
    }
    let note = planner.note();
    planner.settings(&note);
    planner.bring_up(state);
    planner.addresses(&note);
    for family in AddressFamily::ALL {
        planner.routing(family);
    }
    planner.ipv6_forwarding();
    if is_protected {
        planner.firewall();
    }
    let steps = planner.forecast.into_steps();
    let situation = Situation {
        config,
        state,
        pod: &pod,
        egress: egress.name(),
    };
    let pod_networks = pod_networks(situation);
    Ok(Plan {
        pod_interface: pod,
        egress,
        pod_networks,
        steps,
    })
}

/// An address of the node would be taken away from it.
fn check_node(config: &Config, state: &State, egress: &EgressInterface) -> Result<(), PlanError> {
    let NodeView::Seen(node) = &state.node else {
        return Ok(());
    };
    for leg in config.legs() {
        let owner = node
            .addresses
            .iter()
            .find(|a| a.address.addr() == leg.source().addr());
        if let Some(owner) = owner {
            let link = node.links.iter().find(|link| link.name == owner.link);
            return Err(PlanError::NodeOwnsAddress {
                address: leg.source().addr(),
                link: owner.link.clone(),
                mac: link.map_or_else(String::new, |link| format_mac(&link.mac)),
            });
        }
    }
    let EgressInterface::Absent {
        parent: Parent::Known(parent),
        ..
    } = egress
    else {
        return Ok(());
    };
    let port = node
        .links
        .iter()
        .find(|l| l.index == parent.index)
        .and_then(|l| l.controller);
    if let Some(controller) = port {
        let bridge = node.links.iter().find(|link| link.index == controller);
        return Err(PlanError::ParentIsPort {
            name: parent.name.clone(),
            controller: bridge.map_or_else(|| format!("number {controller}"), |l| l.name.clone()),
        });
    }
    Ok(())
}

fn format_mac(mac: &[u8]) -> String {
    mac.iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

/// What is wanted of IPv6 and cannot be had.
fn check_families(config: &Config, state: &State) -> Result<(), PlanError> {
    let Some(leg) = config.leg(AddressFamily::Ipv6) else {
        return Ok(());
    };
    match state.ipv6_forwarding {
        None => Err(PlanError::FamilyOff {
            family: AddressFamily::Ipv6,
            address: leg.source().addr(),
        }),
        Some(false) if redirects(config, AddressFamily::Ipv6) && !state.sysctl_writable => {
            Err(PlanError::Ipv6ForwardingOff)
        }
        Some(_) => Ok(()),
    }
}

/// Whether connections of that family are to be forwarded.
fn redirects(config: &Config, family: AddressFamily) -> bool {
    let redirects = config.redirects();
    redirects.fallback(family).is_some()
        || redirects
            .mappings()
            .iter()
            .any(|m| AddressFamily::of(m.target()) == family)
}

struct Planner<'a> {
    config: &'a Config,
    pod: &'a str,
    egress: &'a str,
    forecast: Forecast,
}

impl Planner<'_> {
    fn state(&self) -> &State {
        self.forecast.state()
    }

    fn push(&mut self, step: Step) {
        self.forecast.push(step);
    }

    fn egress_link(&self) -> Option<&Link> {
        self.state().link(self.egress)
    }

    fn is_up(&self) -> bool {
        self.egress_link().is_some_and(|link| link.up)
    }

    /// Whether packet rules of ours already guard the egress interface. Rules
    /// that are there may be for another one; but a note stands only where
    /// the rules stood before it.
    fn is_protected(&self) -> bool {
        self.state().firewall_present == Some(true)
            && self
                .egress_link()
                .is_some_and(|link| link.up && note_of(link).is_some())
    }

    /// A run that was interrupted may have left the pod's own default route
    /// behind ours, where it waits for ours to go with an address.
    fn close(&mut self) {
        let state = self.state();
        let ours =
            |route: &&Route| route.table == MAIN_TABLE && !route.is_foreign() && route.is_default();
        let is_behind = |route: &&Route| {
            route.is_foreign()
                && route.is_default()
                && route.is_by(self.pod)
                && is_saved(state, route)
                && state
                    .routes
                    .iter()
                    .filter(ours)
                    .any(|r| r.family() == route.family())
        };
        let behind: Vec<Route> = state.routes.iter().filter(is_behind).cloned().collect();
        for route in behind {
            self.push(Step::DeleteRoute(route));
        }
    }

    /// Interfaces that an earlier configuration used.
    fn release_others(&mut self, egress: &EgressInterface) {
        let kept = match egress {
            EgressInterface::Present(name) | EgressInterface::Unnamed { from: name, .. } => {
                Some(name)
            }
            // One that is there under this name hangs on the wrong parent.
            EgressInterface::Absent { .. } => None,
        };
        let others: Vec<Link> = occupied(self.state())
            .filter(|link| Some(&link.name) != kept)
            .cloned()
            .collect();
        for link in others {
            give_back(&mut self.forecast, &link);
            if link.is_ours() {
                self.push(Step::DeleteLink { name: link.name });
            }
        }
    }

    fn link(&mut self, egress: &EgressInterface) {
        match egress {
            EgressInterface::Present(_) => {}
            EgressInterface::Unnamed { from, to } => {
                if self.state().link(from).is_some_and(|link| link.up) {
                    // Before Linux 6.2 only an interface that is down can be
                    // renamed.
                    self.push(Step::LinkDown { link: from.clone() });
                }
                self.push(Step::RenameLink {
                    from: from.clone(),
                    to: to.clone(),
                });
            }
            EgressInterface::Absent { name, parent } => {
                self.push(Step::CreateLink {
                    name: name.clone(),
                    parent: parent.clone(),
                });
            }
        }
    }

    /// The note comes before anything that it notes, and forgets nothing that
    /// is not back.
    fn note(&mut self) -> Originals {
        let noted = self.egress_link().and_then(note_of);
        let mut note = noted.clone().unwrap_or_else(|| self.originals());
        self.put_back_unwanted(&mut note);
        for (setting, _) in self.wanted_settings(&note) {
            let link = setting.interface(self.pod, self.egress);
            let is_noted = note.settings.iter().any(|(known, _)| *known == setting);
            if !is_noted && let Some(value) = current_setting(self.state(), setting, link) {
                note.settings.push((setting, value));
                if setting == Setting::PodForwarding {
                    note.pod_interface = Some(self.pod.to_owned());
                }
            }
        }
        note.settings.sort_unstable();
        note.added = self.addresses_added(&note);
        if noted.as_ref() != Some(&note) {
            self.push(Step::Note {
                link: self.egress.to_owned(),
                note: note.clone(),
            });
        }
        note
    }

    /// State of the interface that we find.
    fn originals(&self) -> Originals {
        let found = self.egress_link().filter(|link| !link.is_ours());
        Originals {
            up: found.is_some_and(|link| link.up),
            macvlan_mode: found.and_then(|link| link.macvlan_mode),
            alias: found.and_then(|link| link.alias.clone()),
            ..Originals::default()
        }
    }

    /// Settings that an earlier configuration changed and this one does not.
    fn put_back_unwanted(&mut self, note: &mut Originals) {
        let wanted = self.wanted_settings(note);
        let noted_pod = note.pod_interface.take().unwrap_or_default();
        for (setting, value) in std::mem::take(&mut note.settings) {
            let link = setting.interface(&noted_pod, self.egress);
            let is_wanted = wanted.iter().any(|(known, _)| *known == setting)
                && link == setting.interface(self.pod, self.egress);
            if is_wanted || setting.is_sysctl() && !self.state().sysctl_writable {
                note.settings.push((setting, value));
                if setting == Setting::PodForwarding {
                    note.pod_interface = Some(link.to_owned());
                }
                continue;
            }
            put_back(&mut self.forecast, setting, link, value);
            let has_no_address_of_its_own = !self
                .state()
                .addresses_of(self.egress)
                .any(is_ipv6_link_local);
            if setting == Setting::AddrGenMode
                && value != NO_ADDRESS
                && self.is_up()
                && has_no_address_of_its_own
            {
                // The kernel gives the address only when the interface goes
                // up.
                self.push(Step::LinkDown {
                    link: self.egress.to_owned(),
                });
            }
        }
    }

    /// Addresses that are ours once the plan is carried out, and until then
    /// those that are ours already.
    fn addresses_added(&self, note: &Originals) -> Vec<IpNet> {
        let present: Vec<IpNet> = self
            .state()
            .addresses_of(self.egress)
            .map(|a| a.address)
            .collect();
        let mut added: Vec<IpNet> = note
            .added
            .iter()
            .copied()
            .filter(|address| present.contains(address))
            .collect();
        for leg in self.config.legs() {
            let source = leg.source();
            let is_of_others = present
                .iter()
                .any(|address| address.addr() == source.addr() && !note.added.contains(address));
            if !is_of_others && !added.contains(&source) {
                added.push(source);
            }
        }
        added.sort();
        added
    }

    fn firewall(&mut self) {
        self.push(Step::ReplaceFirewall);
    }

    /// Whether IPv6 stays off the egress interface altogether.
    fn is_without_ipv6(&self, note: &Originals) -> bool {
        // One that was up when we came may have addresses of others.
        self.config.leg(AddressFamily::Ipv6).is_none() && !note.up
    }

    /// Settings and the value that each should have.
    fn wanted_settings(&self, note: &Originals) -> Vec<(Setting, u32)> {
        let mut wanted = Vec::new();
        // Forwarding per device, over netlink: /proc/sys may be read-only,
        // and the rest of the pod keeps what it has.
        if redirects(self.config, AddressFamily::Ipv4) {
            wanted.push((Setting::PodForwarding, 1));
            wanted.push((Setting::EgressForwarding, 1));
        }
        if self.config.leg(AddressFamily::Ipv4).is_some() {
            // The physical network sees answers only for the address that is
            // on this interface, and questions only from it.
            wanted.push((Setting::ArpIgnore, 1));
            wanted.push((Setting::ArpAnnounce, 2));
        }
        // The proxy is not root, and its lists have ports such as 80. Where
        // /proc/sys is read-only, the manifest says so instead.
        if self.config.mode() == Mode::DnsProxy
            && self.state().sysctl_writable
            && self.state().unprivileged_ports.is_some()
        {
            wanted.push((Setting::UnprivilegedPorts, 0));
        }
        if self.state().ipv6_forwarding.is_none() {
            return wanted;
        }
        if self.is_without_ipv6(note) {
            wanted.push((Setting::AddrGenMode, NO_ADDRESS));
        }
        if self.state().sysctl_writable {
            wanted.push((Setting::AcceptRa, 0));
            wanted.push((Setting::Autoconf, 0));
        }
        if redirects(self.config, AddressFamily::Ipv6) {
            wanted.push((Setting::Ipv6Forwarding, 1));
        }
        wanted
    }

    fn settings(&mut self, note: &Originals) {
        let link = self.egress_link();
        if link.is_some_and(|link| link.macvlan_mode == Some(MacvlanMode::Private)) {
            // Two routers on one node would not see each other.
            self.push(Step::SetMacvlanMode {
                link: self.egress.to_owned(),
                mode: MacvlanMode::Bridge,
            });
        }
        for (setting, value) in self.wanted_settings(note) {
            if setting != Setting::Ipv6Forwarding {
                self.set(setting, value);
            }
        }
    }

    /// Last, because the kernel drops what routers advertised when it becomes
    /// one: the pod's routes are copied by now.
    fn ipv6_forwarding(&mut self) {
        if redirects(self.config, AddressFamily::Ipv6) {
            self.set(Setting::Ipv6Forwarding, 1);
        }
    }

    fn set(&mut self, setting: Setting, value: u32) {
        let link = setting.interface(self.pod, self.egress);
        if current_setting(self.state(), setting, link) != Some(value) {
            let link = link.to_owned();
            self.push(Step::Set {
                setting,
                link,
                value,
            });
        }
    }

    fn bring_up(&mut self, found: &State) {
        let was_up = self.is_up();
        if !was_up {
            self.push(Step::LinkUp {
                link: self.egress.to_owned(),
            });
        }
        let unclaimed: Vec<IpAddr> = self
            .config
            .legs()
            .iter()
            .map(|leg| leg.source().addr())
            .filter(|source| {
                let is_there = |address: &Address| address.address.addr() == *source;
                !was_up || !found.addresses_of(self.egress).any(is_there)
            })
            .collect();
        if self.config.address_probe().is_some() && !unclaimed.is_empty() {
            self.push(Step::Probe {
                link: self.egress.to_owned(),
                addresses: unclaimed,
            });
        }
    }

    fn addresses(&mut self, note: &Originals) {
        let is_without_ipv6 = self.is_without_ipv6(note);
        let own: Vec<IpNet> = self
            .state()
            .addresses_of(self.egress)
            .filter(|address| is_without_ipv6 && is_ipv6_link_local(address))
            .map(|address| address.address)
            .collect();
        let legs = self.config.legs();
        let is_source = |address: &IpNet| legs.iter().any(|leg| leg.source() == *address);
        // Deletions first: the address that a network saw first takes all
        // later ones of that network along when it goes.
        let lost = delete_addresses(&mut self.forecast, self.egress, |address| {
            own.contains(address) || note.added.contains(address) && !is_source(address)
        });
        for leg in legs {
            let source = leg.source();
            let is_there = |address: &Address| address.address.addr() == source.addr();
            if !self.state().addresses_of(self.egress).any(is_there) {
                self.push(Step::AddAddress {
                    link: self.egress.to_owned(),
                    address: source,
                });
            }
        }
        add_lost(&mut self.forecast, lost);
    }

    fn routing(&mut self, family: AddressFamily) {
        let wanted = Routing::of(
            Situation {
                config: self.config,
                state: self.forecast.state(),
                pod: self.pod,
                egress: self.egress,
            },
            family,
        );
        let state = self.state();
        let table = |number| -> Vec<Route> { in_table(state, number, family).cloned().collect() };
        let (pod, shelf, mut main) = (table(POD_TABLE), table(SHELF_TABLE), table(MAIN_TABLE));
        main.retain(|route| !route.is_foreign());
        let rules: Vec<RoutingRule> = state
            .rules
            .iter()
            .filter(|rule| rule.family == family)
            .cloned()
            .collect();

        // The way back to the pod network before anything that closes it.
        self.add_missing(&wanted.pod, &pod);
        for rule in wanted.rules.iter().filter(|rule| !rules.contains(rule)) {
            self.push(Step::AddRule(rule.clone()));
        }
        self.add_missing(&wanted.shelf, &shelf);
        // What leads to the gateway may have been set aside.
        let (default, network): (Vec<_>, Vec<_>) = wanted
            .returning
            .iter()
            .cloned()
            .partition(Route::is_default);
        for route in network {
            self.push(Step::AddRoute(route));
        }
        self.exchange(&wanted, &main, family);
        for route in default {
            self.push(Step::AddRoute(route));
        }
        for rule in rules.iter().filter(|rule| !wanted.rules.contains(rule)) {
            self.push(Step::DeleteRule(rule.clone()));
        }
        self.delete_stale(&wanted.pod, &pod);
        self.delete_stale(&wanted.shelf, &shelf);
    }

    /// Routes of others leave the main table and ours come. A default route
    /// that the kernel would prefer to ours goes first, when nothing but the
    /// unreachable one stands behind it; the others stay until ours is there.
    fn exchange(&mut self, wanted: &Routing, main: &[Route], family: AddressFamily) {
        let goes_first = |route: &Route| {
            !route.is_default()
                || self.config.leg(family).is_some() && route.metric < default_metric(family)
        };
        let (first, last): (Vec<_>, Vec<_>) = wanted.leaving.iter().cloned().partition(goes_first);
        let is_barrier = |route: &Route| route.kind == RouteKind::Unreachable;
        let (barrier, ways): (Vec<_>, Vec<_>) = wanted.main.iter().cloned().partition(is_barrier);
        self.add_missing(&barrier, main);
        for route in first {
            self.push(Step::DeleteRoute(route));
        }
        self.add_missing(&ways, main);
        for route in last {
            self.push(Step::DeleteRoute(route));
        }
        self.delete_stale(&wanted.main, main);
    }

    fn add_missing(&mut self, wanted: &[Route], present: &[Route]) {
        for route in wanted {
            if present.iter().any(|known| known.matches(route)) {
                continue;
            }
            let is_way_out = route.is_default() && route.kind == RouteKind::Unicast;
            let replaces = is_way_out && route.table == MAIN_TABLE
                || present.iter().any(|known| known.excludes(route));
            self.push(if replaces {
                Step::ReplaceRoute(route.clone())
            } else {
                Step::AddRoute(route.clone())
            });
        }
    }

    /// Deletes what is neither wanted nor replaced.
    fn delete_stale(&mut self, wanted: &[Route], present: &[Route]) {
        for route in present {
            let is_replaced = |new: &Route| {
                new.excludes(route)
                    || new.is_default() && new.table == MAIN_TABLE && new.is_in_place_of(route)
            };
            if !wanted.iter().any(is_replaced) {
                self.push(Step::DeleteRoute(route.clone()));
            }
        }
    }
}

/// `addr_gen_mode`: the kernel gives the interface no link-local address.
const NO_ADDRESS: u32 = 1;

fn is_ipv6_link_local(address: &Address) -> bool {
    address.family() == AddressFamily::Ipv6 && !address.global
}
