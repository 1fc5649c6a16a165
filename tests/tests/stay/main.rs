//! `legacy` mode: the router sets up, stays, and keeps the pod's network as it
//! should be until it is told to end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod claim;
mod damage;
mod ending;
mod endpoint;
mod fixture;
mod gateway;
mod idle;
mod repair;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    let mut tests = trials![
        endpoint::readiness_says_what_it_waits_for,
        endpoint::every_metric_is_there_and_counts,
        endpoint::configuration_is_shown,
        endpoint::only_the_pod_network_reaches_it,
        ending::one_sigterm_ends_an_idle_router,
        ending::open_connections_may_end_first,
        ending::open_connections_get_so_long,
        ending::a_second_sigterm_ends_at_once,
        ending::sigterm_ends_the_wait_for_the_address,
        ending::wait_needs_no_privilege,
        claim::a_taken_address_is_waited_for,
        claim::a_later_claim_is_told_counted_and_fought,
        gateway::a_gateway_is_told_when_it_goes_silent_and_when_it_is_back,
        idle::nothing_is_done_for_nothing,
        repair::a_flapped_link_is_back_without_asking,
        repair::a_link_that_cannot_be_made_is_waited_for,
        repair::operators_rules_are_no_damage,
    ];
    tests.extend(repair::every_damage());
    harness::run(&["egress-router-init"], tests)
}
