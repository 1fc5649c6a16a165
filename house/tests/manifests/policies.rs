//! Who may reach a router through the cluster.

use std::ops::RangeInclusive;

use egress_config::Protocol;
use egress_house_rules::manifest::Object;
use egress_router_init::config::Mode;
use serde_json::{Value, json};

use crate::given::Given;
use crate::unit::{Pod, UNITS, Unit, WATCHED};

const ADMIN: u16 = 9090;

/// One element of a policy's `ingress`.
struct Rule<'a>(&'a Value);

impl Rule<'_> {
    /// Whether it lets a packet in that is for this port of the pod.
    fn admits(&self, protocol: Protocol, port: u16) -> bool {
        let Some(ports) = self.0.get("ports") else {
            return true;
        };
        let name = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        ports
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["protocol"] == name && range(entry).contains(&u64::from(port)))
    }
}

fn range(entry: &Value) -> RangeInclusive<u64> {
    match entry.get("port") {
        None => 1..=65535,
        Some(port) => {
            let first = port.as_u64().unwrap();
            first
                ..=entry
                    .get("endPort")
                    .map_or(first, |end| end.as_u64().unwrap())
        }
    }
}

/// Calls `check` with every policy and each pod that it is for.
fn each_policy(mut check: impl FnMut(&Unit, &Object, &Pod<'_>)) -> usize {
    let mut seen = 0;
    for unit in UNITS.iter().chain(WATCHED.iter()) {
        let policies = unit
            .objects
            .iter()
            .filter(|object| object.kind() == "NetworkPolicy");
        for policy in policies {
            let selector = policy.at("/spec/podSelector/matchLabels");
            let pods: Vec<_> = unit
                .pods()
                .filter(|pod| pod.at("/metadata/labels") == selector)
                .collect();
            assert!(!pods.is_empty(), "{}: selects no pod", policy.name());
            for pod in &pods {
                check(unit, policy, pod);
            }
            seen += 1;
        }
    }
    seen
}

fn redirects(pod: &Pod<'_>) -> bool {
    pod.containers().iter().any(|(_, given)| match given {
        Given::Router(router) => matches!(router.mode, Mode::Init | Mode::Legacy),
        Given::Proxy(_) | Given::Wait | Given::Stranger => false,
    })
}

/// Whether it runs as long as its pod, and so has metrics.
fn stays(pod: &Pod<'_>) -> bool {
    pod.containers().iter().any(|(_, given)| match given {
        Given::Router(router) => router.mode == Mode::Legacy,
        Given::Proxy(_) => true,
        Given::Wait | Given::Stranger => false,
    })
}

/// In the examples of redirect there is one for each kind of router, and each
/// applies to both: it says which it is for.
fn is_for(policy: &Object, pod: &Pod<'_>) -> bool {
    let example = policy.file().ends_with("networkpolicy.yaml")
        || policy.file().ends_with("live-reload-networkpolicy.yaml");
    let staying = policy.list("/spec/ingress").len() == 2;
    !example || staying == stays(pod)
}

#[test]
fn clients_with_the_label_reach_every_port_that_is_served_and_no_metrics() {
    let label = json!({"matchLabels": {"egress-router/client": "true"}});
    let mut checked = 0;
    let seen = each_policy(|unit, policy, pod| {
        let place = format!("{}: {} for {}", unit.name, policy.name(), pod.place());
        assert_eq!(policy.at("/spec/policyTypes"), Some(&json!(["Ingress"])));
        if !is_for(policy, pod) {
            return;
        }
        let Some(clients) = policy.list("/spec/ingress").first().copied().map(Rule) else {
            panic!("{place}: nobody may use it");
        };
        // One peer of two selectors: the namespace and the pod.
        let peers = json!([{"namespaceSelector": label, "podSelector": label}]);
        assert_eq!(clients.0["from"], peers, "{place}");
        for (_, given) in pod.containers() {
            let ports = match given {
                Given::Router(router) => router.ports,
                Given::Proxy(proxy) => proxy.ports,
                Given::Wait | Given::Stranger => continue,
            };
            for (protocol, port) in ports {
                assert!(clients.admits(protocol, port), "{place}: {protocol} {port}");
                checked += 1;
            }
        }
        if redirects(pod) {
            // What only the fallback line takes.
            for port in [1, 9089, 9091, 65535] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    assert!(clients.admits(protocol, port), "{place}: {protocol} {port}");
                }
            }
        }
        assert_eq!(
            clients.admits(Protocol::Tcp, ADMIN),
            !stays(pod),
            "{place}: the metrics are not for clients"
        );
    });
    // Three modes, routers that stay on four platforms, and examples.
    assert_eq!(seen, 3 + 4 + 4, "policies");
    assert!(checked > 40, "{checked} ports");
}

#[test]
fn prometheus_reaches_the_metrics_and_nothing_else() {
    let mut watched = 0;
    each_policy(|unit, policy, pod| {
        if !is_for(policy, pod) {
            return;
        }
        let place = format!("{}: {}", unit.name, pod.place());
        match &policy.list("/spec/ingress")[..] {
            [_] => assert!(!stays(pod), "{place}"),
            [_, prometheus] => {
                let ports = json!([{"protocol": "TCP", "port": ADMIN}]);
                assert_eq!(prometheus["ports"], ports, "{place}");
                let namespaces = &prometheus["from"][0]["namespaceSelector"];
                assert_eq!(
                    namespaces["matchExpressions"][0]["key"], "kubernetes.io/metadata.name",
                    "{place}"
                );
                watched += 1;
            }
            rules => panic!("{place}: {} rules", rules.len()),
        }
    });
    assert!(watched > 12, "{watched}");
}
