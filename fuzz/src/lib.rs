//! What each fuzz target checks. The same functions replay the corpora on
//! stable, in the router's tests, so they need nothing of libFuzzer.

use std::collections::BTreeSet;
use std::time::Duration;

use egress_config::{
    AddressFamily, Diagnostics, DomainName, InterfaceName, List, MapEnvironment, OneLine, Port,
    SpecialAddress, format_duration, parse_address, parse_duration, parse_interface_address,
    parse_listen, parse_network,
};
use egress_router_init::config::Config;
use egress_router_init::redirect::Redirects;

/// Redirect lines: what is accepted is unique, reads back as itself and can be
/// forwarded to; what is not accepted is reported.
pub fn redirect_lines(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (redirects, diagnostics) = redirects(text);
    let mut keys = BTreeSet::new();
    for mapping in redirects.mappings() {
        let family = AddressFamily::of(mapping.target());
        assert!(keys.insert((family, mapping.protocol(), mapping.port())));
        assert_eq!(SpecialAddress::of(mapping.target()), None);
        let written = mapping.to_string();
        let (again, bad) = self::redirects(&written);
        assert_eq!(bad, Diagnostics::new());
        assert!(
            again
                .mappings()
                .iter()
                .map(ToString::to_string)
                .eq([written])
        );
    }
    let families: BTreeSet<_> = redirects
        .fallbacks()
        .iter()
        .map(|fallback| AddressFamily::of(fallback.target()))
        .collect();
    assert_eq!(families.len(), redirects.fallbacks().len());
    let entries = List::new("X", text).lines().count();
    let accepted = redirects.mappings().len() + redirects.fallbacks().len();
    assert!(accepted <= entries);
    assert!(accepted + diagnostics.errors().len() >= entries);
    report(&diagnostics);
}

fn redirects(text: &str) -> (Redirects, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let list = List::new("EGRESS_DESTINATION", text);
    let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
    (redirects, diagnostics)
}

/// A report has one line per warning and bad entry, and at most one sentence
/// of old behind them, whatever the texts were that it quotes.
fn report(diagnostics: &Diagnostics) {
    let text = diagnostics.to_string();
    let lines = diagnostics.warnings().len()
        + diagnostics.errors().len()
        + usize::from(diagnostics.legacy().is_some());
    assert_eq!(text.lines().count(), lines);
    assert!(!text.contains(|c: char| c.is_control() && c != '\t' && c != '\n'));
}

/// Lines of any list: numbers rise, and each line is a trimmed entry.
pub fn list_lines(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let list = List::new("X", text);
    let raw: Vec<&str> = text.split('\n').collect();
    let mut last = 0;
    for line in list.lines() {
        let continued = line.is_err();
        let line = line.unwrap_or_else(|continued| continued.line());
        assert!(line.number() > last);
        last = line.number();
        let there = usize::try_from(last)
            .ok()
            .and_then(|last| raw.get(last - 1));
        assert!(there.is_some_and(|there| there.contains(line.text())));
        assert!(!line.text().is_empty());
        assert_eq!(continued, line.text().ends_with('\\'));
        assert!(continued || !line.text().starts_with('#'));
        assert_eq!(line.text().trim_matches([' ', '\t']), line.text());
        assert!(line.fields().all(|field| !field.is_empty()));
        assert!(line.fields().map(str::len).sum::<usize>() <= line.text().len());
    }
}

/// Addresses, networks, listen addresses, ports and durations: what is read
/// is read back the same.
pub fn addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(address) = parse_address(text) {
        assert_eq!(parse_address(&address.to_string()), Ok(address));
        assert!(parse_interface_address(text).is_ok());
    }
    if let Ok(address) = parse_interface_address(text) {
        assert_eq!(parse_interface_address(&address.to_string()), Ok(address));
        assert_eq!(parse_network(text).is_ok(), address.trunc() == address);
    }
    if let Ok(Some(listen)) = parse_listen(text) {
        assert_eq!(parse_listen(&listen.to_string()), Ok(Some(listen)));
        assert_ne!(listen.port(), 0);
    }
    if let Ok(port) = text.parse::<Port>() {
        assert_eq!(port.to_string(), text);
    }
    if let Ok(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        assert_eq!(duration.subsec_nanos() % 1_000_000, 0);
        assert!(duration <= Duration::from_millis(u64::MAX));
    }
}

/// Names of hosts and interfaces.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = text.parse::<DomainName>() {
        assert!((1..=253).contains(&name.as_str().len()));
        assert!(
            name.as_str()
                .split('.')
                .all(|label| (1..=63).contains(&label.len()))
        );
        assert!(name.as_str().is_ascii());
        assert!(parse_address(name.as_str()).is_err());
        assert!(
            name.as_str()
                .eq_ignore_ascii_case(text.strip_suffix('.').unwrap_or(text))
        );
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    if let Ok(name) = text.parse::<InterfaceName>() {
        assert_eq!(name.as_str(), text);
        assert!((1..=15).contains(&text.len()));
        assert!(!text.contains('/'));
    }
    assert!(!OneLine(text).to_string().contains('\n'));
}

/// A whole environment, as `NAME=VALUE` records that end with a NUL (the form
/// of /proc/PID/environ). A record `@PATH=CONTENT` is a file.
pub fn environment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let environment = text
        .split('\0')
        .filter_map(|record| record.split_once('='))
        .fold(
            MapEnvironment::new(),
            |environment, (name, value)| match name.strip_prefix('@') {
                Some(path) => environment.with_file(path, value),
                None => environment.with(name, value),
            },
        );
    match Config::from_environment(&environment) {
        Ok((config, warnings)) => {
            assert!(!config.legs().is_empty());
            assert!(
                warnings
                    .iter()
                    .all(|warning| warning.to_string().lines().count() == 1)
            );
            assert!(serde_json::to_string(&config).is_ok());
        }
        Err(diagnostics) => {
            assert!(!diagnostics.errors().is_empty());
            report(&diagnostics);
        }
    }
}
