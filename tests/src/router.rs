//! The egress router as a manifest configures and runs it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use egress_config::AddressFamily as Family;

use crate::{
    address,
    cni::with_prefix,
    command::{Capability, Command},
    error::Result,
    host::Host,
    process::Output,
    program::program,
};

/// Package and binary.
const PROGRAM: &str = "egress-router-init";

/// What the pod of a redirect mode is given: no more.
const CAPABILITIES: [Capability; 2] = [Capability::NET_ADMIN, Capability::NET_RAW];

/// A run takes milliseconds. But all namespaces of a machine share one lock
/// for what it changes, and with many labs side by side it waits for that.
const DEADLINE: Duration = Duration::from_secs(180);

/// The environment of an egress router's container.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    variables: BTreeMap<String, String>,
}

impl RouterConfig {
    /// Mode `init` with [`address::source`] (as long as the LAN's prefix) and
    /// [`address::gateway`] of the families given, redirects to the outside
    /// servers, the last of them a fallback, and no address probe.
    #[must_use]
    pub fn new(families: &[Family]) -> Self {
        let mut destination = Vec::new();
        for &family in families {
            let [one, two] = [0, 1].map(|index| address::outside_server(family, index));
            destination.push(format!("80 tcp {one}"));
            destination.push(format!("53 udp {one}"));
            destination.push(format!("8080 tcp {two} 80"));
        }
        // Fallbacks come last.
        for &family in families {
            destination.push(address::outside_server(family, 2).to_string());
        }
        let words = |address: fn(Family) -> String| {
            families
                .iter()
                .map(|family| address(*family))
                .collect::<Vec<_>>()
                .join(" ")
        };
        Self {
            variables: BTreeMap::new(),
        }
        .with("EGRESS_SOURCE", words(source))
        .with(
            "EGRESS_GATEWAY",
            words(|family| address::gateway(family).to_string()),
        )
        .with("EGRESS_DESTINATION", destination.join("\n"))
        .with("EGRESS_ROUTER_MODE", "init")
        .with("EGRESS_ADDRESS_PROBE", "off")
        .with("EGRESS_LOG_FORMAT", "text")
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// The router's container in a pod: this environment, and no capability
    /// but those that the router needs.
    ///
    /// # Errors
    /// When the program does not build.
    pub fn command(&self, pod: &Host) -> Result<Command> {
        Ok(self.container(pod, program(PROGRAM)?))
    }

    /// The same container, with another program.
    #[must_use]
    pub fn container(&self, pod: &Host, program: impl AsRef<Path>) -> Command {
        pod.command(program)
            .envs(self.variables.clone())
            .capabilities(&CAPABILITIES)
            .deadline(DEADLINE)
    }

    /// Runs the container to its end.
    ///
    /// # Errors
    /// When it cannot be run, or does not end.
    pub fn run(&self, pod: &Host) -> Result<Output> {
        self.command(pod)?.run()
    }

    /// Runs a subcommand, its arguments separated by blanks.
    ///
    /// # Errors
    /// As for [`RouterConfig::run`].
    pub fn run_subcommand(&self, pod: &Host, arguments: &str) -> Result<Output> {
        arguments
            .split_whitespace()
            .fold(self.command(pod)?, Command::arg)
            .run()
    }
}

fn source(family: Family) -> String {
    with_prefix(address::source(family), address::lan(family).prefix_len()).to_string()
}
