//! The source address: taken or free, whose it is, and how fast the network
//! learns where it is now.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, with the place"
)]

mod cost;
mod gateway;
mod moved;
mod taken;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    harness::run(
        &["egress-router-init"],
        trials![
            taken::another_hosts_address_is_refused,
            taken::another_hosts_address_is_refused_on_the_interface_of_a_cni,
            taken::one_taken_address_of_two_is_enough,
            taken::a_prober_is_a_rival,
            taken::the_probe_may_be_off,
            taken::the_nodes_own_address_is_refused,
            gateway::a_silent_gateway_is_a_warning,
            gateway::a_wrong_gateway_is_named,
            moved::a_warm_gateway_follows_at_once,
            cost::the_documented_example_takes_little,
        ],
    )
}
