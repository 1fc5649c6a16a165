//! Every conformance case of the router, as far as its configuration decides.
//! Cases with a precondition about links have a valid configuration here; the
//! end-to-end tests judge the rest of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeSet;

use egress_config::MapEnvironment;
use egress_router_init::config::Config;
use serde_json::Value;

const CASES: &str = include_str!("../../tests/conformance/cases.json");

fn router_cases() -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    cases
        .into_iter()
        .filter(|case| case["component"] == "egress-router-init")
        .collect()
}

fn environment(case: &Value) -> MapEnvironment {
    let variables = case["config"].as_object().unwrap().iter();
    variables.fold(MapEnvironment::new(), |environment, (name, value)| {
        environment.with(name, value.as_str().unwrap())
    })
}

/// The redirects in the words of the cases.
fn rules(config: &Config) -> BTreeSet<String> {
    let mappings = config.redirects().mappings().iter().map(|mapping| {
        format!(
            "{} dport {} dnat to {}:{}",
            mapping.protocol(),
            mapping.port(),
            mapping.target(),
            mapping.target_port()
        )
    });
    let fallbacks = config
        .redirects()
        .fallbacks()
        .iter()
        .map(|fallback| format!("dnat to {}", fallback.target()));
    mappings.chain(fallbacks).collect()
}

/// The expected rules with the port written out that a case leaves implied.
fn expected_rules(case: &Value) -> Option<BTreeSet<String>> {
    let rules = case["expect"]["nft"].as_array()?;
    let complete = |rule: &Value| {
        let rule = rule.as_str().unwrap();
        match rule.split(' ').collect::<Vec<_>>()[..] {
            [_, "dport", port, "dnat", "to", target] if !target.contains(':') => {
                format!("{rule}:{port}")
            }
            _ => rule.to_owned(),
        }
    };
    Some(rules.iter().map(complete).collect())
}

/// What the case finds wrong with the program, if anything.
fn judge(case: &Value) -> Result<(), String> {
    let expect = &case["expect"];
    let read = Config::from_environment(&environment(case));
    if expect.get("precondition").is_some() || expect["exit"] == 0 {
        let (config, _) = read.map_err(|diagnostics| format!("refused: {diagnostics}"))?;
        return match expected_rules(case) {
            Some(expected) if expected != rules(&config) => {
                Err(format!("expected {expected:?}, not {:?}", rules(&config)))
            }
            Some(_) | None => Ok(()),
        };
    }
    let report = match read {
        Ok((config, _)) => return Err(format!("accepted: {config:?}")),
        Err(diagnostics) => diagnostics.to_string(),
    };
    let expected = expect["stderr_last_line"].as_str();
    match report.lines().last() {
        last if last == expected => Ok(()),
        last => Err(format!("expected {expected:?}, not {last:?}")),
    }
}

#[test]
fn every_case_of_the_router_answers_as_expected() {
    let cases = router_cases();
    assert_eq!(cases.len(), 27, "a case was lost or added");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let why = judge(case).err()?;
            Some(format!("{} ({}): {why}", case["id"], case["why"]))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_file_answers_every_case_like_the_variable() {
    for case in router_cases() {
        let environment = environment(&case);
        let Some(list) = case["config"]["EGRESS_DESTINATION"].as_str() else {
            continue;
        };
        let from_file = environment
            .clone()
            .without("EGRESS_DESTINATION")
            .with("EGRESS_DESTINATION_FILE", "/destination")
            .with_file("/destination", list);
        let answer = |environment| {
            Config::from_environment(environment)
                .map(|(config, _)| rules(&config))
                .map_err(|diagnostics| diagnostics.legacy().map(str::to_owned))
        };
        assert_eq!(answer(&environment), answer(&from_file), "{}", case["id"]);
    }
}
