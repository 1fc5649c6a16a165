//! What gives an interface back as it was before us.

use ipnet::IpNet;

use super::forecast::Forecast;
use super::step::Step;
use crate::originals::{Originals, Setting};
use crate::state::{Address, Link, Route, SHELF_TABLE, State};

/// Interfaces that we made or that carry a note of ours.
pub(super) fn occupied(state: &State) -> impl Iterator<Item = &Link> {
    state
        .links
        .iter()
        .filter(|link| link.is_ours() || note_of(link).is_some())
}

pub(super) fn note_of(link: &Link) -> Option<Originals> {
    Originals::from_alias(link.alias.as_deref())
}

/// The value that a setting has, by the interface that sysctl(8) names.
pub(super) fn current_setting(state: &State, setting: Setting, link: &str) -> Option<u32> {
    match setting {
        Setting::Ipv6Forwarding => return state.ipv6_forwarding.map(u32::from),
        Setting::UnprivilegedPorts => return state.unprivileged_ports,
        _ => {}
    }
    let link = state.link(link)?;
    Some(match setting {
        Setting::PodForwarding | Setting::EgressForwarding => link.ipv4.forwarding,
        Setting::ArpIgnore => link.ipv4.arp_ignore,
        Setting::ArpAnnounce => link.ipv4.arp_announce,
        Setting::AddrGenMode => link.ipv6?.addr_gen_mode,
        Setting::AcceptRa => link.ipv6?.accept_ra,
        Setting::Autoconf => link.ipv6?.autoconf,
        Setting::Ipv6Forwarding | Setting::UnprivilegedPorts => return None,
    })
}

/// Puts a noted setting back.
pub(super) fn put_back(forecast: &mut Forecast, setting: Setting, link: &str, value: u32) {
    let current = current_setting(forecast.state(), setting, link);
    if current.is_some_and(|current| current != value) {
        forecast.push(Step::Set {
            setting,
            link: link.to_owned(),
            value,
        });
    }
}

/// Puts all that is noted of an interface back, all but the note, which goes
/// last: who is interrupted here finds it again. Routes are not its concern.
pub(super) fn give_back(forecast: &mut Forecast, link: &Link) {
    let name = &link.name;
    let Some(note) = note_of(link) else { return };
    let pod = note.pod_interface.as_deref().unwrap_or_default();
    for (setting, value) in &note.settings {
        let interface = setting.interface(pod, name);
        if !link.is_ours() || interface != name {
            put_back(forecast, *setting, interface, *value);
        }
    }
    if link.is_ours() {
        // It is deleted, and the note with it.
        return;
    }
    let lost = delete_addresses(forecast, name, |address| note.added.contains(address));
    if note.up {
        add_lost(forecast, lost);
    }
    if link.up && !note.up {
        set_down(forecast, name);
    }
    if let Some(mode) = note.macvlan_mode
        && link.macvlan_mode != Some(mode)
    {
        forecast.push(Step::SetMacvlanMode {
            link: name.clone(),
            mode,
        });
    }
    forecast.push(Step::ClearNote {
        link: name.clone(),
        alias: note.alias.unwrap_or_default(),
    });
}

/// Sets an interface down, which then has the addresses of others as before:
/// the kernel takes those of IPv6 along.
fn set_down(forecast: &mut Forecast, link: &str) {
    let before: Vec<Address> = forecast.state().addresses_of(link).cloned().collect();
    forecast.push(Step::LinkDown {
        link: link.to_owned(),
    });
    for address in before.into_iter().filter(|address| address.global) {
        if !forecast.state().addresses.contains(&address) {
            forecast.push(Step::AddAddress {
                link: link.to_owned(),
                address: address.address,
            });
        }
    }
}

/// Deletes addresses of an interface; answers the routes of others that the
/// kernel deletes along with the last one.
pub(super) fn delete_addresses(
    forecast: &mut Forecast,
    link: &str,
    is_meant: impl Fn(&IpNet) -> bool,
) -> Vec<Route> {
    let before = forecast.state().clone();
    for address in before.addresses_of(link).map(|address| address.address) {
        if is_meant(&address) {
            forecast.push(Step::DeleteAddress {
                link: link.to_owned(),
                address,
            });
        }
    }
    let after = forecast.state();
    let is_lost = |route: &Route| {
        let is_of_others = route.is_foreign() && !route.is_of_kernel();
        (is_of_others || route.table == SHELF_TABLE) && !after.routes.contains(route)
    };
    before.routes.into_iter().filter(is_lost).collect()
}

/// Adds routes again that went with an address.
pub(super) fn add_lost(forecast: &mut Forecast, mut lost: Vec<Route>) {
    lost.sort_by_key(|route| route.gateway.is_some());
    for route in lost {
        forecast.push(Step::AddRoute(route));
    }
}
