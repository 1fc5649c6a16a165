//! What brings a namespace back to how it was: the undoing of a run that
//! failed half-way.

use egress_config::AddressFamily;
use ipnet::IpNet;

use super::forecast::Forecast;
use super::release::{add_lost, current_setting, delete_addresses, note_of, put_back};
use super::routing::in_table;
use super::step::{NodeLink, Parent, Step};
use crate::originals::Setting;
use crate::state::{Link, MAIN_TABLE, NodeView, POD_TABLE, Route, SHELF_TABLE, State};

/// Plans the way from `now` back to `before`, for all that a run changes.
///
/// Unlike [`undo`](super::undo()) this knows the earlier state itself, which may
/// have had a router with another configuration. What others changed meanwhile
/// is left alone. Packet rules are not its concern: a run replaces older ones
/// last, and where there were none before they go.
#[must_use]
pub fn restore(before: &State, now: &State) -> Vec<Step> {
    let mut forecast = Forecast::new(now);
    for link in created(before, now) {
        forecast.push(Step::DeleteLink {
            name: link.name.clone(),
        });
    }
    for old in &before.links {
        let link = now.links.iter().find(|link| link.index == old.index);
        match (link, parent(before, old)) {
            (Some(link), _) => rename(&mut forecast, old, link),
            (None, Some(parent)) => {
                forecast.push(Step::CreateLink {
                    name: old.name.clone(),
                    parent,
                });
            }
            // Somebody else deleted it.
            (None, None) => continue,
        }
        restore_link(&mut forecast, before, old);
    }
    for family in AddressFamily::ALL {
        routes(&mut forecast, before, family);
    }
    rules(&mut forecast, before);
    for setting in [Setting::Ipv6Forwarding, Setting::UnprivilegedPorts] {
        if let Some(old) = current_setting(before, setting, "all") {
            put_back(&mut forecast, setting, "all", old);
        }
    }
    if before.firewall_present == Some(false) && now.firewall_present == Some(true) {
        forecast.push(Step::DeleteFirewall);
    }
    forecast.into_steps()
}

/// Interfaces that the run made.
fn created<'a>(before: &'a State, now: &'a State) -> impl Iterator<Item = &'a Link> {
    now.links
        .iter()
        .filter(|link| link.is_ours() && !before.links.iter().any(|old| old.index == link.index))
}

/// Where an interface of ours hung that the run deleted.
fn parent(before: &State, link: &Link) -> Option<Parent> {
    let index = link.parent.filter(|_| link.is_ours())?;
    let name = match &before.node {
        NodeView::Seen(node) => node.links.iter().find(|l| l.index == index),
        NodeView::NotAsked | NodeView::Hidden(_) | NodeView::NotPermitted => None,
    };
    Some(Parent::Known(NodeLink {
        name: name.map_or_else(|| format!("if{index}"), |link| link.name.clone()),
        index,
        namespace: link.peer_namespace?,
        mtu: link.mtu,
    }))
}

fn rename(forecast: &mut Forecast, old: &Link, link: &Link) {
    if old.name == link.name {
        return;
    }
    if link.up {
        forecast.push(Step::LinkDown {
            link: link.name.clone(),
        });
    }
    forecast.push(Step::RenameLink {
        from: link.name.clone(),
        to: old.name.clone(),
    });
}

fn restore_link(forecast: &mut Forecast, before: &State, old: &Link) {
    let name = &old.name;
    let Some(link) = forecast.state().link(name).cloned() else {
        return;
    };
    let settings = [
        Setting::PodForwarding,
        Setting::ArpIgnore,
        Setting::ArpAnnounce,
        Setting::AddrGenMode,
        Setting::AcceptRa,
        Setting::Autoconf,
    ];
    for setting in settings {
        let was = current_setting(before, setting, name);
        if let Some(value) = was
            && was != current_setting(forecast.state(), setting, name)
        {
            forecast.push(Step::Set {
                setting,
                link: name.clone(),
                value,
            });
        }
    }
    if let Some(mode) = old.macvlan_mode
        && link.macvlan_mode != Some(mode)
    {
        forecast.push(Step::SetMacvlanMode {
            link: name.clone(),
            mode,
        });
    }
    let there: Vec<IpNet> = before.addresses_of(name).map(|a| a.address).collect();
    let note = note_of(&link);
    // The kernel gave the link-local one, because of us.
    let is_ours = |address: &IpNet| {
        note.as_ref()
            .is_some_and(|note| note.added.contains(address) || is_ipv6_link_local(address))
    };
    let lost = delete_addresses(forecast, name, |address| {
        !there.contains(address) && is_ours(address)
    });
    if link.up && !old.up {
        forecast.push(Step::LinkDown { link: name.clone() });
    }
    if !link.up && old.up {
        forecast.push(Step::LinkUp { link: name.clone() });
    }
    for address in there {
        if !forecast
            .state()
            .addresses_of(name)
            .any(|a| a.address == address)
        {
            forecast.push(Step::AddAddress {
                link: name.clone(),
                address,
            });
        }
    }
    if old.up {
        add_lost(forecast, lost);
    }
    if old.alias != link.alias {
        forecast.push(Step::ClearNote {
            link: name.clone(),
            alias: old.alias.clone().unwrap_or_default(),
        });
    }
}

fn is_ipv6_link_local(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(network) if network.addr().is_unicast_link_local())
}

fn routes(forecast: &mut Forecast, before: &State, family: AddressFamily) {
    let now = forecast.state().clone();
    for table in [SHELF_TABLE, POD_TABLE] {
        let old: Vec<Route> = in_table(before, table, family).cloned().collect();
        let new: Vec<Route> = in_table(&now, table, family).cloned().collect();
        add_missing(forecast, &old, &new);
        delete_surplus(forecast, &old, &new);
    }
    let default = |route: &Route| route.is_default();
    let (old_defaults, old): (Vec<_>, Vec<_>) = in_table(before, MAIN_TABLE, family)
        .cloned()
        .partition(default);
    let (new_defaults, mut new): (Vec<_>, Vec<_>) = in_table(&now, MAIN_TABLE, family)
        .filter(|route| !route.is_foreign() || came_back(before, route))
        .cloned()
        .partition(default);
    delete_surplus(forecast, &old, &new);
    new.extend(
        in_table(&now, MAIN_TABLE, family)
            .filter(|r| r.is_foreign())
            .cloned(),
    );
    add_missing(forecast, &old, &new);
    // Where ours was it is again without an instant in between.
    for route in old_defaults
        .iter()
        .filter(|old| !now.routes.iter().any(|r| r.matches(old)))
    {
        forecast.push(Step::ReplaceRoute(route.clone()));
    }
    delete_surplus(forecast, &old_defaults, &new_defaults);
}

/// A route of others in the main table that was not there is one that the run
/// brought back from our tables, or none of its business.
fn came_back(before: &State, route: &Route) -> bool {
    let is_original = |known: &Route| {
        [SHELF_TABLE, POD_TABLE].contains(&known.table)
            && known.in_table(MAIN_TABLE).is_same_way(route)
    };
    before.routes.iter().any(is_original)
}

fn add_missing(forecast: &mut Forecast, old: &[Route], new: &[Route]) {
    let mut missing: Vec<&Route> = old
        .iter()
        .filter(|route| !new.iter().any(|known| known.matches(route)))
        .collect();
    missing.sort_by_key(|route| route.gateway.is_some());
    for route in missing {
        let replaces = new.iter().any(|known| known.excludes(route));
        forecast.push(if replaces {
            Step::ReplaceRoute(route.clone())
        } else {
            Step::AddRoute(route.clone())
        });
    }
}

fn delete_surplus(forecast: &mut Forecast, old: &[Route], new: &[Route]) {
    for route in new
        .iter()
        .filter(|route| !old.iter().any(|known| known.excludes(route)))
    {
        forecast.push(Step::DeleteRoute(route.clone()));
    }
}

fn rules(forecast: &mut Forecast, before: &State) {
    let now = forecast.state().rules.clone();
    for rule in now.iter().filter(|rule| !before.rules.contains(rule)) {
        forecast.push(Step::DeleteRule(rule.clone()));
    }
    for rule in before.rules.iter().filter(|rule| !now.contains(rule)) {
        forecast.push(Step::AddRule(rule.clone()));
    }
}
