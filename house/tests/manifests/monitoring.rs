//! What is exported is scraped. That every query asks for what is exported is
//! checked where the programs run, in the lab.

use std::collections::BTreeSet;

use egress_house_rules::manifest::Object;
use egress_router_init::config::Mode;
use serde_json::{Value, json};

use crate::given::Given;
use crate::unit::{UNITS, Unit, WATCHED};

fn watched() -> Vec<(&'static Unit, &'static Object)> {
    let units = UNITS.iter().chain(WATCHED.iter());
    units
        .flat_map(|unit| {
            let objects = unit.objects.iter();
            objects.map(move |object| (unit, object))
        })
        .filter(|(_, object)| object.kind() == "PodMonitor")
        .collect()
}

#[test]
fn every_pod_that_exports_metrics_is_scraped_at_the_port_that_has_them() {
    let mut modes = BTreeSet::new();
    let watched = watched();
    for (unit, monitor) in &watched {
        let [selected] = &monitor.list("/spec/selector/matchExpressions")[..] else {
            panic!("{}: more than one expression", unit.name);
        };
        assert_eq!(selected["operator"], "In");
        let job = format!(
            "/metadata/labels/{}",
            monitor.text("/spec/jobLabel").replace('/', "~1")
        );
        let [endpoint] = &monitor.list("/spec/podMetricsEndpoints")[..] else {
            panic!("{}: more than one endpoint", unit.name);
        };
        assert_eq!(endpoint["path"], "/metrics");
        for pod in unit.pods() {
            let key = selected["key"].as_str().unwrap().replace('/', "~1");
            let name = pod.at(&format!("/metadata/labels/{key}")).unwrap();
            assert!(selected["values"].as_array().unwrap().contains(name));
            assert_eq!(pod.at(&job), Some(name));
            for (container, given) in pod.containers() {
                let exports = match given {
                    Given::Router(router) => router.mode == Mode::Legacy,
                    Given::Proxy(_) => true,
                    Given::Wait | Given::Stranger => false,
                };
                let ports = container.at("/ports").and_then(Value::as_array);
                let named = ports.into_iter().flatten().any(|port| {
                    port["name"] == endpoint["port"] && port["containerPort"] == json!(9090)
                });
                assert_eq!(named, exports, "{}", pod.place());
                if exports {
                    modes.insert(name.as_str().unwrap());
                }
            }
        }
    }
    // Three modes, and routers that stay on four platforms.
    assert_eq!(watched.len(), 3 + 4);
    let expected = ["egress-dns-proxy", "egress-http-proxy", "egress-redirect"];
    assert_eq!(modes, expected.into());
}

#[test]
fn grafana_finds_the_dashboard() {
    for (unit, _) in watched() {
        let dashboard = unit
            .objects
            .iter()
            .find(|object| object.name() == "egress-router-dashboard")
            .unwrap();
        assert_eq!(dashboard.text("/metadata/labels/grafana_dashboard"), "1");
        let text = dashboard.text("/data/egress-router.json");
        let dashboard: Value = serde_json::from_str(text).unwrap();
        assert_eq!(dashboard["uid"], "egress-router");
        // An import makes its own.
        assert_eq!(dashboard["id"], Value::Null);
    }
}
