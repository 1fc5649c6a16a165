//! The iptables driver against the real kernel and the real programs.
//!
//! Every test is a process of its own, in a network namespace of its own, with
//! a `PATH` that leads to one kind of iptables, or to one that fails on
//! purpose. Without root the namespaces belong to a user namespace, which only
//! a process without threads can enter: hence a `main` of our own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support outside of #[test] functions: a failure ends the test"
)]

use std::env;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use egress_config::{Diagnostics, List, Port};
use egress_router_init::config::FirewallDriver;
use egress_router_init::firewall::iptables::{MAX_MAPPINGS, Ruleset};
use egress_router_init::firewall::rules::Firewall;
use egress_router_init::firewall::{Count, Driver, Replaced, open};
use egress_router_init::redirect::Redirects;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Set in the process that is one test: its name.
const CASE: &str = "EGRESS_TEST_CASE";

const V4_ONLY: &[&str] = &["192.0.2.10"];
const DUAL: &[&str] = &["192.0.2.10", "2001:db8::10"];

const FEW: &str = "80 tcp 203.0.113.25\n";
const MANY: &str = "80 tcp 203.0.113.25\n\
                    8080 tcp 203.0.113.26 80\n\
                    53 udp 203.0.113.53\n\
                    443 tcp 2001:db8:1::25 8443\n\
                    203.0.113.27\n\
                    2001:db8:1::27\n";

const MANY_FALLBACK_V4: &str = "203.0.113.27";
const MANY_FALLBACK_V6: &str = "2001:db8:1::27";

type Test = fn(&Bench);

/// Those that see what the kernel makes of the rules.
const WITH_EACH_KIND: &[(&str, Test)] = &[
    ("loads_and_goes", loads_and_goes),
    ("ends_like_a_fresh_load", ends_like_a_fresh_load),
    ("ipv6_goes_with_its_source", ipv6_goes_with_its_source),
    ("rules_of_others_stay", rules_of_others_stay),
    ("mappings_keep_their_counters", mappings_keep_their_counters),
    ("what_is_dropped_is_counted", what_is_dropped_is_counted),
];

/// Those about the driver's own steps.
const WITH_ANY_KIND: &[(&str, Test)] = &[
    (
        "a_failure_leaves_the_old_rules",
        a_failure_leaves_the_old_rules,
    ),
    ("an_interruption_is_completed", an_interruption_is_completed),
    ("no_program", no_program),
    ("no_list_too_long", no_list_too_long),
    ("no_ambiguous_interface", no_ambiguous_interface),
    ("golden", golden),
    ("kernel_has_tables", kernel_has_tables),
];

fn main() -> ExitCode {
    if let Ok(case) = env::var(CASE) {
        leave_the_machine();
        let (kind, name) = case.split_once("::").unwrap();
        let tests = WITH_EACH_KIND.iter().chain(WITH_ANY_KIND);
        let (_, test) = tests.into_iter().find(|(n, _)| *n == name).unwrap();
        test(&Bench::new(kind));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for kind in ["nft", "legacy"] {
        if is_installed(kind) && run_case(kind, "kernel_has_tables").is_ok() {
            trials.extend(WITH_EACH_KIND.iter().map(|(name, _)| trial(kind, name)));
        }
    }
    let default = if is_installed("nft") { "nft" } else { "legacy" };
    trials.extend(WITH_ANY_KIND.iter().map(|(name, _)| trial(default, name)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether there is such a kind of iptables. Without any of them the tests
/// fail when they look for one.
fn is_installed(kind: &str) -> bool {
    find_program(&format!("iptables-{kind}")).is_some()
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
}

fn trial(kind: &'static str, name: &'static str) -> Trial {
    Trial::test(format!("{kind}::{name}"), move || run_case(kind, name))
}

/// A test as a process of its own.
fn run_case(kind: &str, name: &str) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("fail"), "0 0\n")?;
    fs::write(folder.path().join("count"), "0\n")?;
    for program in ["iptables", "ip6tables"] {
        let real = find_program(&format!("{program}-{kind}"))
            .ok_or_else(|| format!("{program}-{kind} is not installed"))?;
        let link = folder.path().join(program);
        if name.starts_with("a_failure") || name.starts_with("an_interruption") {
            fs::write(&link, fragile(&real))?;
            fs::set_permissions(&link, fs::Permissions::from_mode(0o755))?;
        } else if name != "no_program" {
            symlink(real, link)?;
        }
    }
    let output = Command::new(env::current_exe()?)
        .env(CASE, format!("{kind}::{name}"))
        .env("PATH", folder.path())
        // Namespaces have no lock in common.
        .env("XTABLES_LOCKFILE", folder.path().join("lock"))
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failed::from(format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// A program that writes down every change, and fails when it is the n-th and
/// the file `fail` says so.
fn fragile(real: &Path) -> String {
    format!(
        r#"#!/bin/sh
folder=${{0%/*}}
case "$*" in
*--version*|*\ -S*) ;;
*)
    read -r count < "$folder/count"
    read -r first last < "$folder/fail"
    count=$((count + 1))
    echo "$count" > "$folder/count"
    echo "$*" >> "$folder/log"
    if [ "$count" -ge "$first" ] && [ "$count" -le "$last" ]; then
        echo "fails on purpose" >&2
        exit 4
    fi ;;
esac
exec {} "$@"
"#,
        real.display()
    )
}

/// Newer kernels are often built without what the legacy kind speaks to.
fn kernel_has_tables(bench: &Bench) {
    for table in ["filter", "nat"] {
        bench.run("iptables", &format!("-t {table} -S"));
        bench.run("ip6tables", &format!("-t {table} -S"));
    }
}

fn loads_and_goes(bench: &Bench) {
    let mut driver = bench.driver();
    assert!(!driver.is_present().unwrap());
    assert!(!driver.remove().unwrap(), "nothing to be removed");
    assert_eq!(
        driver.counters().unwrap_err().to_string(),
        "the router's iptables rules are not there; start the router first"
    );

    let replaced = bench.replace(MANY, DUAL);
    assert_eq!(
        replaced,
        Replaced {
            added: 6,
            removed: 0,
            kept: 0
        }
    );
    assert!(driver.is_present().unwrap());
    let counters = driver.counters().unwrap();
    assert_eq!(counters.mappings.len(), 4);
    assert_eq!(counters.fallbacks.len(), 2);
    assert_eq!(counters.mappings, sorted(counters.mappings.clone()));

    assert!(driver.remove().unwrap());
    assert_eq!(bench.rules(), Vec::<String>::new());
    assert!(!driver.is_present().unwrap());
    assert!(!driver.remove().unwrap());
}

fn ends_like_a_fresh_load(bench: &Bench) {
    bench.replace(MANY, DUAL);
    let fresh = alike(&bench.rules());
    assert_eq!(
        bench.replace(MANY, DUAL),
        Replaced {
            added: 0,
            removed: 0,
            kept: 6
        }
    );
    assert_eq!(alike(&bench.rules()), fresh);
    for round in 1..=20 {
        let last = format!("80 tcp 203.0.113.{round}\n203.0.113.99\n");
        bench.replace(if round == 20 { MANY } else { &last }, DUAL);
    }
    assert_eq!(alike(&bench.rules()), fresh);
}

fn ipv6_goes_with_its_source(bench: &Bench) {
    bench.replace(FEW, V4_ONLY);
    let fresh = alike(&bench.rules());
    assert!(
        fresh
            .iter()
            .any(|rule| rule == "ip6tables -A EGRESS-FORWARD -j DROP"),
        "closed all the same: {fresh:#?}"
    );
    assert!(
        !fresh
            .iter()
            .any(|rule| rule.starts_with("ip6tables") && rule.contains("NAT --to-"))
    );
    bench.replace(MANY, DUAL);
    assert_ne!(alike(&bench.rules()), fresh);
    bench.replace(FEW, V4_ONLY);
    assert_eq!(alike(&bench.rules()), fresh);
}

fn rules_of_others_stay(bench: &Bench) {
    let foreign = [
        "-A INPUT -s 198.51.100.9/32 -j DROP",
        "-A FORWARD -s 198.51.100.9/32 -j others",
        "-A others -j RETURN",
    ];
    bench.iptables("-N others");
    for rule in foreign {
        bench.iptables(rule);
    }
    bench.iptables("-t nat -A PREROUTING -p tcp -m tcp --dport 9 -j RETURN");
    let before = bench.rules();

    bench.replace(MANY, DUAL);
    let mut driver = bench.driver();
    driver.remove().unwrap();
    assert_eq!(bench.rules(), before, "the operator's chain was empty");

    bench.replace(MANY, DUAL);
    bench.iptables("-A EGRESS-ADMIN -d 203.0.113.25/32 -j DROP");
    bench.iptables("-I FORWARD -s 198.51.100.10/32 -j DROP");
    bench.replace(FEW, DUAL);
    let rules = bench.rules();
    let forward = || {
        rules
            .iter()
            .filter(|rule| rule.starts_with("iptables -A FORWARD "))
    };
    assert_eq!(forward().count(), 3);
    assert!(
        forward().next().unwrap().contains("-j EGRESS-FORWARD-"),
        "ours first: {rules:#?}"
    );
    for rule in foreign
        .iter()
        .chain(&["-A EGRESS-ADMIN -d 203.0.113.25/32 -j DROP"])
    {
        assert!(
            rules.contains(&format!("iptables {rule}")),
            "{rule} in {rules:#?}"
        );
    }

    // The operator's rules outlive ours, and are found again.
    assert!(driver.remove().unwrap());
    assert!(!driver.is_present().unwrap());
    let admin = "iptables -A EGRESS-ADMIN -d 203.0.113.25/32 -j DROP";
    assert!(bench.rules().iter().any(|rule| rule == admin));
    bench.replace(FEW, DUAL);
    assert!(bench.rules().iter().any(|rule| rule == admin));
}

/// In IPv4 only: ip6tables 1.8.9 over nf_tables takes no counters, so there
/// they begin anew.
fn mappings_keep_their_counters(bench: &Bench) {
    bench.replace(MANY, DUAL);
    let rules = bench.rules();
    let redirected = rules
        .iter()
        .filter_map(|r| r.strip_prefix("iptables -A EGRESS-REDIRECTED-A "));
    // iptables counts rules from 1.
    for (rule, at) in redirected
        .zip(1..)
        .filter(|(rule, _)| rule.contains("replsrc"))
    {
        bench.iptables(&format!(
            "-R EGRESS-REDIRECTED-A {at} -c {at} {at}000 {rule}"
        ));
    }
    let mut driver = bench.driver();
    let before = driver.counters().unwrap();
    let count = |packets| Count {
        packets,
        bytes: packets * 1000,
    };
    let counts = |port| {
        let mut counts = before
            .mappings
            .iter()
            .filter(|(flow, _)| flow.port.get() == port);
        counts.next().unwrap().1
    };
    assert_eq!(
        [80, 8080, 53, 443].map(counts),
        [count(2), count(3), count(4), count(0)]
    );
    let [fallback, v6] = [MANY_FALLBACK_V4, MANY_FALLBACK_V6].map(|text| text.parse().unwrap());
    assert_eq!(before.fallbacks, [(fallback, count(8)), (v6, count(0))]);

    // Some stay, some go, one comes.
    let list = format!("80 tcp 203.0.113.25\n81 tcp 203.0.113.25\n{MANY_FALLBACK_V4}");
    let replaced = bench.replace(&list, DUAL);
    assert_eq!(
        replaced,
        Replaced {
            added: 1,
            removed: 4,
            kept: 2
        }
    );
    let after = driver.counters().unwrap();
    let mappings: Vec<_> = after
        .mappings
        .iter()
        .map(|(f, count)| (f.port.get(), *count))
        .collect();
    assert_eq!(mappings, [(80, count(2)), (81, count(0))]);
    assert_eq!(after.fallbacks, [(fallback, count(8))]);
}

/// The loopback interface plays the physical network: a datagram to a socket
/// of the pod is dropped there, and counted.
fn what_is_dropped_is_counted(bench: &Bench) {
    bench.loopback_up();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.send_to(b"before", address).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 6);

    let redirects = redirects(FEW);
    let sources = addresses(V4_ONLY);
    let firewall = Firewall {
        egress_interface: "lo",
        ..firewall(&redirects, &sources)
    };
    let mut driver = bench.driver();
    driver.replace(&firewall).unwrap();
    assert_eq!(driver.counters().unwrap().dropped, Count::default());
    // To a port that conntrack has not seen.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"after", other.local_addr().unwrap())
        .unwrap();
    assert_eq!(
        driver.counters().unwrap().dropped,
        Count {
            packets: 1,
            bytes: 20 + 8 + 5
        }
    );
    other.set_nonblocking(true).unwrap();
    assert!(other.recv(&mut buffer).is_err());
}

fn a_failure_leaves_the_old_rules(bench: &Bench) {
    let steps = steps_to_fail_at(bench, FEW, MANY);
    bench.replace(FEW, DUAL);
    let before = bench.rules();
    for command in steps {
        bench.fail(command..=command);
        let error = bench.try_replace(MANY, DUAL).unwrap_err();
        assert!(error.contains("failed: fails on purpose; "), "{error}");
        assert!(error.starts_with("'iptables -t ") || error.starts_with("'ip6tables -t "));
        bench.do_not_fail();
        assert_eq!(bench.rules(), before, "after a failure of change {command}");
    }
    // Where there were none.
    bench.driver().remove().unwrap();
    bench.fail(40..=40);
    bench.try_replace(MANY, DUAL).unwrap_err();
    bench.do_not_fail();
    assert_eq!(bench.rules(), Vec::<String>::new());
}

fn an_interruption_is_completed(bench: &Bench) {
    // In turns, as the other list is in force.
    let lists = [FEW, MANY];
    let steps = [
        steps_to_fail_at(bench, MANY, FEW),
        steps_to_fail_at(bench, FEW, MANY),
    ];
    let fresh = lists.map(|list| {
        bench.replace(list, DUAL);
        alike(&bench.rules())
    });
    let of_both = steps[0]
        .iter()
        .zip(&steps[1])
        .map(|(few, many)| [*few, *many]);
    for (round, commands) in of_both.enumerate() {
        let next = round % 2;
        let command = commands[next];
        bench.fail(command..=usize::MAX >> 1);
        bench.try_replace(lists[next], DUAL).unwrap_err();
        assert_closed(&bench.rules());
        bench.do_not_fail();
        bench.replace(lists[next], DUAL);
        assert_eq!(
            alike(&bench.rules()),
            fresh[next],
            "interrupted at change {command}"
        );
    }
    for command in [1, 30, 70] {
        bench.driver().remove().unwrap();
        bench.fail(command..=usize::MAX >> 1);
        bench.try_replace(MANY, DUAL).unwrap_err();
        bench.do_not_fail();
        bench.replace(MANY, DUAL);
        assert_eq!(
            alike(&bench.rules()),
            fresh[1],
            "interrupted at change {command}"
        );
    }
    // Also by taking everything away.
    bench.fail(70..=usize::MAX >> 1);
    bench.try_replace(FEW, DUAL).unwrap_err();
    bench.do_not_fail();
    assert!(bench.driver().remove().unwrap());
    assert_eq!(bench.rules(), Vec::<String>::new());
}

/// The changes of a replacement of one list by another at which it is
/// interesting to fail: some of those that no packet sees, and some of those
/// that packets see, of every kind.
fn steps_to_fail_at(bench: &Bench, old: &str, new: &str) -> Vec<usize> {
    bench.replace(old, DUAL);
    bench.do_not_fail();
    bench.replace(new, DUAL);
    let log = bench.log();
    let is_jump = |line: &String| line.contains(" -I ") || line.contains(" -D ");
    let first = log.iter().position(is_jump).unwrap() + 1;
    let last = log.iter().rposition(is_jump).unwrap() + 1;
    assert_eq!(
        last - first + 1,
        2 * 2 * 5,
        "two jumps in two families at five hooks: {log:#?}"
    );
    [1, first / 2]
        .into_iter()
        .chain((first..=last).step_by(3))
        .collect()
}

/// What is forwarded goes first through rules that end closed.
#[track_caller]
fn assert_closed(rules: &[String]) {
    for program in ["iptables", "ip6tables"] {
        let last_of = |chain: &str| {
            rules
                .iter()
                .rfind(|rule| rule.starts_with(&format!("{program} -A {chain} ")))
                .unwrap()
        };
        for hook in ["INPUT", "FORWARD"] {
            let prefix = format!("{program} -A {hook} -j ");
            let chain = rules
                .iter()
                .find_map(|rule| rule.strip_prefix(&prefix))
                .unwrap();
            assert!(last_of(chain).ends_with(" -j DROP"), "{rules:#?}");
        }
    }
}

fn no_program(_: &Bench) {
    let error = open(FirewallDriver::Iptables).err().unwrap();
    assert_eq!(
        error.to_string(),
        "EGRESS_FIREWALL=iptables needs the program iptables, which is not in PATH; use an image \
         that contains it, or set EGRESS_FIREWALL=nftables, which needs none"
    );
}

fn no_list_too_long(bench: &Bench) {
    let lines = |count| -> String {
        (1..=count)
            .map(|port| format!("{port} tcp 203.0.113.25\n"))
            .collect()
    };
    let error = bench
        .try_replace(&lines(MAX_MAPPINGS + 1), DUAL)
        .unwrap_err();
    assert_eq!(
        error,
        "EGRESS_FIREWALL=iptables takes at most 1000 redirects, and there are 1001; set \
         EGRESS_FIREWALL=nftables, which takes any number"
    );
    assert_eq!(bench.rules(), Vec::<String>::new());
    let (redirects, sources) = (redirects(&lines(MAX_MAPPINGS)), addresses(DUAL));
    Ruleset::new(&firewall(&redirects, &sources)).unwrap();
}

fn no_ambiguous_interface(_: &Bench) {
    let (redirects, sources) = (redirects(FEW), addresses(DUAL));
    for name in ["net+", "net'1", "\"net1\"", "!"] {
        let firewall = Firewall {
            egress_interface: name,
            ..firewall(&redirects, &sources)
        };
        let error = Ruleset::new(&firewall).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "iptables rules cannot name the interface {name}: "
            )),
            "{error}"
        );
    }
}

fn golden(_: &Bench) {
    for (name, list, sources) in [
        ("iptables_single.txt", FEW, V4_ONLY),
        ("iptables_fallback.txt", MANY, DUAL),
    ] {
        let (redirects, sources) = (redirects(list), addresses(sources));
        let actual = Ruleset::new(&firewall(&redirects, &sources))
            .unwrap()
            .to_string();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &actual).unwrap();
        }
        let golden = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        assert_eq!(actual, golden, "{} differs", path.display());
    }
}

/// A network namespace, and the programs that change it.
struct Bench {
    legacy: bool,
    folder: PathBuf,
}

impl Bench {
    fn new(kind: &str) -> Self {
        let folder = env::var_os("PATH").unwrap().into();
        Self {
            legacy: kind == "legacy",
            folder,
        }
    }

    #[allow(
        clippy::unused_self,
        reason = "the driver works in the namespace of the bench"
    )]
    fn driver(&self) -> Box<dyn Driver> {
        open(FirewallDriver::Iptables).unwrap()
    }

    #[track_caller]
    fn replace(&self, list: &str, sources: &[&str]) -> Replaced {
        self.try_replace(list, sources).unwrap()
    }

    fn try_replace(&self, list: &str, sources: &[&str]) -> Result<Replaced, String> {
        let (redirects, sources) = (redirects(list), addresses(sources));
        let replaced = self.driver().replace(&firewall(&redirects, &sources));
        replaced.map_err(|error| error.to_string())
    }

    fn iptables(&self, arguments: &str) {
        self.run("iptables", arguments);
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &str) -> String {
        let words = arguments.split_whitespace();
        let output = Command::new(program).args(words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All rules and chains in the order in which they stand, by family and
    /// table. Unlike `iptables-save` this needs no root outside.
    fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        for program in ["iptables", "ip6tables"] {
            for table in ["filter", "nat"] {
                let listing = self.run(program, &format!("-t {table} -S"));
                let is_policy = |line: &&str| line.starts_with("-P ");
                rules.extend(
                    listing
                        .lines()
                        .filter(|line| !is_policy(line))
                        .map(|line| format!("{program} {line}")),
                );
            }
        }
        // The legacy kind lists chains in the order of their names.
        if self.legacy {
            rules.sort_by_key(|rule| chain_of(rule));
        }
        rules
    }

    fn loopback_up(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
            netlink.link().set(up).execute().await.unwrap();
        });
    }

    /// The n-th change from now on fails.
    fn fail(&self, changes: RangeInclusive<usize>) {
        self.do_not_fail();
        let range = format!("{} {}\n", changes.start(), changes.end());
        fs::write(self.folder.join("fail"), range).unwrap();
    }

    fn do_not_fail(&self) {
        fs::write(self.folder.join("fail"), "0 0\n").unwrap();
        fs::write(self.folder.join("count"), "0\n").unwrap();
        fs::write(self.folder.join("log"), "").unwrap();
    }

    /// The changes since `do_not_fail`.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("log")).unwrap();
        log.lines().map(str::to_owned).collect()
    }
}

/// The rules without what tells one generation from the other, and by chain.
fn alike(rules: &[String]) -> Vec<String> {
    let mut rules: Vec<String> = rules
        .iter()
        .map(|rule| {
            let words = rule.split(' ').map(|word| match word.strip_suffix("-B") {
                Some(name) if name.starts_with("EGRESS-") => name,
                _ => match word.strip_suffix("-A") {
                    Some(name) if name.starts_with("EGRESS-") => name,
                    _ => word,
                },
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    rules.sort_by_key(|rule| chain_of(rule));
    rules
}

/// Program, kind of line and chain.
fn chain_of(rule: &str) -> Vec<String> {
    rule.split(' ').take(3).map(str::to_owned).collect()
}

fn sorted<T: Ord + Clone, U: Clone>(mut pairs: Vec<(T, U)>) -> Vec<(T, U)> {
    pairs.sort_by_key(|(key, _)| key.clone());
    pairs
}

fn redirects(text: &str) -> Redirects {
    let mut diagnostics = Diagnostics::new();
    let list = List::new("EGRESS_DESTINATION", text);
    let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
    assert!(
        diagnostics.errors().is_empty(),
        "{:?}",
        diagnostics.errors()
    );
    redirects
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn firewall<'a>(redirects: &'a Redirects, sources: &'a [IpAddr]) -> Firewall<'a> {
    const LOCAL_PORTS: &[Port] = &[Port::new(9090).unwrap()];
    Firewall {
        pod_interface: "eth0",
        egress_interface: "net1",
        sources,
        redirects,
        local_ports: LOCAL_PORTS,
        pod_networks: &[],
    }
}

/// Gives this process a network namespace of its own and, when it may not have
/// one as it is, a user namespace in which it is root.
fn leave_the_machine() {
    let (uid, gid) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER).unwrap();
            fs::write("/proc/self/setgroups", "deny").unwrap();
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        }
        Err(errno) => panic!("entering a network namespace: {errno}"),
    }
}
