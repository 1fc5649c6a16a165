//! Run it twice: every run of the egress router converges from whatever it
//! finds to the state of a fresh run, `undo` goes back to where the first run
//! started, and a run that fails changes nothing.
#![allow(
    clippy::unwrap_used,
    reason = "tests end at the first surprise, with the place"
)]

use std::{net::IpAddr, process::ExitCode};

use egress_lab::{
    Cni, Family, Host, Lab, LabBuilder, LabError, MacvlanMode, Route, RouterConfig, Snapshot,
    address,
    harness::{
        self, TestResult,
        libtest_mimic::{Failed, Trial},
    },
    trials,
};
use egress_router_init::{
    firewall::table::{Chain, Datatype, Hook, Policy, Rule, Set, Table, dsl},
    netlink::nft::NftSocket,
    state::{POD_TABLE, PROTOCOL, SHELF_TABLE},
};
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteProtocol},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

const V4: &[Family] = &[Family::Ipv4];
const V6: &[Family] = &[Family::Ipv6];
const DUAL: &[Family] = &Family::ALL;
const LABELS: [(&str, &[Family]); 3] = [("v4", V4), ("v6", V6), ("dual", DUAL)];

/// The router's own table of packet rules.
const TABLE: &str = "egress_router";

fn main() -> ExitCode {
    let mut tests = trials![
        ten_times_is_once,
        link_set_down,
        link_deleted,
        table_deleted,
        rules_deleted,
        rules_of_an_earlier_version,
        routes_deleted,
        address_deleted,
        note_deleted,
        macvlan_mode_changed,
        settings_changed,
        half_of_the_table_deleted,
        no_default_route_at_the_start,
        lan_prefix_route_preset_by_the_cni,
        lan_prefix_route_preset_by_hand,
        default_route_moved_by_the_cni,
        default_route_moved_by_multus,
        foreign_rules_and_tables_are_left_alone,
        undo_without_a_router_changes_nothing,
        undo_twice,
        undo_after_several_configurations,
        bad_lines_change_nothing,
        bad_lines_leave_a_router_alone,
        address_conflict_changes_nothing,
        address_conflict_leaves_a_router_alone,
        gateway_that_the_kernel_refuses_changes_nothing,
    ];
    tests.extend(twice());
    tests.extend(starts());
    tests.extend(changes());
    harness::run_waiting(&["egress-router-init"], tests)
}

// --- the same configuration again ---

/// In every CNI style: a second run changes nothing, and `undo` takes all of
/// it back.
fn twice() -> Vec<Trial> {
    let mut tests = Vec::new();
    for cni in Cni::ALL {
        for (label, families) in LABELS {
            let name = format!("twice::{cni}::{label}").replace(' ', "_");
            tests.push(Trial::test(name, move || {
                let lab = build(&small().cni(cni).families(families))?;
                converges_and_goes_away(&lab, &RouterConfig::new(families)).map(drop)
            }));
        }
    }
    tests
}

fn ten_times_is_once() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(DUAL);
    run(&lab, &config)?;
    let once = state(&lab)?;
    for _ in 0..9 {
        run(&lab, &config)?;
    }
    once.assert_same(&state(&lab)?);
    Ok(())
}

// --- what may be there at the start ---

/// How the egress interface is found: as the CNI left it.
#[derive(Debug, Clone, Copy)]
struct Start {
    link: &'static str,
    mode: MacvlanMode,
    up: bool,
    /// Prefix length of an address that is there already: the LAN's, or /32.
    address: Option<fn(Family) -> u8>,
}

fn lan_prefix(family: Family) -> u8 {
    address::lan(family).prefix_len()
}

fn host_prefix(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

fn starts() -> Vec<Trial> {
    let mut tests = Vec::new();
    for up in [false, true] {
        for (address, address_name) in [
            (None, "no_address"),
            (Some(lan_prefix as fn(Family) -> u8), "lan_address"),
            (Some(host_prefix), "host_address"),
        ] {
            for (link, mode, mode_name, labels) in [
                ("macvlan0", MacvlanMode::Private, "private", &LABELS[..]),
                ("macvlan0", MacvlanMode::Bridge, "bridge", &LABELS[2..]),
                ("net1", MacvlanMode::Private, "private", &LABELS[2..]),
            ] {
                for (label, families) in labels {
                    let start = Start {
                        link,
                        mode,
                        up,
                        address,
                    };
                    let up = if up { "up" } else { "down" };
                    let name = format!("start::{link}::{mode_name}::{up}::{address_name}::{label}");
                    tests.push(Trial::test(name, move || starts_from(start, families)));
                }
            }
        }
    }
    tests
}

fn starts_from(start: Start, families: &[Family]) -> TestResult {
    let lab = build(&small().macvlan(start.link, start.mode))?;
    prepare(&lab, start, families)?;
    // An address with another length than ours keeps it, and is one of the
    // things that a fresh run finds.
    let fresh_lab = build(&small().macvlan(start.link, MacvlanMode::Bridge))?;
    let unlike = start
        .address
        .filter(|length| families.iter().any(|f| length(*f) != lan_prefix(*f)));
    if unlike.is_some() || start.up {
        prepare(
            &fresh_lab,
            Start {
                mode: MacvlanMode::Bridge,
                ..start
            },
            families,
        )?;
    }
    let config = RouterConfig::new(families);
    run(&fresh_lab, &config)?;
    let fresh = state(&fresh_lab)?;
    let end = converges_and_goes_away(&lab, &config)?;
    without_note(&fresh).assert_same(&without_note(&end));
    Ok(())
}

fn prepare(lab: &Lab, start: Start, families: &[Family]) -> TestResult {
    let netns = lab.router_pod().netns();
    if start.up {
        netns.set_up(start.link)?;
    }
    if let Some(length) = start.address {
        for &family in families {
            let address = IpNet::new(address::source(family), length(family))?;
            netns.add_address(start.link, address)?;
        }
    }
    netns.await_carrier()?;
    Ok(())
}

// --- another configuration before ---

type Change = (&'static str, fn() -> RouterConfig, fn() -> RouterConfig);

const CHANGES: [Change; 14] = [
    (
        "other_source",
        || v4("EGRESS_SOURCE", "192.168.12.98/24"),
        plain_v4,
    ),
    (
        "longer_prefix",
        || v4("EGRESS_SOURCE", "192.168.12.99/24"),
        || v4("EGRESS_SOURCE", "192.168.12.99"),
    ),
    (
        "shorter_prefix",
        || v4("EGRESS_SOURCE", "192.168.12.99"),
        plain_v4,
    ),
    (
        "other_source_and_prefix",
        || v4("EGRESS_SOURCE", "192.168.12.98/25"),
        plain_v4,
    ),
    (
        "other_gateway",
        || v4("EGRESS_GATEWAY", "192.168.12.2"),
        plain_v4,
    ),
    (
        "gateway_outside_the_subnet",
        || v4("EGRESS_SOURCE", "192.168.12.99/27"),
        plain_v4,
    ),
    (
        "other_mappings",
        || {
            v4(
                "EGRESS_DESTINATION",
                "80 tcp 203.0.113.7\n81 udp 203.0.113.8 9",
            )
        },
        plain_v4,
    ),
    (
        "no_fallback",
        || v4("EGRESS_DESTINATION", "80 tcp 203.0.113.25"),
        plain_v4,
    ),
    (
        "cluster_networks",
        || v4("EGRESS_CLUSTER_CIDRS", "10.244.0.0/16 10.96.0.0/16"),
        plain_v4,
    ),
    ("proxy_mode", proxy, plain_v4),
    ("to_proxy_mode", plain_v4, proxy),
    ("v4_to_dual", plain_v4, || RouterConfig::new(DUAL)),
    (
        "dual_to_v6",
        || RouterConfig::new(DUAL),
        || RouterConfig::new(V6),
    ),
    ("v6_to_v4", || RouterConfig::new(V6), plain_v4),
];

fn plain_v4() -> RouterConfig {
    RouterConfig::new(V4)
}

fn v4(name: &str, value: &str) -> RouterConfig {
    plain_v4().with(name, value)
}

fn proxy() -> RouterConfig {
    plain_v4()
        .with("EGRESS_ROUTER_MODE", "http-proxy")
        .without("EGRESS_DESTINATION")
}

/// What kind of egress interface the pod has.
#[derive(Debug, Clone, Copy)]
enum Interface {
    Created,
    Preset { up: bool },
}

fn changes() -> Vec<Trial> {
    let mut tests = Vec::new();
    for (name, before, after) in CHANGES {
        for (label, interface) in [
            ("created", Interface::Created),
            ("preset_down", Interface::Preset { up: false }),
            ("preset_up", Interface::Preset { up: true }),
        ] {
            let is_about_addresses = name.contains("source") || name.contains("_to_");
            if label == "preset_up" && !is_about_addresses {
                continue;
            }
            tests.push(Trial::test(format!("change::{name}::{label}"), move || {
                changed_configuration(interface, &before(), &after())
            }));
        }
    }
    tests
}

fn changed_configuration(
    interface: Interface,
    before: &RouterConfig,
    after: &RouterConfig,
) -> TestResult {
    let (lab, fresh_lab) = (with_interface(interface)?, with_interface(interface)?);
    run(&fresh_lab, after)?;
    let fresh = state(&fresh_lab)?;
    let start = state(&lab)?;
    run(&lab, before)?;
    run(&lab, after)?;
    let end = state(&lab)?;
    without_note(&fresh).assert_same(&without_note(&end));
    undo(&lab, after)?;
    start.assert_same(&state(&lab)?);
    Ok(())
}

fn with_interface(interface: Interface) -> Result<Lab, Failed> {
    Ok(match interface {
        Interface::Created => build(&small())?,
        Interface::Preset { up } => {
            let lab = build(&small().macvlan("macvlan0", MacvlanMode::Private))?;
            if up {
                lab.router_pod().netns().set_up("macvlan0")?;
                lab.router_pod().netns().await_carrier()?;
            }
            lab
        }
    })
}

// --- what somebody undid by hand ---

/// Damages a router that runs: the next run puts back what a fresh one makes.
fn repairs(config: &RouterConfig, damage: impl Fn(&Lab) -> TestResult) -> TestResult {
    for interface in [Interface::Created, Interface::Preset { up: false }] {
        let lab = with_interface(interface)?;
        let start = state(&lab)?;
        run(&lab, config)?;
        let whole = state(&lab)?;
        damage(&lab)?;
        let damaged = state(&lab)?;
        assert_ne!(whole.difference(&damaged), "", "no damage was done");
        run(&lab, config)?;
        without_note(&whole).assert_same(&without_note(&state(&lab)?));
        undo(&lab, config)?;
        start.assert_same(&state(&lab)?);
    }
    Ok(())
}

fn link_set_down() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        Ok(lab.router_pod().netns().set_down("macvlan0")?)
    })
}

fn table_deleted() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        let deleted = lab
            .router_pod()
            .netns()
            .run(|| NftSocket::open().and_then(|mut nft| nft.delete_table(TABLE)));
        assert!(deleted?, "the table was there");
        Ok(())
    })
}

/// Rules and mappings deleted from a table that stays.
fn half_of_the_table_deleted() -> TestResult {
    let empty = Table {
        name: TABLE.to_owned(),
        sets: vec![Set::new(
            "dnat4",
            &[Datatype::InetProto, Datatype::InetService],
            &[Datatype::Ipv4Addr, Datatype::InetService],
        )],
        chains: vec![Chain::base(
            "forward",
            Hook::FilterForward(Policy::Drop),
            Vec::new(),
        )],
    };
    repairs(&RouterConfig::new(DUAL), |lab| {
        let replaced = lab
            .router_pod()
            .netns()
            .run(|| NftSocket::open().and_then(|mut nft| nft.replace(&empty)));
        assert!(
            !replaced?.iter().all(|set| set.removed.is_empty()),
            "no mapping was deleted"
        );
        Ok(())
    })
}

fn rules_deleted() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        for rule in own_rules(lab)? {
            change(lab, Message::DelRule(rule))?;
        }
        Ok(())
    })
}

/// They were for what is forwarded too.
fn rules_of_an_earlier_version() -> TestResult {
    let networks = "10.0.0.0/8 fd00:10::/32";
    let config = RouterConfig::new(DUAL).with("EGRESS_CLUSTER_CIDRS", networks);
    repairs(&config, |lab| {
        let local = RuleAttribute::Iifname("lo".to_owned());
        let mut rules = own_rules(lab)?;
        rules.retain(|rule| rule.attributes.contains(&local));
        assert_eq!(rules.len(), 2 * DUAL.len(), "{rules:?}");
        for mut rule in rules {
            change(lab, Message::DelRule(rule.clone()))?;
            rule.attributes.retain(|attribute| *attribute != local);
            change(lab, Message::NewRule(rule))?;
        }
        Ok(())
    })
}

/// The router's rules, of both families.
fn own_rules(lab: &Lab) -> std::io::Result<Vec<RuleMessage>> {
    let ours = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut all = RuleMessage::default();
        all.header.family = family;
        for rule in dump(lab, Message::GetRule(all))? {
            match rule {
                Message::NewRule(rule) if rule.attributes.contains(&ours) => rules.push(rule),
                _ => {}
            }
        }
    }
    Ok(rules)
}

fn routes_deleted() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            for route in dump(lab, Message::GetRoute(all))? {
                let Message::NewRoute(route) = route else {
                    continue;
                };
                let is_ours = route.header.protocol == RouteProtocol::from(PROTOCOL)
                    || route.attributes.contains(&RouteAttribute::Table(POD_TABLE))
                        // The pod's default route is nowhere else.
                        && route.header.destination_prefix_length > 0;
                if is_ours {
                    change(lab, Message::DelRoute(route))?;
                }
            }
        }
        Ok(())
    })
}

fn address_deleted() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        for family in Family::ALL {
            let address = IpNet::new(address::source(family), lan_prefix(family))?;
            lab.router_pod()
                .netns()
                .delete_address("macvlan0", address)?;
        }
        Ok(())
    })
}

fn macvlan_mode_changed() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        let mut message = LinkMessage::default();
        message.header.index = lab.router_pod().netns().link_index("macvlan0")?;
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                MacvlanMode::Private,
            )])),
        ])];
        // The kernel's word for it is that of a new link that is there.
        Ok(change(lab, Message::NewLink(message))?)
    })
}

fn settings_changed() -> TestResult {
    repairs(&RouterConfig::new(DUAL), |lab| {
        lab.router_pod().netns().sysctl(&[
            ("net/ipv4/conf/macvlan0/arp_ignore", "0"),
            ("net/ipv4/conf/macvlan0/arp_announce", "0"),
            ("net/ipv4/conf/macvlan0/forwarding", "0"),
            ("net/ipv4/conf/eth0/forwarding", "0"),
            ("net/ipv6/conf/macvlan0/accept_ra", "1"),
            ("net/ipv6/conf/macvlan0/autoconf", "1"),
            ("net/ipv6/conf/all/forwarding", "0"),
        ])?;
        Ok(())
    })
}

/// Only of an interface that we made: there nothing depends on the note.
fn note_deleted() -> TestResult {
    let (lab, config) = (build(&small())?, RouterConfig::new(V4));
    let start = state(&lab)?;
    run(&lab, &config)?;
    let whole = state(&lab)?;
    clear_alias(&lab, "macvlan0")?;
    assert_ne!(whole.difference(&state(&lab)?), "");
    run(&lab, &config)?;
    without_note(&whole).assert_same(&without_note(&state(&lab)?));
    clear_alias(&lab, "macvlan0")?;
    undo(&lab, &config)?;
    // What the settings of the pod's own interface were is lost with the note.
    let setting = |line: &str| line.starts_with("sysctl net/ipv4/conf/eth0/forwarding ");
    start
        .without(setting)
        .assert_same(&state(&lab)?.without(setting));
    Ok(())
}

fn link_deleted() -> TestResult {
    let (lab, config) = (build(&small())?, RouterConfig::new(DUAL));
    let start = state(&lab)?;
    run(&lab, &config)?;
    let whole = state(&lab)?;
    lab.router_pod().netns().delete_link("macvlan0")?;
    run(&lab, &config)?;
    without_note(&whole).assert_same(&without_note(&state(&lab)?));
    undo(&lab, &config)?;
    // The note went with the interface, and with it what the settings of the
    // namespace were.
    let setting = |line: &str| line.starts_with("sysctl ") && line.contains("forwarding = ");
    start
        .without(setting)
        .assert_same(&state(&lab)?.without(setting));
    Ok(())
}

// --- other people's routes, rules and tables ---

fn no_default_route_at_the_start() -> TestResult {
    for cni in [Cni::DefaultRoute, Cni::OpenShift] {
        let lab = build(&small().cni(cni))?;
        let pod = lab.router_pod();
        for family in Family::ALL {
            let gateway = cni.gateway(pod.node(), family);
            pod.netns().delete_route(&Route::default_via(gateway))?;
        }
        converges_and_goes_away(&lab, &RouterConfig::new(DUAL))?;
    }
    Ok(())
}

/// The CNI gave the interface its address, and the kernel the prefix route.
fn lan_prefix_route_preset_by_the_cni() -> TestResult {
    let lab = build(&small().macvlan("net1", MacvlanMode::Bridge))?;
    let start = Start {
        link: "net1",
        mode: MacvlanMode::Bridge,
        up: true,
        address: Some(lan_prefix),
    };
    prepare(&lab, start, DUAL)?;
    let end = converges_and_goes_away(&lab, &RouterConfig::new(DUAL))?;
    let kernel_route = "192.168.12.0/24 src 192.168.12.99 dev net1 proto Kernel";
    assert!(end.to_string().contains(kernel_route), "{end}");
    Ok(())
}

/// A prefix route without an address to it.
fn lan_prefix_route_preset_by_hand() -> TestResult {
    let config = RouterConfig::new(DUAL);
    let build = || -> Result<Lab, LabError> {
        let lab = build(&small().macvlan("macvlan0", MacvlanMode::Private))?;
        lab.router_pod().netns().set_up("macvlan0")?;
        lab.router_pod().netns().await_carrier()?;
        Ok(lab)
    };
    let (lab, fresh_lab) = (build()?, build()?);
    for family in Family::ALL {
        let route = Route::to(address::lan(family)).dev("macvlan0");
        lab.router_pod().netns().add_route(&route)?;
    }
    run(&fresh_lab, &config)?;
    let fresh = state(&fresh_lab)?;
    let end = converges_and_goes_away(&lab, &config)?;
    // The route waits on a shelf for `undo`.
    let shelf = |line: &str| line.contains(&format!(" table {SHELF_TABLE} "));
    without_note(&fresh).assert_same(&without_note(&end).without(shelf));
    Ok(())
}

/// As OpenShift's SDN leaves it to the image, but done before us.
fn default_route_moved_by_the_cni() -> TestResult {
    default_route_moved("macvlan0")
}

/// `default-route` of Multus' annotation.
fn default_route_moved_by_multus() -> TestResult {
    default_route_moved("net1")
}

fn default_route_moved(link: &str) -> TestResult {
    for cni in Cni::ALL {
        let lab = build(&small().cni(cni).macvlan(link, MacvlanMode::Bridge))?;
        let pod = lab.router_pod();
        let netns = pod.netns();
        netns.set_up(link)?;
        for family in Family::ALL {
            let address = IpNet::new(address::source(family), lan_prefix(family))?;
            netns.add_address(link, address)?;
            let here = cni.gateway(pod.node(), family);
            netns.delete_route(&Route::default_via(here).dev("eth0"))?;
            netns.add_route(&Route::default_via(address::gateway(family)).dev(link))?;
        }
        netns.await_carrier()?;
        let end = converges_and_goes_away(&lab, &RouterConfig::new(DUAL))?;
        let rule = format!("lookup 6900 proto Other({PROTOCOL}) iif {link} ");
        assert!(
            end.lines("rule").any(|line| line.contains(&rule)),
            "no {rule} in\n{end}"
        );
    }
    Ok(())
}

fn foreign_rules_and_tables_are_left_alone() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(DUAL);
    let pod = lab.router_pod();
    let foreign = Table {
        name: "mesh".to_owned(),
        sets: Vec::new(),
        chains: vec![
            Chain::regular("marks", vec![Rule::new(vec![dsl::oifname("eth0")])]),
            Chain::base(
                "output",
                Hook::NatOutput,
                vec![Rule::new(vec![dsl::jump("marks")])],
            ),
        ],
    };
    let replaced = pod
        .netns()
        .run(|| NftSocket::open().and_then(|mut nft| nft.replace(&foreign)));
    replaced?;
    for (family, source) in [
        (AddressFamily::Inet, "192.0.2.0"),
        (AddressFamily::Inet6, "2001:db8:99::"),
    ] {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.action = RuleAction::ToTable;
        rule.header.src_len = 24;
        rule.attributes = vec![
            RuleAttribute::Source(source.parse()?),
            // Among ours by its number, but not of ours.
            RuleAttribute::Priority(6900),
            RuleAttribute::Table(77),
        ];
        change(&lab, Message::NewRule(rule))?;
    }
    for family in Family::ALL {
        let route = Route::to(address::outside(family)).dev("eth0").table(77);
        pod.netns().add_route(&route)?;
    }
    let mine = |snapshot: &Snapshot| -> Vec<String> {
        snapshot
            .to_string()
            .lines()
            .filter(|line| {
                line.contains("mesh") || line.contains("table 77") || line.contains("lookup 77")
            })
            .map(str::to_owned)
            .collect()
    };
    let before = mine(&state(&lab)?);
    assert!(before.len() >= 9, "{before:#?}");
    let end = converges_and_goes_away(&lab, &config)?;
    assert_eq!(before, mine(&end));
    Ok(())
}

// --- undo ---

fn undo_without_a_router_changes_nothing() -> TestResult {
    for lab in [
        build(&small())?,
        build(&small().macvlan("macvlan0", MacvlanMode::Private))?,
    ] {
        let before = state(&lab)?;
        undo(&lab, &RouterConfig::new(DUAL))?;
        before.assert_same(&state(&lab)?);
    }
    Ok(())
}

fn undo_twice() -> TestResult {
    let (lab, config) = (build(&small())?, RouterConfig::new(DUAL));
    let before = state(&lab)?;
    run(&lab, &config)?;
    for _ in 0..2 {
        undo(&lab, &config)?;
        before.assert_same(&state(&lab)?);
    }
    Ok(())
}

/// And with the alias that somebody gave the interface.
fn undo_after_several_configurations() -> TestResult {
    let lab = build(&small().macvlan("macvlan0", MacvlanMode::Private))?;
    set_alias(&lab, "macvlan0", "uplink of the shop")?;
    let before = state(&lab)?;
    assert_eq!(before.lines("alias").count(), 1);
    for config in [
        proxy(),
        v4("EGRESS_SOURCE", "192.168.12.98"),
        RouterConfig::new(V6),
        RouterConfig::new(DUAL),
        plain_v4(),
        RouterConfig::new(DUAL),
    ] {
        run(&lab, &config)?;
    }
    undo(&lab, &RouterConfig::new(V4))?;
    before.assert_same(&state(&lab)?);
    Ok(())
}

// --- runs that fail ---

const BAD_LIST: &str = "80 tcp 203.0.113.25\n\
                        99999 tcp 203.0.113.26\n\
                        # a comment\n\
                        8080 icmp 203.0.113.26\n\
                        8443 tcp 203.0.113.26 443";

fn bad_lines_change_nothing() -> TestResult {
    for interface in [Interface::Created, Interface::Preset { up: false }] {
        let lab = with_interface(interface)?;
        refuses_bad_lines(&lab)?;
    }
    Ok(())
}

fn bad_lines_leave_a_router_alone() -> TestResult {
    let lab = build(&small())?;
    run(&lab, &RouterConfig::new(DUAL))?;
    refuses_bad_lines(&lab)
}

fn refuses_bad_lines(lab: &Lab) -> TestResult {
    let node = lab.node(lab.router_pod().node());
    let before = [state(lab)?, node.snapshot()?];
    let config = v4("EGRESS_DESTINATION", BAD_LIST);
    for output in [
        config.run(lab.router_pod())?,
        config
            .clone()
            .with("EGRESS_ROUTER_MODE", "legacy")
            .run(lab.router_pod())?,
        config.run_subcommand(lab.router_pod(), "check")?,
        config.run_subcommand(lab.router_pod(), "plan")?,
    ] {
        let output = output.expect(64);
        assert_eq!(output.stdout, "");
        for part in [
            "EGRESS_DESTINATION line 2: '99999 tcp 203.0.113.26'",
            "EGRESS_DESTINATION line 4: '8080 icmp 203.0.113.26'",
        ] {
            assert!(
                output.stderr.contains(part),
                "no {part} in\n{}",
                output.stderr
            );
        }
        assert!(!output.stderr.contains("line 1:"), "{}", output.stderr);
        // What the image that we replace says, of the first bad line.
        let sentence = "Invalid port: 99999, must be in the range 1 to 65535";
        assert_eq!(output.last_error_line(), sentence);
    }
    let after = [state(lab)?, node.snapshot()?];
    for (before, after) in before.iter().zip(&after) {
        before.assert_same(after);
    }
    Ok(())
}

fn address_conflict_changes_nothing() -> TestResult {
    for families in [V4, V6, DUAL] {
        for interface in [
            Interface::Created,
            Interface::Preset { up: false },
            Interface::Preset { up: true },
        ] {
            let mut lab = with_interface(interface)?;
            let squatter = squat(&mut lab, families)?;
            refuses_taken_address(&lab, &RouterConfig::new(families), &squatter)?;
        }
    }
    Ok(())
}

fn address_conflict_leaves_a_router_alone() -> TestResult {
    let mut lab = build(&small())?;
    run(&lab, &v4("EGRESS_SOURCE", "192.168.12.98"))?;
    let squatter = squat(&mut lab, DUAL)?;
    refuses_taken_address(&lab, &RouterConfig::new(DUAL), &squatter)
}

/// Somebody else who has the source address of the last family: the others
/// find theirs free.
fn squat(lab: &mut Lab, families: &[Family]) -> Result<Host, LabError> {
    let taken: Vec<IpAddr> = families
        .last()
        .map(|f| address::source(*f))
        .into_iter()
        .collect();
    lab.add_lan_host("squatter", &taken)
}

fn refuses_taken_address(lab: &Lab, config: &RouterConfig, squatter: &Host) -> TestResult {
    let before = state(lab)?;
    let output = config
        .clone()
        .with("EGRESS_ADDRESS_PROBE", "100ms")
        .run(lab.router_pod())?;
    let output = output.expect(1);
    let mac = squatter.netns().mac_address("eth0")?;
    assert!(
        output.last_error_line().contains(&mac),
        "no {mac} in {}",
        output.stderr
    );
    before.assert_same(&state(lab)?);
    Ok(())
}

/// A next hop that is the broadcast address of the network that the CNI gave
/// the interface: the kernel refuses it late, when all but the way out is
/// made.
fn gateway_that_the_kernel_refuses_changes_nothing() -> TestResult {
    for up in [false, true] {
        let lab = with_interface(Interface::Preset { up })?;
        let address = "192.168.12.99/26".parse()?;
        lab.router_pod().netns().add_address("macvlan0", address)?;
        let before = state(&lab)?;
        let output = v4("EGRESS_GATEWAY", "192.168.12.127")
            .run(lab.router_pod())?
            .expect(1);
        let last = output.last_error_line();
        for part in ["192.168.12.127", "EGRESS_GATEWAY"] {
            assert!(last.contains(part), "no {part} in {last}");
        }
        before.assert_same(&state(&lab)?);
    }
    Ok(())
}

// --- helpers ---

/// Nothing here sends traffic, so one outside server will do.
fn small() -> LabBuilder {
    Lab::builder().outside_servers(1)
}

fn build(builder: &LabBuilder) -> Result<Lab, LabError> {
    let lab = builder.build()?;
    lab.router_pod().netns().skip_address_checks()?;
    Ok(lab)
}

/// Without subnet-router anycast addresses: the kernel counts how often an
/// interface joined one, and counts differently when forwarding, the address
/// and the carrier come in another order.
fn state(lab: &Lab) -> Result<Snapshot, LabError> {
    let anycast = |line: &str| line.contains(" Anycast ");
    Ok(Snapshot::settled(lab.router_pod().netns())?.without(anycast))
}

fn run(lab: &Lab, config: &RouterConfig) -> TestResult {
    let _ = config.run(lab.router_pod())?.expect(0);
    Ok(())
}

fn undo(lab: &Lab, config: &RouterConfig) -> TestResult {
    let _ = config.run_subcommand(lab.router_pod(), "undo")?.expect(0);
    Ok(())
}

/// Runs, runs again without any change, and undoes; returns the state between.
fn converges_and_goes_away(lab: &Lab, config: &RouterConfig) -> Result<Snapshot, Failed> {
    let before = state(lab)?;
    run(lab, config)?;
    let end = state(lab)?;
    assert_ne!(before.difference(&end), "", "the router did nothing");
    run(lab, config)?;
    end.assert_same(&state(lab)?);
    undo(lab, config)?;
    before.assert_same(&state(lab)?);
    Ok(end)
}

/// A state without what the router noted: that tells where it came from.
fn without_note(snapshot: &Snapshot) -> Snapshot {
    snapshot.without(|line| line.starts_with("alias "))
}

fn clear_alias(lab: &Lab, link: &str) -> TestResult {
    set_alias(lab, link, "")
}

fn set_alias(lab: &Lab, link: &str, alias: &str) -> TestResult {
    /// The crate's own attribute has a closing NUL, which is no empty alias.
    const IFLA_IFALIAS: u16 = 20;
    let mut message = rtnetlink::LinkUnspec::new_with_name(link).build();
    message
        .attributes
        .push(LinkAttribute::Other(DefaultNla::new(
            IFLA_IFALIAS,
            alias.into(),
        )));
    Ok(lab.router_pod().netns().set_link(link, message)?)
}

fn dump(lab: &Lab, request: Message) -> std::io::Result<Vec<Message>> {
    lab.router_pod()
        .netns()
        .netlink(|netlink| netlink.dump(request))
}

fn change(lab: &Lab, request: Message) -> std::io::Result<()> {
    const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
    let flags = if matches!(request, Message::NewRule(_)) {
        CREATE
    } else {
        0
    };
    lab.router_pod()
        .netns()
        .netlink(|netlink| netlink.change(request, flags))
}
