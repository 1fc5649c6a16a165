//! What the fuzz target of rule lines checks. The tests of the HTTP proxy
//! replay its corpus on stable.

use std::net::IpAddr;

use egress_config::{Diagnostics, List, Port};
use egress_http_proxy::acl::{Action, Host, Judgement, Policy, Rules, Target};

/// Rule lines and documents: what is accepted reads back as itself and judges
/// without a panic; what is not accepted is reported on lines of its own.
pub fn rule_lines(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (rules, diagnostics) = parse(text);
    let report = diagnostics.to_string();
    let lines = diagnostics.warnings().len()
        + diagnostics.errors().len()
        + usize::from(diagnostics.legacy().is_some());
    assert_eq!(report.lines().count(), lines);
    assert!(!report.contains(|c: char| c.is_control() && c != '\t' && c != '\n'));
    if !diagnostics.errors().is_empty() {
        return;
    }
    let written: Vec<String> = rules
        .entries()
        .filter(|entry| entry.line().is_some())
        .map(|entry| match entry.action() {
            Action::Allow => entry.destination().to_string(),
            Action::Deny => format!("!{}", entry.destination()),
        })
        .collect();
    let (again, bad) = parse(&written.join("\n"));
    assert_eq!(bad.errors(), []);
    let rows = |rules: &Rules| -> Vec<String> {
        let rows = rules.entries().filter(|entry| entry.line().is_some());
        rows.map(|entry| entry.to_string()).collect()
    };
    assert_eq!(rows(&again), rows(&rules));
    judge(&Policy::new(rules), &written);
}

fn parse(text: &str) -> (Rules, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let rules = Rules::parse(&List::new("X", text), &mut diagnostics);
    (rules, diagnostics)
}

/// Asks for what the rules name: whatever is said before the addresses are
/// known holds with them, the guard aside.
fn judge(policy: &Policy, written: &[String]) {
    for line in written.iter().take(16) {
        let destination = line.trim_start_matches(['!', '*', '.']);
        for host in [
            destination.parse().ok().map(Host::Name),
            format!("a.{destination}").parse().ok().map(Host::Name),
            destination.parse().ok().map(Host::Address),
        ] {
            let (Some(host), Some(port)) = (host, Port::new(443)) else {
                continue;
            };
            let target = Target::new(host, port);
            let addresses = match target.host() {
                Host::Address(address) => vec![*address],
                Host::Name(_) => vec![IpAddr::from([198, 51, 100, 1])],
            };
            let decision = policy.judge_addresses(&target, &addresses).decision();
            if let Judgement::Decided(early) = policy.judge(&target) {
                assert_eq!(early.passes(), decision.passes());
            }
        }
    }
}
