//! What the egress router refuses, each with its advice and with nothing
//! changed; what it needs no more than; and its subcommands, seen from a shell.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, with the place"
)]

use std::{fs, process::ExitCode};

use egress_lab::{
    Capability, Command, Family, Forwarding, Host, Lab, LabBuilder, LabError, MacvlanMode, Node,
    Output, Protocol, RouterConfig, Snapshot, address,
    harness::{self, TestResult, libtest_mimic::Failed},
    trials,
};
use egress_router_init::state::LINK_GROUP;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};

const V4: &[Family] = &[Family::Ipv4];
const V6: &[Family] = &[Family::Ipv6];
const DUAL: &[Family] = &Family::ALL;

/// An account that has nothing.
const NOBODY: u32 = 65532;

fn main() -> ExitCode {
    harness::run_waiting(
        &["egress-router-init"],
        trials![
            missing_capability,
            two_capabilities_are_enough,
            ipv6_with_proc_sys_read_only_and_forwarding_off,
            ipv6_with_proc_sys_read_only_and_forwarding_on,
            ipv6_off_in_the_pod,
            user_namespace_of_the_pod,
            user_namespace_of_the_pod_with_an_interface,
            parent_is_a_bridge_port,
            parent_has_a_passthru_macvlan,
            parent_is_missing,
            creation_is_off,
            no_node_interface_towards_the_gateway,
            parent_is_down,
            egress_interface_is_missing,
            egress_interface_is_the_pods,
            egress_interface_is_no_ethernet,
            egress_interface_is_ambiguous,
            pod_interface_is_missing,
            interface_of_multus_is_found,
            fallback_devices_are_no_candidates,
            source_is_the_nodes_own,
            source_is_another_nodes,
            names_taken_on_the_node,
            interface_left_under_its_makeshift_name,
            redirects_into_the_cluster_networks,
            redirects_to_a_name_server,
            iptables_is_not_in_the_image,
            admin_port_is_taken,
            plan_without_privilege,
            plan_without_privilege_nor_interface,
            plan_of_ipv6_redirects_as_another_user,
            plan_is_what_is_done,
            plan_for_programs,
            plan_of_the_packet_rules,
            check_without_privilege,
            status_without_privilege,
            status_without_a_router,
            help_and_version,
            unknown_subcommand_and_form,
        ],
    )
}

// --- privileges ---

fn missing_capability() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4);
    for (kept, lacking) in [
        (&[Capability::NET_RAW][..], "NET_ADMIN"),
        (&[Capability::NET_ADMIN], "NET_RAW"),
        (&[], "NET_ADMIN, NET_RAW"),
    ] {
        let manifest = format!("securityContext: {{ capabilities: {{ add: [{lacking}] }} }}");
        for subcommand in [None, Some("undo")] {
            let command = config.command(lab.router_pod())?.capabilities(kept);
            let command = subcommand.into_iter().fold(command, Command::arg);
            let advice = [&format!("lacks the capability {lacking}"), &manifest];
            refuses_command(&lab, command, 77, &advice.map(String::as_str))?;
        }
    }
    Ok(())
}

/// `capabilities: { add: [NET_ADMIN, NET_RAW] }` and nothing else: not
/// privileged, no `hostPID`.
fn two_capabilities_are_enough() -> TestResult {
    let lab = build(&small())?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let config = RouterConfig::new(V4);
    let _ = confined(&config, lab.router_pod())?.run()?.expect(0);
    redirects(&lab, Family::Ipv4)?;
    let before = lab.router_pod().snapshot()?;
    let _ = confined(&config, lab.router_pod())?.run()?.expect(0);
    before.assert_same(&lab.router_pod().snapshot()?);
    Ok(())
}

fn ipv6_with_proc_sys_read_only_and_forwarding_off() -> TestResult {
    let lab = build(&small())?;
    for families in [V6, DUAL] {
        let command = confined(&RouterConfig::new(families), lab.router_pod())?;
        let advice = [
            "IPv6 redirects need net.ipv6.conf.all.forwarding=1",
            "/proc/sys is read-only",
            "spec.securityContext.sysctls",
        ];
        refuses_command(&lab, command, 1, &advice)?;
    }
    Ok(())
}

fn ipv6_with_proc_sys_read_only_and_forwarding_on() -> TestResult {
    let lab = build(&small().pod_forwarding(Forwarding::On))?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let before = settled(&lab)?;
    let config = RouterConfig::new(DUAL);
    let _ = confined(&config, lab.router_pod())?.run()?.expect(0);
    for &family in DUAL {
        redirects(&lab, family)?;
    }
    let undo = confined(&config, lab.router_pod())?.arg("undo");
    let _ = undo.run()?.expect(0);
    before.assert_same(&settled(&lab)?);
    Ok(())
}

fn ipv6_off_in_the_pod() -> TestResult {
    for preset in [false, true] {
        let lab = if preset {
            with_macvlan("macvlan0")?
        } else {
            build(&small())?
        };
        lab.router_pod().netns().sysctl(&[
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            ("net/ipv6/conf/default/disable_ipv6", "1"),
        ])?;
        for families in [V6, DUAL] {
            let advice = [
                "2001:db8:12::99",
                "IPv6 is off",
                "net.ipv6.conf.all.disable_ipv6=0",
            ];
            refuses(&lab, &RouterConfig::new(families), 1, &advice)?;
        }
        let _ = RouterConfig::new(V4).run(lab.router_pod())?.expect(0);
    }
    Ok(())
}

fn user_namespace_of_the_pod() -> TestResult {
    let lab = build(&small().router_in_user_namespace())?;
    let advice = ["hostUsers: false", "Multus: k8s.v1.cni.cncf.io/networks"];
    refuses(&lab, &RouterConfig::new(V4), 1, &advice)
}

fn user_namespace_of_the_pod_with_an_interface() -> TestResult {
    let settings = small()
        .router_in_user_namespace()
        .macvlan("net1", MacvlanMode::Bridge);
    let lab = build(&settings)?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let before = settled(&lab)?;
    let config = RouterConfig::new(DUAL);
    let _ = config.run(lab.router_pod())?.expect(0);
    for &family in DUAL {
        redirects(&lab, family)?;
    }
    let _ = config.run_subcommand(lab.router_pod(), "undo")?.expect(0);
    before.assert_same(&settled(&lab)?);
    Ok(())
}

// --- the parent of the macvlan ---

fn parent_is_a_bridge_port() -> TestResult {
    let lab = build(&small())?;
    let node = lab.node(Node::One).netns();
    node.add_bridge("br0")?;
    node.attach("eth0", "br0")?;
    let advice = ["\"eth0\" is a port of \"br0\"", "EGRESS_MACVLAN_PARENT=br0"];
    let config = RouterConfig::new(V4);
    refuses(&lab, &config, 1, &advice)?;
    refuses(
        &lab,
        &config.clone().with("EGRESS_MACVLAN_PARENT", "eth0"),
        1,
        &advice,
    )?;
    // And the advice is good.
    let _ = config
        .with("EGRESS_MACVLAN_PARENT", "br0")
        .run(lab.router_pod())?
        .expect(0);
    Ok(())
}

fn parent_has_a_passthru_macvlan() -> TestResult {
    let lab = build(&small())?;
    let node = lab.node(Node::One).netns();
    node.add_macvlan("eth0", node, "pass0", MacvlanMode::Passthrough)?;
    let advice = [
        "eth0 already carries a macvlan in passthru mode",
        "EGRESS_MACVLAN_PARENT",
    ];
    refuses(&lab, &RouterConfig::new(V4), 1, &advice)
}

fn parent_is_missing() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4).with("EGRESS_MACVLAN_PARENT", "bond7");
    let advice = [
        "EGRESS_MACVLAN_PARENT",
        "no interface \"bond7\"",
        "there are: ",
        "eth0",
    ];
    refuses(&lab, &config, 1, &advice)
}

fn creation_is_off() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4).with("EGRESS_MACVLAN_PARENT", "off");
    let advice = [
        // What the image that we replace says.
        "Cannot find device \"macvlan0\"",
        "pod.network.openshift.io/assign-macvlan",
        "k8s.v1.cni.cncf.io/networks",
        "unset EGRESS_MACVLAN_PARENT",
    ];
    refuses(&lab, &config, 1, &advice)
}

/// A gateway that no network of the node holds: the wrong one, or the wrong
/// prefix length.
fn no_node_interface_towards_the_gateway() -> TestResult {
    let lab = build(&small())?;
    for (source, gateway) in [
        ("198.51.100.5/24", "198.51.100.1"),
        ("192.168.12.99", "192.168.13.1"),
    ] {
        let config = RouterConfig::new(V4)
            .with("EGRESS_SOURCE", source)
            .with("EGRESS_GATEWAY", gateway);
        let advice = [
            &format!("has the gateway {gateway} in its network"),
            "eth0 192.168.12.11/24",
            "EGRESS_MACVLAN_PARENT",
            "EGRESS_GATEWAY",
        ];
        refuses(&lab, &config, 1, &advice)?;
    }
    Ok(())
}

/// Whoever asks the physical network whether an address is free must be able
/// to.
fn parent_is_down() -> TestResult {
    for preset in [false, true] {
        let lab = if preset {
            with_macvlan("macvlan0")?
        } else {
            build(&small())?
        };
        let before = settled(&lab)?;
        lab.node(Node::One).netns().set_down("eth0")?;
        let config = RouterConfig::new(V4).with("EGRESS_ADDRESS_PROBE", "50ms");
        let output = config.run(lab.router_pod())?.expect(1);
        says(&output, &["macvlan0", "has no carrier", "set its parent"]);
        before.assert_same(&settled(&lab)?);
    }
    Ok(())
}

// --- interfaces of the pod ---

/// One that is named is created under that name, or not at all.
fn egress_interface_is_missing() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4).with("EGRESS_INTERFACE", "lan7");
    let off = config.clone().with("EGRESS_MACVLAN_PARENT", "off");
    refuses(
        &lab,
        &off,
        1,
        &["Cannot find device \"lan7\"", "EGRESS_MACVLAN_PARENT=off"],
    )?;
    let _ = config.run(lab.router_pod())?.expect(0);
    assert!(has_link(lab.router_pod(), "lan7")?);
    Ok(())
}

fn egress_interface_is_the_pods() -> TestResult {
    let lab = with_macvlan("macvlan0")?;
    let config = RouterConfig::new(V4).with("EGRESS_INTERFACE", "eth0");
    let advice = [
        "both \"eth0\"",
        "set EGRESS_INTERFACE or EGRESS_POD_INTERFACE",
    ];
    refuses(&lab, &config, 1, &advice)?;
    let config = RouterConfig::new(V4).with("EGRESS_POD_INTERFACE", "macvlan0");
    refuses(&lab, &config, 1, &["both \"macvlan0\""])?;
    // Of two variables that contradict each other the configuration is bad.
    let config = config.with("EGRESS_INTERFACE", "macvlan0");
    let before = lab.router_pod().snapshot()?;
    let output = config.run(lab.router_pod())?.expect(64);
    assert!(
        output.stderr.contains("EGRESS_INTERFACE"),
        "{}",
        output.stderr
    );
    before.assert_same(&lab.router_pod().snapshot()?);
    Ok(())
}

fn egress_interface_is_no_ethernet() -> TestResult {
    let lab = build(&small())?;
    // Every namespace has one interface that is none: its loopback.
    let netns = lab.router_pod().netns();
    netns.set_down("lo")?;
    let mut name = LinkMessage::default();
    name.header.index = netns.link_index("lo")?;
    name.attributes
        .push(LinkAttribute::IfName("macvlan0".to_owned()));
    netns.set_link("lo", name)?;
    let advice = [
        "\"macvlan0\" is not an Ethernet interface",
        "set EGRESS_INTERFACE",
    ];
    refuses(&lab, &RouterConfig::new(V4), 1, &advice)
}

fn egress_interface_is_ambiguous() -> TestResult {
    let lab = with_macvlan("net1")?;
    lab.add_macvlan(lab.router_pod(), "net2", MacvlanMode::Bridge)?;
    let config = RouterConfig::new(V4);
    refuses(
        &lab,
        &config,
        1,
        &["net1, net2 could each be it", "set EGRESS_INTERFACE"],
    )?;
    let _ = config
        .with("EGRESS_INTERFACE", "net2")
        .run(lab.router_pod())?
        .expect(0);
    assert_eq!(
        lab.router_pod().netns().addresses("net2")?,
        [address::source(Family::Ipv4)]
    );
    assert!(lab.router_pod().netns().addresses("net1")?.is_empty());
    Ok(())
}

fn pod_interface_is_missing() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4).with("EGRESS_POD_INTERFACE", "ens5");
    let advice = [
        "EGRESS_POD_INTERFACE",
        "no interface \"ens5\"",
        "there are: eth0",
    ];
    refuses(&lab, &config, 1, &advice)?;
    // Two interfaces with addresses and no default route to tell them apart.
    let lab = with_macvlan("net1")?;
    let netns = lab.router_pod().netns();
    netns.set_up("net1")?;
    netns.add_address("net1", "192.168.12.77/24".parse()?)?;
    for family in Family::ALL {
        let gateway = lab.cni().gateway(Node::One, family);
        netns.delete_route(&egress_lab::Route::default_via(gateway))?;
    }
    let config = RouterConfig::new(V4);
    refuses(
        &lab,
        &config,
        1,
        &["no default route", "eth0, net1", "set EGRESS_POD_INTERFACE"],
    )?;
    let _ = config
        .with("EGRESS_POD_INTERFACE", "eth0")
        .run(lab.router_pod())?
        .expect(0);
    Ok(())
}

fn interface_of_multus_is_found() -> TestResult {
    let source = address::source(Family::Ipv4);
    for preset in [None, Some(IpNet::new(source, 24)?)] {
        let lab = with_macvlan("net1")?;
        let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
        if let Some(address) = preset {
            lab.router_pod().netns().set_up("net1")?;
            lab.router_pod().netns().add_address("net1", address)?;
        }
        let _ = RouterConfig::new(V4).run(lab.router_pod())?.expect(0);
        assert!(!has_link(lab.router_pod(), "macvlan0")?);
        redirects(&lab, Family::Ipv4)?;
    }
    Ok(())
}

/// `tunl0`, `gretap0`, `dummy0`: modules of the node's kernel put some of them
/// into every namespace.
fn fallback_devices_are_no_candidates() -> TestResult {
    let lab = build(&small())?;
    let pod = lab.router_pod();
    let kinds = [
        InfoKind::IpIp,
        InfoKind::SitTun,
        InfoKind::GreTun,
        InfoKind::GreTap,
        InfoKind::Dummy,
        InfoKind::Ifb,
    ];
    let made: Vec<_> = kinds
        .iter()
        .enumerate()
        .filter(|(number, kind)| make(pod, &format!("fallback{number}"), kind).is_ok())
        .collect();
    assert!(!made.is_empty(), "this kernel has none of {kinds:?}");
    let _ = RouterConfig::new(V4).run(pod)?.expect(0);
    assert!(has_link(pod, "macvlan0")?);
    assert_eq!(
        pod.netns().addresses("macvlan0")?,
        [address::source(Family::Ipv4)]
    );
    Ok(())
}

// --- addresses and names that are taken ---

fn source_is_the_nodes_own() -> TestResult {
    let lab = build(&small())?;
    let node = lab.node(Node::One);
    let mac = node.netns().mac_address("eth0")?;
    let address = node.address(Family::Ipv4).to_string();
    let config = RouterConfig::new(V4).with("EGRESS_SOURCE", &address);
    let advice = [
        "EGRESS_SOURCE",
        &address,
        "belongs to the node itself",
        "eth0",
        &mac,
        "reserve another address",
    ];
    refuses(&lab, &config, 1, &advice)
}

fn source_is_another_nodes() -> TestResult {
    let lab = build(&small())?;
    let node = lab.node(Node::Two);
    let mac = node.netns().mac_address("eth0")?;
    for family in Family::ALL {
        let address = node.address(family).to_string();
        let config = RouterConfig::new(&[family])
            .with("EGRESS_SOURCE", &address)
            .with("EGRESS_ADDRESS_PROBE", "200ms");
        refuses(&lab, &config, 1, &["EGRESS_SOURCE", &address, &mac])?;
    }
    Ok(())
}

/// The names of interfaces in the pod have nothing to do with the node's.
fn names_taken_on_the_node() -> TestResult {
    let lab = build(&small())?;
    let node = lab.node(Node::One);
    for name in ["macvlan0", "egress0"] {
        node.netns()
            .add_macvlan("eth0", node.netns(), name, MacvlanMode::Bridge)?;
    }
    let before = node.snapshot()?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let _ = RouterConfig::new(V4).run(lab.router_pod())?.expect(0);
    assert!(has_link(lab.router_pod(), "macvlan0")?);
    redirects(&lab, Family::Ipv4)?;
    before.assert_same(&node.snapshot()?);
    Ok(())
}

/// As a run leaves it that was killed between making and naming it.
fn interface_left_under_its_makeshift_name() -> TestResult {
    let (lab, fresh) = (build(&small())?, build(&small())?);
    let config = RouterConfig::new(V4);
    let _ = config.run(fresh.router_pod())?.expect(0);
    let pod = lab.router_pod();
    lab.add_macvlan(pod, "egress3", MacvlanMode::Bridge)?;
    let mut group = LinkMessage::default();
    group.header.index = pod.netns().link_index("egress3")?;
    group.attributes.push(LinkAttribute::Group(LINK_GROUP));
    pod.netns().set_link("egress3", group)?;
    let _ = config.run(pod)?.expect(0);
    settled(&fresh)?.assert_same(&settled(&lab)?);
    Ok(())
}

// --- targets that processes of the pod reach by the pod network ---

/// With strict reverse-path filtering, which looks both ways.
fn redirects_into_the_cluster_networks() -> TestResult {
    let lab = build(&small().rp_filter(1).pod_forwarding(Forwarding::On))?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let config = RouterConfig::new(DUAL).with("EGRESS_CLUSTER_CIDRS", everything_outside(&lab));
    let _ = config.run(lab.router_pod())?.expect(0);
    for &family in DUAL {
        redirects(&lab, family)?;
    }
    Ok(())
}

fn redirects_to_a_name_server() -> TestResult {
    let lab = build(&small().rp_filter(1).pod_forwarding(Forwarding::On))?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let servers = DUAL.iter().map(|family| lab.outside(0).address(*family));
    let lines: String = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    let command = RouterConfig::new(DUAL).command(lab.router_pod())?;
    let _ = command.resolv_conf(&lines).run()?.expect(0);
    for &family in DUAL {
        redirects(&lab, family)?;
    }
    Ok(())
}

/// The networks of the outside servers.
fn everything_outside(lab: &Lab) -> String {
    let network = |family: &Family| {
        let length = match family {
            Family::Ipv4 => 24,
            Family::Ipv6 => 64,
        };
        IpNet::new_assert(lab.outside(0).address(*family), length).trunc()
    };
    let networks: Vec<_> = DUAL
        .iter()
        .map(|family| network(family).to_string())
        .collect();
    networks.join(" ")
}

// --- other programs ---

fn iptables_is_not_in_the_image() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4)
        .with("EGRESS_FIREWALL", "iptables")
        .with("PATH", "/nowhere");
    refuses(&lab, &config, 1, &["iptables", "EGRESS_FIREWALL"])
}

fn admin_port_is_taken() -> TestResult {
    let lab = build(&small())?;
    let _server = lab.router_pod().serve(&[(Protocol::Tcp, 9090)])?;
    let config = RouterConfig::new(V4).with("EGRESS_ROUTER_MODE", "legacy");
    refuses(&lab, &config, 1, &["9090", "EGRESS_ADMIN_LISTEN"])
}

// --- plan, check, status ---

fn plan_without_privilege() -> TestResult {
    let settings = small()
        .pod_forwarding(Forwarding::On)
        .macvlan("macvlan0", MacvlanMode::Bridge);
    let lab = build(&settings)?;
    for form in ["", " --output json", " --output nft"] {
        let output =
            unprivileged(&lab, &RouterConfig::new(DUAL), &format!("plan{form}"))?.expect(0);
        assert!(output.stdout.contains("192.168.12.99"), "{}", output.stdout);
        assert_eq!(output.stderr, "");
    }
    Ok(())
}

/// On what the interface would be made cannot be seen without privilege.
fn plan_without_privilege_nor_interface() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4);
    let open = "chosen when it runs: the node interface whose subnet holds 192.168.12.1";
    let create = format!("ip link add macvlan0 link <{open}> netns-of-node type macvlan");
    for (form, parts) in [
        (
            "",
            [
                format!("macvlan0 (to be created; parent: {open})"),
                create.clone(),
            ],
        ),
        (
            " --output json",
            ["\"egress_interface\": \"macvlan0\"".to_owned(), create],
        ),
        (
            " --output nft",
            ["oifname \"macvlan0\"".to_owned(), "203.0.113.26".to_owned()],
        ),
    ] {
        let output = unprivileged(&lab, &config, &format!("plan{form}"))?.expect(0);
        assert_eq!(output.stderr, "");
        for part in parts {
            assert!(
                output.stdout.contains(&part),
                "no {part:?} in\n{}",
                output.stdout
            );
        }
    }
    // What a run refuses, the plan refuses.
    let off = config.with("EGRESS_MACVLAN_PARENT", "off");
    let output = unprivileged(&lab, &off, "plan")?.expect(1);
    says(&output, &["Cannot find device \"macvlan0\""]);
    Ok(())
}

/// Who may not write /proc/sys plans for a container that may, unless nobody
/// may.
fn plan_of_ipv6_redirects_as_another_user() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V6);
    let mut command = config.command(lab.router_pod())?.capabilities(&[]);
    if has_other_users() {
        command = command.uid(NOBODY);
    }
    let output = command.arg("plan").run()?.expect(0);
    let step = "sysctl -w net.ipv6.conf.all.forwarding=1";
    assert!(output.stdout.contains(step), "{}", output.stdout);
    let output = unprivileged(&lab, &config, "plan")?.expect(1);
    says(&output, &["/proc/sys is read-only"]);
    Ok(())
}

/// Nothing is left to do after a run, and only then.
fn plan_is_what_is_done() -> TestResult {
    let lab = build(&small())?;
    let pod = lab.router_pod();
    let config = RouterConfig::new(DUAL);
    let before = pod.snapshot()?;
    let output = config.run_subcommand(pod, "plan")?.expect(0);
    before.assert_same(&pod.snapshot()?);
    for part in [
        "mode              init",
        "pod network       eth0",
        "macvlan0 (to be created on the node's eth0)",
        "192.168.12.99/24 by gateway 192.168.12.1",
        "80/tcp -> 203.0.113.25:80",
        "every other port (IPv6) -> 2001:db8:25::27",
        "ip link add macvlan0 link eth0",
        "ip route replace default via 192.168.12.1 dev macvlan0",
    ] {
        assert!(
            output.stdout.contains(part),
            "no {part:?} in\n{}",
            output.stdout
        );
    }
    let _ = config.run(pod)?.expect(0);
    let output = config.run_subcommand(pod, "plan")?.expect(0);
    let nothing = "none: the network is set up as configured";
    assert!(output.stdout.contains(nothing), "{}", output.stdout);
    Ok(())
}

fn plan_for_programs() -> TestResult {
    let lab = build(&small())?;
    let pod = lab.router_pod();
    let config = RouterConfig::new(V4);
    let plan = || -> Result<serde_json::Value, Failed> {
        let output = config.run_subcommand(pod, "plan --output json")?.expect(0);
        Ok(serde_json::from_str(&output.stdout)?)
    };
    let before = plan()?;
    assert_eq!(before["pod_interface"], "eth0");
    assert_eq!(before["egress_interface"], "macvlan0");
    assert_eq!(before["converged"], false);
    assert!(before["steps"].as_array().unwrap().len() > 10, "{before:#}");
    let _ = config.run(pod)?.expect(0);
    assert_eq!(plan()?["converged"], true);
    Ok(())
}

fn plan_of_the_packet_rules() -> TestResult {
    let lab = build(&small())?;
    let output = RouterConfig::new(V4)
        .run_subcommand(lab.router_pod(), "plan -o nft")?
        .expect(0);
    for part in [
        "table inet egress_router",
        "203.0.113.26",
        "chain admin",
        "oifname \"macvlan0\"",
    ] {
        assert!(
            output.stdout.contains(part),
            "no {part:?} in\n{}",
            output.stdout
        );
    }
    assert_eq!(output.stderr, "");
    Ok(())
}

fn check_without_privilege() -> TestResult {
    let lab = build(&small())?;
    let output = unprivileged(&lab, &RouterConfig::new(DUAL), "check")?.expect(0);
    assert!(
        output
            .stdout
            .contains("mode init, 6 redirects, 2 fallbacks"),
        "{}",
        output.stdout
    );
    assert_eq!(output.stderr, "");
    // A name that nobody reads is a warning, and names the one that is meant.
    let config = RouterConfig::new(V4).with("EGRESS_DESTINATIONS", "80 tcp 203.0.113.25");
    let output = unprivileged(&lab, &config, "check")?.expect(0);
    assert!(output.stderr.starts_with("warning: "), "{}", output.stderr);
    says(&output, &["EGRESS_DESTINATIONS", "EGRESS_DESTINATION"]);
    let config = RouterConfig::new(V4).without("EGRESS_GATEWAY");
    let output = unprivileged(&lab, &config, "check")?.expect(64);
    assert_eq!(
        output.last_error_line(),
        "EGRESS_GATEWAY unspecified or invalid"
    );
    Ok(())
}

fn status_without_privilege() -> TestResult {
    let lab = build(&small())?;
    let config = RouterConfig::new(V4);
    let _ = config.run(lab.router_pod())?.expect(0);
    let output = unprivileged(&lab, &config, "status")?.expect(0);
    for part in [
        "macvlan0 up",
        "192.168.12.99/24",
        "default via 192.168.12.1 dev macvlan0",
        "gateway      192.168.12.1, not asked for: ",
        "NET_RAW",
        "mappings     not shown: ",
        "NET_ADMIN",
    ] {
        assert!(
            output.stdout.contains(part),
            "no {part:?} in\n{}",
            output.stdout
        );
    }
    let output = unprivileged(&lab, &config, "status --output json")?.expect(0);
    let status: serde_json::Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(status["interface"]["name"], "macvlan0");
    let reason = status["firewall"]["Err"].as_str().unwrap_or_default();
    assert!(reason.contains("NET_ADMIN"), "{status:#}");
    Ok(())
}

fn status_without_a_router() -> TestResult {
    let lab = build(&small())?;
    let output = RouterConfig::new(V4)
        .run_subcommand(lab.router_pod(), "status")?
        .expect(0);
    let nothing = "no router was set up in this network namespace";
    assert!(output.stdout.starts_with(nothing), "{}", output.stdout);
    Ok(())
}

// --- the command line ---

fn help_and_version() -> TestResult {
    let lab = build(&small())?;
    let nothing = RouterConfig::new(&[]);
    for arguments in ["--help", "-h", "help"] {
        let output = unprivileged(&lab, &nothing, arguments)?.expect(0);
        for part in [
            "EGRESS_SOURCE",
            "EGRESS_ADDRESS_PROBE",
            "plan",
            "undo",
            "77 missing capability",
        ] {
            assert!(
                output.stdout.contains(part),
                "no {part:?} in\n{}",
                output.stdout
            );
        }
        assert_eq!(output.stderr, "");
    }
    let output = unprivileged(&lab, &nothing, "--version")?.expect(0);
    assert_eq!(
        output.stdout,
        format!("egress-router-init {}\n", env!("CARGO_PKG_VERSION"))
    );
    Ok(())
}

fn unknown_subcommand_and_form() -> TestResult {
    let lab = build(&small())?;
    for (arguments, named) in [
        ("plna", "plna"),
        ("plan --output yaml", "yaml"),
        ("status --output nft", "nft"),
        ("--bogus", "--bogus"),
        ("undo now", "now"),
    ] {
        let output = unprivileged(&lab, &RouterConfig::new(V4), arguments)?.expect(64);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains(named), "{}", output.stderr);
    }
    Ok(())
}

// --- helpers ---

fn small() -> LabBuilder {
    Lab::builder().outside_servers(1)
}

fn build(builder: &LabBuilder) -> Result<Lab, LabError> {
    let lab = builder.build()?;
    lab.router_pod().netns().skip_address_checks()?;
    Ok(lab)
}

fn with_macvlan(name: &str) -> Result<Lab, LabError> {
    build(&small().macvlan(name, MacvlanMode::Bridge))
}

fn settled(lab: &Lab) -> Result<Snapshot, LabError> {
    // The kernel counts how often an interface joined a subnet-router anycast
    // address, and counts differently when forwarding and the address come in
    // another order.
    let anycast = |line: &str| line.contains(" Anycast ");
    Ok(Snapshot::settled(lab.router_pod().netns())?.without(anycast))
}

/// The container of a manifest that grants two capabilities and nothing else.
fn confined(config: &RouterConfig, pod: &Host) -> Result<Command, LabError> {
    Ok(config
        .command(pod)?
        .capabilities(&[Capability::NET_ADMIN, Capability::NET_RAW])
        .read_only_proc_sys()
        .own_pid_namespace())
}

/// Runs a subcommand without any privilege, and sees that it changes nothing.
fn unprivileged(lab: &Lab, config: &RouterConfig, arguments: &str) -> Result<Output, LabError> {
    let pod = lab.router_pod();
    let before = pod.snapshot()?;
    let mut command = config.command(pod)?.capabilities(&[]).read_only_proc_sys();
    if has_other_users() {
        command = command.uid(NOBODY);
    }
    let output = arguments
        .split_whitespace()
        .fold(command, Command::arg)
        .run()?;
    before.assert_same(&pod.snapshot()?);
    Ok(output)
}

/// A user namespace of the unprivileged has one user only.
fn has_other_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) != Some("1")
}

fn refuses(lab: &Lab, config: &RouterConfig, code: i32, advice: &[&str]) -> TestResult {
    refuses_command(lab, config.command(lab.router_pod())?, code, advice)
}

/// Fails with advice, and leaves the pod and its node as they were.
fn refuses_command(lab: &Lab, command: Command, code: i32, advice: &[&str]) -> TestResult {
    let node = lab.node(lab.router_pod().node());
    let before = [settled(lab)?, Snapshot::settled(node.netns())?];
    let output = command.run()?.expect(code);
    says(&output, advice);
    before[0].assert_same(&settled(lab)?);
    before[1].assert_same(&Snapshot::settled(node.netns())?);
    Ok(())
}

/// On the last line of standard error, which is in no log format.
fn says(output: &Output, parts: &[&str]) {
    let last = output.last_error_line();
    for part in parts {
        assert!(
            last.contains(part),
            "no {part:?} in {last:?}\n{}",
            output.stderr
        );
    }
}

/// A client's connection to the router's port 80 arrives outside with the
/// source address.
fn redirects(lab: &Lab, family: Family) -> TestResult {
    let router = lab.router_pod().socket(family, 80);
    for node in Node::ALL {
        let seen = lab.client(node).tcp(router, "hello")?;
        assert_eq!(seen.client.ip(), address::source(family));
        assert_eq!(seen.server, lab.outside(0).socket(family, 80));
    }
    Ok(())
}

fn has_link(host: &Host, name: &str) -> Result<bool, LabError> {
    Ok(host
        .snapshot()?
        .lines("link")
        .any(|line| line.starts_with(&format!("link {name} "))))
}

/// `ip link add NAME type KIND`
fn make(host: &Host, name: &str, kind: &InfoKind) -> std::io::Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind.clone())]),
    ];
    let create = NLM_F_CREATE | NLM_F_EXCL;
    host.netns()
        .netlink(|netlink| netlink.change(Message::NewLink(link), create))
}
