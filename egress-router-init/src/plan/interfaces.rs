//! Which interface is the pod's, and which one leads outside.

use std::net::IpAddr;

use super::error::{PlanError, any_of};
use super::release::note_of;
use super::step::{NodeLink, Parent};
use crate::config::{Config, Leg, MacvlanParent};
use crate::state::{Link, MAIN_TABLE, Node, NodeView, POD_TABLE, PROTOCOL, State};

/// The name an egress interface has when nobody gave it one.
const DEFAULT_NAME: &str = "macvlan0";

/// Kinds of interfaces that a CNI attaches to a pod. Fallback devices of
/// tunnel modules (`tunl0`, `gretap0`), which every namespace has on some
/// nodes, are none of them; hardware has no kind at all.
const ATTACHED_KINDS: [&str; 6] = ["", "macvlan", "ipvlan", "veth", "vlan", "macvtap"];

/// The interface that leads outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressInterface {
    /// It is there under the name it should have.
    Present(String),
    /// An interrupted run left it under a makeshift name.
    Unnamed {
        /// The name it has.
        from: String,
        /// The name it should have.
        to: String,
    },
    /// It is to be made.
    Absent {
        /// The name it will have.
        name: String,
        /// Where it will hang.
        parent: Parent,
    },
}

impl EgressInterface {
    /// The name it has once the plan is carried out.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Present(name) | Self::Unnamed { to: name, .. } | Self::Absent { name, .. } => {
                name
            }
        }
    }
}

/// The interface of the pod network: as configured, else that of the default
/// route (which an earlier run may have moved), else the only one with an
/// address.
///
/// # Errors
/// When it is not there or cannot be told.
pub fn pod_interface(config: &Config, state: &State) -> Result<String, PlanError> {
    if let Some(name) = config.pod_interface() {
        if state.link(name.as_str()).is_none() {
            return Err(PlanError::PodInterfaceMissing {
                name: name.to_string(),
                present: names(&state.links),
            });
        }
        return Ok(name.to_string());
    }
    let is_egress = |name: &str| {
        config
            .interface()
            .map_or(name == DEFAULT_NAME, |interface| interface.as_str() == name)
            || state.link(name).is_some_and(Link::is_ours)
            // Multus may have moved the default route there already.
            || state
                .addresses_of(name)
                .any(|a| is_source(config, a.address.addr()))
    };
    let default_in = |table: u32| {
        state
            .routes
            .iter()
            .filter(|route| {
                route.table == table && route.protocol != PROTOCOL && route.is_default()
            })
            .filter_map(|route| Some((route.metric, route.family(), route.link.as_deref()?)))
            .filter(|(_, _, link)| !is_egress(link))
            .min()
            .map(|(_, _, link)| link.to_owned())
    };
    // The copy first: once we have run, a default route that somebody added
    // since need not be the pod's.
    if let Some(name) = default_in(POD_TABLE).or_else(|| default_in(MAIN_TABLE)) {
        return Ok(name);
    }
    let candidates: Vec<String> = state
        .links
        .iter()
        .filter(|link| link.name != "lo" && !is_egress(&link.name))
        .filter(|link| has_foreign_address(state, &link.name))
        .map(|link| link.name.clone())
        .collect();
    let leads_out = |link: &&Link| {
        let mut routes = state.routes.iter();
        is_egress(&link.name)
            && routes.any(|r| r.is_foreign() && r.is_default() && r.is_by(&link.name))
    };
    match candidates.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(match state.links.iter().find(leads_out) {
            Some(link) => PlanError::SameInterface {
                name: link.name.clone(),
            },
            None => PlanError::PodInterfaceUnknown { candidates },
        }),
        _ => Err(PlanError::PodInterfaceUnknown { candidates }),
    }
}

/// The egress interface: as configured, else `macvlan0`, else the only one
/// that is free for it, else one to be created.
///
/// # Errors
/// When it cannot be told, or is not there and cannot be made.
pub fn egress_interface(
    config: &Config,
    state: &State,
    pod: &str,
) -> Result<EgressInterface, PlanError> {
    let wanted = config
        .interface()
        .map_or(DEFAULT_NAME, |name| name.as_str());
    if wanted == pod {
        return Err(PlanError::SameInterface {
            name: pod.to_owned(),
        });
    }
    let present = state.link(wanted);
    let ours = present
        .or_else(|| state.links.iter().find(|l| l.is_ours()))
        .filter(|l| l.is_ours());
    if let Some(parent) = ours.and_then(|link| other_parent(config, state, link)) {
        return Ok(EgressInterface::Absent {
            name: wanted.to_owned(),
            parent,
        });
    }
    if let Some(link) = present {
        if !link.ethernet {
            return Err(PlanError::NotEthernet {
                name: wanted.to_owned(),
            });
        }
        return Ok(EgressInterface::Present(wanted.to_owned()));
    }
    if let Some(link) = ours {
        return Ok(EgressInterface::Unnamed {
            from: link.name.clone(),
            to: wanted.to_owned(),
        });
    }
    if config.interface().is_none() {
        let free: Vec<&Link> = state
            .links
            .iter()
            .filter(|link| link.name != pod && is_free(config, state, link))
            .collect();
        match free.as_slice() {
            [] => {}
            [only] => return Ok(EgressInterface::Present(only.name.clone())),
            several => {
                return Err(PlanError::EgressAmbiguous {
                    candidates: several.iter().map(|link| link.name.clone()).collect(),
                });
            }
        }
    }
    let parent = parent(config, state, wanted)?;
    Ok(EgressInterface::Absent {
        name: wanted.to_owned(),
        parent,
    })
}

/// The node's interface on which a link of ours should hang, when that is
/// another than it does. A node that cannot be seen just now, or has lost its
/// addresses, is no reason to tear down a router that works.
fn other_parent(config: &Config, state: &State, link: &Link) -> Option<Parent> {
    let NodeView::Seen(node) = &state.node else {
        return None;
    };
    let wanted = parent(config, state, &link.name).ok()?;
    let Parent::Known(wanted) = wanted else {
        return None;
    };
    let is_known = link.peer_namespace == Some(node.namespace);
    let present = link.parent.filter(|_| is_known)?;
    let leads_there = *config.macvlan_parent() == MacvlanParent::Auto
        && links_towards(node, &gateways(config)).any(|(_, link)| link.index == present);
    (wanted.index != present && !leads_there).then_some(Parent::Known(wanted))
}

/// Whether an interface that somebody attached waits for an address, or has
/// ours already.
fn is_free(config: &Config, state: &State, link: &Link) -> bool {
    let attached = link.ethernet && ATTACHED_KINDS.contains(&link.kind.as_str());
    let mut addresses = addresses_of_others(state, link).peekable();
    attached && (addresses.peek().is_none() || addresses.any(|address| is_source(config, address)))
}

fn is_source(config: &Config, address: IpAddr) -> bool {
    config
        .legs()
        .iter()
        .any(|leg| leg.source().addr() == address)
}

fn has_foreign_address(state: &State, name: &str) -> bool {
    state
        .link(name)
        .is_some_and(|link| addresses_of_others(state, link).next().is_some())
}

/// Addresses of an interface that no run of ours added.
fn addresses_of_others<'a>(state: &'a State, link: &'a Link) -> impl Iterator<Item = IpAddr> + 'a {
    let added = note_of(link).map(|note| note.added).unwrap_or_default();
    state
        .addresses_of(&link.name)
        .filter(move |address| address.global && !added.contains(&address.address))
        .map(|address| address.address.addr())
}

/// The node's interface to hang a macvlan on: as configured, else the one
/// whose network holds a gateway, the longest prefix first.
fn parent(config: &Config, state: &State, name: &str) -> Result<Parent, PlanError> {
    if *config.macvlan_parent() == MacvlanParent::Off {
        return Err(PlanError::CreationOff {
            name: name.to_owned(),
        });
    }
    let node = match &state.node {
        NodeView::Seen(node) => node,
        NodeView::NotPermitted => return Ok(Parent::Open(choice(config))),
        NodeView::Hidden(reason) => {
            return Err(PlanError::NodeHidden {
                name: name.to_owned(),
                reason: reason.clone(),
            });
        }
        NodeView::NotAsked => {
            return Err(PlanError::NodeHidden {
                name: name.to_owned(),
                reason: "nobody looked at the node".to_owned(),
            });
        }
    };
    let link = match config.macvlan_parent() {
        MacvlanParent::Named(wanted) => node
            .links
            .iter()
            .find(|link| link.name == wanted.as_str())
            .ok_or_else(|| PlanError::ParentMissing {
                name: wanted.to_string(),
                present: names(&node.links),
            })?,
        MacvlanParent::Auto | MacvlanParent::Off => {
            let found = links_towards(node, &gateways(config)).max_by_key(|(length, _)| *length);
            found
                .map(|(_, link)| link)
                .ok_or_else(|| PlanError::NoParent {
                    name: name.to_owned(),
                    gateways: config.legs().iter().map(Leg::gateway).collect(),
                    seen: node
                        .addresses
                        .iter()
                        .filter(|address| address.global && address.link != "lo")
                        .map(|address| format!("{} {}", address.link, address.address))
                        .collect(),
                })?
        }
    };
    Ok(Parent::Known(NodeLink {
        name: link.name.clone(),
        index: link.index,
        namespace: node.namespace,
        mtu: link.mtu,
    }))
}

/// How [`parent`] chooses.
fn choice(config: &Config) -> String {
    match config.macvlan_parent() {
        MacvlanParent::Named(name) => format!("the node interface {name}"),
        MacvlanParent::Auto | MacvlanParent::Off => format!(
            "the node interface whose subnet holds {}",
            any_of(&gateways(config))
        ),
    }
}

/// Gateways by which the physical network is told. A link-local one is in
/// every network; the source then tells which is meant.
fn gateways(config: &Config) -> Vec<IpAddr> {
    let address = |leg: &Leg| match leg.gateway() {
        IpAddr::V6(gateway) if gateway.is_unicast_link_local() => leg.source().addr(),
        gateway => gateway,
    };
    config.legs().iter().map(address).collect()
}

/// The node's interfaces whose network holds one of the addresses, with the
/// length of its prefix.
fn links_towards<'a>(node: &'a Node, addresses: &[IpAddr]) -> impl Iterator<Item = (u8, &'a Link)> {
    node.addresses
        .iter()
        .filter(|a| a.global && a.link != "lo" && addresses.iter().any(|g| a.address.contains(g)))
        .filter_map(|address| {
            let link = node.links.iter().find(|link| link.name == address.link)?;
            Some((address.address.prefix_len(), link))
        })
}

fn names(links: &[Link]) -> Vec<String> {
    links
        .iter()
        .filter(|link| link.name != "lo")
        .map(|link| link.name.clone())
        .collect()
}
