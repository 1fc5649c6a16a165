//! Clients find what they are promised.

use std::collections::BTreeSet;

use egress_config::Protocol;
use egress_house_rules::manifest::Object;

use crate::given::Given;
use crate::unit::{Pod, UNITS, Unit, each_pod};

/// Calls `check` with every Service.
fn each_service(mut check: impl FnMut(&Unit, &Object)) {
    let mut seen = 0;
    for unit in UNITS.iter() {
        for object in &unit.objects {
            if object.kind() == "Service" {
                check(unit, object);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 19, "services");
}

fn selected<'a>(unit: &'a Unit, service: &Object) -> Vec<Pod<'a>> {
    let selector = service.at("/spec/selector");
    unit.pods()
        .filter(|pod| pod.at("/metadata/labels") == selector)
        .collect()
}

fn ports(service: &Object) -> BTreeSet<(Protocol, u16)> {
    let ports = service.list("/spec/ports").into_iter();
    ports
        .map(|port| {
            let protocol = match port["protocol"].as_str() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(other) => panic!("{other}"),
            };
            let number = port["port"].as_u64().unwrap();
            (protocol, u16::try_from(number).unwrap())
        })
        .collect()
}

#[test]
fn every_service_leads_to_a_pod_and_to_the_ports_it_serves() {
    each_service(|unit, service| {
        let place = service.file().display();
        let pods = selected(unit, service);
        assert!(!pods.is_empty(), "{place}: selects no pod");
        for pod in pods {
            let served = pod.containers().into_iter().find_map(|(_, given)| {
                let ports = match given {
                    Given::Router(router) => router.ports,
                    Given::Proxy(proxy) => proxy.ports,
                    Given::Wait | Given::Stranger => return None,
                };
                (!ports.is_empty()).then_some(ports)
            });
            assert_eq!(Some(ports(service)), served, "{place}: {}", pod.place());
        }
    });
}

/// A name for the port of the pod, where the Service uses one, is declared.
#[test]
fn a_service_names_ports_that_the_pod_has() {
    let mut seen = 0;
    each_service(|unit, service| {
        for port in service.list("/spec/ports") {
            let Some(name) = port.get("targetPort") else {
                continue;
            };
            for pod in selected(unit, service) {
                let declared = pod.containers().into_iter().any(|(container, _)| {
                    let ports = container.at("/ports").and_then(|ports| ports.as_array());
                    ports.into_iter().flatten().any(|declared| {
                        declared["name"] == *name && declared["containerPort"] == port["port"]
                    })
                });
                assert!(declared, "{}: {name}", service.file().display());
                seen += 1;
            }
        }
    });
    assert_eq!(seen, 4, "ports by name");
}

#[test]
fn a_client_names_the_proxy_that_the_service_is() {
    let mut seen = 0;
    each_pod(|pod| {
        if pod.is_router() {
            return;
        }
        let place = pod.place();
        let service = pod
            .unit
            .objects
            .iter()
            .find(|object| object.kind() == "Service")
            .unwrap();
        let (_, port) = ports(service).pop_first().unwrap();
        let proxy = format!("http://{}:{port}/", service.name());
        for (container, _) in pod.containers() {
            let found = container.surroundings(&pod.unit.objects).unwrap().variables;
            assert_eq!(found["http_proxy"], proxy, "{place}");
            assert_eq!(found["https_proxy"], proxy, "{place}");
            for name in ["localhost", "127.0.0.1", ".svc", ".cluster.local"] {
                let direct = found["no_proxy"].split(',').any(|entry| entry == name);
                assert!(direct, "{place}: {name} goes through the proxy");
            }
            seen += 1;
        }
    });
    assert_eq!(seen, 1, "clients");
}
