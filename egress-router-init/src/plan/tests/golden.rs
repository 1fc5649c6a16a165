//! Plans, word for word: of the first run, of the same run again, and of the
//! undoing. `UPDATE_GOLDEN=1` writes them anew; then read the difference.

use std::path::Path;

use super::fixture::{Pod, SIMPLE, config, ip, simple_with};
use super::run::{list, run, unwatched};
use crate::config::Config;
use crate::plan::{converge, undo};
use crate::report::plan_text;
use crate::state::MacvlanMode;

#[track_caller]
fn assert_golden(name: &str, pod: &Pod, config: &Config) {
    let mut kernel = pod.kernel.clone();
    let text = |kernel: &super::kernel::Kernel| {
        plan_text(config, &converge(config, &kernel.state).unwrap())
    };
    let first = text(&kernel);
    run(&mut kernel, config, &mut unwatched).unwrap();
    let actual = format!(
        "FIRST RUN\n\n{first}\nTHE SAME AGAIN\n\n{}\nUNDO\n\n{}",
        text(&kernel),
        list(&undo(&kernel.state))
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("plan_{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut lines = actual.lines().zip(golden.lines());
    let first = lines.find(|(actual, golden)| actual != golden);
    assert!(actual == golden, "{} differs: {first:#?}", path.display());
}

#[test]
fn plain_kubernetes_makes_the_macvlan() {
    assert_golden("kubernetes", Pod::bare().with_eth0(), &config(&SIMPLE));
}

/// The SDN routes the cluster's networks by `eth0`, so that they survive the
/// move of the default route.
#[test]
fn openshift_sdn_presets_a_private_macvlan_and_routes() {
    let mut pod = Pod::bare_ipv4();
    pod.eth0()
        .address("eth0", "10.128.0.5/23")
        .route("default", "10.128.0.1", "eth0")
        .route("10.128.0.0/14", "-", "eth0")
        .route("172.30.0.0/16", "10.128.0.1", "eth0")
        .macvlan("macvlan0", MacvlanMode::Private);
    pod.kernel.state.nameservers = vec![ip("172.30.0.10")];
    assert_golden("openshift_sdn", &pod, &config(&SIMPLE));
}

#[test]
fn multus_attaches_net1() {
    let mut pod = Pod::bare();
    pod.with_eth0()
        .macvlan("net1", MacvlanMode::Bridge)
        .up("net1");
    pod.link("net1").alias = Some("lan".to_owned());
    assert_golden("multus", &pod, &config(&SIMPLE));
}

#[test]
fn a_link_local_gateway() {
    let mut pod = Pod::bare_ipv4();
    pod.eth0()
        .address("eth0", "10.0.37.21/32")
        .route("169.254.1.1/32", "-", "eth0")
        .route("default", "169.254.1.1", "eth0");
    assert_golden("link_local_gateway", &pod, &config(&SIMPLE));
}

fn dual_stack_legs() -> Vec<(&'static str, &'static str)> {
    simple_with(&[
        ("EGRESS_SOURCE", "192.168.12.99/24 2001:db8:12::99/64"),
        ("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1"),
        (
            "EGRESS_DESTINATION",
            "80 tcp 203.0.113.25\n80 tcp 2001:db8:113::25\n2001:db8:113::27",
        ),
    ])
}

#[test]
fn dual_stack_with_redirects_of_both_families() {
    let mut pod = Pod::bare();
    pod.with_eth0().dual_stack().privileged();
    assert_golden("dual_stack", &pod, &config(&dual_stack_legs()));
}

/// The pod's IPv6 has no way out, and none by the pod network either.
#[test]
fn an_ipv4_source_in_a_dual_stack_pod() {
    assert_golden(
        "ipv4_in_dual_stack",
        Pod::bare().with_eth0().dual_stack(),
        &config(&SIMPLE),
    );
}

#[test]
fn a_gateway_outside_of_the_sources_network() {
    let variables = simple_with(&[("EGRESS_SOURCE", "192.168.12.99")]);
    assert_golden(
        "gateway_outside",
        Pod::bare().with_eth0(),
        &config(&variables),
    );
}

#[test]
fn http_proxy_mode() {
    let variables: Vec<_> = simple_with(&[("EGRESS_ROUTER_MODE", "http-proxy")])
        .into_iter()
        .filter(|(name, _)| *name != "EGRESS_DESTINATION")
        .collect();
    assert_golden("http_proxy", Pod::bare().with_eth0(), &config(&variables));
}

#[test]
fn cluster_networks() {
    let variables = simple_with(&[
        (
            "EGRESS_CLUSTER_CIDRS",
            "10.96.0.0/12 10.244.0.0/16 fd00:10:96::/108",
        ),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ]);
    assert_golden(
        "cluster_cidrs",
        Pod::bare().with_eth0(),
        &config(&variables),
    );
}
