//! Where IPv6 processes of the pod may go by the pod network.

use ipnet::IpNet;

use super::fixture::{Pod, SIMPLE, config, ip, net, simple_with};
use super::run::{run, unwatched};
use crate::plan::converge;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

#[test]
fn to_what_routes_and_rules_name_but_not_by_the_default_route() {
    let mut pod = Pod::bare();
    pod.with_eth0().dual_stack();
    pod.kernel.state.nameservers = vec![ip("fd00:10:96::a"), ip("10.96.0.10")];
    let config = config(&simple_with(&[(
        "EGRESS_CLUSTER_CIDRS",
        "fd00:10:244::/48 10.244.0.0/16",
    )]));
    let expected = nets(&[
        "fd00:10:96::a/128",
        "fd00:10:244::/48",
        "fd00:10:244:1::/64",
        "fe80::/64",
        "ff00::/8",
    ]);
    let plan = converge(&config, &pod.kernel.state).unwrap();
    assert_eq!(plan.pod_networks, expected);
    // Nor when the default route has moved to our table.
    let mut kernel = pod.kernel.clone();
    run(&mut kernel, &config, &mut unwatched).unwrap();
    let plan = converge(&config, &kernel.state).unwrap();
    assert_eq!(plan.pod_networks, expected);
}

#[test]
fn a_pod_without_ipv6_needs_none() {
    let mut pod = Pod::bare_ipv4();
    pod.with_eth0();
    let plan = converge(&config(&SIMPLE), &pod.kernel.state).unwrap();
    assert_eq!(plan.pod_networks, []);
}
