//! Every conformance case of the proxy, as far as its configuration decides.
//! What connections see of the rest is judged by the end-to-end tests.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use egress_config::MapEnvironment;
use egress_dns_proxy::config::Config;
use serde_json::{Value, json};

const CASES: &str = include_str!("../../tests/conformance/cases.json");

/// Cases that are answered otherwise on purpose.
const DEVIATIONS: [(&str, &str); 2] = [
    (
        "D006",
        "a name of one label is a host: the search list makes short names of Kubernetes services work",
    ),
    (
        "D015",
        "an IPv6 address is a host like any other, and loopback is a container of the same pod",
    ),
];

fn proxy_cases() -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    cases
        .into_iter()
        .filter(|case| case["component"] == "egress-dns-proxy")
        .collect()
}

fn environment(case: &Value) -> MapEnvironment {
    let variables = case["config"].as_object().unwrap().iter();
    variables.fold(MapEnvironment::new(), |environment, (name, value)| {
        environment.with(name, value.as_str().unwrap())
    })
}

/// The listeners in the words of the cases.
fn listeners(config: &Config) -> Value {
    let listeners = config.mappings().iter().map(|mapping| {
        let port = mapping.port().to_string();
        (port, json!(mapping.destination()))
    });
    Value::Object(listeners.collect())
}

/// What the case finds wrong with the program, if anything.
fn judge(case: &Value) -> Result<(), String> {
    let expect = &case["expect"];
    let read = Config::from_environment(&environment(case));
    if expect["exit"] == 0 {
        let (config, warnings) = read.map_err(|diagnostics| format!("refused: {diagnostics}"))?;
        if let Some(warning) = warnings.first() {
            return Err(format!("warned: {warning}"));
        }
        return match expect.get("listen") {
            Some(expected) if *expected != listeners(&config) => {
                Err(format!("expected {expected}, not {}", listeners(&config)))
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
fn every_case_of_the_proxy_answers_as_expected() {
    let cases = proxy_cases();
    assert_eq!(cases.len(), 18, "a case was lost or added");
    let mut deviations = Vec::new();
    let mut failures = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        match judge(case) {
            Ok(()) => {}
            Err(_) if DEVIATIONS.iter().any(|(other, _)| *other == id) => deviations.push(id),
            Err(why) => failures.push(format!("{id} ({}): {why}", case["why"])),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(deviations, DEVIATIONS.map(|(id, _)| id));
}

#[test]
fn a_file_answers_every_case_like_the_variable() {
    for case in proxy_cases() {
        let environment = environment(&case);
        let Some(list) = case["config"]["EGRESS_DNS_PROXY_DESTINATION"].as_str() else {
            continue;
        };
        if list.is_empty() {
            // An empty variable counts as not set, an empty file as an accident.
            continue;
        }
        let from_file = environment
            .clone()
            .without("EGRESS_DNS_PROXY_DESTINATION")
            .with("EGRESS_DNS_PROXY_DESTINATION_FILE", "/destination")
            .with_file("/destination", list);
        let answer = |environment| {
            Config::from_environment(environment)
                .map(|(config, _)| listeners(&config))
                .map_err(|diagnostics| diagnostics.legacy().map(str::to_owned))
        };
        assert_eq!(answer(&environment), answer(&from_file), "{}", case["id"]);
    }
}
