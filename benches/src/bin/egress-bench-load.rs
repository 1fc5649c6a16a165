//! `egress-bench-load load|relay`: the load generator with its origin, and the
//! bare relay, each pinned to a core of its own by the benchmark.

use std::env;
use std::io;
use std::process::ExitCode;

use anyhow::Result;
use egress_benches::load::{Command, Relay, run};

fn main() -> ExitCode {
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn program() -> Result<()> {
    match Command::parse(env::args_os())? {
        Command::Load(load) => run(&load, io::stdin(), &mut io::stdout()),
        Command::Relay(relay) => Relay::listen(&relay)?.run(),
    }
}

#[expect(clippy::print_stderr, reason = "stdout is for the figures")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}
