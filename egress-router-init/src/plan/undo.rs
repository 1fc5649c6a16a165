//! What takes the router away again.

use egress_config::AddressFamily;

use super::forecast::Forecast;
use super::release::{give_back, occupied};
use super::routing::{in_table, is_saved};
use super::step::Step;
use crate::state::{Link, MAIN_TABLE, POD_TABLE, Route, SHELF_TABLE, State};

/// Plans the way from `state` to a namespace without a router: our objects go,
/// what they displaced returns, settings get the values they had.
///
/// Nothing is forwarded and the physical network is left before the pod's own
/// default route is back, and the packet rules go last of all.
#[must_use]
pub fn undo(state: &State) -> Vec<Step> {
    let mut forecast = Forecast::new(state);
    let occupied: Vec<Link> = occupied(state).cloned().collect();
    for link in &occupied {
        give_back(&mut forecast, link);
    }
    for link in occupied.into_iter().filter(Link::is_ours) {
        forecast.push(Step::DeleteLink { name: link.name });
    }
    for family in AddressFamily::ALL {
        routing(&mut forecast, family);
    }
    if state.firewall_present != Some(false) {
        forecast.push(Step::DeleteFirewall);
    }
    forecast.into_steps()
}

fn routing(forecast: &mut Forecast, family: AddressFamily) {
    let state = forecast.state().clone();
    let table = |number| in_table(&state, number, family);
    for route in table(MAIN_TABLE).filter(|route| !route.is_foreign()) {
        forecast.push(Step::DeleteRoute(route.clone()));
    }
    // One that somebody put in its place meanwhile stays.
    let is_taken = |route: &Route| {
        table(MAIN_TABLE).any(|known| {
            known.is_foreign()
                && (known.excludes(route)
                    || known.is_in_place_of(route) && !is_saved(&state, known))
        })
    };
    let mut originals: Vec<Route> = table(SHELF_TABLE)
        .map(|route| route.in_table(MAIN_TABLE))
        .filter(|route| !table(MAIN_TABLE).any(|known| known.matches(route)))
        .collect();
    originals.extend(
        table(POD_TABLE)
            .filter(|route| route.is_default())
            .map(|route| route.in_table(MAIN_TABLE))
            .filter(|route| !is_taken(route)),
    );
    // A gateway must be reachable when its route is added.
    originals.sort_by_key(|route| route.gateway.is_some());
    for route in originals {
        forecast.push(Step::AddRoute(route));
    }
    for rule in state.rules.iter().filter(|rule| rule.family == family) {
        forecast.push(Step::DeleteRule(rule.clone()));
    }
    for route in table(POD_TABLE).chain(table(SHELF_TABLE)) {
        forecast.push(Step::DeleteRoute(route.clone()));
    }
}
