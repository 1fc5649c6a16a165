//! A changed list of redirects: what stays is not disturbed, what changed
//! follows, what is gone ends, and a bad list changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod file;
mod flow;
mod list;
mod load;
mod storm;
mod volume;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    harness::run(
        &["egress-router-init"],
        trials![
            storm::a_thousand_replacements_disturb_nobody,
            storm::swapped_files_disturb_nobody,
            flow::a_datagram_client_follows_a_changed_mapping,
            flow::connections_of_a_changed_mapping_end_at_once,
            flow::a_mapping_takes_its_port_from_the_fallback_and_gives_it_back,
            flow::changes_beside_a_mapping_leave_its_flows_alone,
            flow::counters_go_on_counting,
            file::a_bad_file_changes_nothing,
            file::sighup_reloads,
            file::sighup_reloads_the_environment,
            file::a_file_may_go_and_come_back,
            file::an_editors_file_is_read_once_it_is_whole,
        ],
    )
}
