//! Objects are of kinds that exist.

use crate::unit::{UNITS, WATCHED};

/// The kinds in use and the API that has them.
const KINDS: &[(&str, &str)] = &[
    ("ConfigMap", "v1"),
    ("Deployment", "apps/v1"),
    ("Namespace", "v1"),
    ("NetworkAttachmentDefinition", "k8s.cni.cncf.io/v1"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
    ("Pod", "v1"),
    ("PodMonitor", "monitoring.coreos.com/v1"),
    ("PrometheusRule", "monitoring.coreos.com/v1"),
    ("ReplicationController", "v1"),
    ("Role", "rbac.authorization.k8s.io/v1"),
    ("RoleBinding", "rbac.authorization.k8s.io/v1"),
    ("SecurityContextConstraints", "security.openshift.io/v1"),
    ("Service", "v1"),
    ("ServiceAccount", "v1"),
];

#[test]
fn every_object_is_of_a_known_kind_and_named() {
    for unit in UNITS.iter().chain(WATCHED.iter()) {
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
