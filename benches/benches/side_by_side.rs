//! `cargo bench --package egress-benches --bench side_by_side -- [router|proxies]
//! [FLAGS]`: measures side by side with peers, prints it, and with `--write`
//! keeps it in `benches/RESULTS.md` and `benches/results`. README.md beside
//! them has the flags.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use egress_benches::proxies::{self, Options, Programs, ProxyReport, USAGE};
use egress_benches::{Part, Settings, run, shipped};

/// What the command line asks for.
struct Arguments {
    router: Option<Settings>,
    proxies: Option<Options>,
    write: bool,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = arguments.peekable();
        let what = arguments.next_if(|first| !first.starts_with("--"));
        let (router, proxies) = match what.as_deref() {
            None => (true, true),
            Some("router") => (true, false),
            Some("proxies") => (false, true),
            Some(other) => bail!("unknown argument {other:?}; known are router and proxies"),
        };
        let mut settings = Settings::full();
        let mut options = Options::full();
        let mut write = false;
        while let Some(flag) = arguments.next() {
            match flag.as_str() {
                "--write" => write = true,
                // Cargo says so to every benchmark.
                "--bench" => {}
                "--quick" if router => settings = Settings::quick(),
                _ => {}
            }
            let known = ["--write", "--bench", "--quick"].contains(&flag.as_str());
            let read = proxies && options.read_flag(&flag, &mut arguments)?;
            if !known && !read {
                bail!("unknown argument {flag:?}; known are [router|proxies] {USAGE}");
            }
        }
        Ok(Self {
            router: router.then_some(settings),
            proxies: proxies.then_some(options),
            write,
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    // Before the network is gone, should cargo need it.
    let programs = programs(&arguments)?;
    egress_lab::enter_sandbox()?;
    let mut failures = 0;
    if let Some(settings) = &arguments.router {
        let report = run(settings, say)?;
        print(&report.to_string());
        failures += report.failures().len();
        if arguments.write {
            write_part(Part::Router, &report.to_string())?;
        }
    }
    if let (Some(options), Some(programs)) = (&arguments.proxies, &programs) {
        let report = proxies::run(options, programs, say)?;
        print(&report.to_string());
        failures += report.failures().len();
        if arguments.write {
            write_proxies(&report)?;
        }
    }
    match failures {
        0 => Ok(()),
        failures => bail!("{failures} measurements failed, see above"),
    }
}

/// What is measured, built.
fn programs(arguments: &Arguments) -> Result<Option<Programs>> {
    if arguments.router.is_some() {
        egress_lab::program("egress-router-init")?;
    }
    if arguments.proxies.is_none() {
        return Ok(None);
    }
    let http = shipped("egress-http-proxy")?;
    Ok(Some(Programs {
        http_proxy: http.path,
        dns_proxy: shipped("egress-dns-proxy")?.path,
        load: env!("CARGO_BIN_EXE_egress-bench-load").into(),
        build: http.build.to_owned(),
    }))
}

fn write_proxies(report: &ProxyReport) -> Result<()> {
    let folder = package("results");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut pictures = String::new();
    let mut links = String::from("[Every table](results/proxies.md).");
    for plot in report.plots() {
        let name = plot.file_name();
        write(&folder.join(&name), plot.svg())?;
        pictures.push_str(&format!("![{name}]({name})\n\n"));
        links.push_str(&format!(" [{name}](results/{name})."));
    }
    let tables = format!(
        "# The proxies, every table\n\n{pictures}{}",
        report.tables()
    );
    write(&folder.join("proxies.md"), &tables)?;
    write_part(Part::Proxies, &format!("{}\n{links}", report.summary()))
}

fn write_part(part: Part, body: &str) -> Result<()> {
    let path = package("RESULTS.md");
    let file = fs::read_to_string(&path).unwrap_or_default();
    write(&path, &part.put(&file, body))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "stdout is for the figures")]
fn say(text: &str) {
    eprintln!("{text} ...");
}
