//! Manifests held against the published schemas of their kinds.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What the validator says of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many objects there were.
    pub objects: usize,
    /// What is wrong: a line for each object and version of Kubernetes.
    pub errors: Vec<String>,
}

/// Validates every object of a YAML text, strictly: a field that its kind does
/// not have is an error, and so is a kind without a schema.
///
/// # Errors
/// When the validator is not installed or cannot read the text.
pub fn validate(text: &str) -> Result<Verdict> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/validate-manifests");
    let mut child = Command::new(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", script.display()))?;
    // It prints nothing before it has read everything. Where it ends early, its
    // own words say why, not the broken pipe.
    let written = child
        .stdin
        .take()
        .context("the validator reads nothing")?
        .write_all(text.as_bytes());
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut errors: Vec<_> = said.lines().map(ToOwned::to_owned).collect();
    let objects = errors
        .pop()
        .as_deref()
        .and_then(|line| line.strip_suffix(" objects"))
        .and_then(|count| count.parse().ok());
    match objects {
        Some(objects) if output.status.success() == errors.is_empty() => {
            written.context("cannot give the validator its text")?;
            Ok(Verdict { objects, errors })
        }
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each breaks one rule, and only that one.
    const BROKEN: &[(&str, &str)] = &[
        (
            "Additional properties are not allowed ('datas' was unexpected)",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatas: {}\n",
        ),
        (
            "Additional properties are not allowed ('hostNetworking' was unexpected)",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
             spec: {hostNetworking: true, containers: [{name: c}]}\n",
        ),
        (
            "'one' is not of type 'integer'",
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: a}\nspec: {replicas: one}\n",
        ),
        // Without quotes, YAML makes it a truth value.
        (
            "False is not of type 'string'",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
             spec: {containers: [{name: c, env: [{name: X, value: off}]}]}\n",
        ),
        (
            "'containers' is a required property",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n",
        ),
        (
            "no schema",
            "apiVersion: example.com/v1\nkind: Pod\nmetadata: {name: a}\n",
        ),
        (
            "no schema",
            "apiVersion: v1\nkind: Pot\nmetadata: {name: a}\n",
        ),
        (
            "no schema",
            "apiVersion: monitoring.coreos.com/v2\nkind: PodMonitor\nmetadata: {name: a}\n",
        ),
        (
            "'config' is a required property",
            "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\n\
             metadata: {name: a}\nspec: {}\n",
        ),
        (
            "Additional properties are not allowed ('allowedCapability' was unexpected)",
            "apiVersion: security.openshift.io/v1\nkind: SecurityContextConstraints\n\
             metadata: {name: a}\nallowHostDirVolumePlugin: false\nallowHostIPC: false\n\
             allowHostNetwork: false\nallowHostPID: false\nallowHostPorts: false\n\
             allowPrivilegedContainer: false\nallowedCapabilities: []\n\
             defaultAddCapabilities: []\npriority: null\nreadOnlyRootFilesystem: true\n\
             requiredDropCapabilities: []\nvolumes: []\nallowedCapability: []\n",
        ),
        (
            "Additional properties are not allowed ('ports' was unexpected)",
            "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: a}\n\
             spec: {selector: {}, podMetricsEndpoints: [{ports: metrics}]}\n",
        ),
        (
            "'expr' is a required property",
            "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: a}\n\
             spec: {groups: [{name: g, rules: [{alert: A}]}]}\n",
        ),
    ];

    #[test]
    fn what_is_right_passes() {
        let pod =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}\n";
        let verdict = validate(&format!("---\n{pod}---\n{pod}---\n")).unwrap();
        assert_eq!((verdict.objects, verdict.errors), (2, vec![]));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let text: String = BROKEN
            .iter()
            .map(|(_, text)| format!("---\n{text}"))
            .collect();
        let verdict = validate(&text).unwrap();
        assert_eq!(verdict.objects, BROKEN.len());
        for (number, (reason, text)) in BROKEN.iter().enumerate() {
            let prefix = format!("object {}, ", number + 1);
            let said: Vec<_> = verdict
                .errors
                .iter()
                .filter(|error| error.starts_with(&prefix))
                .collect();
            assert!(
                !said.is_empty() && said.iter().all(|error| error.contains(reason)),
                "{text}: {reason}: {said:?}"
            );
        }
    }

    #[test]
    fn what_is_no_yaml_is_an_error() {
        let error = validate("a: [").unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }
}
