//! Real clients of the HTTP proxy: the same bytes as without it, and a plain
//! word where it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, with the place"
)]

mod programs;
mod site;
mod sockets;
mod visit;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    harness::run(
        &[visit::PROGRAM],
        trials![
            programs::curl,
            programs::wget,
            programs::python_urllib,
            programs::python_requests,
            programs::node_fetch,
            programs::node_proxy_agents,
            programs::git,
            programs::curl_speaks_http2_in_a_tunnel,
            programs::curl_tunnels_what_is_plain,
            programs::curl_forwards_what_is_for_the_origin_only,
            programs::curl_keeps_its_connection,
            programs::curl_speaks_tls_to_the_proxy,
            programs::curl_moves_large_bodies,
            programs::curl_cannot_hide_behind_another_name,
            sockets::websocket_by_forward,
            sockets::websocket_in_a_tunnel,
            sockets::websocket_over_tls,
            sockets::http2_connect_over_tls_to_the_proxy,
        ],
    )
}
