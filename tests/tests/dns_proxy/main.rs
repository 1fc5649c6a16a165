//! The DNS proxy as its users have it: names that change, connections that
//! stay, datagrams, a router pod, real clients.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod backends;
mod clients;
mod conformance;
mod drain;
mod names;
mod operator;
mod ports;
mod relay;
mod reload;
mod router;
mod scene;
mod udp;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    // Those that take long begin first.
    let mut trials = trials![
        names::the_last_good_addresses_outlive_every_failure,
        names::changes_are_followed_at_one_query_per_ttl,
        clients::psql_and_postgresql,
        clients::a_session_of_psql_outlives_a_change,
        names::a_name_of_the_search_list_keeps_working,
        names::a_name_that_comes_late,
        names::an_answer_too_long_for_udp,
        clients::redis_cli_and_redis,
        router::the_outside_sees_the_egress_address,
        router::the_lan_reaches_no_port,
        router::without_its_address_nothing_leaves,
        router::a_session_ends_with_the_address,
        udp::sessions_are_limited,
        udp::sessions_end_when_they_are_quiet,
        udp::every_client_has_a_session,
        udp::datagrams_of_every_size,
        udp::answers_come_from_the_address_that_was_asked,
        udp::a_refused_session_goes_elsewhere,
        udp::a_drain_waits_for_answers,
        backends::sixty_addresses_all_take_traffic,
        backends::both_families,
        backends::a_dead_address_takes_no_client_down,
        backends::a_black_hole_costs_a_moment_once,
        backends::where_all_are_dead_one_that_lives_again_serves,
        relay::half_close_both_ways,
        relay::either_side_may_speak_first,
        relay::resets_go_through,
        relay::idle_time,
        relay::idle_connections_are_kept_alive,
        relay::bulk_is_spliced_in_constant_memory,
        ports::low_ports_need_a_sysctl_or_a_capability,
        ports::a_taken_port_fails_before_any_is_served,
        ports::a_port_used_twice_is_a_bad_configuration,
        ports::the_egress_address_answers_nobody,
        reload::listeners_come_and_go,
        reload::a_bad_list_changes_nothing,
        reload::what_is_forbidden_may_be_closed,
        reload::a_new_name_is_looked_up,
        drain::open_connections_end_by_themselves,
        drain::time_for_it_is_limited,
        drain::a_second_signal_ends_it_at_once,
        operator::every_connection_is_a_line,
        operator::the_access_log_may_be_off,
        operator::metrics_per_listener_and_backend,
        operator::connections_are_limited,
        operator::names_need_a_name_server_only_where_there_are_names,
    ];
    trials.extend(conformance::trials());
    harness::run_waiting(&[scene::PROGRAM, "egress-router-init"], trials)
}
