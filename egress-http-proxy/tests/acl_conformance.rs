//! The conformance cases of the proxy, as far as rules, targets and addresses
//! decide them. The end-to-end tests judge the rest.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use egress_config::{Diagnostics, List};
use egress_http_proxy::acl::{AbsoluteForm, Host, Judgement, Policy, Rules, Target, TargetError};
use serde_json::Value;

const CASES: &str = include_str!("../../tests/conformance/cases.json");
const VARIABLE: &str = "EGRESS_HTTP_PROXY_DESTINATION";

/// Cases that are answered otherwise on purpose.
const DEVIATIONS: [(&str, &str); 1] = [(
    "H052",
    "a port behind an address is an extension of the grammar (DESIGN 3.1), which no old list can hold",
)];

fn cases(kind: &str) -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    cases
        .into_iter()
        .filter(|case| case["component"] == "egress-http-proxy" && case["kind"] == kind)
        .collect()
}

fn rules(case: &Value) -> (Rules, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let list = List::new(VARIABLE, case["config"][VARIABLE].as_str().unwrap());
    let rules = Rules::parse(&list, &mut diagnostics);
    (rules, diagnostics)
}

#[test]
fn every_list_reads_as_expected() {
    let mut judged = 0;
    for case in cases("config") {
        let id = case["id"].as_str().unwrap();
        if case["config"][VARIABLE].is_null() {
            // Whether there must be a list at all, the configuration decides.
            continue;
        }
        let (rules, diagnostics) = rules(&case);
        if DEVIATIONS.iter().any(|&(deviation, _)| deviation == id) {
            assert_eq!(diagnostics, Diagnostics::new(), "{id}");
            continue;
        }
        let expect = &case["expect"];
        if expect["exit"] == 0 {
            assert!(diagnostics.errors().is_empty(), "{id}: {diagnostics}");
            let warned = case["compat"].as_str().unwrap().ends_with("+warn");
            assert!(!warned || !diagnostics.warnings().is_empty(), "{id}");
        } else {
            assert!(!diagnostics.errors().is_empty(), "{id} is accepted");
            assert_eq!(
                diagnostics.to_string().lines().last(),
                expect["stderr_last_line"].as_str(),
                "{id}"
            );
        }
        if let Some(expected) = expect["rules"].as_array() {
            let entries: Vec<_> = rules.entries().map(|entry| entry.to_string()).collect();
            assert_eq!(entries, *expected, "{id}");
        }
        judged += 1;
    }
    assert!(judged > 20, "only {judged} cases");
}

/// The target of a request line; `None` when it is the HTTP codec's to judge.
fn target(case: &Value) -> Option<Result<Target, TargetError>> {
    // The cases hold latin-1 strings: one character is one byte.
    let request: Vec<u8> = case["raw_request"]
        .as_str()?
        .chars()
        .map(|character| u8::try_from(character).unwrap())
        .collect();
    let line = request
        .split(|&byte| byte == b'\r' || byte == b'\n')
        .next()?;
    let fields: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.1" | b"HTTP/1.0"] = fields[..] else {
        return None;
    };
    Some(if method == b"CONNECT" {
        Target::from_authority(target)
    } else {
        AbsoluteForm::parse(target).map(AbsoluteForm::into_target)
    })
}

/// What the resolver of a case answers first.
fn resolve(case: &Value, target: &Target) -> Vec<IpAddr> {
    let name = match target.host() {
        Host::Name(name) => name,
        Host::Address(address) => return vec![*address],
    };
    let answer = case["resolver"][name.as_str()].as_array();
    let first = answer.into_iter().flatten().map(|entry| match entry {
        Value::Array(first) => first.iter().map(|text| text.as_str().unwrap()).collect(),
        text => vec![text.as_str().unwrap()],
    });
    first.flatten().map(|text| text.parse().unwrap()).collect()
}

fn policy(case: &Value) -> Policy {
    let (rules, diagnostics) = rules(case);
    assert!(diagnostics.errors().is_empty());
    let setting = |name: &str| case["config"][name].as_str();
    let mut policy = Policy::new(rules);
    if let Some(guard) = setting("EGRESS_HTTP_PROXY_GUARD") {
        policy = policy.guard(guard.parse().unwrap(), []);
    }
    if let Some(literals) = setting("EGRESS_HTTP_PROXY_IP_LITERALS") {
        policy = policy.literals(literals.parse().unwrap());
    }
    policy
}

#[test]
fn every_target_is_judged_as_expected() {
    let mut judged = 0;
    for case in cases("request") {
        let id = case["id"].as_str().unwrap();
        let statuses = case["expect"]["status"].as_array().unwrap();
        let target = match target(&case) {
            Some(Ok(target)) => target,
            Some(Err(error)) => {
                assert!(statuses.contains(&error.status().into()), "{id}: {error}");
                judged += 1;
                continue;
            }
            None => continue,
        };
        let policy = policy(&case);
        let addresses = resolve(&case, &target);
        let admission = policy.judge_addresses(&target, &addresses);
        let decision = admission.decision();
        if let Judgement::Decided(early) = policy.judge(&target) {
            assert!(
                early.passes() || !decision.passes(),
                "{id}: {early}, then {decision}"
            );
        }
        match case["expect"]["verdict"].as_str().unwrap() {
            "allow" => {
                assert!(decision.passes(), "{id}: {decision}");
                let dialled: BTreeSet<_> = admission
                    .addresses()
                    .iter()
                    .map(|&address| SocketAddr::new(address, target.port()).to_string())
                    .collect();
                let expected = case["expect"]["dial"].as_array().unwrap();
                for address in expected {
                    let address = address.as_str().unwrap();
                    assert!(
                        dialled.contains(address) || address == "maybe",
                        "{id}: {dialled:?}"
                    );
                }
                assert!(dialled.len() == expected.len(), "{id}: {dialled:?}");
            }
            "deny" => {
                assert!(!decision.passes(), "{id}: {decision}");
                assert!(statuses.contains(&403.into()), "{id}");
                if let Some(reason) = case["expect"]["reason"].as_str() {
                    assert_eq!(decision.reason().name(), reason, "{id}");
                }
            }
            // The head, not the target, is what is wrong.
            _ => continue,
        }
        judged += 1;
    }
    assert!(judged > 60, "only {judged} cases");
}
