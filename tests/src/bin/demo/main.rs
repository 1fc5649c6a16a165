//! The egress router at work, step by step: `make demo`.
//!
//! Builds the lab, runs the real programs in it, mode by mode, and shows what
//! a client did and what each outside server saw. Arguments choose modes;
//! `--keep` leaves the lab up after the last of them and says how to enter
//! each namespace.
//!
//! | file | what |
//! |---|---|
//! | `arguments` | what to show |
//! | `stage` | the lab, and how programs are run in its router pod |
//! | `redirect`, `http_proxy`, `dns_proxy` | a mode, shown |
//! | `narration` | what is printed |
//! | `visit` | the lab, kept for a visitor |

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program is read on a terminal"
)]

mod arguments;
mod dns_proxy;
mod http_proxy;
mod narration;
mod redirect;
mod stage;
mod visit;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use egress_lab::{enter_sandbox, program};

use crate::arguments::{Arguments, Mode};
use crate::narration::title;
use crate::stage::Stage;

const PICTURE: &str =
    "  client pods                router pod               physical network 192.168.12.0/24
  node1, node2   ── eth0 ──  egress-router  ── macvlan0 ── gateway .1 ── outside servers
  10.244.0.0/16              10.244.1.x     192.168.12.99                203.0.113.25 .26 .27";

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(64);
        }
    };
    match demonstrate(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demonstration failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Built before the machine's network is left behind.
    for name in arguments.modes().iter().flat_map(|mode| mode.programs()) {
        program(name)?;
    }
    enter_sandbox()?;
    let started = Instant::now();

    title("a small cluster, made of network namespaces");
    println!("{PICTURE}");
    let mut stage = Stage::build()?;
    println!("built in {} ms", started.elapsed().as_millis());

    for mode in arguments.modes() {
        let keep = arguments.keeps_after(*mode);
        match mode {
            Mode::Redirect => redirect::show(&mut stage, keep)?,
            Mode::HttpProxy => http_proxy::show(&mut stage, keep)?,
            Mode::DnsProxy => dns_proxy::show(&mut stage, keep)?,
        }
    }
    drop(stage);
    println!(
        "\nThe lab is gone. Everything took {:.1} s.",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
