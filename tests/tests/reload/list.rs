//! Redirect lines, and the configuration made of them.

use std::fmt::Display;

use egress_config::MapEnvironment;
use egress_lab::{Family, Protocol, RouterConfig, address};
use egress_router_init::config::Config;

/// A list of redirects in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct List(String);

impl List {
    /// Adds the line for an outside server, counted from 0, in both families.
    pub(crate) fn with(mut self, port: u16, protocol: Protocol, server: u8, to: u16) -> Self {
        for family in Family::ALL {
            let server = address::outside_server(family, server);
            self.push(format_args!("{port} {protocol} {server} {to}"));
        }
        self
    }

    /// Adds an outside server as the fallback of both families.
    pub(crate) fn or_else(mut self, server: u8) -> Self {
        for family in Family::ALL {
            self.push(address::outside_server(family, server));
        }
        self
    }

    fn push(&mut self, line: impl Display) {
        self.0.push_str(&format!("{line}\n"));
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The configuration as the program reads it.
    pub(crate) fn config(&self) -> Config {
        let environment = MapEnvironment::new()
            .with("EGRESS_SOURCE", "192.168.12.99/24 2001:db8:12::99/64")
            .with("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1")
            .with("EGRESS_ADDRESS_PROBE", "off")
            .with("EGRESS_DESTINATION", &self.0);
        Config::from_environment(&environment).unwrap().0
    }
}

impl From<String> for List {
    fn from(lines: String) -> Self {
        Self(lines)
    }
}

/// A router that stays; its list is to be added.
pub(crate) fn legacy() -> RouterConfig {
    RouterConfig::new(&Family::ALL)
        .with("EGRESS_ROUTER_MODE", "legacy")
        .without("EGRESS_DESTINATION")
}
