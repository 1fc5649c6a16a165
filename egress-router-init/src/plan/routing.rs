//! Routes and rules as they should be: DESIGN 2.3.

use std::net::{IpAddr, Ipv6Addr};

use egress_config::AddressFamily;
use ipnet::{IpNet, Ipv6Net};

use crate::config::{Config, Leg};
use crate::state::{
    MAIN_TABLE, POD_TABLE, Route, RouteKind, RoutingRule, RuleMatch, SHELF_TABLE, State,
    everything, host, scope,
};

/// Order of our rules: after the kernel's `local` (0), before `main` (32766).
/// Each kind has its own number so that a reader of `ip rule` finds them
/// grouped.
mod priority {
    pub(super) const FROM_POD: u32 = 6900;
    pub(super) const FROM_EGRESS: u32 = 6901;
    pub(super) const TO_NAMESERVER: u32 = 6902;
    pub(super) const TO_SERVICE_HOST: u32 = 6903;
    pub(super) const TO_CLUSTER: u32 = 6904;
}

/// Metric of the default route of ours: the kernel's own for routes that
/// userspace adds without one.
pub(super) const fn default_metric(family: AddressFamily) -> u32 {
    match family {
        AddressFamily::Ipv4 => 0,
        AddressFamily::Ipv6 => 1024,
    }
}

/// The worst metric that userspace can give; one better than the kernel's own
/// IPv6 null route.
const LAST_RESORT: u32 = u32::MAX - 1;

/// What the routing of one family should be.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// Our routes in the main table.
    pub(super) main: Vec<Route>,
    /// The pod's routes in our table, those on the link first: a gateway must
    /// be reachable when its route is added.
    pub(super) pod: Vec<Route>,
    /// What the shelf holds.
    pub(super) shelf: Vec<Route>,
    /// Routes of others that must leave the main table; a copy of each is in
    /// one of our tables.
    pub(super) leaving: Vec<Route>,
    /// Routes of others that left the main table and are no longer in the way.
    pub(super) returning: Vec<Route>,
    /// Our rules.
    pub(super) rules: Vec<RoutingRule>,
}

/// What the routing depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a State,
    pub(super) pod: &'a str,
    pub(super) egress: &'a str,
}

impl Routing {
    pub(super) fn of(situation: Situation<'_>, family: AddressFamily) -> Self {
        let Situation {
            config,
            state,
            pod,
            egress,
        } = situation;
        let leg = config.leg(family);
        let in_main: Vec<&Route> = in_table(state, MAIN_TABLE, family)
            .filter(|route| route.is_foreign())
            .collect();
        let aside = set_aside(state, family);
        let pod_addresses: Vec<IpAddr> = state
            .addresses_of(pod)
            .filter(|address| address.global && address.family() == family)
            .map(|address| address.address.addr())
            .collect();
        let pod_routes = pod_routes(state, pod, family);
        let had_default = pod_routes.iter().any(Route::is_default);
        if leg.is_none() && pod_addresses.is_empty() && !had_default {
            return Self {
                returning: aside,
                ..Self::default()
            };
        }
        let way_out = leg.map(|leg| WayOut::of(state, leg, egress));
        let is_in_the_way = |route: &Route| {
            is_way_out(route)
                || way_out
                    .as_ref()
                    .is_some_and(|way_out| way_out.conflicts(route))
        };
        let mut routing = Self {
            rules: rules(config, state, egress, family, &pod_addresses),
            pod: pod_routes,
            ..Self::default()
        };
        for route in in_main.into_iter().filter(|route| is_in_the_way(route)) {
            routing.leaving.push(route.clone());
            if !(route.is_default() && route.is_by(pod)) {
                push_new(&mut routing.shelf, shelved(route));
            }
        }
        for route in aside {
            if !is_in_the_way(&route) {
                routing.returning.push(route);
            } else if !(route.is_default() && route.is_by(pod)) {
                push_new(&mut routing.shelf, shelved(&route));
            }
        }
        if leg.is_some() || had_default {
            // First of all, and last to be asked: nothing unbound leaves by
            // the pod network, also while routes are being exchanged.
            routing.main.push(Route {
                kind: RouteKind::Unreachable,
                link: None,
                metric: LAST_RESORT,
                ..Route::ours(everything(family), egress)
            });
        }
        routing
            .main
            .extend(way_out.into_iter().flat_map(|way_out| way_out.routes));
        routing
    }
}

/// IPv6 networks that the pod's processes reach by the pod interface: all that
/// its table knows besides the default route, what the rules name, and
/// multicast, which goes no further than the node. Empty when nothing else
/// could be reached there.
pub(super) fn pod_networks(situation: Situation<'_>) -> Vec<IpNet> {
    const MULTICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);
    let routing = Routing::of(situation, AddressFamily::Ipv6);
    if !routing.pod.iter().any(Route::is_default) {
        return Vec::new();
    }
    let routes = routing.pod.iter().filter(|route| !route.is_default());
    let rules = routing.rules.iter().filter_map(|rule| match rule.matches {
        RuleMatch::LocalTo(network) => Some(network),
        RuleMatch::From(_) | RuleMatch::Iif(_) | RuleMatch::To(_) => None,
    });
    let mut networks: Vec<IpNet> = routes
        .map(|route| route.destination)
        .chain(rules)
        .chain([MULTICAST.into()])
        .collect();
    networks.sort();
    networks.dedup();
    networks
}

/// Routes of others that an earlier run took out of the main table, as they
/// were there.
fn set_aside(state: &State, family: AddressFamily) -> Vec<Route> {
    let defaults = in_table(state, POD_TABLE, family).filter(|route| route.is_default());
    let mut aside: Vec<Route> = Vec::new();
    for route in in_table(state, SHELF_TABLE, family).chain(defaults) {
        push_new(&mut aside, route.in_table(MAIN_TABLE));
    }
    aside
}

fn push_new(routes: &mut Vec<Route>, route: Route) {
    if !routes.iter().any(|known| known.excludes(&route)) {
        routes.push(route);
    }
}

/// Whether it leads anywhere.
fn is_way_out(route: &Route) -> bool {
    route.is_default() && route.kind != RouteKind::Unreachable
}

/// The way to the physical network and beyond.
struct WayOut<'a> {
    leg: &'a Leg,
    egress: &'a str,
    routes: Vec<Route>,
}

impl<'a> WayOut<'a> {
    /// By the gateway, which gets a route of its own when the source's network
    /// does not hold it.
    fn of(state: &State, leg: &'a Leg, egress: &'a str) -> Self {
        let family = leg.family();
        // An address that somebody set before us may have another length.
        let connected = state
            .addresses_of(egress)
            .map(|address| address.address)
            .find(|address| address.addr() == leg.source().addr())
            .unwrap_or(leg.source());
        let gateway = host(leg.gateway());
        let is_there = |route: &Route| {
            (route.is_foreign() || route.table == SHELF_TABLE)
                && route.destination == gateway
                && is_on_link(route, egress)
        };
        let needs_route = !connected.contains(&gateway)
            && !is_link_local(leg.gateway())
            && !state.routes.iter().any(is_there);
        let to_gateway = needs_route.then(|| Route {
            scope: match family {
                AddressFamily::Ipv4 => scope::LINK,
                AddressFamily::Ipv6 => scope::UNIVERSE,
            },
            metric: default_metric(family),
            ..Route::ours(gateway, egress)
        });
        let default = Route {
            gateway: Some(leg.gateway()),
            source: Some(leg.source().addr()),
            metric: default_metric(family),
            ..Route::ours(everything(family), egress)
        };
        Self {
            leg,
            egress,
            routes: to_gateway.into_iter().chain([default]).collect(),
        }
    }

    /// Whether a route of others would decide, by the order of its arrival,
    /// how the source's own network or the gateway is reached.
    fn conflicts(&self, route: &Route) -> bool {
        let is_ours = is_on_link(route, self.egress) && route.is_of_kernel();
        if route.is_default() || is_ours {
            return false;
        }
        route.destination == self.leg.source().trunc()
            || self
                .routes
                .iter()
                .any(|ours| ours.destination == route.destination)
    }
}

fn is_on_link(route: &Route, link: &str) -> bool {
    route.is_by(link) && route.gateway.is_none() && route.kind == RouteKind::Unicast
}

/// Whether the pod table has a copy of a route of the main table.
pub(super) fn is_saved(state: &State, route: &Route) -> bool {
    let copy = route.in_table(POD_TABLE);
    state.routes.iter().any(|known| known.is_same_way(&copy))
}

/// A copy of every route that leads out by the pod interface, those that we
/// took out of the main table included.
fn pod_routes(state: &State, pod: &str, family: AddressFamily) -> Vec<Route> {
    let in_main: Vec<&Route> = in_table(state, MAIN_TABLE, family)
        .filter(|route| route.is_foreign() && route.is_by(pod))
        .collect();
    let is_saved = |route: &Route| is_saved(state, route); // A default route that is not among the copies has come in the place of
    // the one that we saved. One that is there twice tells of a run that was
    // interrupted, and what it had saved already is not in the main table any
    // more.
    let is_renewed = in_main
        .iter()
        .any(|route| route.is_default() && !is_saved(route));
    let in_pod_table = in_table(state, POD_TABLE, family)
        .filter(|route| route.is_default() && route.is_by(pod) && !is_renewed);
    let on_shelf = in_table(state, SHELF_TABLE, family).filter(|route| route.is_by(pod));
    let mut routes = Vec::new();
    for route in in_main.into_iter().chain(in_pod_table).chain(on_shelf) {
        push_new(&mut routes, route.in_table(POD_TABLE));
    }
    let connected: Vec<_> = routes
        .iter()
        .filter(|r| r.gateway.is_none())
        .map(|r| r.destination)
        .collect();
    for route in &mut routes {
        let reachable = |gateway: &IpAddr| {
            is_link_local(*gateway) || connected.iter().any(|network| network.contains(gateway))
        };
        if route
            .gateway
            .as_ref()
            .is_some_and(|gateway| !reachable(gateway))
        {
            route.onlink = true;
        }
    }
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

/// IPv6 gateways are mostly link-local, which every interface reaches.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

fn rules(
    config: &Config,
    state: &State,
    egress: &str,
    family: AddressFamily,
    pod_addresses: &[IpAddr],
) -> Vec<RoutingRule> {
    let rule = |priority, matches| RoutingRule {
        family,
        priority,
        matches,
        table: POD_TABLE,
    };
    let of_family = |address: &&IpAddr| {
        AddressFamily::of(**address) == family
            && !address.is_loopback()
            && !address.is_unspecified()
    };
    let mut rules: Vec<RoutingRule> = pod_addresses
        .iter()
        .map(|address| rule(priority::FROM_POD, RuleMatch::From(host(*address))))
        .collect();
    if config.leg(family).is_some() {
        rules.push(rule(
            priority::FROM_EGRESS,
            RuleMatch::Iif(egress.to_owned()),
        ));
    }
    rules.extend(
        state
            .nameservers
            .iter()
            .filter(of_family)
            .map(|server| rule(priority::TO_NAMESERVER, RuleMatch::LocalTo(host(*server)))),
    );
    rules.extend(
        config
            .kubernetes_service_host()
            .iter()
            .filter(of_family)
            .map(|address| {
                rule(
                    priority::TO_SERVICE_HOST,
                    RuleMatch::LocalTo(host(*address)),
                )
            }),
    );
    rules.extend(
        config
            .cluster_cidrs()
            .iter()
            .filter(|network| AddressFamily::of(network.addr()) == family)
            .map(|network| rule(priority::TO_CLUSTER, RuleMatch::LocalTo(network.trunc()))),
    );
    rules.sort();
    rules.dedup();
    rules
}

/// The routes of a table that is ours, of one family.
pub(super) fn in_table(
    state: &State,
    table: u32,
    family: AddressFamily,
) -> impl Iterator<Item = &Route> {
    state
        .routes
        .iter()
        .filter(move |route| route.table == table && route.family() == family)
}

/// The same route on the shelf.
fn shelved(route: &Route) -> Route {
    route.in_table(SHELF_TABLE)
}
