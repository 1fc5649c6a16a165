//! How pods stand in the cluster.

use serde_json::json;

use crate::unit::{each_pod, each_router};

#[test]
fn an_address_is_held_by_one_pod_at_a_time() {
    each_router(|pod| {
        let (place, object) = (pod.place(), pod.object);
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
        assert_eq!(selector, pod.at("/metadata/labels"), "{place}");
    });
}

#[test]
fn pods_hold_no_more_than_they_need_of_the_cluster() {
    each_pod(|pod| {
        let place = pod.place();
        let set = |field: &str| pod.at(&format!("/spec/{field}"));
        assert_eq!(
            set("automountServiceAccountToken"),
            Some(&json!(false)),
            "{place}"
        );
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(set(field), None, "{place}: {field}");
        }
    });
}

/// A Service named egress-1 would put EGRESS_1_* into the environment.
#[test]
fn services_put_nothing_into_the_environment_of_a_router() {
    each_router(|pod| {
        assert_eq!(
            pod.at("/spec/enableServiceLinks"),
            Some(&json!(false)),
            "{}",
            pod.place()
        );
    });
}
