//! Configuration and plan, for people and for programs.

use std::fmt::Write as _;

use egress_config::AddressFamily;
use serde_json::{Value, json};
use tracing::info;

use crate::config::{Config, Mode};
use crate::plan::{EgressInterface, Parent, Plan};
use crate::redirect::Mapping;

/// Redirects logged one by one at the start; of a longer list the log says
/// how to see the rest.
const MAX_LOGGED: usize = 100;

/// The effective configuration, once, as log lines.
pub(crate) fn log_configuration(config: &Config) {
    for leg in config.legs() {
        info!(source = %leg.source(), gateway = %leg.gateway(), mode = %config.mode(), "egress router");
    }
    let redirects = config.redirects();
    for mapping in redirects.mappings().iter().take(MAX_LOGGED) {
        info!(line = mapping.line(), "redirect {}", arrow(mapping));
    }
    let unlogged = redirects.mappings().len().saturating_sub(MAX_LOGGED);
    if unlogged > 0 {
        info!("and {unlogged} more redirects; `egress-router-init plan` lists all of them");
    }
    for fallback in redirects.fallbacks() {
        info!(
            line = fallback.line(),
            "redirect {} -> {}",
            REST,
            fallback.target()
        );
    }
}

/// What a fallback line stands for.
const REST: &str = "every other port";

fn arrow(mapping: &Mapping) -> String {
    let target = std::net::SocketAddr::new(mapping.target(), mapping.target_port().get());
    format!("{}/{} -> {target}", mapping.port(), mapping.protocol())
}

/// The answer of `check`.
pub(crate) fn checked(config: &Config) -> String {
    let redirects = config.redirects();
    format!(
        "the configuration is good: mode {}, {} redirects, {} fallbacks\n",
        config.mode(),
        redirects.mappings().len(),
        redirects.fallbacks().len()
    )
}

/// The plan for people.
pub(crate) fn plan_text(config: &Config, plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_plan(&mut text, config, plan);
    text
}

fn write_plan(out: &mut String, config: &Config, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "mode              {}", config.mode())?;
    writeln!(out, "pod network       {}", plan.pod_interface)?;
    writeln!(out, "physical network  {}", describe(&plan.egress))?;
    for leg in config.legs() {
        writeln!(
            out,
            "source            {} by gateway {}",
            leg.source(),
            leg.gateway()
        )?;
    }
    write_redirects(out, config)?;
    if plan.is_converged() {
        writeln!(
            out,
            "\nchanges           none: the network is set up as configured"
        )?;
    } else {
        writeln!(
            out,
            "\nchanges, each with the command that would do the same"
        )?;
        for (number, step) in (1..).zip(&plan.steps) {
            writeln!(out, "{number:>4}  {step}")?;
        }
    }
    writeln!(
        out,
        "\npacket rules      `egress-router-init plan --output nft` prints them"
    )
}

fn write_redirects(out: &mut String, config: &Config) -> std::fmt::Result {
    let redirects = config.redirects();
    match config.mode() {
        Mode::HttpProxy | Mode::DnsProxy => return Ok(()),
        Mode::Init | Mode::Legacy => writeln!(out, "\nredirects")?,
    }
    for mapping in redirects.mappings() {
        writeln!(out, "  line {:<5} {}", mapping.line(), arrow(mapping))?;
    }
    for fallback in redirects.fallbacks() {
        let family = AddressFamily::of(fallback.target());
        writeln!(
            out,
            "  line {:<5} {REST} ({family}) -> {}",
            fallback.line(),
            fallback.target()
        )?;
    }
    Ok(())
}

fn describe(egress: &EgressInterface) -> String {
    match egress {
        EgressInterface::Present(name) => name.clone(),
        EgressInterface::Unnamed { from, to } => format!("{to} (now {from})"),
        EgressInterface::Absent {
            name,
            parent: Parent::Known(parent),
        } => format!("{name} (to be created on the node's {})", parent.name),
        EgressInterface::Absent {
            name,
            parent: Parent::Open(choice),
        } => format!("{name} (to be created; parent: chosen when it runs: {choice})"),
    }
}

/// The plan for programs.
pub(crate) fn plan_json(config: &Config, plan: &Plan) -> Result<String, std::io::Error> {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| json!(step.to_string()))
        .collect();
    let value = json!({
        "config": config,
        "pod_interface": plan.pod_interface,
        "egress_interface": plan.egress.name(),
        "converged": plan.is_converged(),
        "steps": steps,
    });
    let mut text = serde_json::to_string_pretty(&value)?;
    text.push('\n');
    Ok(text)
}
