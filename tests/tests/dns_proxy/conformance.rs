//! The conformance cases of the proxy, by the real program. What cases say of
//! connections is shown by tests that name them.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use egress_lab::{
    Command, NetNs, eventually,
    harness::{
        TestResult,
        libtest_mimic::{Failed, Trial},
    },
    program,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{PATIENCE, PROGRAM};

const CASES: &str = include_str!("../../conformance/cases.json");

/// Exit code for a bad configuration. The cases only tell 0 from the rest.
const BAD_CONFIGURATION: i32 = 64;

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

/// A test for each case, and one that they are all there.
pub(crate) fn trials() -> Vec<Trial> {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let cases: Vec<Value> = cases
        .into_iter()
        .filter(|case| case["component"] == PROGRAM)
        .collect();
    let count = cases.len();
    let none_is_lost = Trial::test("conformance::no_case_is_lost", move || {
        assert_eq!(count, 18, "a case was lost or added");
        Ok(())
    });
    let case = |case: Value| {
        let name = format!("conformance::{}", case["id"].as_str().unwrap());
        Trial::test(name, move || judge(&case))
    };
    cases.into_iter().map(case).chain([none_is_lost]).collect()
}

fn judge(case: &Value) -> TestResult {
    assert_eq!(case["kind"], "config");
    let expect = case["expect"].as_object().unwrap();
    for key in expect.keys() {
        let known = ["exit", "stderr_last_line", "listen"].contains(&key.as_str());
        assert!(known, "{key} is not judged");
    }
    let id = case["id"].as_str().unwrap();
    let deviates = DEVIATIONS.iter().any(|(other, _)| *other == id);
    if expect["exit"] == 0 || deviates {
        serves(case)
    } else {
        is_refused(case)
    }
}

/// The program in a pod that lets it have any port and has no network.
fn command(case: &Value) -> Result<(NetNs, Command), Failed> {
    let pod = NetNs::create(case["id"].as_str().unwrap())?;
    pod.sysctl(&[("net/ipv4/ip_unprivileged_port_start", "0")])?;
    let variables = case["config"].as_object().unwrap().iter();
    let variables = variables.map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
    let command = Command::new(&pod, program(PROGRAM)?)
        .envs(variables)
        .resolv_conf("search svc.local\nnameserver 127.0.0.1\n")
        .capabilities(&[]);
    Ok((pod, command))
}

fn is_refused(case: &Value) -> TestResult {
    let (_pod, command) = command(case)?;
    let output = command.run()?.expect(BAD_CONFIGURATION);
    let sentence = case["expect"]["stderr_last_line"].as_str().unwrap();
    assert_eq!(output.last_error_line(), sentence, "{}", output.stderr);
    assert!(output.stderr.lines().count() > 1, "{}", output.stderr);
    Ok(())
}

fn serves(case: &Value) -> TestResult {
    let (pod, command) = command(case)?;
    let checked = command.clone().arg("check").run()?.expect(0);
    assert_eq!(checked.stderr, "", "it warns");
    let rules = command.clone().arg("rules").arg("--output").arg("json");
    let rules: Value = serde_json::from_str(&rules.run()?.expect(0).stdout)?;
    let rules = rules.as_array().unwrap();
    let listen: serde_json::Map<String, Value> = rules
        .iter()
        .map(|rule| {
            let host = rule["host"].as_str().unwrap();
            let to = format!("{host}:{}", rule["remote_port"]);
            (rule["port"].to_string(), json!(to))
        })
        .collect();
    if let Some(expected) = case["expect"].get("listen") {
        assert_eq!(*expected, Value::Object(listen));
    }
    let process = command.spawn()?;
    process.await_stderr("\"serving\"", PATIENCE)?;
    for rule in rules {
        let port = u16::try_from(rule["port"].as_u64().unwrap())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually(PATIENCE, || pod.run(|| TcpStream::connect(address)));
    }
    process.signal(Signal::SIGTERM)?;
    process.signal(Signal::SIGTERM)?;
    let _ = process.wait()?.expect(0);
    Ok(())
}
