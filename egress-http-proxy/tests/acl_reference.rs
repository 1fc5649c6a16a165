//! The rules once more, slowly and straight from the contract, which the
//! index must equal on generated lists and targets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::IpAddr;

use egress_config::{Diagnostics, List};
use egress_http_proxy::acl::{
    Action, Guard, Host, Judgement, Literals, Policy, Reason, Rules, Target,
};
use ipnet::IpNet;
use proptest::prelude::*;

/// What a generated line matches.
#[derive(Clone, Debug)]
enum Matches {
    Everything,
    Network(IpNet),
    Labels { pattern: Vec<String>, below: bool },
}

#[derive(Clone, Debug)]
struct Line {
    deny: bool,
    matches: Matches,
    ports: (u16, u16),
}

impl Line {
    fn text(&self) -> String {
        let (low, high) = self.ports;
        let ports = match self.ports {
            (1, u16::MAX) => String::new(),
            _ if low == high => format!(":{low}"),
            _ => format!(":{low}-{high}"),
        };
        let host = match &self.matches {
            Matches::Everything => "*".to_owned(),
            Matches::Network(network @ IpNet::V6(_)) if !ports.is_empty() => format!("[{network}]"),
            Matches::Network(network) => network.to_string(),
            Matches::Labels { pattern, below } => {
                format!("{}{}", if *below { "*." } else { "" }, pattern.join("."))
            }
        };
        format!("{}{host}{ports}", if self.deny { "!" } else { "" })
    }

    fn holds_port(&self, port: u16) -> bool {
        self.ports.0 <= port && port <= self.ports.1
    }

    fn holds_name(&self, name: &str, port: u16) -> bool {
        let everything = IpNet::new("0.0.0.0".parse().unwrap(), 0).unwrap();
        self.holds_port(port)
            && match &self.matches {
                Matches::Everything => true,
                Matches::Network(network) => *network == everything,
                Matches::Labels { pattern, below } => {
                    let labels: Vec<_> = name.split('.').collect();
                    let Some(more) = labels.len().checked_sub(pattern.len()) else {
                        return false;
                    };
                    (more == 0 || *below)
                        && labels
                            .into_iter()
                            .skip(more)
                            .zip(pattern)
                            .all(|(label, pattern)| glob(pattern.as_bytes(), label.as_bytes()))
                }
            }
    }

    fn holds_address(&self, address: IpAddr, port: u16) -> bool {
        self.holds_port(port)
            && match &self.matches {
                Matches::Everything => true,
                Matches::Labels { .. } => false,
                Matches::Network(network) => {
                    network.contains(&address) || network.to_string() == "0.0.0.0/0"
                }
            }
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            glob(rest, text) || matches!(text, [_, text @ ..] if glob(pattern, text))
        }
        ([b'?', pattern @ ..], [_, text @ ..]) => glob(pattern, text),
        ([a, pattern @ ..], [b, text @ ..]) => a == b && glob(pattern, text),
        _ => false,
    }
}

/// The verdict on a request: the line that decided, and what is dialled.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Denied(Option<u32>),
    Allowed(Option<u32>, Vec<IpAddr>),
}

/// The rules of section 3.2, for a request that names `host` and gets
/// `addresses`, without a guard.
fn reference(lines: &[Line], host: &Host, port: u16, addresses: &[IpAddr]) -> Verdict {
    let mut dialled = Vec::new();
    let mut allowed_by = None;
    let first = |address: Option<IpAddr>| {
        let mut numbered = lines.iter().zip(1..);
        numbered.find(|(line, _)| {
            let by_name = match host {
                Host::Name(name) => line.holds_name(name.as_str(), port),
                Host::Address(_) => {
                    line.holds_name("", port) && !matches!(line.matches, Matches::Labels { .. })
                }
            };
            by_name || address.is_some_and(|address| line.holds_address(address, port))
        })
    };
    if addresses.is_empty() {
        return match first(None) {
            Some((Line { deny: false, .. }, number)) => Verdict::Allowed(Some(number), dialled),
            other => Verdict::Denied(other.map(|(_, number)| number)),
        };
    }
    for &address in addresses {
        match first(Some(address)) {
            Some((line, number)) if line.deny => return Verdict::Denied(Some(number)),
            Some((_, number)) => {
                allowed_by.get_or_insert(number);
                dialled.push(address);
            }
            None => {}
        }
    }
    match allowed_by {
        Some(_) => Verdict::Allowed(allowed_by, dialled),
        None => Verdict::Denied(None),
    }
}

fn label() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a", "b", "ab", "ba", "aa", "test", "api-1", "api-2", "a-b",
    ])
    .prop_map(str::to_owned)
}

fn pattern_label() -> impl Strategy<Value = String> {
    let glob = prop::sample::select(vec![
        "*", "a*", "*a", "a*b", "?", "?b", "api-*", "*-?", "a?*", "*a*",
    ]);
    prop_oneof![4 => label(), 1 => glob.prop_map(str::to_owned)]
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join("."))
}

/// Addresses close together, so that networks hold them.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..16_u8).prop_map(|last| IpAddr::from([198, 51, 100, last])),
        (0..4_u8).prop_map(|third| IpAddr::from([198, 51, third, 1])),
        (0..16_u16).prop_map(|last| IpAddr::from([0x2606, 0x4700, 0, 0, 0, 0, 0, last])),
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    (address(), 0..=128_u8, any::<bool>()).prop_map(|(address, length, host)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = if host { most } else { length % (most + 1) };
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        4 => Just((1, u16::MAX)),
        1 => (1..6_u16).prop_map(|port| (port, port)),
        1 => (1..6_u16, 0..4_u16).prop_map(|(low, more)| (low, low + more)),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    let matches = prop_oneof![
        1 => Just(Matches::Everything),
        4 => network().prop_map(Matches::Network),
        8 => (prop::collection::vec(pattern_label(), 1..4), any::<bool>())
            .prop_map(|(pattern, below)| Matches::Labels { pattern, below }),
    ];
    (any::<bool>(), matches, ports())
        .prop_map(|(deny, matches, ports)| Line {
            deny,
            matches,
            ports,
        })
        .prop_filter("refused on purpose", |line| match &line.matches {
            Matches::Everything => line.ports != (1, u16::MAX),
            Matches::Network(_) => true,
            Matches::Labels { pattern, .. } => {
                pattern.iter().any(|label| label.contains(|c: char| c.is_alphanumeric()))
                    && !pattern.iter().any(|label| label.starts_with('-') || label.ends_with('-'))
                    // `*.a` as a pattern reads as the domain `a`.
                    && pattern.first().is_none_or(|label| label != "*")
            }
        })
}

fn list() -> impl Strategy<Value = Vec<Line>> {
    let rest = Line {
        deny: false,
        matches: Matches::Everything,
        ports: (1, u16::MAX),
    };
    (prop::collection::vec(line(), 0..14), any::<bool>()).prop_map(move |(mut lines, open)| {
        lines.extend(open.then(|| rest.clone()));
        lines
    })
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        3 => name().prop_map(|name| Host::Name(name.parse().unwrap())),
        1 => address().prop_map(Host::Address),
    ]
}

fn parse(lines: &[Line]) -> Rules {
    let text: Vec<_> = lines.iter().map(Line::text).collect();
    let mut diagnostics = Diagnostics::new();
    let rules = Rules::parse(&List::new("X", text.join("\n")), &mut diagnostics);
    assert!(diagnostics.errors().is_empty(), "{diagnostics}");
    assert_eq!(rules.len(), lines.len());
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_index_equals_the_reference(
        lines in list(),
        host in host(),
        port in 1..8_u16,
        resolved in prop::collection::vec(address(), 0..4),
    ) {
        let policy = Policy::new(parse(&lines)).guard(Guard::Off, []).literals(Literals::Allow);
        let resolved = match host {
            Host::Address(address) => vec![address],
            Host::Name(_) => resolved,
        };
        let target = Target::new(host.clone(), egress_config::Port::new(port).unwrap());
        let expected = reference(&lines, &host, port, &resolved);
        let admission = policy.judge_addresses(&target, &resolved);
        let line = match admission.decision().reason() {
            Reason::Rule { line } => Some(line),
            reason => {
                prop_assert_eq!(reason, Reason::NoRule);
                None
            }
        };
        let judged = if admission.decision().passes() {
            Verdict::Allowed(line, admission.addresses().to_vec())
        } else {
            prop_assert!(admission.addresses().is_empty());
            Verdict::Denied(line)
        };
        prop_assert_eq!(&judged, &expected);
        // What is decided without addresses holds with them.
        if let Judgement::Decided(early) = policy.judge(&target) {
            prop_assert_eq!(early.passes(), matches!(expected, Verdict::Allowed(..)));
        } else {
            prop_assert!(matches!(host, Host::Name(_)));
            let turned = lines.iter().any(|line| matches!(line.matches, Matches::Network(_)));
            prop_assert!(turned);
        }
    }

    #[test]
    fn the_table_reads_as_the_same_rules(lines in list()) {
        let rules = parse(&lines);
        let table: Vec<_> = rules.entries().filter(|entry| entry.line().is_some()).map(|entry| {
            let not = match entry.action() {
                Action::Allow => "",
                Action::Deny => "!",
            };
            format!("{not}{}", entry.destination())
        }).collect();
        let mut diagnostics = Diagnostics::new();
        let again = Rules::parse(&List::new("X", table.join("\n")), &mut diagnostics);
        prop_assert!(diagnostics.errors().is_empty());
        prop_assert_eq!(again.to_string(), rules.to_string());
    }
}
