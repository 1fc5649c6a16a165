//! What the documents say is what happens: every fenced block of the README,
//! of `CONTRIBUTING.md` and of `docs/` is run in the lab or given to the
//! programs' own parsers, and every message, metric, variable and link that
//! they name is there.
//!
//! | a block | is |
//! |---|---|
//! | `sh` | commands, each known to [`commands`] and run to its end |
//! | `console` | the same behind `$ `, with what they print |
//! | `yaml` and a word for what it is part of | completed, validated, and its variables given to the program |
//! | `redirect-lines`, `http-proxy-rules`, `dns-proxy-lines` | a list, read by its program without a warning |
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, with the place"
)]

mod blocks;
mod commands;
mod manifest;
mod mask;
mod page;
mod scene;
mod words;
mod yaml;

use std::process::ExitCode;

use egress_lab::{
    harness::{self, libtest_mimic::Trial},
    trials,
};

use crate::scene::Setting;

/// Every page, how many blocks it has, and the pod that it speaks of at first.
/// A block that no parser saw would be one less.
const PAGES: [(&str, usize, Setting); 8] = [
    ("README.md", 4, Setting::HttpProxy),
    ("CONTRIBUTING.md", 1, Setting::Redirect),
    ("docs/redirect.md", 11, Setting::Redirect),
    ("docs/http-proxy.md", 11, Setting::HttpProxy),
    ("docs/dns-proxy.md", 8, Setting::DnsProxy),
    ("docs/migrating.md", 3, Setting::Redirect),
    ("docs/operating.md", 8, Setting::Stay),
    ("docs/how-it-works.md", 0, Setting::Redirect),
];

fn main() -> ExitCode {
    let pages = PAGES.map(|(name, count, setting)| {
        Trial::test(format!("blocks::of({name})"), move || {
            blocks::check(name, count, setting)
        })
    });
    let mut all = trials![
        page::every_page_is_listed,
        page::links_lead_somewhere,
        page::commands_stand_in_blocks,
        page::pictures_can_be_read,
        words::variables_are_those_of_the_programs,
        words::metrics_are_exported,
        words::messages_are_those_of_the_programs,
        words::sentences_are_the_last_lines,
        commands::unknown_commands_are_refused,
        mask::only_what_changes_is_masked,
    ];
    all.extend(pages);
    harness::run(&scene::PROGRAMS, all)
}
