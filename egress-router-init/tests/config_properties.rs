//! Properties of redirect lines, for any text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_config::{AddressFamily, Diagnostics, List, Protocol, SpecialAddress};
use egress_router_init::redirect::Redirects;
use proptest::prelude::*;

fn parse(text: &str) -> (Redirects, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let list = List::new("EGRESS_DESTINATION", text);
    let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
    (redirects, diagnostics)
}

fn host() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
    .prop_filter("a host's address", |address| {
        SpecialAddress::of(*address).is_none()
    })
}

type Key = (AddressFamily, Protocol, u16);

/// Mappings with unique keys, and what they lead to.
fn mappings() -> impl Strategy<Value = BTreeMap<Key, (IpAddr, u16)>> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let mapping = (protocol, 1..=u16::MAX, host(), 1..=u16::MAX);
    proptest::collection::vec(mapping, 0..60).prop_map(|mappings| {
        mappings
            .into_iter()
            .map(|(protocol, port, target, target_port)| {
                (
                    (AddressFamily::of(target), protocol, port),
                    (target, target_port),
                )
            })
            .collect()
    })
}

fn blanks() -> impl Strategy<Value = String> {
    "[ \t]{1,3}"
}

fn noise() -> impl Strategy<Value = String> {
    "([ \t]*(#[^\\\\\r\n]*)?\r?\n){0,2}"
}

/// Text out of the characters that lines are made of.
fn line_like() -> impl Strategy<Value = String> {
    "([0-9]{1,6}|tcp|udp|192\\.0\\.2\\.[0-9]{1,3}|2001:db8::[0-9a-f]{1,4}|[ \t#\\\\.:/\r\n-]|é){0,40}"
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        expected in mappings(),
        fallback in proptest::option::of(host()),
        blank in blanks(),
        noise in noise(),
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = String::new();
        for ((_, protocol, port), (target, target_port)) in &expected {
            text += &format!("{noise}{blank}{port}{blank}{protocol}{blank}{target}{blank}{target_port}{end}");
        }
        if let Some(fallback) = fallback {
            text += &format!("{noise}{blank}{fallback}{blank}{end}{noise}");
        }
        let (redirects, diagnostics) = parse(&text);
        prop_assert_eq!(diagnostics, Diagnostics::new());
        let read: BTreeMap<Key, (IpAddr, u16)> = redirects
            .mappings()
            .iter()
            .map(|mapping| {
                let family = AddressFamily::of(mapping.target());
                let key = (family, mapping.protocol(), mapping.port().get());
                (key, (mapping.target(), mapping.target_port().get()))
            })
            .collect();
        prop_assert_eq!(read, expected);
        let read_fallback = redirects.fallbacks().first().map(|fallback| fallback.target());
        prop_assert_eq!(read_fallback, fallback);
    }

    #[test]
    fn a_redirect_reads_back_as_itself_and_names_its_line(text in line_like()) {
        let (redirects, _) = parse(&text);
        let lines: Vec<&str> = text.split('\n').collect();
        let line = |number: u32| lines[usize::try_from(number).unwrap() - 1];
        for mapping in redirects.mappings() {
            let (again, diagnostics) = parse(&mapping.to_string());
            prop_assert_eq!(diagnostics, Diagnostics::new());
            prop_assert_eq!(again.mappings()[0].to_string(), mapping.to_string());
            let from_its_line = parse(line(mapping.line())).0;
            prop_assert_eq!(from_its_line.mappings()[0].to_string(), mapping.to_string());
        }
        for fallback in redirects.fallbacks() {
            let from_its_line = parse(line(fallback.line())).0;
            prop_assert_eq!(from_its_line.fallbacks()[0].target(), fallback.target());
        }
    }

    #[test]
    fn each_bad_line_is_reported_by_itself(
        bad in proptest::collection::btree_set(0..20_usize, 0..20),
    ) {
        let text: String = (0..20)
            .map(|index| {
                let target = if bad.contains(&index) { "nowhere" } else { "192.0.2.1" };
                format!("{} tcp {target}\n", index + 1)
            })
            .collect();
        let (redirects, diagnostics) = parse(&text);
        prop_assert_eq!(redirects.mappings().len(), 20 - bad.len());
        let report = diagnostics.to_string();
        let starts: Vec<&str> = report.lines().map(|line| line.split(':').next().unwrap()).collect();
        let mut expected: Vec<String> = bad
            .iter()
            .map(|index| format!("EGRESS_DESTINATION line {}", index + 1))
            .collect();
        if let Some(first) = bad.first() {
            expected.push(format!(
                "EGRESS_DESTINATION value '{} tcp nowhere' is invalid",
                first + 1
            ));
        }
        prop_assert_eq!(starts, expected);
    }

    #[test]
    fn no_text_goes_unanswered(text in any::<String>()) {
        let (redirects, diagnostics) = parse(&text);
        let entries = List::new("X", text.as_str()).lines().count();
        let accepted = redirects.mappings().len() + redirects.fallbacks().len();
        prop_assert!(accepted + diagnostics.errors().len() >= entries);
        prop_assert!(diagnostics.errors().is_empty() || diagnostics.legacy().is_some());
    }
}
