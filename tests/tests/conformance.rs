//! Every conformance case of the router, from the environment of the real
//! program to its exit code, its last word, and what is in force then.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, also over a malformed case"
)]

use std::{collections::BTreeSet, net::IpAddr, process::ExitCode};

use egress_lab::{
    Capability, Cni, Family, Lab, LabBuilder, MacvlanMode, Node, Output, Protocol, Route, Snapshot,
    address,
    harness::{
        self, TestResult,
        libtest_mimic::{Failed, Trial},
    },
    program,
};
use ipnet::IpNet;
use serde_json::Value;

const CASES: &str = include_str!("../conformance/cases.json");

const PROGRAM: &str = "egress-router-init";

/// Exit code for a bad configuration. The cases only tell 0 from the rest.
const BAD_CONFIGURATION: i32 = 64;

/// What the container is given.
const CAPABILITIES: [Capability; 2] = [Capability::NET_ADMIN, Capability::NET_RAW];

/// Cases that are answered otherwise on purpose.
const DEVIATIONS: [(&str, &str); 1] = [(
    "R050",
    "a pod without macvlan0 gets one, made on the node's interface to the gateway; where that \
     is forbidden or impossible the sentence stands, with the remedy",
)];

fn main() -> ExitCode {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let cases = cases
        .into_iter()
        .filter(|case| case["component"] == PROGRAM);
    let mut tests: Vec<Trial> = cases
        .map(Case)
        .map(|case| Trial::test(case.id().to_owned(), move || case.judge()))
        .collect();
    let count = tests.len();
    tests.push(Trial::test("no_case_is_lost", move || {
        assert_eq!(count, 27, "a case was lost or added");
        Ok(())
    }));
    tests.push(Trial::test("R050_without_creation", without_creation));
    tests.push(Trial::test("R050_in_a_user_namespace", in_a_user_namespace));
    harness::run(&[PROGRAM], tests)
}

/// A case of `cases.json`.
struct Case(Value);

impl Case {
    fn id(&self) -> &str {
        self.0["id"].as_str().unwrap()
    }

    fn expect(&self, key: &str) -> Option<&Value> {
        self.0["expect"].get(key)
    }

    fn precondition(&self) -> Option<&str> {
        self.expect("precondition")?.as_str()
    }

    fn is_deviation(&self) -> bool {
        DEVIATIONS.iter().any(|(id, _)| *id == self.id())
    }

    /// OpenShift's annotation has made `macvlan0`, unless the case says no.
    fn lab(&self) -> Result<Lab, Failed> {
        let builder = Lab::builder().families(&[Family::Ipv4]);
        let with_macvlan = || builder.clone().macvlan("macvlan0", MacvlanMode::Private);
        let lab = match self.precondition() {
            None => with_macvlan().build()?,
            Some("no default route") => {
                let lab = with_macvlan().build()?;
                let gateway = Cni::DefaultRoute.gateway(Node::One, Family::Ipv4);
                let default = Route::default_via(gateway).dev("eth0");
                lab.router_pod().netns().delete_route(&default)?;
                lab
            }
            Some("192.168.12.99/24 already on macvlan0") => {
                let lab = with_macvlan().build()?;
                let address: IpNet = "192.168.12.99/24".parse()?;
                lab.router_pod().netns().add_address("macvlan0", address)?;
                lab
            }
            Some("no macvlan0 link") => builder.build()?,
            Some(other) => return Err(format!("precondition {other:?} is not known").into()),
        };
        Ok(lab)
    }

    fn run(&self, lab: &Lab) -> Result<Output, Failed> {
        let variables = self.0["config"].as_object().unwrap().iter();
        let variables = variables.map(|(name, value)| (name, value.as_str().unwrap()));
        let pod = lab.router_pod();
        Ok(pod
            .command(program(PROGRAM)?)
            .envs(variables)
            .capabilities(&CAPABILITIES)
            .run()?)
    }

    fn judge(&self) -> TestResult {
        let lab = self.lab()?;
        let before = lab.router_pod().snapshot()?;
        let output = self.run(&lab)?;
        let answer = self.answers_as_expected(&lab, &before, &output);
        match (answer, self.is_deviation()) {
            (Ok(()), false) => Ok(()),
            (Ok(()), true) => Err("answers as expected and is no deviation any more".into()),
            (Err(_), true) => {
                // The pod has what it lacked, and works.
                let _ = output.expect(0);
                set_up_with(&lab, "192.168.12.1")
            }
            (Err(reason), false) => {
                Err(format!("{} ({}): {reason}", self.id(), self.0["why"]).into())
            }
        }
    }

    fn answers_as_expected(
        &self,
        lab: &Lab,
        before: &Snapshot,
        output: &Output,
    ) -> Result<(), String> {
        let Output { code, stderr, .. } = output;
        if self.expect("exit").unwrap() == 0 {
            if *code != 0 {
                return Err(format!("exit {code}:\n{stderr}"));
            }
            return self
                .is_in_force(lab)
                .map_err(|error| error.message().unwrap().to_owned());
        }
        if *code != BAD_CONFIGURATION {
            return Err(format!("exit {code}, not {BAD_CONFIGURATION}:\n{stderr}"));
        }
        // Also where the last line may be better, it is the one that is known.
        let expected = self.expect("stderr_last_line").unwrap().as_str().unwrap();
        if output.last_error_line() != expected {
            return Err(format!(
                "last line {:?}, not {expected:?}",
                output.last_error_line()
            ));
        }
        let after = lab
            .router_pod()
            .snapshot()
            .map_err(|error| error.to_string())?;
        match before.difference(&after) {
            same if same.is_empty() => Ok(()),
            difference => Err(format!("a refused configuration changed:\n{difference}")),
        }
    }

    fn is_in_force(&self, lab: &Lab) -> TestResult {
        let gateway = self.0["config"]["EGRESS_GATEWAY"].as_str().unwrap();
        set_up_with(lab, gateway)?;
        for route in self
            .expect("routes")
            .into_iter()
            .flat_map(|list| list.as_array().unwrap())
        {
            // Some attributes more than the case names, and in another order.
            let [to, via @ .., dev] = &clauses(route.as_str().unwrap())[..] else {
                return Err(format!("route {route} is not understood").into());
            };
            let snapshot = lab.router_pod().snapshot()?;
            let there = snapshot.lines("route").any(|line| {
                line.starts_with(&format!("route Inet table 254 Unicast {to} "))
                    && via
                        .iter()
                        .chain([dev])
                        .all(|part| line.contains(part.as_str()))
            });
            if !there {
                return Err(format!("no route {route} in\n{snapshot}").into());
            }
        }
        if let Some(expected) = self.expect("nft") {
            let expected: BTreeSet<String> =
                expected.as_array().unwrap().iter().map(complete).collect();
            let rules = rules_in_force(lab)?;
            if rules != expected {
                return Err(format!("rules {rules:?}, not {expected:?}").into());
            }
        }
        Ok(())
    }
}

/// A process of the pod reaches the outside by the gateway, with the source
/// address; and a client where the list leads to a server of the lab.
fn set_up_with(lab: &Lab, gateway: &str) -> TestResult {
    assert_eq!(gateway.parse::<IpAddr>()?, address::gateway(Family::Ipv4));
    let ports = [80, 443].map(|port| (Protocol::Tcp, port));
    let servers = [0, 1, 2].map(|index| lab.outside(index).serve(&ports));
    let source = address::source(Family::Ipv4);
    let seen = lab
        .router_pod()
        .tcp(lab.outside(0).socket(Family::Ipv4, 80), "local")?;
    if seen.client.ip() != source {
        return Err(seen.into());
    }
    for rule in rules_in_force(lab)? {
        let Some((protocol, port, to)) = parsed(&rule) else {
            continue;
        };
        let of_lab = [0, 1, 2].map(|index| lab.outside(index).address(Family::Ipv4));
        if !of_lab.contains(&to.ip()) {
            continue;
        }
        for node in Node::ALL {
            let entrance = lab.router_pod().socket(Family::Ipv4, port);
            let seen = lab.client(node).ask(protocol, entrance, "redirected")?;
            if (seen.server, seen.client.ip()) != (to, source) {
                return Err(format!("{rule}: {seen}").into());
            }
        }
    }
    drop(servers);
    Ok(())
}

/// `default via 192.168.12.1 dev macvlan0`, in its three parts, each with the
/// blank at its end that keeps `192.168.12.1` from being `192.168.12.10`.
fn clauses(route: &str) -> Vec<String> {
    let (to, rest) = route.split_once(' ').unwrap_or((route, ""));
    let words: Vec<&str> = rest.split(' ').collect();
    let pairs = words.chunks(2).map(|pair| format!("{} ", pair.join(" ")));
    std::iter::once(to.to_owned()).chain(pairs).collect()
}

/// `tcp dport 80 dnat to 203.0.113.25:80`
fn parsed(rule: &str) -> Option<(Protocol, u16, std::net::SocketAddr)> {
    let [protocol, "dport", port, "dnat", "to", target] = rule.split(' ').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    Some((
        protocol.parse().ok()?,
        port.parse().ok()?,
        target.parse().ok()?,
    ))
}

/// An expected rule with the port written out that a case leaves implied.
fn complete(rule: &Value) -> String {
    let rule = rule.as_str().unwrap();
    match rule.split(' ').collect::<Vec<_>>()[..] {
        [_, "dport", port, "dnat", "to", target] if !target.contains(':') => {
            format!("{rule}:{port}")
        }
        _ => rule.to_owned(),
    }
}

/// What the kernel does, in the words of the cases.
fn rules_in_force(lab: &Lab) -> Result<BTreeSet<String>, Failed> {
    let status = lab
        .router_pod()
        .command(program(PROGRAM)?)
        .capabilities(&CAPABILITIES);
    let output = status
        .arg("status")
        .arg("--output")
        .arg("json")
        .run()?
        .expect(0);
    let status: Value = serde_json::from_str(&output.stdout)?;
    let traffic = &status["firewall"]["Ok"];
    let mapping = |mapping: &Value| {
        let word = |key: &str| mapping[key].as_str().unwrap().to_owned();
        format!(
            "{} dport {} dnat to {}",
            word("protocol"),
            mapping["port"],
            word("target")
        )
    };
    let fallback = |fallback: &Value| format!("dnat to {}", fallback["target"].as_str().unwrap());
    let list = |key: &str| {
        traffic[key]
            .as_array()
            .ok_or_else(|| Failed::from(format!("no {key} in\n{status:#}")))
    };
    Ok(list("mappings")?
        .iter()
        .map(mapping)
        .chain(list("fallbacks")?.iter().map(fallback))
        .collect())
}

// --- R050, where nothing can be created ---

fn case(id: &str) -> Case {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    Case(cases.into_iter().find(|case| case["id"] == id).unwrap())
}

fn without_creation() -> TestResult {
    cannot_find_device(&Lab::builder(), &[("EGRESS_MACVLAN_PARENT", "off")])
}

fn in_a_user_namespace() -> TestResult {
    cannot_find_device(&Lab::builder().router_in_user_namespace(), &[])
}

/// The last line is the sentence, and the remedy in it.
fn cannot_find_device(builder: &LabBuilder, more: &[(&str, &str)]) -> TestResult {
    let case = case("R050");
    let lab = builder.build()?;
    let before = lab.router_pod().snapshot()?;
    let variables = case.0["config"].as_object().unwrap().iter();
    let variables = variables.map(|(name, value)| (name, value.as_str().unwrap()));
    let output = lab
        .router_pod()
        .command(program(PROGRAM)?)
        .envs(variables)
        .envs(more.iter().copied())
        .capabilities(&CAPABILITIES)
        .run()?
        .expect(1);
    let sentence = case.expect("stderr_last_line").unwrap().as_str().unwrap();
    let last = output.last_error_line();
    assert!(last.contains(sentence), "{last}");
    assert!(last.contains("k8s.v1.cni.cncf.io/networks"), "{last}");
    before.assert_same(&lab.router_pod().snapshot()?);
    Ok(())
}
