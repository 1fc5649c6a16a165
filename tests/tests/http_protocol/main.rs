//! What the HTTP proxy does on the wire: messages, tunnels, refusals, limits,
//! and what its operator sees.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod broken;
mod bulk;
mod egress;
mod limits;
mod messages;
mod operator;
mod own;
mod policy;
mod reuse;
mod scene;
mod switch;
mod tls;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    harness::run_waiting(
        &[scene::PROGRAM, "egress-router-init"],
        trials![
            messages::trailers_go_both_ways,
            messages::interim_responses_go_through_at_once,
            messages::an_expectation_is_the_servers_to_meet,
            messages::an_expectation_may_be_refused,
            messages::a_server_may_answer_before_the_body_is_sent,
            messages::get_may_have_a_body,
            messages::responses_without_body,
            messages::chunks_are_sent_on_as_they_come,
            messages::chunks_may_come_byte_by_byte,
            messages::an_old_client_of_a_new_server,
            messages::a_new_client_of_an_old_server,
            messages::requests_may_be_pipelined,
            messages::a_client_may_end_its_side,
            reuse::upstream_connections_are_reused,
            reuse::upstream_connections_that_end_are_not,
            reuse::a_stale_connection_is_replaced,
            reuse::what_cannot_be_repeated_is_not,
            switch::upgraded_connections_are_tunnels,
            switch::an_upgrade_may_be_declined,
            switch::either_side_of_a_tunnel_may_speak_first,
            switch::either_side_of_a_tunnel_may_end_first,
            switch::a_reset_goes_through_a_tunnel,
            bulk::a_gibibyte_each_way_in_constant_memory,
            broken::a_cut_response_looks_cut,
            broken::a_cut_request_looks_cut,
            broken::a_bad_response_is_no_response,
            own::no_spelling_of_the_proxy_leads_to_it,
            own::without_guard_a_request_to_itself_ends_at_once,
            own::a_request_that_came_through_before_is_a_loop,
            egress::the_lan_reaches_neither_port,
            egress::without_packet_rules_the_proxy_refuses_by_itself,
            egress::the_outside_sees_the_egress_address,
            egress::without_its_address_nothing_leaves,
            tls::requests_and_tunnels_over_tls,
            tls::a_new_certificate_is_for_new_handshakes,
            tls::a_key_that_does_not_fit_changes_nothing,
            tls::clients_without_certificate_are_refused,
            tls::http2_is_for_tunnels,
            limits::connections,
            limits::connections_of_one_client,
            limits::length_of_a_head,
            limits::time_of_a_head,
            limits::idle_time,
            policy::audit_allows_and_tells,
            policy::addresses_may_be_refused_as_hosts,
            policy::the_guard,
            policy::the_server_name_of_a_tunnel,
            policy::the_client_may_be_named,
            operator::every_request_is_a_line,
            operator::metrics_count_what_happened,
            operator::configuration_and_probes,
        ],
    )
}
