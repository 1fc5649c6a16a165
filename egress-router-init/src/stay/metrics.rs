//! What the admin endpoint exports of the router.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::config::Config;
use crate::firewall::{Count, Counters};

/// How often the kernel's counters are read.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Mappings that have series of their own; a longer list would be more than a
/// Prometheus wants from one pod, and has the sum.
const MAX_SERIES: usize = 1000;

/// The router's metrics.
pub(super) struct Metrics {
    mappings: Gauge,
    repairs: Counter,
    failures: Counter,
    conflicts: Counter,
    gateways: Family<GatewayLabel, Gauge>,
    packets: Family<Mapping, Counter>,
    bytes: Family<Mapping, Counter>,
    traffic_packets: Family<Verdict, Counter>,
    traffic_bytes: Family<Verdict, Counter>,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Mapping {
    port: String,
    protocol: String,
    target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GatewayLabel {
    gateway: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            mappings: Gauge::default(),
            repairs: Counter::default(),
            failures: Counter::default(),
            conflicts: Counter::default(),
            gateways: Family::default(),
            packets: Family::default(),
            bytes: Family::default(),
            traffic_packets: Family::default(),
            traffic_bytes: Family::default(),
        };
        registry.register(
            "egress_router_mappings",
            "Redirect lines in force, fallbacks included",
            metrics.mappings.clone(),
        );
        registry.register(
            "egress_router_repairs",
            "Times that the pod's network was changed by somebody else and set up again",
            metrics.repairs.clone(),
        );
        registry.register(
            "egress_router_setup_failures",
            "Times that the pod's network could not be set up",
            metrics.failures.clone(),
        );
        registry.register(
            "egress_router_address_conflicts",
            "Times that another host claimed a source address",
            metrics.conflicts.clone(),
        );
        registry.register(
            "egress_router_gateway_answers",
            "Whether the gateway answers ARP or neighbour discovery: 1, or 0",
            metrics.gateways.clone(),
        );
        registry.register(
            "egress_router_mapping_packets",
            "Packets of a mapping, both directions; only for lists of up to 1000 lines",
            metrics.packets.clone(),
        );
        registry.register_with_unit(
            "egress_router_mapping",
            "Bytes of a mapping, both directions; only for lists of up to 1000 lines",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register(
            "egress_router_packets",
            "Packets by what became of them: redirected, refused (from the pod network), \
             dropped (from the physical network)",
            metrics.traffic_packets.clone(),
        );
        registry.register_with_unit(
            "egress_router",
            "Bytes by what became of them",
            Unit::Bytes,
            metrics.traffic_bytes.clone(),
        );
        metrics
    }

    pub(super) fn applied(&self, config: &Config) {
        let lines = config.redirects().mappings().len() + config.redirects().fallbacks().len();
        self.mappings.set(i64::try_from(lines).unwrap_or(i64::MAX));
    }

    pub(super) fn repaired(&self) {
        self.repairs.inc();
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn conflict(&self) {
        self.conflicts.inc();
    }

    pub(super) fn gateway(&self, address: IpAddr, answers: bool) {
        let label = GatewayLabel {
            gateway: address.to_string(),
        };
        self.gateways.get_or_create(&label).set(i64::from(answers));
    }

    pub(super) fn counted(&self, counters: &Counters) {
        self.packets.clear();
        self.bytes.clear();
        let lines = counters.mappings.len() + counters.fallbacks.len();
        let mut sum = Count::default();
        let mut line = |label: Mapping, count: Count| {
            sum.packets += count.packets;
            sum.bytes += count.bytes;
            if lines <= MAX_SERIES {
                set(&self.packets.get_or_create(&label), count.packets);
                set(&self.bytes.get_or_create(&label), count.bytes);
            }
        };
        for (flow, count) in &counters.mappings {
            let label = Mapping {
                port: flow.port.to_string(),
                protocol: flow.protocol.to_string(),
                target: std::net::SocketAddr::new(flow.target, flow.target_port.get()).to_string(),
            };
            line(label, *count);
        }
        for (target, count) in &counters.fallbacks {
            let any = "any".to_owned();
            line(
                Mapping {
                    port: any.clone(),
                    protocol: any,
                    target: target.to_string(),
                },
                *count,
            );
        }
        for (verdict, count) in [
            ("redirected", sum),
            ("refused", counters.refused),
            ("dropped", counters.dropped),
        ] {
            let label = Verdict { verdict };
            set(&self.traffic_packets.get_or_create(&label), count.packets);
            set(&self.traffic_bytes.get_or_create(&label), count.bytes);
        }
    }
}

/// The kernel counts; we only pass its numbers on.
fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}
