//! The dashboard and the alerts in `manifests/components/monitoring` ask for
//! what the programs really export: the real programs run, see traffic, and are
//! scraped; then every query is taken apart and held against that.
//!
//! | file | what |
//! |---|---|
//! | `programs` | the three programs, with traffic of every kind |
//! | `exported` | what their metrics pages hold, with the labels that a scrape adds |
//! | `query` | a query, and the labels of its result |
//! | `dashboard`, `alerts` | the two files |
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod alerts;
mod dashboard;
mod exported;
mod programs;
mod query;

use std::process::ExitCode;

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    harness::run(
        &[
            "egress-router-init",
            "egress-http-proxy",
            "egress-dns-proxy",
        ],
        trials![
            dashboard::every_query_asks_for_what_is_exported,
            dashboard::everything_that_is_exported_is_shown,
            dashboard::panels_stand_side_by_side_and_use_the_data_source_that_is_chosen,
            alerts::every_alert_asks_for_what_is_exported,
            query::what_is_not_exported_is_refused,
            query::what_is_exported_is_accepted,
        ],
    )
}
