//! The effective configuration, for people and for programs.

use egress_config::{AddressFamily, format_duration};
use egress_runtime::egress_address::EgressAddress;
use serde_json::{Value, json};
use tracing::info;

use crate::config::Config;

/// Rules logged one by one at the start; of a longer list the log says how to
/// see the rest.
const MAX_LOGGED: usize = 100;

/// The effective configuration, but for the rules, which change.
pub(crate) fn shown(config: &Config, connections: usize, threads: usize) -> Value {
    json!({
        "listen": config.listen().map(|listen| listen.to_string()),
        "tls_listen": config.tls().map(|tls| tls.listen().to_string()),
        "mode": config.mode(),
        "guard": config.guard(),
        "ip_literals": config.literals(),
        "sni": config.sni(),
        "x_forwarded_for": config.forwarded_for(),
        "header_bytes": config.header_bytes(),
        "header_time": format_duration(config.header_time()),
        "idle_time": format_duration(config.idle()),
        "connections": connections,
        "threads": threads,
        "proxy": config.proxy(),
    })
}

/// The effective configuration, once, as log lines.
pub(crate) fn log_configuration(
    config: &Config,
    connections: usize,
    threads: usize,
    egress: EgressAddress,
) {
    let address = |family| match egress.source_for(family) {
        Some(address) => address.to_string(),
        None if egress.family_allowed(family) => "any".to_owned(),
        None => "none".to_owned(),
    };
    info!(
        mode = %config.mode(),
        guard = %config.guard(),
        connections,
        threads,
        egress_ipv4 = address(AddressFamily::Ipv4),
        egress_ipv6 = address(AddressFamily::Ipv6),
        "egress HTTP proxy"
    );
    for entry in config.rules().entries().take(MAX_LOGGED) {
        match entry.line() {
            Some(line) => info!(line, "{entry}"),
            None => info!("otherwise {entry}"),
        }
    }
    let unlogged = config.rules().len().saturating_sub(MAX_LOGGED);
    if unlogged > 0 {
        info!("and {unlogged} more rules; `egress-http-proxy rules` lists all of them");
    }
}
