//! The alerts.

use egress_lab::harness::TestResult;
use serde_json::Value;

use crate::{
    programs::exported,
    query::{ask, mentioned},
};

const FILE: &str = include_str!("../../../manifests/components/monitoring/prometheusrule.yaml");

pub(crate) fn every_alert_asks_for_what_is_exported() -> TestResult {
    let exported = exported();
    let file: Value = serde_saphyr::from_str(FILE)?;
    let groups = file["spec"]["groups"].as_array().unwrap();
    let mut alerts = Vec::new();
    for rule in groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        let name = rule["alert"].as_str().unwrap();
        let asked = ask(rule["expr"].as_str().unwrap(), exported)
            .map_err(|error| format!("{name}: {error}"))?;
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["warning", "critical"].contains(&severity),
            "{name}: {severity}"
        );
        for annotation in ["summary", "description"] {
            let text = rule["annotations"][annotation].as_str().unwrap();
            for label in mentioned(text, "$labels.") {
                let known = asked.labels.contains(label);
                assert!(
                    known,
                    "{name}: {annotation}: {label} is none of {:?}",
                    asked.labels
                );
            }
        }
        assert!(!alerts.contains(&name), "{name} twice");
        alerts.push(name);
    }
    assert!(alerts.len() > 12, "{alerts:?}");
    Ok(())
}
