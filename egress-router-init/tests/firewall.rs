//! The packet rules against the real kernel, with nft(8) as the second opinion.
//!
//! What a table is as text is compared to golden files (`UPDATE_GOLDEN=1`
//! writes them anew; then read the difference); what it is in the kernel is
//! compared to what nft makes of that text. Each test has a network namespace
//! of its own; without root they belong to a user namespace, which only a
//! process without threads can enter: hence a `main` of our own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support outside of #[test] functions: a failure ends the test"
)]

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use egress_config::{AddressFamily, Diagnostics, List, Port, Protocol};
use egress_router_init::config::FirewallDriver;
use egress_router_init::firewall::rules::{ADMIN_CHAIN, Firewall, TABLE, flow_set};
use egress_router_init::firewall::table::{
    Chain, Datatype, Hook, Rule, Selector, Set, Statement, Table, Value, dsl,
};
use egress_router_init::firewall::{Counters, Flow, Replaced, open};
use egress_router_init::netlink::conntrack::{Connection, Tracked};
use egress_router_init::netlink::nft::{NftError, NftSocket};
use egress_router_init::netlink::route::RouteSocket;
use egress_router_init::plan::Step;
use egress_router_init::redirect::Redirects;
use ipnet::IpNet;
use libtest_mimic::{Arguments, Trial};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    leave_the_machine();
    let mut trials = vec![
        trial("mappings_keep_their_counters", mappings_keep_their_counters),
        trial(
            "counters_outlive_larger_and_smaller_sets",
            counters_outlive_larger_and_smaller_sets,
        ),
        trial("the_operators_own_rules_stay", the_operators_own_rules_stay),
        trial("tables_of_others_stay", tables_of_others_stay),
        trial(
            "a_set_of_another_kind_is_replaced",
            a_set_of_another_kind_is_replaced,
        ),
        trial("a_list_of_50_000", a_list_of_50_000),
        trial(
            "a_refused_batch_changes_nothing",
            a_refused_batch_changes_nothing,
        ),
        trial("what_is_gone_is_gone", what_is_gone_is_gone),
        trial(
            "a_reload_says_what_it_changed",
            a_reload_says_what_it_changed,
        ),
        trial("a_connection_is_forgotten", a_connection_is_forgotten),
        trial("a_table_that_is_not_ours", a_table_that_is_not_ours),
    ];
    for case in CASES {
        trials.push(trial(format!("golden_{}", case.name), move || golden(case)));
        trials.push(trial(format!("as_nft_makes_{}", case.name), move || {
            as_nft_makes(case);
        }));
        trials.push(trial(format!("any_becomes_{}", case.name), move || {
            any_becomes(case);
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test in a network namespace of its own, which its thread leaves for
/// the next test's.
fn trial(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
        Ok(())
    })
}

/// A configuration whose rules are in a golden file.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    sources: &'static [&'static str],
    redirects: &'static str,
    local_ports: &'static [u16],
    pod_networks: &'static [&'static str],
}

const IPV4: &[&str] = &["192.168.12.99"];
const DUAL: &[&str] = &["192.168.12.99", "2001:db8:12::99"];

const CASES: [Case; 5] = [
    Case {
        name: "documented_example",
        sources: IPV4,
        redirects: "80 tcp 203.0.113.25\n\
                    8080 tcp 203.0.113.26 80\n\
                    8443 tcp 203.0.113.26 443\n\
                    203.0.113.27\n",
        local_ports: &[],
        pod_networks: &[],
    },
    Case {
        name: "dual_stack",
        sources: DUAL,
        redirects: "80 tcp 203.0.113.25\n\
                    53 udp 203.0.113.53 5353\n\
                    53 tcp 203.0.113.53 5353\n\
                    80 tcp 2001:db8:113::25\n\
                    2001:db8:113::27\n",
        local_ports: &[9090],
        pod_networks: &["fd00:10:244:1::/64", "fe80::/64", "ff00::/8"],
    },
    Case {
        name: "fallback_and_local_ports",
        sources: IPV4,
        redirects: "203.0.113.27\n",
        local_ports: &[8080, 9090],
        pod_networks: &[],
    },
    Case {
        name: "no_redirects",
        sources: IPV4,
        redirects: "",
        local_ports: &[8080],
        pod_networks: &["fd00:10:244:1::/64", "fe80::/64", "ff00::/8"],
    },
    Case {
        name: "ipv6_alone",
        sources: &["2001:db8:12::99"],
        redirects: "443 tcp 2001:db8:113::25 8443\n",
        local_ports: &[],
        pod_networks: &["fe80::/64", "ff00::/8"],
    },
];

impl Case {
    fn table(self) -> Table {
        self.with(|firewall| firewall.table())
    }

    /// Puts the case's rules in force, as the router does.
    fn replace(self) -> Replaced {
        let mut driver = open(FirewallDriver::Nftables).unwrap();
        self.with(|firewall| driver.replace(firewall)).unwrap()
    }

    fn with<T>(self, use_it: impl FnOnce(&Firewall<'_>) -> T) -> T {
        let sources: Vec<IpAddr> = self.sources.iter().map(|s| s.parse().unwrap()).collect();
        let pod_networks: Vec<IpNet> = self
            .pod_networks
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        let local_ports: Vec<Port> = self
            .local_ports
            .iter()
            .map(|p| Port::new(*p).unwrap())
            .collect();
        use_it(&Firewall {
            pod_interface: "eth0",
            egress_interface: "macvlan0",
            sources: &sources,
            redirects: &redirects(self.redirects),
            local_ports: &local_ports,
            pod_networks: &pod_networks,
        })
    }
}

fn redirects(lines: &str) -> Redirects {
    let mut diagnostics = Diagnostics::default();
    let list = List::new("EGRESS_DESTINATION", lines);
    let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
    assert!(diagnostics.errors().is_empty(), "{diagnostics}");
    redirects
}

fn golden(case: Case) {
    let actual = case.table().to_string();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("rules_{}.nft", case.name));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let golden = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    assert_eq!(actual, golden, "{} differs", path.display());
}

/// The text, loaded by nft, and the value, loaded by us, are the same rules.
fn as_nft_makes(case: Case) {
    case.replace();
    let ours = ruleset();
    nft_script("flush ruleset");
    assert_eq!(ruleset(), "");
    nft_script(&case.table().to_string());
    assert_same(&ours, &ruleset());
}

/// Whatever rules there were, a replacement leaves those of a fresh start.
fn any_becomes(case: Case) {
    case.replace();
    let fresh = blocks(&ruleset());
    for before in CASES {
        nft_script("flush ruleset");
        before.replace();
        for _ in 0..2 {
            case.replace();
            assert_same(&blocks(&ruleset()), &fresh);
        }
    }
}

/// The sets and chains of a listing in an order that does not depend on which
/// was there first.
fn blocks(listing: &str) -> String {
    let (_, body) = listing.split_once('\n').unwrap();
    let mut blocks: Vec<&str> = body.split("\t}\n").map(str::trim).collect();
    blocks.sort_unstable();
    blocks.join("\n")
}

fn mappings_keep_their_counters() {
    let [documented, ..] = CASES;
    documented.replace();
    count_port_80();
    let without_8080 = Case {
        redirects: "443 tcp 203.0.113.9\n80 tcp 203.0.113.25\n",
        ..documented
    };
    let replaced = without_8080.replace();
    assert_eq!((replaced.added, replaced.removed, replaced.kept), (1, 2, 1));

    let mut driver = open(FirewallDriver::Nftables).unwrap();
    let counters = driver.counters().unwrap();
    assert_eq!(counts(&counters), [(80, 7, 420), (443, 0, 0)]);
    assert_eq!(counters.fallbacks, []);

    // One that comes back starts anew.
    for redirects in ["443 tcp 203.0.113.9\n", without_8080.redirects] {
        Case {
            redirects,
            ..documented
        }
        .replace();
    }
    assert_eq!(
        counts(&driver.counters().unwrap()),
        [(80, 0, 0), (443, 0, 0)]
    );
}

/// Sets are made for a number of elements.
fn counters_outlive_larger_and_smaller_sets() {
    let [documented, ..] = CASES;
    documented.replace();
    count_port_80();
    let mut driver = open(FirewallDriver::Nftables).unwrap();
    let sources = [IpAddr::from(Ipv4Addr::new(192, 168, 12, 99))];
    for (count, replaced) in [
        (300, (300, 2, 1)),
        (10_000, (9_700, 0, 301)),
        (255, (0, 9_745, 256)),
    ] {
        let others = (10_000..10_000 + count).map(|port| format!("{port} tcp 203.0.113.9\n"));
        let lines = format!("80 tcp 203.0.113.25\n{}", others.collect::<String>());
        let Replaced {
            added,
            removed,
            kept,
        } = driver
            .replace(&Firewall {
                pod_interface: "eth0",
                egress_interface: "macvlan0",
                sources: &sources,
                redirects: &redirects(&lines),
                local_ports: &[],
                pod_networks: &[],
            })
            .unwrap();
        assert_eq!((added, removed, kept), replaced);
        let counters = driver.counters().unwrap();
        assert_eq!(counters.mappings.len(), count + 1);
        assert_eq!(counts(&counters)[..2], [(80, 7, 420), (10_000, 0, 0)]);
    }
}

/// As packets of the documented example's first mapping do.
fn count_port_80() {
    nft_script(&format!(
        "add element inet {TABLE} counts4 \
         {{ tcp . 80 . 203.0.113.25 . 80 counter packets 7 bytes 420 }}"
    ));
}

fn counts(counters: &Counters) -> Vec<(u16, u64, u64)> {
    counters
        .mappings
        .iter()
        .map(|(flow, count)| (flow.port.get(), count.packets, count.bytes))
        .collect()
}

/// The operator's chain, and what else their rules use within our table: a
/// chain, a named set, a set without a name.
fn the_operators_own_rules_stay() {
    let [documented, dual, ..] = CASES;
    documented.replace();
    nft_script(&format!(
        "table inet {TABLE} {{
            set blocked {{ type ipv4_addr; elements = {{ 198.51.100.7 }} }}
            chain taken {{
                counter
            }}
        }}
        add rule inet {TABLE} {ADMIN_CHAIN} ip daddr @blocked drop
        add rule inet {TABLE} {ADMIN_CHAIN} tcp dport {{ 22, 23 }} jump taken"
    ));
    let admin = |listing: &str| {
        let (_, rest) = listing.split_once("chain admin {").unwrap();
        rest.split_once('}').map(|(_, rest)| rest).unwrap_or(rest);
        rest.lines().take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = admin(&ruleset());
    for case in [documented, dual, documented] {
        case.replace();
        let listing = ruleset();
        assert_eq!(admin(&listing), before);
        assert!(listing.contains("set blocked {"), "{listing}");
        assert!(listing.contains("chain taken {"), "{listing}");
    }
}

fn tables_of_others_stay() {
    nft_script(
        "table ip nat { chain POSTROUTING { type nat hook postrouting priority srcnat; }; }
         table inet egress_router_too { set flows4 { type ipv4_addr; }; chain admin { accept; }; }
         table ip egress_router { chain forward { drop; }; }",
    );
    let others = ruleset();
    let [documented, ..] = CASES;
    documented.replace();
    let both = ruleset();
    let mut socket = NftSocket::open().unwrap();
    assert!(socket.delete_table(TABLE).unwrap());
    assert_same(&ruleset(), &others);
    assert!(both.starts_with(&others), "{both}");
}

fn a_set_of_another_kind_is_replaced() {
    let [documented, ..] = CASES;
    documented.replace();
    let fresh = ruleset();
    nft_script("flush ruleset");
    nft_script(&format!(
        "table inet {TABLE} {{
            set flows4 {{ type ipv4_addr; elements = {{ 203.0.113.1 }} }}
            map dnat4 {{ type inet_service : ipv4_addr; elements = {{ 80 : 203.0.113.1 }} }}
            set fallback4 {{ type ipv4_addr; elements = {{ 203.0.113.1 }} }}
            chain translate {{
                dnat ip to tcp dport map @dnat4
            }}
            chain redirected {{
                ip daddr @flows4 accept
                ip daddr @fallback4 accept
            }}
        }}"
    ));
    documented.replace();
    assert_same(&blocks(&ruleset()), &blocks(&fresh));
}

fn a_list_of_50_000() {
    const COUNT: u16 = 50_000;
    let [documented, ..] = CASES;
    let lines = |step: usize| -> String {
        let ports = (1..=COUNT).step_by(step);
        ports
            .map(|port| format!("{port} tcp 203.0.113.{} 443\n", port % 250 + 1))
            .collect()
    };
    let load = |lines: &str| {
        let mut driver = open(FirewallDriver::Nftables).unwrap();
        let replaced = documented.with(|firewall| {
            let firewall = Firewall {
                redirects: &redirects(lines),
                ..*firewall
            };
            driver.replace(&firewall).unwrap()
        });
        let flows: Vec<Flow> = driver
            .counters()
            .unwrap()
            .mappings
            .iter()
            .map(|(flow, _)| *flow)
            .collect();
        let mut expected: Vec<Flow> = redirects(lines).mappings().iter().map(Flow::from).collect();
        expected.sort_unstable();
        assert!(
            flows == expected,
            "{} of {} flows",
            flows.len(),
            expected.len()
        );
        (replaced.added, replaced.removed, replaced.kept)
    };
    assert_eq!(load(&lines(1)), (50_000, 0, 0));
    assert_eq!(load(&lines(2)), (0, 25_000, 25_000));
    assert_eq!(load(&lines(1)), (25_000, 0, 25_000));
}

fn a_refused_batch_changes_nothing() {
    let [documented, dual, ..] = CASES;
    documented.replace();
    let before = ruleset();
    let mut broken = dual.table();
    broken.chains.push(Chain::regular(
        "broken",
        vec![Rule::new(vec![dsl::jump("nowhere")])],
    ));
    let mut socket = NftSocket::open().unwrap();
    let error = socket.replace(&broken).unwrap_err();
    assert!(
        error.to_string().starts_with("packet rules: a rule: "),
        "{error}"
    );
    assert_same(&ruleset(), &before);
    // The socket is good for the next one.
    socket.replace(&dual.table()).unwrap();
    assert!(socket.has_set(TABLE, "dnat6").unwrap());
}

fn what_is_gone_is_gone() {
    let [documented, ..] = CASES;
    let mut socket = NftSocket::open().unwrap();
    assert!(!socket.has_table(TABLE).unwrap());
    assert!(!socket.has_set(TABLE, "dnat4").unwrap());
    assert!(!socket.delete_table(TABLE).unwrap());
    documented.replace();
    assert!(socket.has_table(TABLE).unwrap());
    assert!(socket.has_set(TABLE, "dnat4").unwrap());
    assert!(!socket.has_set(TABLE, "dnat6").unwrap());
    assert!(socket.delete_table(TABLE).unwrap());
    assert!(!socket.delete_table(TABLE).unwrap());
    assert_eq!(ruleset(), "");
    let error = socket.element_counts(TABLE, "flows4").unwrap_err();
    assert!(matches!(error, NftError::Refused { .. }), "{error}");
}

fn a_reload_says_what_it_changed() {
    let [documented, ..] = CASES;
    let first = documented.replace();
    assert_eq!((first.added, first.removed, first.kept), (3, 0, 0));
    let same = documented.replace();
    assert_eq!((same.added, same.removed, same.kept), (0, 0, 3));
    let other = Case {
        redirects: "80 tcp 203.0.113.99\n8080 tcp 203.0.113.26 80\n",
        ..documented
    };
    let other = other.replace();
    assert_eq!((other.added, other.removed, other.kept), (1, 2, 1));
}

/// A datagram goes where a map says, and the kernel remembers that.
fn a_connection_is_forgotten() {
    const ASKED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 53), 53);
    const TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 99), 5353);
    let lo = || "lo".to_owned();
    carry_out(&[
        Step::LinkUp { link: lo() },
        Step::AddAddress {
            link: lo(),
            address: "192.0.2.53/32".parse().unwrap(),
        },
        Step::AddAddress {
            link: lo(),
            address: "192.0.2.99/32".parse().unwrap(),
        },
    ]);
    let mut map = Set::new(
        "dnat4",
        &[Datatype::InetProto, Datatype::InetService],
        &[Datatype::Ipv4Addr, Datatype::InetService],
    );
    map.push(
        &[
            Value::Proto(Protocol::Udp.number()),
            Value::Port(ASKED.port()),
        ],
        &[Value::Ipv4(*TARGET.ip()), Value::Port(TARGET.port())],
    );
    let to_map = Statement::DnatMap {
        family: AddressFamily::Ipv4,
        key: vec![Selector::L4proto, Selector::ThDport],
        map: "dnat4".to_owned(),
    };
    let mut socket = NftSocket::open().unwrap();
    let table = Table {
        name: "lab".to_owned(),
        sets: vec![map],
        chains: vec![Chain::base(
            "output",
            Hook::NatOutput,
            vec![Rule::new(vec![to_map])],
        )],
    };
    socket.replace(&table).unwrap();
    let server = UdpSocket::bind(TARGET).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.send_to(b"hello", ASKED).unwrap();
    assert_eq!(server.recv(&mut [0; 8]).unwrap(), 5);
    // One that is not translated is none of ours.
    client.send_to(b"plain", TARGET).unwrap();
    assert_eq!(server.recv(&mut [0; 8]).unwrap(), 5);

    let translated = Tracked::Translated(Connection {
        protocol: Protocol::Udp.number(),
        port: ASKED.port(),
        target: (*TARGET.ip()).into(),
        target_port: TARGET.port(),
    });
    let plain = Tracked::Untranslated {
        address: (*TARGET.ip()).into(),
        protocol: Protocol::Udp.number(),
        port: TARGET.port(),
    };
    let seen = RefCell::new(Vec::new());
    let mut forget = |stale: Option<Tracked>| {
        let is_stale = |tracked: &Tracked| {
            seen.borrow_mut().push(*tracked);
            Some(*tracked) == stale
        };
        let forgotten = socket.forget(is_stale).unwrap();
        (forgotten, seen.take())
    };
    let (forgotten, seen) = forget(Some(translated));
    assert_eq!(forgotten, 1);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(
        seen.contains(&translated) && seen.contains(&plain),
        "{seen:?}"
    );
    assert_eq!(forget(None), (0, vec![plain]));
}

/// Somebody else's base chain hangs where ours should.
fn a_table_that_is_not_ours() {
    nft_script(&format!(
        "table inet {TABLE} {{ chain forward {{ type filter hook input priority 0; }}; }}"
    ));
    let before = ruleset();
    let [documented, ..] = CASES;
    let mut driver = open(FirewallDriver::Nftables).unwrap();
    let error = documented
        .with(|firewall| driver.replace(firewall))
        .unwrap_err();
    assert!(
        error.to_string().starts_with("packet rules: a chain: "),
        "{error}"
    );
    assert_same(&ruleset(), &before);
    assert_eq!(flow_set(AddressFamily::Ipv4), "flows4");
}

fn carry_out(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = RouteSocket::open().unwrap();
        for step in steps {
            socket.change(step).await.unwrap();
        }
    });
}

/// Without counters' values, which are not the same twice.
fn ruleset() -> String {
    let output = nft()
        .args(["-s", "list", "ruleset"])
        .output()
        .unwrap_or_else(|error| missing(&error));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn nft_script(script: &str) {
    let mut child = nft()
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing(&error));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{script}");
}

/// Administrators' programs are not in everybody's path.
fn nft() -> Command {
    let program = ["/usr/sbin/nft", "/sbin/nft"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    Command::new(program.unwrap_or("nft"))
}

fn missing<T>(error: &std::io::Error) -> T {
    panic!("cannot run nft, which these tests compare with (package nftables): {error}")
}

#[track_caller]
fn assert_same(actual: &str, expected: &str) {
    let differs = actual
        .lines()
        .zip(expected.lines())
        .find(|(actual, expected)| actual != expected);
    assert!(
        actual == expected,
        "{differs:?}\n--- actual\n{actual}\n--- expected\n{expected}"
    );
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
