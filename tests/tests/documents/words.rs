//! Names and sentences that the pages quote.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use egress_config::variables;
use egress_lab::harness::TestResult;
use egress_lab::{Command, NetNs, program};
use regex::Regex;

use crate::PAGES;
use crate::page::{code_spans, prose, read, root};
use crate::scene::{Scene, Setting};

pub(crate) fn variables_are_those_of_the_programs() -> TestResult {
    let names = Regex::new(r"\bEGRESS_[A-Z_]+[A-Z]\b").unwrap();
    for (page, ..) in PAGES {
        for name in names.find_iter(&read(page)) {
            let name = name.as_str();
            assert!(
                variables::TABLE.iter().any(|spec| spec.answers_to(name)),
                "{page}: {name}"
            );
        }
    }
    Ok(())
}

/// The metrics of all programs after some traffic: names, and labels with
/// their values.
pub(crate) fn metrics_are_exported() -> TestResult {
    let mut exported = String::new();
    for setting in [Setting::Stay, Setting::HttpProxy, Setting::DnsProxy] {
        let scene = Scene::build(setting, None)?;
        let path = match setting {
            Setting::HttpProxy => "http://www.example.com/",
            _ => "http://egress-1/",
        };
        let arguments = ["--silent", "--fail", path].map(str::to_owned);
        let _ = scene.exec_in_client("curl", &arguments)?.expect(0);
        exported.push_str(&scene.metrics()?);
    }
    let described = Regex::new(r"(?m)^# TYPE (\S+) ").unwrap();
    let described: BTreeSet<_> = described
        .captures_iter(&exported)
        .map(|found| found[1].to_owned())
        .collect();
    let sources = sources();
    // What has not happened yet is not described: then it is registered.
    let is_exported = |name: &str| {
        let endings = ["", "_total", "_info", "_bucket", "_count", "_sum"];
        let mut bases = endings
            .iter()
            .filter_map(|ending| name.strip_suffix(ending));
        bases.any(|base| {
            let registered = format!("\"{base}\",");
            described.contains(base) || sources.iter().any(|source| source.contains(&registered))
        })
    };
    let mentioned = Regex::new(r"^((?:egress|process)_[a-z_]+)(?:\{(.*)\})?$").unwrap();
    let label = Regex::new(r#"^([a-z_]+)(?:="([^"]*)")?$"#).unwrap();
    let mut seen = 0;
    for (page, ..) in PAGES {
        for span in code_spans(&prose(page)) {
            let Some(metric) = mentioned.captures(&span) else {
                continue;
            };
            let name = &metric[1];
            // The table of packet rules.
            if name == "egress_router" {
                continue;
            }
            assert!(is_exported(name), "{page}: {name} is none of {described:?}");
            seen += 1;
            for part in metric
                .get(2)
                .map_or("", |labels| labels.as_str())
                .split(',')
            {
                if part.is_empty() {
                    continue;
                }
                let Some(pair) = label.captures(part) else {
                    panic!("{page}: {span}: {part} is no label");
                };
                let samples = exported.lines().filter(|line| line.starts_with(name));
                let of_scrape = samples
                    .clone()
                    .any(|line| line.contains(&format!("{}=\"", &pair[1])));
                let of_source = sources
                    .iter()
                    .any(|source| source.contains(&format!("{}: &'static str", &pair[1])));
                assert!(
                    of_scrape || of_source,
                    "{page}: {span}: no label {}",
                    &pair[1]
                );
                if let Some(value) = pair.get(2) {
                    let value = format!("\"{}\"", value.as_str());
                    assert!(
                        sources.iter().any(|source| source.contains(&value)),
                        "{page}: {span}: no value {value}"
                    );
                }
            }
        }
    }
    assert!(seen > 30, "{seen} metrics");
    Ok(())
}

/// The programs' source files.
fn sources() -> Vec<String> {
    fn collect(folder: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut sources = Vec::new();
    for package in [
        "config",
        "runtime",
        "router-init",
        "http-proxy",
        "dns-proxy",
    ] {
        collect(&root().join(format!("egress-{package}/src")), &mut sources);
    }
    sources
}

/// Texts of the programs, as they are printed but for what is filled in.
fn literals() -> Vec<String> {
    let literal = Regex::new(r#""((?:[^"\\]|\\(?s:.))*)""#).unwrap();
    let continued = Regex::new(r"\\\n\s*").unwrap();
    let mut literals = Vec::new();
    for source in sources() {
        for found in literal.captures_iter(&source) {
            let text = continued.replace_all(&found[1], "");
            literals.push(text.replace("\\\"", "\""));
        }
    }
    literals
}

/// The first column of a table whose heading begins with `title`, as code
/// spans of each row.
fn quoted(page: &str, title: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut is_inside = false;
    for line in prose(page).lines() {
        let Some(row) = line.strip_prefix('|') else {
            is_inside = false;
            continue;
        };
        let first = row.split(" | ").next().unwrap().trim();
        if is_inside {
            rows.extend(code_spans(first));
        } else if first == title {
            is_inside = true;
        }
    }
    rows
}

/// A message is quoted with three dots for what is filled in.
pub(crate) fn messages_are_those_of_the_programs() -> TestResult {
    let literals = literals();
    let mut seen = 0;
    for (page, ..) in PAGES {
        for message in quoted(page, "message") {
            let is_said = literals.iter().any(|literal| {
                let mut rest = literal.as_str();
                message
                    .split("...")
                    .map(str::trim)
                    .all(|part| match rest.find(part) {
                        Some(at) => {
                            rest = &rest[at + part.len()..];
                            true
                        }
                        None => false,
                    })
            });
            assert!(is_said, "{page}: no program says: {message}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} messages");
    Ok(())
}

/// Variables and their values.
type Variables = &'static [(&'static str, &'static str)];

/// A program, what is wrong, and the sentence that ends the report.
const SENTENCES: [(&str, Variables, &str); 15] = [
    (
        "egress-router-init",
        &[("EGRESS_SOURCE", "x")],
        "EGRESS_SOURCE unspecified or invalid",
    ),
    (
        "egress-router-init",
        &[("EGRESS_GATEWAY", "x")],
        "EGRESS_GATEWAY unspecified or invalid",
    ),
    (
        "egress-router-init",
        &[("EGRESS_DESTINATION", "")],
        "EGRESS_DESTINATION unspecified",
    ),
    (
        "egress-router-init",
        &[("EGRESS_DESTINATION", "80 sctp 203.0.113.25")],
        "EGRESS_DESTINATION value '80 sctp 203.0.113.25' is invalid",
    ),
    (
        "egress-router-init",
        &[("EGRESS_DESTINATION", "203.0.113.27\n80 tcp 203.0.113.25")],
        "EGRESS_DESTINATION fallback IP must be the last line",
    ),
    (
        "egress-router-init",
        &[(
            "EGRESS_DESTINATION",
            "80 tcp 203.0.113.25\n80 tcp 203.0.113.26",
        )],
        "EGRESS_DESTINATION localport 80 is already used, must be unique for each destination",
    ),
    (
        "egress-router-init",
        &[("EGRESS_DESTINATION", "80000 tcp 203.0.113.25")],
        "Invalid port: 80000, must be in the range 1 to 65535",
    ),
    (
        "egress-router-init",
        &[("EGRESS_ROUTER_MODE", "proxy")],
        "Unrecognized EGRESS_ROUTER_MODE 'proxy'",
    ),
    (
        "egress-http-proxy",
        &[],
        "No EGRESS_HTTP_PROXY_DESTINATION specified",
    ),
    (
        "egress-http-proxy",
        &[("EGRESS_HTTP_PROXY_DESTINATION", "*\nexample.com")],
        "Wildcard must be last rule, if present",
    ),
    (
        "egress-http-proxy",
        &[("EGRESS_HTTP_PROXY_DESTINATION", "10.0.0.0/99")],
        "Bad destination '10.0.0.0/99'",
    ),
    (
        "egress-dns-proxy",
        &[],
        "Must specify EGRESS_DNS_PROXY_DESTINATION",
    ),
    (
        "egress-dns-proxy",
        &[("EGRESS_DNS_PROXY_DESTINATION", "80")],
        "Bad destination '80'",
    ),
    (
        "egress-dns-proxy",
        &[("EGRESS_DNS_PROXY_DESTINATION", "80000 www.example.com")],
        "Invalid port: 80000, must be in the range 1 to 65535",
    ),
    (
        "egress-dns-proxy",
        &[(
            "EGRESS_DNS_PROXY_DESTINATION",
            "80 a.example.com\n80 b.example.com",
        )],
        "Proxy port 80 already used, must be unique for each destination",
    ),
];

pub(crate) fn sentences_are_the_last_lines() -> TestResult {
    let netns = NetNs::create("sentences")?;
    let mut said = BTreeSet::new();
    for (name, environment, sentence) in SENTENCES {
        let mut command = Command::new(&netns, program(name)?)
            .arg("check")
            .env("EGRESS_LOG_FORMAT", "text");
        if name == "egress-router-init" {
            command = command
                .env("EGRESS_SOURCE", "192.168.12.99/24")
                .env("EGRESS_GATEWAY", "192.168.12.1")
                .env("EGRESS_DESTINATION", "203.0.113.25");
        }
        let output = command.envs(environment.iter().copied()).run()?.expect(64);
        assert_eq!(output.last_error_line(), sentence);
        said.insert(sentence.to_owned());
    }
    let shown: BTreeSet<_> = quoted("docs/migrating.md", "last line")
        .into_iter()
        .collect();
    assert_eq!(shown, said, "the sentences of docs/migrating.md");
    Ok(())
}
