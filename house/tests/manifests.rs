//! Checks every manifest a user can apply: that each object is of a kind that
//! exists, that containers have the privileges they need and no others, and
//! that the program accepts, without a warning, what it would be given.

#![expect(
    clippy::unwrap_used,
    reason = "whatever cannot be read fails the test that reads it"
)]

use std::path::{Path, PathBuf};

use egress_config::MapEnvironment;
use egress_house_rules::manifest::{self, Container, Object, Role};
use egress_router_init::config::Config;
use serde_json::{Value, json};

/// The kinds in use and the API that has them.
const KINDS: &[(&str, &str)] = &[
    ("ConfigMap", "v1"),
    ("Deployment", "apps/v1"),
    ("Namespace", "v1"),
    ("NetworkAttachmentDefinition", "k8s.cni.cncf.io/v1"),
    ("Pod", "v1"),
    ("ReplicationController", "v1"),
    ("Role", "rbac.authorization.k8s.io/v1"),
    ("RoleBinding", "rbac.authorization.k8s.io/v1"),
    ("SecurityContextConstraints", "security.openshift.io/v1"),
    ("Service", "v1"),
    ("ServiceAccount", "v1"),
];

/// Objects that are applied together.
struct Unit {
    name: String,
    objects: Vec<Object>,
}

fn folders(parent: &str) -> Vec<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests")
        .join(parent);
    let mut entries: Vec<_> = std::fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

/// Every overlay rendered, and every folder of examples.
fn units() -> Vec<Unit> {
    let overlays = folders("overlays").into_iter().map(|folder| Unit {
        name: folder.display().to_string(),
        objects: manifest::render(&folder).unwrap(),
    });
    let examples = folders("examples").into_iter().map(|folder| Unit {
        name: folder.display().to_string(),
        objects: folders(folder.to_str().unwrap())
            .iter()
            .flat_map(|file| manifest::read(file).unwrap())
            .collect(),
    });
    overlays.chain(examples).collect()
}

/// Calls `check` with every object that makes a pod.
fn each_pod(mut check: impl FnMut(&Unit, &Object, &Value)) {
    let mut seen = 0;
    for unit in units() {
        for object in &unit.objects {
            if let Some(pod) = object.pod() {
                check(&unit, object, pod);
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "only {seen} pods were found");
}

fn mode<'a>(container: &'a Container<'_>) -> &'a str {
    container
        .at("/env")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|variable| variable["name"] == "EGRESS_ROUTER_MODE")
        .and_then(|variable| variable["value"].as_str())
        .unwrap_or("")
}

#[test]
fn every_object_is_of_a_known_kind_and_named() {
    for unit in units() {
        for object in &unit.objects {
            let api = object.text("/apiVersion");
            assert!(
                KINDS.contains(&(object.kind(), api)),
                "{}: {} {api}",
                object.file().display(),
                object.kind()
            );
            assert_ne!(object.name(), "", "{}", object.file().display());
        }
    }
}

#[test]
fn the_program_accepts_what_it_would_be_given() {
    let mut configured = 0;
    each_pod(|unit, object, _| {
        for container in object.containers() {
            if container.strings("/args") == ["wait"] {
                assert_eq!(container.at("/env"), None, "wait reads no variable");
                continue;
            }
            let place = format!("{}: {}", unit.name, object.file().display());
            let found = container.surroundings(&unit.objects).unwrap();
            let environment = found
                .variables
                .iter()
                .fold(MapEnvironment::new(), |environment, (name, value)| {
                    environment.with(name, value)
                });
            let environment = found
                .files
                .into_iter()
                .fold(environment, |environment, (path, content)| {
                    environment.with_file(path, content)
                });
            let (config, warnings) = Config::from_environment(&environment)
                .unwrap_or_else(|diagnostics| panic!("{place}: {diagnostics}"));
            assert!(warnings.is_empty(), "{place}: {warnings:?}");
            assert_eq!(config.redirects().mappings().len(), 3, "{place}");
            assert_eq!(config.redirects().fallbacks().len(), 1, "{place}");
            configured += 1;
        }
    });
    assert!(configured >= 10, "only {configured} routers were found");
}

#[test]
fn a_router_has_two_capabilities_unless_its_network_wants_privilege() {
    each_pod(|unit, object, pod| {
        let place = format!("{}: {}", unit.name, object.file().display());
        let sdn = pod
            .pointer("/metadata/annotations/pod.network.openshift.io~1assign-macvlan")
            .is_some_and(|value| value == "true");
        let routers: Vec<_> = object
            .containers()
            .into_iter()
            .filter(|container| !mode(container).is_empty())
            .collect();
        assert_eq!(routers.len(), 1, "{place}");
        for router in routers {
            let expected = if mode(&router) == "legacy" {
                Role::Main
            } else {
                Role::Init
            };
            assert_eq!(router.role, expected, "{place}");
            assert_eq!(router.is_secured("privileged"), sdn, "{place}");
            assert_eq!(
                router.at("/securityContext/runAsUser"),
                Some(&json!(0)),
                "{place}"
            );
            assert!(router.is_secured("readOnlyRootFilesystem"), "{place}");
            if !sdn {
                assert_eq!(
                    router.at("/securityContext/capabilities"),
                    Some(&json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]})),
                    "{place}"
                );
                assert_eq!(
                    router.at("/securityContext/allowPrivilegeEscalation"),
                    Some(&json!(false)),
                    "{place}"
                );
            }
        }
    });
}

#[test]
fn every_other_container_has_no_privilege() {
    each_pod(|unit, object, _| {
        for container in object.containers() {
            if mode(&container).is_empty() {
                let place = format!("{}: {}", unit.name, object.file().display());
                assert_eq!(container.strings("/args"), ["wait"], "{place}");
                assert_eq!(container.role, Role::Main, "{place}");
                assert!(!container.is_secured("privileged"), "{place}");
                assert!(container.is_secured("runAsNonRoot"), "{place}");
                assert!(container.is_secured("readOnlyRootFilesystem"), "{place}");
                assert_eq!(
                    container.at("/securityContext/capabilities"),
                    Some(&json!({"drop": ["ALL"]})),
                    "{place}"
                );
                assert_eq!(
                    container.at("/securityContext/allowPrivilegeEscalation"),
                    Some(&json!(false)),
                    "{place}"
                );
            }
        }
    });
}

#[test]
fn an_address_is_held_by_one_pod_at_a_time() {
    each_pod(|_, object, pod| {
        let place = object.file().display();
        match object.kind() {
            "Pod" => return,
            "Deployment" => assert_eq!(object.text("/spec/strategy/type"), "Recreate", "{place}"),
            _ => {}
        }
        assert_eq!(object.at("/spec/replicas"), Some(&json!(1)), "{place}");
        let selector = match object.kind() {
            "Deployment" => object.at("/spec/selector/matchLabels"),
            _ => object.at("/spec/selector"),
        };
        assert_eq!(selector, pod.pointer("/metadata/labels"), "{place}");
    });
}

#[test]
fn pods_hold_no_more_than_they_need_of_the_cluster() {
    each_pod(|_, object, pod| {
        let place = object.file().display();
        let set = |field: &str| pod.pointer(&format!("/spec/{field}"));
        assert_eq!(
            set("automountServiceAccountToken"),
            Some(&json!(false)),
            "{place}"
        );
        // A Service named egress-1 would put EGRESS_1_* into the environment.
        assert_eq!(set("enableServiceLinks"), Some(&json!(false)), "{place}");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(set(field), None, "{place}: {field}");
        }
    });
}

#[test]
fn the_image_is_named_in_one_place_per_overlay() {
    for unit in units() {
        for object in &unit.objects {
            for container in object.containers() {
                let image = container.at("/image").and_then(Value::as_str).unwrap();
                let expected = if unit.name.contains("overlays") {
                    // The base's kustomization adds the tag.
                    "egress-router-init".to_owned()
                } else {
                    format!("egress-router-init:{}", env!("CARGO_PKG_VERSION"))
                };
                assert_eq!(image, expected, "{}", object.file().display());
            }
        }
    }
    for base in folders("base") {
        for kustomization in manifest::read(&base.join("kustomization.yaml")).unwrap() {
            for image in kustomization.list("/images") {
                assert_eq!(
                    image["newTag"],
                    env!("CARGO_PKG_VERSION"),
                    "{}",
                    base.display()
                );
            }
        }
    }
}

#[test]
fn every_service_leads_to_a_pod_and_to_ports_it_redirects() {
    let mut seen = 0;
    for unit in units() {
        for service in unit
            .objects
            .iter()
            .filter(|object| object.kind() == "Service")
        {
            let place = service.file().display();
            let selected = unit
                .objects
                .iter()
                .filter_map(Object::pod)
                .any(|pod| pod.pointer("/metadata/labels") == service.at("/spec/selector"));
            assert!(selected, "{place}: selects no pod");
            let ports: Vec<_> = service
                .list("/spec/ports")
                .into_iter()
                .filter_map(|port| port["port"].as_u64())
                .collect();
            assert_eq!(ports, [80, 8080, 8443], "{place}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} services were found");
}

#[test]
fn a_network_annotation_names_a_macvlan_without_an_address() {
    let mut seen = 0;
    each_pod(|unit, object, pod| {
        let Some(network) = pod.pointer("/metadata/annotations/k8s.v1.cni.cncf.io~1networks")
        else {
            return;
        };
        let definition = unit
            .objects
            .iter()
            .find(|found| found.kind() == "NetworkAttachmentDefinition" && found.name() == network)
            .unwrap_or_else(|| panic!("{}: no such network", object.file().display()));
        let config: Value = serde_json::from_str(definition.text("/spec/config")).unwrap();
        assert_eq!(config["type"], "macvlan");
        assert_eq!(config["mode"], "bridge");
        assert_eq!(config["ipam"], json!({}));
        seen += 1;
    });
    assert_eq!(seen, 3, "pods with a Multus network");
}

#[test]
fn a_binding_names_an_account_and_a_role_that_exist() {
    let mut seen = 0;
    for unit in units() {
        let has = |kind: &str, name: &str| {
            unit.objects
                .iter()
                .any(|object| object.kind() == kind && object.name() == name)
        };
        for binding in unit
            .objects
            .iter()
            .filter(|object| object.kind() == "RoleBinding")
        {
            let role = binding.text("/roleRef/name");
            match binding.text("/roleRef/kind") {
                "Role" => assert!(has("Role", role), "{role}"),
                _ => assert!(role.starts_with("system:openshift:scc:"), "{role}"),
            }
            for subject in binding.list("/subjects") {
                let account = subject["name"].as_str().unwrap();
                assert!(has("ServiceAccount", account), "{account}");
                assert_eq!(subject["namespace"], "egress-router");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 2, "role bindings");
}

#[test]
fn the_image_holds_the_binary_alone() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
    let text = std::fs::read_to_string(images.join("egress-router-init/Containerfile")).unwrap();
    let instructions: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .filter(|line| !line.starts_with("ARG ") && !line.starts_with("LABEL "))
        .collect();
    assert_eq!(
        instructions,
        [
            "FROM scratch",
            "COPY egress-router-init /egress-router-init",
            "ENTRYPOINT [\"/egress-router-init\"]",
        ]
    );
}
