//! How the router of this network namespace is doing, read from the kernel, and
//! whether its gateways answer: `status` works in any container of the pod.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use crate::config::FirewallDriver;
use crate::firewall::{Count, Counters};
use crate::originals::Originals;
use crate::router::{Router, RunError, silence};
use crate::state::{Link, MAIN_TABLE, POD_TABLE, PROTOCOL, Route, State};
use crate::wire::{Heard, MacAddr, Place, Station};

/// How often a gateway is asked for that does not answer.
const QUESTIONS: u32 = 2;

/// How long an answer is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// The router as the kernel sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// The egress interface; `None` when no router was set up here.
    interface: Option<Interface>,
    /// The next hops on the physical network.
    gateways: Vec<Gateway>,
    /// Our routes in the main table.
    routes: Vec<String>,
    /// The pod's routes, in our table.
    pod_routes: Vec<String>,
    /// Our routing rules.
    rules: Vec<String>,
    /// Entries of connection tracking.
    connections: Option<Connections>,
    /// Mappings with their counters, or why they cannot be had.
    firewall: Result<Traffic, String>,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    up: bool,
    mac: String,
    mtu: u32,
    addresses: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Gateway {
    address: IpAddr,
    /// Its hardware address if it answers, or why that is not known.
    answer: Result<Option<String>, String>,
    link: String,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Connections {
    count: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct Traffic {
    mappings: Vec<Mapping>,
    fallbacks: Vec<Fallback>,
    refused: Count,
    dropped: Count,
}

#[derive(Debug, Serialize)]
struct Mapping {
    port: u16,
    protocol: String,
    target: SocketAddr,
    #[serde(flatten)]
    count: Count,
}

#[derive(Debug, Serialize)]
struct Fallback {
    target: IpAddr,
    #[serde(flatten)]
    count: Count,
}

/// Asks the kernel.
///
/// # Errors
/// When the namespace cannot be read at all. Counters that want a privilege
/// we do not have are no error.
pub(crate) async fn gather() -> Result<Status, RunError> {
    let mut router = Router::open(FirewallDriver::Nftables)?;
    let state = router.observe().await?;
    let counters = router.counters();
    Ok(Status {
        interface: interface(&state),
        gateways: gateways(&state).await,
        routes: routes(&state, MAIN_TABLE, Some(PROTOCOL)),
        pod_routes: routes(&state, POD_TABLE, None),
        rules: state.rules.iter().map(ToString::to_string).collect(),
        connections: connections(),
        firewall: counters.map(traffic).map_err(|error| error.to_string()),
    })
}

/// The answer for programs.
///
/// # Errors
/// When it cannot be written as JSON, which does not happen.
pub(crate) fn json(status: &Status) -> io::Result<String> {
    let mut text = serde_json::to_string_pretty(status)?;
    text.push('\n');
    Ok(text)
}

fn interface(state: &State) -> Option<Interface> {
    let link = state
        .links
        .iter()
        .find(|link| link.is_ours() || Originals::from_alias(link.alias.as_deref()).is_some())?;
    Some(Interface {
        name: link.name.clone(),
        up: link.up,
        mac: link
            .mac
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<Vec<_>>()
            .join(":"),
        mtu: link.mtu,
        addresses: state
            .addresses_of(&link.name)
            .map(|a| a.address.to_string())
            .collect(),
    })
}

/// The gateways of our default routes.
async fn gateways(state: &State) -> Vec<Gateway> {
    let ours = |route: &&Route| {
        route.table == MAIN_TABLE && route.protocol == PROTOCOL && route.is_default()
    };
    let asked = state.routes.iter().filter(ours).filter_map(|route| {
        let (address, source) = (route.gateway?, route.source?);
        let link = state.link(route.link.as_deref()?)?;
        Some(async move {
            let answer = ask(link, source, address).await;
            Gateway {
                address,
                answer: answer.map_err(|error| error.to_string()),
                link: link.name.clone(),
            }
        })
    });
    join_all(asked).await
}

/// Where a gateway is, if it answers.
async fn ask(
    link: &Link,
    source: IpAddr,
    gateway: IpAddr,
) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let mut station = Station::open(Place {
        link: link.index,
        mac: MacAddr::try_from(link.mac.as_slice())?,
        address: source,
        gateway,
    })?;
    for _ in 0..QUESTIONS {
        station.ask_for_gateway(None)?;
        let answer = async {
            loop {
                match station.next().await.transpose()? {
                    Some(Heard::Gateway { mac, .. }) => return Ok(mac.to_string()),
                    Some(Heard::Conflict(_)) | None => {}
                }
            }
        };
        if let Ok(answer) = timeout(PAUSE, answer).await {
            return answer.map(Some);
        }
    }
    Ok(None)
}

fn routes(state: &State, table: u32, protocol: Option<u8>) -> Vec<String> {
    state
        .routes
        .iter()
        .filter(|route| route.table == table)
        .filter(|route| protocol.is_none_or(|protocol| route.protocol == protocol))
        .map(ToString::to_string)
        .collect()
}

fn connections() -> Option<Connections> {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Some(Connections {
        count: read("count")?,
        max: read("max")?,
    })
}

fn traffic(counters: Counters) -> Traffic {
    Traffic {
        mappings: counters
            .mappings
            .into_iter()
            .map(|(flow, count)| Mapping {
                port: flow.port.get(),
                protocol: flow.protocol.to_string(),
                target: SocketAddr::new(flow.target, flow.target_port.get()),
                count,
            })
            .collect(),
        fallbacks: counters
            .fallbacks
            .into_iter()
            .map(|(target, count)| Fallback { target, count })
            .collect(),
        refused: counters.refused,
        dropped: counters.dropped,
    }
}

/// The answer for people.
impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.interface {
            None => writeln!(f, "no router was set up in this network namespace")?,
            Some(link) => writeln!(
                f,
                "interface    {} {}, {}, mtu {}, {}",
                link.name,
                if link.up { "up" } else { "DOWN" },
                link.mac,
                link.mtu,
                if link.addresses.is_empty() {
                    "no address".to_owned()
                } else {
                    link.addresses.join(" ")
                },
            )?,
        }
        for (index, gateway) in self.gateways.iter().enumerate() {
            let title = if index == 0 { "gateway" } else { "" };
            writeln!(f, "{title:<12} {gateway}")?;
        }
        for (title, lines) in [
            ("routes", &self.routes),
            ("pod routes", &self.pod_routes),
            ("rules", &self.rules),
        ] {
            for (index, line) in lines.iter().enumerate() {
                writeln!(f, "{:<12} {line}", if index == 0 { title } else { "" })?;
            }
        }
        if let Some(connections) = self.connections {
            writeln!(
                f,
                "connections  {} of {}",
                connections.count, connections.max
            )?;
        }
        match &self.firewall {
            Ok(traffic) => write!(f, "{traffic}"),
            Err(reason) => writeln!(f, "mappings     not shown: {reason}"),
        }
    }
}

impl Display for Gateway {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Ok(Some(mac)) => write!(f, "{} at {mac}", self.address),
            Ok(None) => f.write_str(&silence(self.address, &self.link)),
            Err(reason) => write!(f, "{}, not asked for: {reason}", self.address),
        }
    }
}

impl Display for Traffic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<12} {:<40} {:>12} {:>14}",
            "PORT", "GOES TO", "PACKETS", "BYTES"
        )?;
        let mut row = |port: String, target: String, count: Count| {
            writeln!(
                f,
                "{port:<12} {target:<40} {:>12} {:>14}",
                count.packets, count.bytes
            )
        };
        for mapping in &self.mappings {
            row(
                format!("{}/{}", mapping.port, mapping.protocol),
                mapping.target.to_string(),
                mapping.count,
            )?;
        }
        for fallback in &self.fallbacks {
            row(
                "the rest".to_owned(),
                fallback.target.to_string(),
                fallback.count,
            )?;
        }
        row(
            "refused".to_owned(),
            "(from the pod network)".to_owned(),
            self.refused,
        )?;
        row(
            "dropped".to_owned(),
            "(from the physical network)".to_owned(),
            self.dropped,
        )
    }
}
