//! Containers have the privileges they need, and no others.

use egress_config::Protocol;
use egress_house_rules::manifest::{Container, Role};
use egress_router_init::config::Mode;
use serde_json::{Value, json};

use crate::given::Given;
use crate::unit::{each_pod, each_router};

#[test]
fn a_router_has_two_capabilities_unless_its_network_wants_privilege() {
    each_router(|pod| {
        let place = pod.place();
        let sdn = pod
            .at("/metadata/annotations/pod.network.openshift.io~1assign-macvlan")
            .is_some_and(|value| value == "true");
        for (container, given) in pod.containers() {
            let Given::Router(router) = given else {
                continue;
            };
            let expected = match router.mode {
                Mode::Legacy => Role::Main,
                Mode::Init | Mode::HttpProxy | Mode::DnsProxy => Role::Init,
            };
            assert_eq!(container.role, expected, "{place}");
            assert_eq!(container.is_secured("privileged"), sdn, "{place}");
            assert_eq!(
                container.at("/securityContext/runAsUser"),
                Some(&json!(0)),
                "{place}"
            );
            assert!(container.is_secured("readOnlyRootFilesystem"), "{place}");
            if !sdn {
                let capabilities = json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]});
                assert_confined(&container, &capabilities, &place);
            }
        }
    });
}

#[test]
fn every_other_container_has_no_privilege() {
    let mut seen = 0;
    each_pod(|pod| {
        let place = pod.place();
        for (container, given) in pod.containers() {
            if let Given::Router(_) = given {
                continue;
            }
            assert_eq!(container.role, Role::Main, "{place}");
            assert!(!container.is_secured("privileged"), "{place}");
            assert!(container.is_secured("runAsNonRoot"), "{place}");
            assert_eq!(
                container.at("/securityContext/runAsUser"),
                Some(&json!(65532)),
                "{place}: the kubelet can check a number only"
            );
            assert!(container.is_secured("readOnlyRootFilesystem"), "{place}");
            assert_confined(&container, &json!({"drop": ["ALL"]}), &place);
            seen += 1;
        }
    });
    // Proxies, `wait`, and a client.
    assert_eq!(seen, 18 + 9 + 1, "containers");
}

fn assert_confined(container: &Container<'_>, capabilities: &Value, place: &str) {
    let at = |field: &str| container.at(&format!("/securityContext/{field}"));
    assert_eq!(at("capabilities"), Some(capabilities), "{place}");
    assert_eq!(
        at("allowPrivilegeEscalation"),
        Some(&json!(false)),
        "{place}"
    );
}

#[test]
fn low_ports_are_opened_by_the_pod_and_not_by_a_capability() {
    let mut seen = 0;
    let forwarding = json!([{"name": "net.ipv6.conf.all.forwarding", "value": "1"}]);
    each_router(|pod| {
        let low = pod.containers().iter().any(|(_, given)| match given {
            Given::Proxy(proxy) => proxy.ports.iter().any(|(_, port)| *port < 1024),
            _ => false,
        });
        let sysctls = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]);
        let found = pod.at("/spec/securityContext/sysctls");
        let forwards = pod.unit.name.contains("ipv6").then_some(&forwarding);
        let expected = low.then_some(&sysctls).or(forwards);
        assert_eq!(found, expected, "{}", pod.place());
        seen += usize::from(low);
    });
    assert_eq!(seen, 9, "pods with low ports");
}

#[test]
fn a_proxy_is_filtered_watched_limited_and_given_time_to_drain() {
    let mut seen = 0;
    each_router(|pod| {
        let place = pod.place();
        for (container, given) in pod.containers() {
            let Given::Proxy(proxy) = given else {
                continue;
            };
            assert_eq!(
                pod.at("/spec/securityContext/seccompProfile/type"),
                Some(&json!("RuntimeDefault")),
                "{place}"
            );
            let grace = pod.at("/spec/terminationGracePeriodSeconds");
            assert!(
                grace.and_then(Value::as_u64) > Some(proxy.drain_seconds),
                "{place}"
            );
            for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
                assert_eq!(
                    container.at(&format!("/{probe}/httpGet")),
                    Some(&json!({"path": path, "port": "metrics"})),
                    "{place}"
                );
            }
            let ports = container.at("/ports").and_then(Value::as_array).unwrap();
            let named: Vec<_> = ports
                .iter()
                .map(|port| {
                    let number = port["containerPort"].as_u64().unwrap();
                    (
                        port["name"].as_str().unwrap(),
                        u16::try_from(number).unwrap(),
                    )
                })
                .collect();
            assert!(named.contains(&("metrics", proxy.admin_port)), "{place}");
            for (_, port) in named {
                assert!(
                    port == proxy.admin_port || proxy.ports.contains(&(Protocol::Tcp, port)),
                    "{place}: nobody serves {port}"
                );
            }
            for pointer in ["/resources/requests/cpu", "/resources/limits/memory"] {
                assert!(container.at(pointer).is_some(), "{place}: {pointer}");
            }
            seen += 1;
        }
    });
    assert_eq!(seen, 18, "proxies");
}
