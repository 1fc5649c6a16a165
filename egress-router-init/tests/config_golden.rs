//! Reports of bad configurations, word for word. `UPDATE_GOLDEN=1` writes
//! them anew; then read the difference.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::path::Path;

use egress_config::{MapEnvironment, Program, help_text};
use egress_router_init::config::Config;

fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    assert_eq!(actual, golden, "{} differs", path.display());
}

fn report(environment: &MapEnvironment) -> String {
    format!("{}\n", Config::from_environment(environment).unwrap_err())
}

#[test]
fn a_list_with_many_bad_lines() {
    let environment = MapEnvironment::new()
        .with("EGRESS_SOURCE", "192.168.12.99/24")
        .with("EGRESS_GATEWAY", "192.168.12.1")
        .with(
            "EGRESS_DESTINATION",
            include_str!("golden/config_bad_lines.list"),
        );
    assert_golden("config_bad_lines.txt", &report(&environment));
}

#[test]
fn every_variable_bad() {
    let environment = [
        ("EGRESS_SOURCE", "192.168.12.300/24, fe80::9/64"),
        ("EGRESS_GATEWAY", "192.168.12.1/24"),
        (
            "EGRESS_DESTINATION",
            "80 tcp 203.0.113.25\n80 tcp 203.0.113.26",
        ),
        ("EGRESS_ROUTER_MODE", "redirect"),
        ("EGRESS_INTERFACE", "lo"),
        ("EGRESS_MACVLAN_PARENT", "bond0.1000:untagged"),
        ("EGRESS_POD_INTERFACE", "eth 0"),
        ("EGRESS_CLUSTER_CIDRS", "10.96.0.1/12 10.244.0.0/64"),
        ("EGRESS_LOCAL_PORTS", "80 0"),
        ("EGRESS_FIREWALL", "ufw"),
        ("EGRESS_ADDRESS_PROBE", "long"),
        ("EGRESS_ADMIN_LISTEN", "localhost:9090"),
        ("EGRESS_DRAIN_SECONDS", "-1"),
        ("EGRESS_LOG", "verbose"),
        ("EGRESS_LOG_FORMAT", "yaml"),
        ("EGRESS_GATEWAYS", "192.168.12.1"),
        ("KUBERNETES_SERVICE_HOST", "api.cluster.example"),
    ]
    .into_iter()
    .fold(MapEnvironment::new(), |environment, (name, value)| {
        environment.with(name, value)
    });
    assert_golden("config_bad_variables.txt", &report(&environment));
}

#[test]
fn the_help_of_the_variables() {
    assert_golden("config_help.txt", &help_text(Program::RouterInit));
}
