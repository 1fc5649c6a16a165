//! Properties of destination lines, for any text.

use std::collections::BTreeMap;

use egress_config::{Diagnostics, List, Protocol};
use egress_dns_proxy::mapping::{Mapping, Mappings};
use proptest::prelude::*;

fn parse(text: &str) -> (Mappings, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let list = List::new("EGRESS_DNS_PROXY_DESTINATION", text);
    let mappings = Mappings::parse(&list, &mut diagnostics);
    (mappings, diagnostics)
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,3}\\.?"
            .prop_filter("not a protocol", |name| name != "tcp" && name != "udp"),
        (1..224_u8, any::<[u8; 3]>())
            .prop_filter("a host", |(first, _)| *first != 127)
            .prop_map(|(first, [a, b, c])| format!("{first}.{a}.{b}.{c}")),
        (1..=u16::MAX).prop_map(|last| format!("2001:db8::{last:x}")),
    ]
}

/// Mappings with unique keys, and what they lead to.
fn mappings() -> impl Strategy<Value = BTreeMap<(Protocol, u16), (String, u16)>> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let key = (protocol, 1..=u16::MAX);
    proptest::collection::btree_map(key, (host(), 1..=u16::MAX), 0..60)
}

fn blanks() -> impl Strategy<Value = String> {
    "[ \t]{1,3}"
}

fn noise() -> impl Strategy<Value = String> {
    "([ \t]*(#[^\\\\\r\n]*)?\r?\n){0,2}"
}

/// Text out of the characters that lines are made of.
fn line_like() -> impl Strategy<Value = String> {
    "([0-9]{1,6}|/udp|/tcp|udp|db|192\\.0\\.2\\.[0-9]{1,3}|2001:db8::[0-9a-f]{1,4}|[ \t#\\\\.:/\r\n-]|é){0,40}"
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        expected in mappings(),
        blank in blanks(),
        noise in noise(),
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = String::new();
        for ((protocol, port), (host, remote_port)) in &expected {
            text += &format!("{noise}{blank}{port}/{protocol}{blank}{host}{blank}{remote_port}{end}");
        }
        let (mappings, diagnostics) = parse(&text);
        prop_assert_eq!(diagnostics, Diagnostics::new());
        let read: BTreeMap<(Protocol, u16), (String, u16)> = mappings
            .iter()
            .map(|mapping| {
                let key = (mapping.protocol(), mapping.port().get());
                (key, (mapping.host().to_string(), mapping.remote_port().get()))
            })
            .collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_mapping_reads_back_as_itself_and_names_its_line(text in line_like()) {
        let (mappings, _) = parse(&text);
        let lines: Vec<&str> = text.split('\n').collect();
        for mapping in &mappings {
            for source in [&mapping.to_string(), lines[usize::try_from(mapping.line()).unwrap() - 1]] {
                let (again, diagnostics) = parse(source);
                prop_assert_eq!(diagnostics, Diagnostics::new());
                let again: Vec<String> = again.iter().map(Mapping::to_string).collect();
                prop_assert_eq!(again, [mapping.to_string()]);
            }
        }
    }

    #[test]
    fn each_bad_line_is_reported_by_itself(
        bad in proptest::collection::btree_set(0..20_usize, 0..20),
    ) {
        let text: String = (0..20)
            .map(|index| {
                let host = if bad.contains(&index) { "no/where" } else { "192.0.2.1" };
                format!("{} {host}\n", index + 1)
            })
            .collect();
        let (mappings, diagnostics) = parse(&text);
        prop_assert_eq!(mappings.len(), 20 - bad.len());
        let report = diagnostics.to_string();
        let starts: Vec<&str> = report.lines().map(|line| line.split(':').next().unwrap()).collect();
        let mut expected: Vec<String> = bad
            .iter()
            .map(|index| format!("EGRESS_DNS_PROXY_DESTINATION line {}", index + 1))
            .collect();
        if let Some(first) = bad.first() {
            expected.push(format!("Bad destination '{} no/where'", first + 1));
        }
        prop_assert_eq!(starts, expected);
    }

    #[test]
    fn no_text_goes_unanswered(text in any::<String>()) {
        let (mappings, diagnostics) = parse(&text);
        let entries = List::new("X", text.as_str()).lines().count();
        prop_assert_eq!(mappings.len() + diagnostics.errors().len(), entries);
        prop_assert!(diagnostics.errors().is_empty() || diagnostics.legacy().is_some());
    }
}
