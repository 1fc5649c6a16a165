//! The HTTP proxy with thousands of connections: while its rules change, when
//! it ends, and when there are more than it can hold.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod crowd;
mod drain;
mod files;
mod idle;
mod reload;
mod requests;
mod scene;
mod servers;

use std::{env, process::ExitCode};

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(servers::ROLE) {
        return servers::main();
    }
    harness::run_serially(
        &[scene::PROGRAM],
        trials![
            reload::a_reload_disturbs_nobody,
            reload::forbidden_tunnels_may_be_closed,
            drain::what_is_in_flight_may_finish,
            drain::what_does_not_finish_is_closed,
            drain::a_second_sigterm_ends_at_once,
            idle::nine_thousand_tunnels_and_a_slowloris,
            idle::five_thousand_half_heads,
            files::without_files_it_waits_and_recovers,
        ],
    )
}
