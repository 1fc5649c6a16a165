//! The benchmark of the proxies still works: a run too small for figures.

use std::process::ExitCode;

use egress_benches::proxies::{Options, Programs, ProxyReport, run};
use egress_lab::harness::{self, TestResult};
use egress_lab::program;

const PROXIES: [&str; 2] = ["egress-http-proxy", "egress-dns-proxy"];

fn main() -> ExitCode {
    harness::run_serially(
        &PROXIES,
        egress_lab::trials![
            our_proxies_and_the_baselines_are_measured_in_every_scenario,
            the_peers_that_are_installed_are_measured
        ],
    )
}

fn measure(options: &Options) -> Result<ProxyReport, harness::libtest_mimic::Failed> {
    let [http_proxy, dns_proxy] = PROXIES;
    let programs = Programs {
        http_proxy: program(http_proxy)?,
        dns_proxy: program(dns_proxy)?,
        load: env!("CARGO_BIN_EXE_egress-bench-load").into(),
        build: "as tests build them".to_owned(),
    };
    let report = run(options, &programs, |_| {}).map_err(|error| format!("{error:#}"))?;
    assert_eq!(report.failures(), [] as [&str; 0], "{report}");
    Ok(report)
}

/// Rows of the table of a scenario: the subjects that have a figure.
fn subjects<'a>(report: &'a ProxyReport, scenario: &str) -> Vec<&'a str> {
    let title = format!("### {scenario}: ");
    let lines = report.tables().lines();
    let section = lines.skip_while(|line| !line.starts_with(&title)).skip(4);
    section
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let subject = cells.next()?;
            let figure = cells.next()?;
            figure.contains(" to ").then_some(subject)
        })
        .collect()
}

fn our_proxies_and_the_baselines_are_measured_in_every_scenario() -> TestResult {
    let report = measure(&Options::quick().without_peers())?;
    let http = "egress-http-proxy";
    let logging = "egress-http-proxy, access log on";
    let dns = "egress-dns-proxy";
    let baselines = ["no proxy", "relay"];
    for scenario in [
        "forward",
        "forward-1",
        "forward-new",
        "connect",
        "connect-1",
        "requests",
    ] {
        assert_eq!(
            subjects(&report, scenario),
            [&baselines[..], &[http, logging]].concat(),
            "{scenario}"
        );
    }
    for scenario in [
        "rate-forward",
        "rate-connect",
        "bulk-1",
        "bulk-16",
        "bulk-up-1",
        "forward-get",
        "forward-put",
    ] {
        assert_eq!(
            subjects(&report, scenario),
            [&baselines[..], &[http]].concat(),
            "{scenario}"
        );
    }
    for scenario in ["rules-10", "rules-300", "tls-handshakes", "tls-bulk"] {
        assert_eq!(subjects(&report, scenario), [http], "{scenario}");
    }
    for scenario in ["idle-50", "start"] {
        assert_eq!(subjects(&report, scenario), ["relay", http], "{scenario}");
    }
    for scenario in ["tcp-new", "tcp-bulk-1", "tcp-bulk-16"] {
        assert_eq!(
            subjects(&report, scenario),
            [&baselines[..], &[dns]].concat(),
            "{scenario}"
        );
    }
    for scenario in ["tcp-idle-50", "tcp-start"] {
        assert_eq!(subjects(&report, scenario), ["relay", dns], "{scenario}");
    }
    assert!(report.summary().contains("| start to first answer "));
    let names: Vec<_> = report.plots().iter().map(|plot| plot.file_name()).collect();
    assert_eq!(names, ["http.svg", "tcp.svg", "tls.svg"]);
    Ok(())
}

fn the_peers_that_are_installed_are_measured() -> TestResult {
    let options = Options::quick().only(&["forward", "connect", "tcp-new", "tls-handshakes"])?;
    let report = measure(&options)?;
    for scenario in ["forward", "tcp-new"] {
        assert!(subjects(&report, scenario).len() >= 3, "{scenario}");
    }
    Ok(())
}
