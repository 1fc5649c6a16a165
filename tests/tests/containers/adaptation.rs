//! What is played otherwise than it is written, and why.

use std::fmt;

use egress_lab::harness::libtest_mimic::Failed;
use serde_json::Value;

use crate::{
    machine::Record,
    manifest::{Manifest, Pod, text},
};

/// One value that differs between two manifests.
pub(crate) struct Difference {
    object: String,
    path: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Difference {
    pub(crate) fn is_of_an_image(&self) -> bool {
        self.path.ends_with(".image") && self.before.is_some() && self.after.is_some()
    }

    /// Why it is so; nothing for what nobody meant.
    fn reason(&self) -> Option<&'static str> {
        let last = self.path.rsplit('.').next().unwrap_or_default();
        match last {
            _ if self.is_of_an_image() => Some("the images as they were built here"),
            _ if self.path == "data.source" => Some("an address as a user sets it"),
            "restartPolicy" => {
                Some("podman restarts init containers that are done, the kubelet does not")
            }
            _ if self.object.starts_with("ReplicationController ")
                && (matches!(last, "kind" | "apiVersion")
                    || self.path.starts_with("spec.selector")) =>
            {
                Some("podman plays no ReplicationController; a Deployment makes the same pod")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            Some(value) => value.to_string(),
            None => "nothing".to_owned(),
        };
        let (before, after) = (shown(&self.before), shown(&self.after));
        write!(f, "{} {}: {before} -> {after}", self.object, self.path)
    }
}

/// Everything that differs.
pub(crate) fn differences(before: &Manifest, after: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    for old in before.objects() {
        let new = after.objects().iter().find(|new| key(new) == key(old));
        compare(&name(old), "", Some(old), new, &mut found);
    }
    for new in after.objects() {
        if !before.objects().iter().any(|old| key(old) == key(new)) {
            compare(&name(new), "", None, Some(new), &mut found);
        }
    }
    found
}

/// Says what differs and why.
pub(crate) fn explain(title: &str, before: &Manifest, after: &Manifest) -> Result<(), Failed> {
    for difference in differences(before, after) {
        match difference.reason() {
            Some(reason) => println!("{title}: adapted: {difference} ({reason})"),
            None => return Err(format!("{title}: nobody meant this: {difference}").into()),
        }
    }
    Ok(())
}

/// Parts of a manifest that podman passes over or that this machine refuses, and
/// what is done instead: key and value, where the value matters.
const ON_THE_NODE: [(&str, Option<&str>, &str); 9] = [
    (
        "resources",
        None,
        "no limits are set: containers get no cgroups of the machine",
    ),
    (
        "sysctls",
        None,
        "set by the node for every pod: podman passes over those of a manifest",
    ),
    (
        "readinessProbe",
        None,
        "asked by the test: podman's health checks need systemd",
    ),
    (
        "livenessProbe",
        None,
        "not asked: podman's health checks need systemd",
    ),
    ("nodeSelector", None, "passed over: there is one node"),
    (
        "pod.network.openshift.io/assign-macvlan",
        None,
        "nobody reads it: the init container makes the macvlan itself",
    ),
    (
        "kind",
        Some("Namespace"),
        "passed over by podman: all names are unique",
    ),
    (
        "kind",
        Some("ServiceAccount"),
        "passed over by podman: there is no API server",
    ),
    (
        "kind",
        Some("Service"),
        "played by DNAT on the lab's nodes, and by its DNS",
    ),
];

/// Says what is otherwise although the manifest is as it was: on the node.
pub(crate) fn tell(manifest: &Manifest, records: &[Record]) {
    let names: Vec<_> = manifest.pods().iter().map(Pod::owner).collect();
    let title = names.join(", ");
    for (key, value, instead) in ON_THE_NODE {
        if manifest
            .objects()
            .iter()
            .any(|object| contains(object, key, value))
        {
            println!("{title}: on this node: {}: {instead}", value.unwrap_or(key));
        }
    }
    for (part, key) in [("process", "rlimits"), ("process", "oomScoreAdj")] {
        if let Some(asked) = records.iter().find_map(|record| record.0[part].get(key)) {
            println!("{title}: on this node: {key} {asked}: taken out, it needs CAP_SYS_RESOURCE");
        }
    }
}

fn contains(value: &Value, key: &str, wanted: Option<&str>) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, member)| {
            name == key && wanted.is_none_or(|wanted| member == wanted)
                || contains(member, key, wanted)
        }),
        Value::Array(items) => items.iter().any(|item| contains(item, key, wanted)),
        _ => false,
    }
}

fn name(object: &Value) -> String {
    format!(
        "{} {}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}

/// An object and what it was made into have the same.
fn key(object: &Value) -> (&str, &str) {
    let kind = match text(&object["kind"]) {
        "ReplicationController" => "Deployment",
        kind => kind,
    };
    (kind, text(&object["metadata"]["name"]))
}

fn compare(
    object: &str,
    path: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names = old
                .keys()
                .chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                compare(object, &below(name), old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                let path = below(&index.to_string());
                compare(object, &path, old.get(index), new.get(index), found);
            }
        }
        _ => found.push(Difference {
            object: object.to_owned(),
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}
