//! Single cases, each with what it is about.

use egress_config::AddressFamily;

use super::fixture::{NODE, Pod, SIMPLE, config, ip, net, node, simple_with};
use super::kernel::Kernel;
use super::run::{View, list, run, undo_until, unwatched};
use crate::originals::{Originals, Setting};
use crate::plan::{
    EgressInterface, NodeLink, Parent, Plan, PlanError, Step, converge, sysctl_name,
};
use crate::state::{MAIN_TABLE, MacvlanMode, NodeView, POD_TABLE, Route, RuleMatch, SHELF_TABLE};

const NET1: [(&str, &str); 1] = [("EGRESS_INTERFACE", "net1")];

fn plan(pod: &Pod, variables: &[(&str, &str)]) -> Plan {
    match converge(&config(variables), &pod.kernel.state) {
        Ok(plan) => plan,
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn refused(pod: &Pod, variables: &[(&str, &str)]) -> String {
    converge(&config(variables), &pod.kernel.state)
        .unwrap_err()
        .to_string()
}

#[track_caller]
fn settle(pod: &mut Pod, variables: &[(&str, &str)]) {
    run(&mut pod.kernel, &config(variables), &mut unwatched).unwrap();
}

fn undo(pod: &mut Pod) {
    undo_until(&mut pod.kernel, None, &mut unwatched);
}

fn routes(kernel: &Kernel, table: u32) -> Vec<String> {
    let mut routes: Vec<String> = kernel
        .state
        .routes
        .iter()
        .filter(|r| r.table == table)
        .map(Route::to_string)
        .collect();
    routes.sort();
    routes
}

fn note(pod: &Pod, link: &str) -> Option<Originals> {
    Originals::from_alias(pod.kernel.state.link(link)?.alias.as_deref())
}

/// With `eth0` and a `net1` that is up and has no address.
fn multus() -> Pod {
    let mut pod = Pod::bare();
    pod.with_eth0()
        .macvlan("net1", MacvlanMode::Bridge)
        .up("net1");
    pod
}

// Which interface is which.

#[test]
fn the_pods_interface_is_that_of_the_default_route() {
    let mut pod = multus();
    pod.address("net1", "10.5.0.3/24")
        .route("default", "10.5.0.1", "net1")
        .metric(500);
    assert_eq!(plan(&pod, &simple_with(&NET1)).pod_interface, "eth0");
}

#[test]
fn without_a_default_route_it_is_the_only_one_with_an_address() {
    let mut pod = Pod::bare();
    pod.eth0()
        .address("eth0", "10.244.1.5/24")
        .macvlan("net1", MacvlanMode::Bridge)
        .up("net1");
    assert_eq!(plan(&pod, &SIMPLE).pod_interface, "eth0");
    // The address that we add is none of the pod's.
    settle(&mut pod, &SIMPLE);
    assert_eq!(plan(&pod, &SIMPLE).pod_interface, "eth0");
    assert!(plan(&pod, &SIMPLE).is_converged());
}

#[test]
fn a_default_route_that_multus_moved_does_not_make_the_pods_interface() {
    let mut pod = Pod::bare();
    pod.eth0().address("eth0", "10.244.1.5/24");
    pod.macvlan("net1", MacvlanMode::Bridge)
        .up("net1")
        .address("net1", "192.168.12.99/24")
        .route("default", "192.168.12.1", "net1");
    let plan = plan(&pod, &SIMPLE);
    assert_eq!(
        (plan.pod_interface.as_str(), plan.egress.name()),
        ("eth0", "net1")
    );
}

#[test]
fn a_pods_interface_that_cannot_be_told() {
    let mut pod = Pod::bare();
    pod.eth0().address("eth0", "10.244.1.5/24");
    pod.macvlan("net1", MacvlanMode::Bridge)
        .up("net1")
        .address("net1", "10.5.0.3/24");
    assert_eq!(
        refused(&pod, &SIMPLE),
        "cannot tell the interface of the pod network: there is no default route, and there are: \
         eth0, net1; set EGRESS_POD_INTERFACE"
    );
    let told = simple_with(&[("EGRESS_POD_INTERFACE", "eth1")]);
    assert_eq!(
        refused(&pod, &told),
        "EGRESS_POD_INTERFACE: there is no interface \"eth1\" in the pod; there are: eth0, net1"
    );
    let mut pod = Pod::bare();
    assert_eq!(
        refused(&pod, &SIMPLE),
        "cannot tell the interface of the pod network: there is no default route, and there are \
         none; set EGRESS_POD_INTERFACE"
    );
    assert_eq!(
        refused(
            pod.with_eth0(),
            &simple_with(&[("EGRESS_INTERFACE", "eth0")])
        ),
        "the egress interface and the pod interface are both \"eth0\"; set EGRESS_INTERFACE or \
         EGRESS_POD_INTERFACE"
    );
}

#[test]
fn the_egress_interface_is_one_that_waits_for_an_address() {
    let mut pod = multus();
    pod.kernel.add_link("tunl0", "ipip").ethernet = false;
    pod.kernel.add_link("gretap0", "gretap");
    pod.macvlan("net2", MacvlanMode::Bridge)
        .address("net2", "10.5.0.3/24");
    let chosen = plan(&pod, &SIMPLE).egress;
    assert_eq!(chosen, EgressInterface::Present("net1".to_owned()));

    pod.macvlan("net3", MacvlanMode::Bridge);
    assert_eq!(
        refused(&pod, &SIMPLE),
        "cannot tell the egress interface: net1, net3 could each be it; set EGRESS_INTERFACE"
    );
    // One with our source is it, whether or not others are free.
    pod.macvlan("macvlan0", MacvlanMode::Bridge);
    let chosen = plan(&pod, &SIMPLE).egress;
    assert_eq!(chosen, EgressInterface::Present("macvlan0".to_owned()));
}

#[test]
fn an_egress_interface_stays_when_the_source_changes() {
    let mut pod = multus();
    settle(&mut pod, &SIMPLE);
    let other = simple_with(&[("EGRESS_SOURCE", "192.168.12.98/24")]);
    assert_eq!(
        plan(&pod, &other).egress,
        EgressInterface::Present("net1".to_owned())
    );
    settle(&mut pod, &other);
    let addresses: Vec<_> = pod
        .kernel
        .state
        .addresses_of("net1")
        .map(|a| a.address)
        .collect();
    assert!(
        addresses.contains(&net("192.168.12.98/24")),
        "{addresses:?}"
    );
    assert!(
        !addresses.contains(&net("192.168.12.99/24")),
        "{addresses:?}"
    );
}

#[test]
fn an_interface_that_cannot_carry_it() {
    let mut pod = multus();
    pod.link("net1").ethernet = false;
    assert_eq!(
        refused(&pod, &simple_with(&NET1)),
        "the egress interface \"net1\" is not an Ethernet interface and cannot carry an address of \
         the physical network; set EGRESS_INTERFACE to another"
    );
}

#[test]
fn an_interface_that_cannot_be_made() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    let off = simple_with(&[("EGRESS_MACVLAN_PARENT", "off")]);
    assert!(refused(&pod, &off).starts_with(
        "Cannot find device \"macvlan0\": the pod has no egress interface and \
         EGRESS_MACVLAN_PARENT=off forbids to create one; add the annotation"
    ));
    let elsewhere = simple_with(&[
        ("EGRESS_SOURCE", "10.9.9.9/24"),
        ("EGRESS_GATEWAY", "10.9.9.1"),
    ]);
    assert_eq!(
        refused(&pod, &elsewhere),
        "Cannot find device \"macvlan0\": no interface of the node has the gateway 10.9.9.1 in its \
         network (there are: ens3 192.168.12.5/24, ens4 172.20.0.5/16, ens3 2001:db8:12::5/64); \
         set EGRESS_MACVLAN_PARENT to the node's interface on the physical network, or correct \
         EGRESS_GATEWAY"
    );
    let named = simple_with(&[("EGRESS_MACVLAN_PARENT", "ens9")]);
    assert_eq!(
        refused(&pod, &named),
        "EGRESS_MACVLAN_PARENT: the node has no interface \"ens9\"; there are: ens3, ens4"
    );
    let NodeView::Seen(mut node) = pod.kernel.state.node.clone() else {
        panic!("a node")
    };
    node.links[1].controller = Some(3);
    pod.kernel.state.node = NodeView::Seen(node.clone());
    assert_eq!(
        refused(&pod, &SIMPLE),
        "EGRESS_MACVLAN_PARENT: the node's interface \"ens3\" is a port of \"ens4\", which takes \
         all its traffic; set EGRESS_MACVLAN_PARENT=ens4"
    );
    pod.kernel.state.node = NodeView::Hidden("it is dark".to_owned());
    assert!(refused(&pod, &SIMPLE).starts_with(
        "Cannot find device \"macvlan0\": the pod has no egress interface, and none can be created \
         because it is dark; add the annotation"
    ));
    pod.kernel.state.node = NodeView::NotAsked;
    assert!(refused(&pod, &SIMPLE).contains("because nobody looked at the node"));
}

#[test]
fn the_nodes_own_address_is_refused() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    let variables = simple_with(&[("EGRESS_SOURCE", "192.168.12.5/24")]);
    assert_eq!(
        refused(&pod, &variables),
        "EGRESS_SOURCE: the address 192.168.12.5 belongs to the node itself (interface ens3, \
         02:00:00:00:00:09); reserve another address for the router"
    );
}

#[test]
fn the_longest_network_tells_the_parent() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    let NodeView::Seen(node) = &mut pod.kernel.state.node else {
        panic!("a node")
    };
    let mut wide = node.addresses[1].clone();
    (wide.link, wide.address) = ("ens4".to_owned(), net("192.168.0.5/16"));
    node.addresses.push(wide);
    let parent = parent_of(&plan(&pod, &SIMPLE));
    assert_eq!(
        (parent.name.as_str(), parent.index, parent.namespace),
        ("ens3", 2, NODE)
    );
    let named = simple_with(&[("EGRESS_MACVLAN_PARENT", "ens4")]);
    assert_eq!(parent_of(&plan(&pod, &named)).name, "ens4");
}

/// Where the egress interface is to be made.
fn parent_of(plan: &Plan) -> NodeLink {
    match &plan.egress {
        EgressInterface::Absent {
            parent: Parent::Known(parent),
            ..
        } => parent.clone(),
        other => panic!("{other:?}"),
    }
}

/// Who may not see the node plans for a container that may.
#[test]
fn a_node_that_only_a_run_may_see_leaves_the_parent_open() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    let seen = plan(&pod, &SIMPLE);
    pod.kernel.state.node = NodeView::NotPermitted;
    let open = plan(&pod, &SIMPLE);
    assert_eq!(
        open.steps[0].to_string(),
        "ip link add macvlan0 link <chosen when it runs: the node interface whose subnet holds \
         192.168.12.1> netns-of-node type macvlan mode bridge"
    );
    assert_eq!(open.steps[1..], seen.steps[1..]);
    let named = plan(&pod, &simple_with(&[("EGRESS_MACVLAN_PARENT", "ens4")]));
    let text = named.steps[0].to_string();
    assert!(
        text.contains("link <chosen when it runs: the node interface ens4> "),
        "{text}"
    );
    let off = simple_with(&[("EGRESS_MACVLAN_PARENT", "off")]);
    assert!(refused(&pod, &off).contains("forbids to create one"));
    // One that is there is not made again.
    pod.kernel.state.node = NodeView::Seen(node());
    settle(&mut pod, &SIMPLE);
    pod.kernel.state.node = NodeView::NotPermitted;
    assert!(plan(&pod, &SIMPLE).is_converged());
}

#[test]
fn a_link_local_gateway_leaves_the_choice_to_the_source() {
    let mut pod = Pod::bare();
    pod.with_eth0().dual_stack();
    let variables = simple_with(&[
        ("EGRESS_SOURCE", "2001:db8:12::99/64"),
        ("EGRESS_GATEWAY", "fe80::1"),
        ("EGRESS_ROUTER_MODE", "http-proxy"),
        ("EGRESS_DESTINATION", ""),
    ]);
    let plan = plan(&pod, &variables);
    assert_eq!(parent_of(&plan).name, "ens3");
    // Every interface reaches it: it needs no route.
    assert!(
        !list(&plan.steps).contains("fe80::1/128"),
        "{}",
        list(&plan.steps)
    );
}

/// The gateway moved to another network of the node's.
#[test]
fn an_interface_of_ours_on_another_parent_is_made_anew() {
    let other = simple_with(&[
        ("EGRESS_SOURCE", "172.20.0.99/16"),
        ("EGRESS_GATEWAY", "172.20.0.1"),
    ]);
    let mut pod = Pod::bare();
    pod.with_eth0();
    let mut fresh = pod.clone();
    settle(&mut fresh, &other);
    settle(&mut pod, &SIMPLE);
    assert_eq!(pod.link("macvlan0").parent, Some(2));
    settle(&mut pod, &other);
    assert_eq!(pod.link("macvlan0").parent, Some(3));
    let expected = View::without_notes(&fresh.kernel.state);
    assert_eq!(
        View::without_notes(&pod.kernel.state).difference(&expected),
        ""
    );
}

/// A node that is renumbered, or hidden, is no reason to tear down a router.
#[test]
fn an_interface_of_ours_stays_when_the_node_cannot_tell() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    settle(&mut pod, &SIMPLE);
    if let NodeView::Seen(node) = &mut pod.kernel.state.node {
        node.addresses.clear();
    }
    assert!(plan(&pod, &SIMPLE).is_converged());
    pod.kernel.state.node = NodeView::Hidden("it is dark".to_owned());
    assert!(plan(&pod, &SIMPLE).is_converged());
}

/// Killed between the two requests that make an interface.
#[test]
fn an_interface_with_a_makeshift_name_gets_its_own() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    let mut fresh = pod.clone();
    settle(&mut fresh, &SIMPLE);
    let first = plan(&pod, &SIMPLE);
    pod.kernel.carry_out(&first.steps[0], Some(&first)).unwrap();
    pod.link("macvlan0").name = "egress0".to_owned();
    settle(&mut pod, &SIMPLE);
    let expected = View::of(&fresh.kernel.state);
    assert_eq!(View::of(&pod.kernel.state).difference(&expected), "");
}

#[test]
fn another_egress_interface_gives_the_first_one_back() {
    let mut pod = multus();
    pod.link("net1").alias = Some("lan".to_owned());
    let before = pod.clone();
    settle(&mut pod, &simple_with(&NET1));
    assert!(note(&pod, "net1").is_some());
    pod.macvlan("net2", MacvlanMode::Private);
    settle(&mut pod, &simple_with(&[("EGRESS_INTERFACE", "net2")]));
    assert_eq!(pod.link("net1"), before.kernel.state.links.last().unwrap());
    assert!(
        !pod.kernel
            .state
            .addresses_of("net1")
            .any(|a| a.family() == AddressFamily::Ipv4)
    );
    assert!(note(&pod, "net2").is_some());
}

// Routes.

#[test]
fn an_interface_that_was_down_has_the_addresses_of_others_after_undo() {
    let mut pod = Pod::bare();
    pod.with_eth0()
        .macvlan("net1", MacvlanMode::Bridge)
        .address("net1", "2001:db8:12::7/64");
    let before = pod.kernel.state.addresses.clone();
    settle(&mut pod, &simple_with(&NET1));
    undo(&mut pod);
    assert_eq!(pod.kernel.state.addresses, before);
}

/// A CNI that comes back with another gateway.
#[test]
fn a_default_route_that_changed_takes_the_place_of_the_saved_one() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    settle(&mut pod, &SIMPLE);
    pod.route("default", "10.244.1.254", "eth0");
    settle(&mut pod, &SIMPLE);
    assert_eq!(
        routes(&pod.kernel, POD_TABLE),
        [
            "10.244.1.0/24 dev eth0 table 6900 scope link src 10.244.1.5 proto 2",
            "default via 10.244.1.254 dev eth0 table 6900 proto 3",
        ]
    );
    undo(&mut pod);
    assert!(
        routes(&pod.kernel, MAIN_TABLE)
            .contains(&"default via 10.244.1.254 dev eth0 proto 3".to_owned())
    );
}

/// A route to the LAN by the pod network would take what is redirected there.
#[test]
fn a_way_to_the_sources_network_by_the_pod_network_is_set_aside() {
    let mut pod = Pod::bare();
    pod.with_eth0()
        .route("192.168.12.0/24", "10.244.1.1", "eth0");
    let before = View::of(&pod.kernel.state);
    settle(&mut pod, &SIMPLE);
    let lan = |table| -> Vec<String> {
        let is_lan = |route: &String| route.starts_with("192.168.12.0/24");
        routes(&pod.kernel, table)
            .into_iter()
            .filter(is_lan)
            .collect()
    };
    assert_eq!(
        lan(MAIN_TABLE),
        ["192.168.12.0/24 dev macvlan0 scope link src 192.168.12.99 proto 2"]
    );
    assert_eq!(
        lan(POD_TABLE),
        ["192.168.12.0/24 via 10.244.1.1 dev eth0 table 6900 proto 3"]
    );
    assert_eq!(
        lan(SHELF_TABLE),
        ["192.168.12.0/24 via 10.244.1.1 dev eth0 table 6901 proto 3"]
    );
    // It returns when the source is elsewhere.
    settle(
        &mut pod,
        &simple_with(&[("EGRESS_SOURCE", "192.168.12.99")]),
    );
    let shelf = routes(&pod.kernel, SHELF_TABLE);
    assert!(shelf.is_empty(), "{shelf:?}");
    undo(&mut pod);
    assert_eq!(View::of(&pod.kernel.state).difference(&before), "");
}

#[test]
fn a_gateway_that_somebody_routed_already_is_not_routed_twice() {
    let mut pod = multus();
    pod.route("192.168.12.1/32", "-", "net1");
    let variables = simple_with(&[("EGRESS_SOURCE", "192.168.12.99")]);
    let steps = list(&plan(&pod, &variables).steps);
    assert!(!steps.contains("192.168.12.1/32"), "{steps}");
    settle(&mut pod, &variables);
    assert!(plan(&pod, &variables).is_converged());
}

#[test]
fn a_default_route_of_a_third_network_is_set_aside() {
    let mut pod = multus();
    pod.macvlan("net2", MacvlanMode::Bridge)
        .up("net2")
        .address("net2", "10.5.0.3/24");
    pod.route("default", "10.5.0.1", "net2").metric(50);
    let before = View::of(&pod.kernel.state);
    settle(
        &mut pod,
        &simple_with(&[
            ("EGRESS_INTERFACE", "net1"),
            ("EGRESS_POD_INTERFACE", "eth0"),
        ]),
    );
    assert_eq!(
        routes(&pod.kernel, SHELF_TABLE),
        ["default via 10.5.0.1 dev net2 table 6901 metric 50 proto 3"]
    );
    undo(&mut pod);
    assert_eq!(View::of(&pod.kernel.state).difference(&before), "");
}

/// Earlier versions made rules for what is forwarded as well.
#[test]
fn rules_that_an_earlier_version_made_are_replaced() {
    let variables = simple_with(&[
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("EGRESS_CLUSTER_CIDRS", "10.244.0.0/16"),
    ]);
    let mut pod = Pod::bare();
    pod.with_eth0();
    settle(&mut pod, &variables);
    let expected = View::of(&pod.kernel.state);
    let mut changed = 0;
    for rule in &mut pod.kernel.state.rules {
        if let RuleMatch::LocalTo(network) = rule.matches {
            rule.matches = RuleMatch::To(network);
            changed += 1;
        }
    }
    assert_eq!(changed, 3);
    settle(&mut pod, &variables);
    assert_eq!(View::of(&pod.kernel.state).difference(&expected), "");
}

#[test]
fn what_is_at_home_needs_no_rule() {
    let mut pod = Pod::bare();
    pod.with_eth0();
    pod.kernel.state.nameservers = vec![
        ip("127.0.0.11"),
        ip("::1"),
        ip("10.96.0.10"),
        ip("10.96.0.10"),
    ];
    let variables = simple_with(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]);
    let rules: Vec<String> = plan(&pod, &variables)
        .steps
        .iter()
        .filter(|step| matches!(step, Step::AddRule(_)))
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        rules,
        [
            "ip rule add from 10.244.1.5/32 lookup 6900 priority 6900 proto 69",
            "ip rule add iif macvlan0 lookup 6900 priority 6901 proto 69",
            "ip rule add to 10.96.0.10/32 iif lo lookup 6900 priority 6902 proto 69",
            "ip rule add to 10.96.0.1/32 iif lo lookup 6900 priority 6903 proto 69",
        ]
    );
}

// Settings.

#[test]
fn settings_that_are_no_longer_wanted_are_put_back() {
    let mut pod = multus();
    settle(&mut pod, &SIMPLE);
    assert_eq!(
        (
            pod.link("eth0").ipv4.forwarding,
            pod.link("net1").ipv4.forwarding
        ),
        (1, 1)
    );
    let proxy = simple_with(&[
        ("EGRESS_ROUTER_MODE", "http-proxy"),
        ("EGRESS_DESTINATION", ""),
    ]);
    settle(&mut pod, &proxy);
    assert_eq!(
        (
            pod.link("eth0").ipv4.forwarding,
            pod.link("net1").ipv4.forwarding
        ),
        (0, 0)
    );
    let noted: Vec<Setting> = note(&pod, "net1")
        .unwrap()
        .settings
        .iter()
        .map(|(setting, _)| *setting)
        .collect();
    assert_eq!(noted, [Setting::ArpIgnore, Setting::ArpAnnounce]);
    // And noted again when they are wanted again.
    settle(&mut pod, &SIMPLE);
    assert_eq!(
        note(&pod, "net1").unwrap().pod_interface.as_deref(),
        Some("eth0")
    );
    undo(&mut pod);
    assert_eq!(pod.link("eth0").ipv4.forwarding, 0);
}

/// As the documented manifests have it, whose init container is privileged: the
/// proxy is not root, and its list names port 80.
#[test]
fn a_dns_proxy_gets_its_low_ports_where_they_can_be_given() {
    let proxy = simple_with(&[
        ("EGRESS_ROUTER_MODE", "dns-proxy"),
        ("EGRESS_DESTINATION", ""),
    ]);
    let mut pod = Pod::bare();
    pod.with_eth0();
    settle(&mut pod, &proxy);
    assert_eq!(pod.kernel.state.unprivileged_ports, Some(1024));
    pod.privileged();
    settle(&mut pod, &proxy);
    assert_eq!(pod.kernel.state.unprivileged_ports, Some(0));
    undo(&mut pod);
    assert_eq!(pod.kernel.state.unprivileged_ports, Some(1024));
    // Nobody else needs them.
    let mut pod = Pod::bare();
    pod.with_eth0().privileged();
    settle(&mut pod, &proxy);
    settle(&mut pod, &SIMPLE);
    assert_eq!(pod.kernel.state.unprivileged_ports, Some(1024));
}

#[test]
fn another_pod_interface_gets_the_forwarding() {
    let mut pod = multus();
    let link = pod.kernel.add_link("eth1", "veth");
    link.ipv4.forwarding = 0;
    pod.up("eth1")
        .address("eth1", "10.9.0.5/24")
        .route("default", "10.9.0.1", "eth1")
        .metric(9);
    let by = |name| simple_with(&[("EGRESS_INTERFACE", "net1"), ("EGRESS_POD_INTERFACE", name)]);
    let before = View::of(&pod.kernel.state);
    let mut fresh = pod.clone();
    settle(&mut fresh, &by("eth1"));
    settle(&mut pod, &by("eth0"));
    settle(&mut pod, &by("eth1"));
    assert_eq!(
        (
            pod.link("eth0").ipv4.forwarding,
            pod.link("eth1").ipv4.forwarding
        ),
        (0, 1)
    );
    let expected = View::of(&fresh.kernel.state);
    assert_eq!(View::of(&pod.kernel.state).difference(&expected), "");
    undo(&mut pod);
    assert_eq!(View::of(&pod.kernel.state).difference(&before), "");
}

#[test]
fn ipv6_that_cannot_be_had() {
    let dual = simple_with(&[
        ("EGRESS_SOURCE", "192.168.12.99/24 2001:db8:12::99/64"),
        ("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1"),
        ("EGRESS_DESTINATION", "80 tcp 2001:db8:113::25"),
    ]);
    let mut pod = Pod::bare();
    pod.with_eth0();
    assert!(matches!(
        converge(&config(&dual), &pod.kernel.state),
        Err(PlanError::Ipv6ForwardingOff)
    ));
    pod.kernel.state.ipv6_forwarding = Some(true);
    let steps = list(&plan(&pod, &dual).steps);
    assert!(!steps.contains("ipv6"), "nothing to write: {steps}");
    let mut pod = Pod::bare_ipv4();
    pod.with_eth0();
    assert_eq!(
        refused(&pod, &dual),
        "EGRESS_SOURCE: IPv6 address 2001:db8:12::99, but IPv6 is off in this pod; enable it in \
         the cluster's pod network (net.ipv6.conf.all.disable_ipv6=0), or remove the address"
    );
}

/// Without an IPv6 source the interface has no IPv6 at all, also when it had
/// one: as after a fresh start.
#[test]
fn ipv6_comes_and_goes_with_its_source() {
    let dual = simple_with(&[
        ("EGRESS_SOURCE", "192.168.12.99/24 2001:db8:12::99/64"),
        ("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1"),
    ]);
    let mut pod = Pod::bare();
    pod.with_eth0();
    let ipv6 = |pod: &Pod| -> Vec<String> {
        pod.kernel
            .state
            .addresses_of("macvlan0")
            .filter(|address| address.family() == AddressFamily::Ipv6)
            .map(|address| address.address.to_string())
            .collect()
    };
    settle(&mut pod, &SIMPLE);
    assert_eq!(ipv6(&pod), Vec::<String>::new());
    settle(&mut pod, &dual);
    assert_eq!(ipv6(&pod), ["fe80::a/64", "2001:db8:12::99/64"]);
    settle(&mut pod, &SIMPLE);
    assert_eq!(ipv6(&pod), Vec::<String>::new());
}

// Probes and packet rules.

#[test]
fn only_addresses_that_are_not_there_are_asked_for() {
    let probes = |pod: &Pod, variables: &[(&str, &str)]| -> Vec<String> {
        let steps = plan(pod, variables).steps;
        let is_probe = |step: &&Step| matches!(step, Step::Probe { .. });
        steps
            .iter()
            .filter(is_probe)
            .map(ToString::to_string)
            .collect()
    };
    let mut pod = multus();
    assert_eq!(probes(&pod, &SIMPLE), ["arping -D -I net1 192.168.12.99"]);
    assert_eq!(
        probes(&pod, &simple_with(&[("EGRESS_ADDRESS_PROBE", "off")])),
        Vec::<String>::new()
    );
    settle(&mut pod, &SIMPLE);
    assert_eq!(probes(&pod, &SIMPLE), Vec::<String>::new());
    // Somebody may have taken it while the link was down.
    pod.kernel
        .carry_out(
            &Step::LinkDown {
                link: "net1".to_owned(),
            },
            None,
        )
        .unwrap();
    assert_eq!(probes(&pod, &SIMPLE), ["arping -D -I net1 192.168.12.99"]);
}

#[test]
fn rules_in_force_are_replaced_last() {
    let place = |pod: &Pod| {
        let plan = plan(pod, &SIMPLE);
        let position = plan
            .steps
            .iter()
            .position(|step| *step == Step::ReplaceFirewall);
        (
            position.unwrap() == 0,
            position.unwrap() + 1 == plan.steps.len(),
        )
    };
    let mut pod = multus();
    assert_eq!(place(&pod), (true, false));
    settle(&mut pod, &SIMPLE);
    pod.route("default", "10.244.1.1", "eth0");
    assert_eq!(place(&pod), (false, true));
    // They may be gone, or the link down.
    pod.kernel.state.firewall_present = Some(false);
    let steps = plan(&pod, &SIMPLE).steps;
    assert!(
        steps
            .iter()
            .take(2)
            .any(|step| *step == Step::ReplaceFirewall),
        "{}",
        list(&steps)
    );
    pod.kernel.state.firewall_present = None;
    let steps = plan(&pod, &SIMPLE).steps;
    assert!(
        steps
            .iter()
            .take(2)
            .any(|step| *step == Step::ReplaceFirewall),
        "{}",
        list(&steps)
    );
}

// What is shown.

#[test]
fn names_of_settings_are_those_of_sysctl() {
    let name = |setting| sysctl_name(setting, "eth0.100");
    assert_eq!(
        name(Setting::PodForwarding),
        "net.ipv4.conf.eth0/100.forwarding"
    );
    assert_eq!(name(Setting::AcceptRa), "net.ipv6.conf.eth0/100.accept_ra");
    assert_eq!(
        sysctl_name(Setting::Ipv6Forwarding, "all"),
        "net.ipv6.conf.all.forwarding"
    );
    assert_eq!(
        sysctl_name(Setting::UnprivilegedPorts, "all"),
        "net.ipv4.ip_unprivileged_port_start"
    );
}

#[test]
fn an_undoing_without_a_router_is_short() {
    let mut pod = multus();
    assert_eq!(list(&crate::plan::undo(&pod.kernel.state)), "");
    pod.kernel.state.firewall_present = None;
    assert_eq!(
        list(&crate::plan::undo(&pod.kernel.state)),
        "   1  nft delete table inet egress_router\n"
    );
}
