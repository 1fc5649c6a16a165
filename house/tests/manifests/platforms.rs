//! What platforms need around the pod.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::unit::{UNITS, each_router};

#[test]
fn a_network_annotation_names_a_macvlan_without_an_address() {
    let mut seen = 0;
    each_router(|pod| {
        let Some(network) = pod.at("/metadata/annotations/k8s.v1.cni.cncf.io~1networks") else {
            return;
        };
        let definition = pod
            .unit
            .objects
            .iter()
            .find(|found| found.kind() == "NetworkAttachmentDefinition" && found.name() == network)
            .unwrap_or_else(|| panic!("{}: no such network", pod.place()));
        let config: Value = serde_json::from_str(definition.text("/spec/config")).unwrap();
        assert_eq!(config["type"], "macvlan");
        assert_eq!(config["mode"], "bridge");
        assert_eq!(config["ipam"], json!({}));
        seen += 1;
    });
    // Three modes: two overlays and an example; and two routers that stay.
    assert_eq!(seen, 11, "pods with a Multus network");
}

#[test]
fn a_binding_names_an_account_and_a_role_that_exist() {
    let mut seen = 0;
    for unit in UNITS.iter() {
        for binding in unit
            .objects
            .iter()
            .filter(|object| object.kind() == "RoleBinding")
        {
            let role = binding.text("/roleRef/name");
            match binding.text("/roleRef/kind") {
                "Role" => assert!(unit.has("Role", role), "{role}"),
                _ => assert!(role.starts_with("system:openshift:scc:"), "{role}"),
            }
            for subject in binding.list("/subjects") {
                let account = subject["name"].as_str().unwrap();
                assert!(unit.has("ServiceAccount", account), "{account}");
                assert_eq!(subject["namespace"], "egress-router");
            }
            seen += 1;
        }
    }
    // Two overlays for each of three modes, and two for routers that stay.
    assert_eq!(seen, 8, "role bindings");
}

/// An account that a pod uses exists, or its example says how to make it.
#[test]
fn a_pod_of_an_overlay_runs_under_an_account_that_is_applied_with_it() {
    let mut seen = 0;
    each_router(|pod| {
        let Some(account) = pod.at("/spec/serviceAccountName") else {
            return;
        };
        if pod.unit.name.contains("overlays") {
            let account = account.as_str().unwrap();
            assert!(pod.unit.has("ServiceAccount", account), "{}", pod.place());
            seen += 1;
        }
    });
    assert_eq!(seen, 8, "pods with an account");
}

/// OpenShift refuses a pod that asks for more.
#[test]
fn security_context_constraints_allow_what_their_pods_ask_for_and_no_more() {
    let mut seen = 0;
    each_router(|pod| {
        let place = pod.place();
        let mut constraints = pod
            .unit
            .objects
            .iter()
            .filter(|object| object.kind() == "SecurityContextConstraints");
        let Some(constraints) = constraints.next() else {
            return;
        };
        let words = |pointer: &str| -> BTreeSet<&str> {
            let words = constraints.list(pointer).into_iter();
            words.filter_map(Value::as_str).collect()
        };
        let mut added = BTreeSet::new();
        for (container, _) in pod.containers() {
            added.extend(
                container
                    .strings("/securityContext/capabilities/add")
                    .into_iter()
                    .map(ToOwned::to_owned),
            );
            assert_eq!(
                container.strings("/securityContext/capabilities/drop"),
                ["ALL"]
            );
        }
        let added: BTreeSet<&str> = added.iter().map(String::as_str).collect();
        assert_eq!(words("/allowedCapabilities"), added, "{place}");
        assert_eq!(
            words("/requiredDropCapabilities"),
            ["ALL"].into(),
            "{place}"
        );

        let at = |pointer: &str| pod.at(pointer).and_then(Value::as_array);
        let unsafe_sysctls: BTreeSet<&str> = at("/spec/securityContext/sysctls")
            .into_iter()
            .flatten()
            .filter_map(|sysctl| sysctl["name"].as_str())
            // Kubernetes' own list of safe ones has it.
            .filter(|name| *name != "net.ipv4.ip_unprivileged_port_start")
            .collect();
        assert_eq!(words("/allowedUnsafeSysctls"), unsafe_sysctls, "{place}");

        let volumes: BTreeSet<&str> = at("/spec/volumes")
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .flat_map(|volume| volume.keys().map(String::as_str))
            .filter(|key| *key != "name")
            .collect();
        assert_eq!(words("/volumes"), volumes, "{place}");

        assert_eq!(
            pod.at("/spec/securityContext/seccompProfile/type"),
            Some(&json!("RuntimeDefault")),
            "{place}"
        );
        assert_eq!(
            words("/seccompProfiles"),
            ["runtime/default"].into(),
            "{place}"
        );
        let role = pod
            .unit
            .objects
            .iter()
            .find(|object| object.kind() == "Role");
        let [rule] = &role.unwrap().list("/rules")[..] else {
            panic!("{place}: not one rule");
        };
        assert_eq!(
            rule,
            &&json!({
                "apiGroups": ["security.openshift.io"],
                "resources": ["securitycontextconstraints"],
                "resourceNames": [constraints.name()],
                "verbs": ["use"],
            }),
            "{place}"
        );
        seen += 1;
    });
    // Three modes, and a router that stays.
    assert_eq!(seen, 4, "pods under constraints of our own");
}
