//! What the admin endpoint exports. Labels hold words of ours and line numbers
//! alone, never what a client chose.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use egress_runtime::limits::Limits;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::acl::{Decision, Verdict};
use crate::enforced::Enforced;

/// From a connection within a rack to one that was given up.
const CONNECT_BUCKETS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0,
];
/// Lines that have series of their own: a Prometheus wants no more from a pod.
const MAX_LINES: usize = 1000;

/// How a request came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Forwarded, or none that could be told.
    Forward,
    /// CONNECT.
    Connect,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    kind: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    side: &'static str,
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    limit: &'static str,
}

/// The proxy's metrics. What every request touches is a counter that was looked
/// up once.
pub(crate) struct Metrics {
    requests: [[Counter; CLASSES.len()]; 2],
    allowed_by_rule: Counter,
    decisions: Family<Decided, Counter>,
    failures: Family<Failed, Counter>,
    bytes: [Counter; 2],
    pub(crate) tunnels: Gauge,
    connect: Histogram,
    reused: Counter,
    limits: Family<Limit, Counter>,
}

/// Status classes; what got no answer has one as well.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    pub(crate) fn register(
        registry: &mut Registry,
        limits: Limits,
        enforced: watch::Receiver<Arc<Enforced>>,
    ) -> Self {
        let requests = Family::<Request, Counter>::default();
        let bytes = Family::<Direction, Counter>::default();
        let decisions = Family::<Decided, Counter>::default();
        let of_kind =
            |kind| CLASSES.map(|class| requests.get_or_create_owned(&Request { kind, class }));
        let metrics = Self {
            requests: [of_kind("forward"), of_kind("connect")],
            allowed_by_rule: decisions.get_or_create_owned(&Decided {
                verdict: "allowed",
                reason: "rule",
            }),
            bytes: ["up", "down"]
                .map(|direction| bytes.get_or_create_owned(&Direction { direction })),
            decisions,
            failures: Family::default(),
            tunnels: Gauge::default(),
            connect: Histogram::new(CONNECT_BUCKETS),
            reused: Counter::default(),
            limits: Family::default(),
        };
        registry.register(
            "egress_http_proxy_requests",
            "Requests and tunnels that have ended, by status class",
            requests,
        );
        registry.register(
            "egress_http_proxy_decisions",
            "Decisions by verdict and reason",
            metrics.decisions.clone(),
        );
        registry.register(
            "egress_http_proxy_failures",
            "Requests and tunnels that failed, by side and RFC 9209 error",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "egress_http_proxy_transferred",
            "Bytes of requests and tunnels that have ended, up to outside hosts and down to clients",
            Unit::Bytes,
            bytes,
        );
        registry.register(
            "egress_http_proxy_open_tunnels",
            "Tunnels that are open",
            metrics.tunnels.clone(),
        );
        registry.register_with_unit(
            "egress_http_proxy_connect_duration",
            "How long connecting to an outside host took",
            Unit::Seconds,
            metrics.connect.clone(),
        );
        registry.register(
            "egress_http_proxy_reused_connections",
            "Requests that were sent over an upstream connection which had waited",
            metrics.reused.clone(),
        );
        registry.register(
            "egress_http_proxy_limits_hit",
            "Connections that were refused because of a limit",
            metrics.limits.clone(),
        );
        registry.register_collector(Box::new(Live { limits, enforced }));
        metrics
    }

    /// A request or tunnel has ended; `status` is 0 when there was no answer.
    pub(crate) fn ended(&self, kind: Kind, status: u16, up: u64, down: u64) {
        let [forward, connect] = &self.requests;
        let classes = match kind {
            Kind::Forward => forward,
            Kind::Connect => connect,
        };
        if let Some(counter) = classes.get(usize::from(status / 100)) {
            counter.inc();
        }
        let [bytes_up, bytes_down] = &self.bytes;
        bytes_up.inc_by(up);
        bytes_down.inc_by(down);
    }

    pub(crate) fn decided(&self, decision: Decision) {
        let reason = decision.reason().name();
        if decision.verdict() == Verdict::Allowed && reason == "rule" {
            self.allowed_by_rule.inc();
            return;
        }
        self.decisions
            .get_or_create(&Decided {
                verdict: decision.verdict().name(),
                reason,
            })
            .inc();
    }

    pub(crate) fn failed(&self, side: &'static str, error: &'static str) {
        self.failures.get_or_create(&Failed { side, error }).inc();
    }

    pub(crate) fn connected(&self, took: Duration) {
        self.connect.observe(took.as_secs_f64());
    }

    pub(crate) fn reused(&self) {
        self.reused.inc();
    }

    pub(crate) fn limited(&self, limit: &'static str) {
        self.limits.get_or_create(&Limit { limit }).inc();
    }
}

/// What is read when it is scraped.
#[derive(Debug)]
struct Live {
    limits: Limits,
    enforced: watch::Receiver<Arc<Enforced>>,
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let open = ConstGauge::new(i64::try_from(self.limits.open()).unwrap_or(i64::MAX));
        open.encode(encoder.encode_descriptor(
            "egress_http_proxy_open_connections",
            "Client connections that are open.",
            None,
            open.metric_type(),
        )?)?;
        let first = ConstCounter::new(0_u64);
        let mut lines = encoder.encode_descriptor(
            "egress_http_proxy_rule_decisions",
            "Decisions by the line of the rule that made them, since the rules were loaded.",
            None,
            first.metric_type(),
        )?;
        let enforced = Arc::clone(&self.enforced.borrow());
        for (line, count) in enforced.counts().take(MAX_LINES) {
            ConstCounter::new(count).encode(lines.encode_family(&[("line", line.to_string())])?)?;
        }
        Ok(())
    }
}
