//! What platforms need around the pod.

use serde_json::{Value, json};

use crate::unit::{each_router, units};

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
    // Three modes: two overlays and an example.
    assert_eq!(seen, 9, "pods with a Multus network");
}

#[test]
fn a_binding_names_an_account_and_a_role_that_exist() {
    let mut seen = 0;
    for unit in units() {
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
    // Two overlays for each of three modes.
    assert_eq!(seen, 6, "role bindings");
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
    assert_eq!(seen, 6, "pods with an account");
}
