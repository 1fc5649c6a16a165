//! `cargo bench --package egress-benches --bench decision`: what it costs to
//! judge a target, by the kind of its rules and by how many there are.
//!
//! Targets are taken in turn from all over the list, so that a large one does
//! not look as if it fitted into the processor's cache.

#![expect(
    clippy::expect_used,
    reason = "a list of our own that is not accepted ends the benchmark"
)]

use std::iter::Cycle;
use std::net::{IpAddr, Ipv4Addr};
use std::slice;

use divan::{Bencher, black_box};
use egress_config::{Diagnostics, List};
use egress_http_proxy::acl::{Judgement, Policy, Rules, Target};

/// Rules in a list.
const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];

/// Targets that are asked for in turn.
const TARGETS: usize = 1_024;

fn main() {
    divan::main();
}

/// A policy with `size` rules, the `n`th of which `rule` writes.
fn policy(size: usize, rule: impl Fn(usize) -> String) -> Policy {
    let lines: Vec<_> = (0..size).map(rule).collect();
    let list = List::new("EGRESS_HTTP_PROXY_DESTINATION", lines.join("\n"));
    let mut diagnostics = Diagnostics::new();
    let rules = Rules::parse(&list, &mut diagnostics);
    assert!(diagnostics.errors().is_empty(), "{diagnostics}");
    Policy::new(rules)
}

/// Targets for rules from all over a list of `size`.
fn targets(size: usize, host: impl Fn(usize) -> String) -> Vec<Target> {
    // A prime, so that neighbours in the list are not asked for in turn.
    let spread = (0..TARGETS).map(|n| n * 7_919 % size);
    spread
        .map(|n| {
            let authority = format!("{}:443", host(n));
            Target::from_authority(authority.as_bytes()).expect("it is a target")
        })
        .collect()
}

fn judge(bencher: Bencher<'_, '_>, policy: &Policy, targets: &[Target], passes: bool) {
    for target in targets {
        let Judgement::Decided(decision) = policy.judge(target) else {
            unreachable!("no address rule stands before a name");
        };
        assert_eq!(decision.passes(), passes, "{target:?}");
    }
    let mut targets = targets.iter().cycle();
    bencher.bench_local(move || policy.judge(black_box(next(&mut targets))));
}

fn next<'a>(targets: &mut Cycle<slice::Iter<'a, Target>>) -> &'a Target {
    targets.next().expect("there is one")
}

fn name(n: usize) -> String {
    format!("host{n}.zone{}.example", n % 97)
}

fn address(n: usize) -> Ipv4Addr {
    let n = u32::try_from(n).expect("so many there are not");
    Ipv4Addr::from_bits(Ipv4Addr::new(20, 0, 0, 0).to_bits() + (n << 8))
}

#[divan::bench(args = SIZES)]
fn names_hit(bencher: Bencher<'_, '_>, size: usize) {
    judge(bencher, &policy(size, name), &targets(size, name), true);
}

#[divan::bench(args = SIZES)]
fn names_miss(bencher: Bencher<'_, '_>, size: usize) {
    let targets = targets(size, |n| format!("other{n}.zone{}.example", n % 97));
    judge(bencher, &policy(size, name), &targets, false);
}

#[divan::bench(args = SIZES)]
fn domains_hit(bencher: Bencher<'_, '_>, size: usize) {
    let policy = policy(size, |n| format!("*.{}", name(n)));
    let targets = targets(size, |n| format!("a.b.{}", name(n)));
    judge(bencher, &policy, &targets, true);
}

#[divan::bench(args = SIZES)]
fn domains_miss(bencher: Bencher<'_, '_>, size: usize) {
    let policy = policy(size, |n| format!("*.{}", name(n)));
    let targets = targets(size, |n| format!("a.b.x{}", name(n)));
    judge(bencher, &policy, &targets, false);
}

#[divan::bench(args = SIZES)]
fn patterns_hit(bencher: Bencher<'_, '_>, size: usize) {
    let policy = policy(size, |n| format!("api-*.{}", name(n)));
    let targets = targets(size, |n| format!("api-7.{}", name(n)));
    judge(bencher, &policy, &targets, true);
}

#[divan::bench(args = SIZES)]
fn patterns_miss(bencher: Bencher<'_, '_>, size: usize) {
    let policy = policy(size, |n| format!("api-*.{}", name(n)));
    let targets = targets(size, |n| format!("web-7.{}", name(n)));
    judge(bencher, &policy, &targets, false);
}

#[divan::bench(args = SIZES)]
fn networks_hit(bencher: Bencher<'_, '_>, size: usize) {
    let policy = policy(size, |n| format!("{}/24", address(n)));
    let targets = targets(size, |n| {
        (address(n) | Ipv4Addr::new(0, 0, 0, 9)).to_string()
    });
    judge(bencher, &policy, &targets, true);
}

#[divan::bench(args = SIZES)]
fn networks_miss(bencher: Bencher<'_, '_>, size: usize) {
    let policy = policy(size, |n| format!("{}/24", address(n)));
    let targets = targets(size, |n| {
        (address(n) | Ipv4Addr::new(128, 0, 0, 0)).to_string()
    });
    judge(bencher, &policy, &targets, false);
}

/// Names behind address rules: judged, resolved to two addresses, judged again.
#[divan::bench(args = SIZES)]
fn resolved_names_hit(bencher: Bencher<'_, '_>, size: usize) {
    let rule = |n: usize| match n % 2 {
        0 => format!("!{}/24", address(n)),
        _ => name(n),
    };
    let policy = policy(size, rule);
    let targets = targets(size, |n| name(n | 1));
    let addresses = [
        IpAddr::from(Ipv4Addr::new(198, 18, 0, 1)),
        IpAddr::from(Ipv4Addr::new(8, 8, 8, 8)),
    ];
    for target in &targets {
        let admission = policy.judge_addresses(target, &addresses);
        assert!(admission.decision().passes(), "{target:?}");
    }
    let mut targets = targets.iter().cycle();
    bencher.bench_local(move || {
        let target = black_box(next(&mut targets));
        let judgement = policy.judge(target);
        let admission = policy.judge_addresses(target, black_box(&addresses));
        (judgement, admission.decision())
    });
}
