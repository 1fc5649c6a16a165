//! What is measured: no proxy, the relay, our proxies and the peers.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};

use super::definition::Definition;
use super::ground::{ORIGIN_HOST, ORIGIN_PORT, PROXY_PORT};
use super::scenario::{Role, Scenario, Work};

/// The project's own binaries.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `egress-http-proxy`.
    pub http_proxy: PathBuf,
    /// `egress-dns-proxy`.
    pub dns_proxy: PathBuf,
    /// `egress-bench-load`.
    pub load: PathBuf,
    /// How the proxies were built, for the report.
    pub build: String,
}

/// One thing that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    name: String,
    role: Role,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The load generator speaks to the origin.
    Direct,
    /// Our proxy, or what stands in its place.
    Program {
        definition: Box<Definition>,
        program: PathBuf,
        whose: Whose,
        version: String,
    },
}

/// What a program is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Ours with another configuration, for the first scenarios only.
    OursOtherwise,
    Relay,
    Peer,
}

/// Names of the subjects that goals are about.
pub(crate) const DIRECT: &str = "no proxy";
pub(crate) const RELAY: &str = "relay";
pub(crate) const HTTP_PROXY: &str = "egress-http-proxy";
pub(crate) const DNS_PROXY: &str = "egress-dns-proxy";
const LOGGING: &str = "egress-http-proxy, access log on";

/// A peer that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// What to install.
    pub(crate) package: Option<String>,
}

impl Subject {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// What it says of itself; for a peer.
    pub(crate) fn version(&self) -> Option<&str> {
        match &self.kind {
            Kind::Program {
                whose: Whose::Peer,
                version,
                ..
            } => Some(version),
            _ => None,
        }
    }

    /// The program and how to start it; `None` for no proxy.
    pub(crate) fn program(&self) -> Option<(&Definition, &Path)> {
        match &self.kind {
            Kind::Direct => None,
            Kind::Program {
                definition,
                program,
                ..
            } => Some((definition, program)),
        }
    }

    /// Whether the scenario says anything about it.
    pub(crate) fn takes_part_in(&self, scenario: &Scenario) -> bool {
        if self.role != scenario.role {
            return false;
        }
        let Kind::Program {
            definition, whose, ..
        } = &self.kind
        else {
            return matches!(scenario.work, Work::Requests { .. } | Work::Bulk { .. });
        };
        match (&scenario.work, whose) {
            (Work::Rules { .. }, Whose::Peer) => definition.rule_for_name.is_some(),
            (Work::Rules { .. }, Whose::Relay) => false,
            (Work::Requests { rate: None, .. }, _) => true,
            (_, Whose::OursOtherwise) => false,
            _ => true,
        }
    }

    /// No proxy, the relay and our proxies.
    pub(crate) fn own(programs: &Programs) -> Vec<Self> {
        let mut all = Vec::new();
        for role in Role::ALL {
            // Nothing else that is not a peer speaks TLS.
            if role != Role::Tls {
                all.push(Self {
                    name: DIRECT.to_owned(),
                    role,
                    kind: Kind::Direct,
                });
                all.push(Self::of(relay(role, &programs.load), Whose::Relay));
            }
        }
        let http = |name, role, environment: &[(&str, &str)]| {
            own_proxy(
                name,
                role,
                &programs.http_proxy,
                &[
                    &[
                        ("EGRESS_HTTP_PROXY_DESTINATION_FILE", "{rules}"),
                        // A name of a rule leads to the origin's loopback address.
                        ("EGRESS_HTTP_PROXY_GUARD", "off"),
                    ],
                    environment,
                ]
                .concat(),
            )
        };
        let plain = ("EGRESS_HTTP_PROXY_LISTEN", "127.0.0.1:{port}");
        let quiet = ("EGRESS_ACCESS_LOG", "off");
        all.push(Self::of(
            http(HTTP_PROXY, Role::Http, &[plain, quiet]),
            Whose::Ours,
        ));
        all.push(Self::of(
            logging_to_a_file(http(
                LOGGING,
                Role::Http,
                &[plain, ("EGRESS_ACCESS_LOG", "on")],
            )),
            Whose::OursOtherwise,
        ));
        all.push(Self::of(
            http(
                HTTP_PROXY,
                Role::Tls,
                &[
                    quiet,
                    ("EGRESS_HTTP_PROXY_LISTEN", "off"),
                    ("EGRESS_HTTP_PROXY_TLS_LISTEN", "127.0.0.1:{port}"),
                    (
                        "EGRESS_HTTP_PROXY_TLS_CERTIFICATE",
                        "{certificates}/cert.pem",
                    ),
                    ("EGRESS_HTTP_PROXY_TLS_KEY", "{certificates}/key.pem"),
                ],
            ),
            Whose::Ours,
        ));
        let mapping = format!("{{port}} {ORIGIN_HOST} {{origin_port}}");
        all.push(Self::of(
            own_proxy(
                DNS_PROXY,
                Role::Tcp,
                &programs.dns_proxy,
                &[quiet, ("EGRESS_DNS_PROXY_DESTINATION", &mapping)],
            ),
            Whose::Ours,
        ));
        all
    }

    fn of(definition: Definition, whose: Whose) -> Self {
        Self {
            name: definition.name.clone(),
            role: definition.role,
            kind: Kind::Program {
                program: definition.program.clone(),
                definition: Box::new(definition),
                whose,
                version: String::new(),
            },
        }
    }

    /// The peer, where its program is installed.
    pub(crate) fn find(definition: Definition) -> std::result::Result<Self, Absent> {
        let program = find_program(&definition.program)
            .filter(|_| definition.needs.iter().all(|file| file.exists()));
        let Some(program) = program else {
            return Err(Absent {
                name: definition.name,
                role: definition.role,
                package: definition.package,
            });
        };
        let version = version_of(&program, &definition.version);
        Ok(Self {
            name: definition.name.clone(),
            role: definition.role,
            kind: Kind::Program {
                definition: Box::new(definition),
                program,
                whose: Whose::Peer,
                version,
            },
        })
    }
}

fn own_proxy(name: &str, role: Role, program: &Path, environment: &[(&str, &str)]) -> Definition {
    let mut all: BTreeMap<String, String> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    all.insert("EGRESS_THREADS".to_owned(), "1".to_owned());
    Definition {
        name: name.to_owned(),
        role,
        program: program.to_owned(),
        package: None,
        needs: Vec::new(),
        version: Vec::new(),
        arguments: Vec::new(),
        environment: all,
        files: BTreeMap::new(),
        rule_for_address: "{host}\n".to_owned(),
        rule_for_name: Some("{host}\n".to_owned()),
        keeps_connections: true,
        most_connections: None,
    }
}

/// Its lines are not read by this process, which would cost the proxy's core.
fn logging_to_a_file(proxy: Definition) -> Definition {
    let program = proxy.program.display().to_string();
    Definition {
        program: "/bin/sh".into(),
        arguments: vec![
            "-c".to_owned(),
            "exec \"$0\" 2>\"$1\"".to_owned(),
            program,
            "{dir}/access.log".to_owned(),
        ],
        ..proxy
    }
}

fn relay(role: Role, load: &Path) -> Definition {
    let arguments = [
        "relay".to_owned(),
        "--listen".to_owned(),
        format!("127.0.0.1:{PROXY_PORT}"),
        "--to".to_owned(),
        format!("{ORIGIN_HOST}:{ORIGIN_PORT}"),
    ];
    Definition {
        arguments: arguments.to_vec(),
        environment: BTreeMap::new(),
        ..own_proxy(RELAY, role, load, &[])
    }
}

/// Looks in `PATH` and where system administration tools are.
fn find_program(name: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The first line with a digit that the program writes.
fn version_of(program: &Path, arguments: &[String]) -> String {
    if arguments.is_empty() {
        return "version unknown".to_owned();
    }
    let output = process::Command::new(program).args(arguments).output();
    let text = output.map_or_else(
        |_| String::new(),
        |output| {
            let stdout = String::from_utf8_lossy(&output.stdout);
            format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr))
        },
    );
    text.lines()
        .find(|line| line.contains(|character: char| character.is_ascii_digit()))
        .unwrap_or("version unknown")
        .trim()
        .to_owned()
}

/// The peers that are installed, and those that are not: the packaged ones
/// and those of `files`.
pub(crate) fn find_peers(files: &[PathBuf]) -> Result<(Vec<Subject>, Vec<Absent>)> {
    let mut definitions = Definition::packaged()?;
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        definitions
            .push(Definition::parse(&text).with_context(|| format!("in {}", file.display()))?);
    }
    let mut peers = Vec::new();
    let mut absent = Vec::new();
    for definition in definitions {
        match Subject::find(definition) {
            Ok(peer) => peers.push(peer),
            Err(one) => absent.push(one),
        }
    }
    Ok((peers, absent))
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Extent;
    use super::*;

    fn programs() -> Programs {
        Programs {
            http_proxy: "h".into(),
            dns_proxy: "d".into(),
            load: "l".into(),
            build: String::new(),
        }
    }

    #[test]
    fn every_scenario_measures_one_of_our_proxies() {
        let own = Subject::own(&programs());
        for scenario in Scenario::all(&Extent::full()) {
            let ours = own.iter().filter(|subject| {
                subject.takes_part_in(&scenario)
                    && [HTTP_PROXY, DNS_PROXY].contains(&subject.name())
            });
            assert_eq!(ours.count(), 1, "{}", scenario.name);
        }
    }

    #[test]
    fn a_peer_that_is_not_installed_says_its_package() {
        let definition =
            Definition::parse("name: x\nrole: tcp\nprogram: no-such-program\npackage: some\n");
        assert_eq!(
            Subject::find(definition.unwrap()).unwrap_err(),
            Absent {
                name: "x".to_owned(),
                role: Role::Tcp,
                package: Some("some".to_owned()),
            }
        );
    }
}
