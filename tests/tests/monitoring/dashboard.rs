//! The dashboard.

use std::collections::BTreeSet;

use egress_lab::harness::TestResult;
use serde_json::Value;

use crate::{
    programs::exported,
    query::{ask, mentioned},
};

const FILE: &str = include_str!("../../../manifests/components/monitoring/dashboard.json");

fn dashboard() -> Value {
    serde_json::from_str(FILE).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    let list = value.get(name).and_then(Value::as_array);
    list.into_iter().flatten().collect()
}

/// Title, expression and legend of every query of a panel.
fn queries(dashboard: &Value) -> Vec<(&str, &str, &str)> {
    let panels = list(dashboard, "panels").into_iter();
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            list(panel, "targets").into_iter().map(move |target| {
                let text = |name: &str| target[name].as_str().unwrap();
                (title, text("expr"), text("legendFormat"))
            })
        })
        .collect()
}

pub(crate) fn every_query_asks_for_what_is_exported() -> TestResult {
    let (dashboard, exported) = (dashboard(), exported());
    let queries = queries(&dashboard);
    assert!(queries.len() > 60, "{} queries", queries.len());
    for (title, expr, legend) in queries {
        let asked = ask(expr, exported).map_err(|error| format!("{title}: {error}"))?;
        for label in mentioned(legend, "{{") {
            let known = asked.labels.contains(label);
            assert!(known, "{title}: {label} is none of {:?}", asked.labels);
        }
        // Every panel follows the choice of namespaces and pods.
        let selectors = expr.matches("egress_").count() + expr.matches("process_").count();
        assert!(
            expr.matches("namespace=~\"$namespace\", pod=~\"$pod\"")
                .count()
                >= selectors,
            "{title}: {expr}"
        );
    }
    let mut variables = 0;
    for variable in list(&dashboard["templating"], "list") {
        if variable["type"] == "query" {
            let query = variable["query"]["query"].as_str().unwrap();
            let arguments = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) = arguments.unwrap().rsplit_once(", ").unwrap();
            let asked = ask(metric, exported)?;
            assert!(asked.labels.contains(label), "{query}");
            variables += 1;
        }
    }
    assert_eq!(variables, 2);
    Ok(())
}

pub(crate) fn everything_that_is_exported_is_shown() -> TestResult {
    let (dashboard, exported) = (dashboard(), exported());
    let mut shown = BTreeSet::new();
    for (_, expr, _) in queries(&dashboard) {
        shown.extend(ask(expr, exported)?.metrics);
    }
    let exported = exported.names();
    let hidden: Vec<_> = exported
        .iter()
        .filter(|name| !shown.contains(**name))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    assert!(exported.len() > 40, "{exported:?}");
    Ok(())
}

pub(crate) fn panels_stand_side_by_side_and_use_the_data_source_that_is_chosen() -> TestResult {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        let title = &panel["title"];
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{title} is too wide");
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} lies on another");
            }
        }
    }
    // Wherever one is named.
    let sources = FILE.matches("\"datasource\": {").count();
    assert_eq!(FILE.matches("\"uid\": \"${datasource}\"").count(), sources);
    assert!(sources > 60, "{sources}");
    let variable = list(&dashboard["templating"], "list");
    assert_eq!(variable.first().unwrap()["type"], "datasource");
    Ok(())
}
