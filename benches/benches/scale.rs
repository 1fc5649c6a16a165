//! `cargo bench --package egress-benches [-- [--quick] [--write]]`: measures
//! how the router scales and what the proxies take, prints it, and with `--write` keeps it in
//! `benches/RESULTS.md`.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use egress_benches::{Report, Settings, run};

const HEAD: &str = "# Results\n\n\
    Written by `make bench BENCH=--write`. Times are medians; see each section for of what.\n\n";

/// What the command line asks for.
struct Arguments {
    settings: Settings,
    write: bool,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            settings: Settings::full(),
            write: false,
        };
        for argument in arguments {
            match argument.as_str() {
                "--quick" => parsed.settings = Settings::quick(),
                "--write" => parsed.write = true,
                // Cargo says so to every benchmark.
                "--bench" => {}
                other => bail!("unknown argument {other:?}; known are --quick and --write"),
            }
        }
        Ok(parsed)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    // Before the network is gone, should cargo need it.
    egress_lab::program("egress-router-init")?;
    for proxy in egress_benches::PROXIES {
        egress_lab::program(proxy)?;
    }
    egress_lab::enter_sandbox()?;
    let report = run(&arguments.settings, say)?;
    print(&report);
    if arguments.write {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
        fs::write(&path, format!("{HEAD}{report}"))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    match report.failures() {
        [] => Ok(()),
        failures => bail!("{} measurements failed, see above", failures.len()),
    }
}

fn print(report: &Report) {
    println!("{report}");
}

#[expect(clippy::print_stderr, reason = "stdout is for the figures")]
fn say(text: &str) {
    eprintln!("{text} ...");
}
