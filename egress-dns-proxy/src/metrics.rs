//! What the admin endpoint exports of the proxy.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use egress_config::Protocol;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::mapping::Mapping;
use crate::names::Name;
use crate::route::Route;

/// Listeners that have series of their own; more would be more than a
/// Prometheus wants from one pod.
const MAX_LISTENERS: usize = 1000;

/// From a neighbour to the time limit, in seconds.
const CONNECT_BUCKETS: [f64; 11] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// The proxy's metrics. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    shown: Arc<Shown>,
    connect: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            shown: Arc::default(),
            connect: Histogram::new(CONNECT_BUCKETS),
        };
        registry.register_with_unit(
            "egress_dns_proxy_connect_duration",
            "Time from the first attempt to a connection to a backend",
            Unit::Seconds,
            metrics.connect.clone(),
        );
        registry.register_collector(Box::new(Arc::clone(&metrics.shown)));
        metrics
    }

    /// What is in force from now on.
    pub(crate) fn show(&self, routes: Vec<Arc<Route>>, names: Vec<Arc<Name>>) {
        *self.shown.lock() = InForce { routes, names };
    }

    /// A connection to a backend was made.
    pub(crate) fn connected(&self, took: Duration) {
        self.connect.observe(took.as_secs_f64());
    }
}

/// What one listener counts. A reload that changes where it leads begins anew.
#[derive(Debug)]
pub(crate) struct Counts {
    port: String,
    protocol: Protocol,
    host: String,
    pub(crate) connections: Count,
    pub(crate) open: Level,
    pub(crate) unresolved: Count,
    pub(crate) connect_failed: Count,
    pub(crate) limited: Count,
    pub(crate) bytes_up: Count,
    pub(crate) bytes_down: Count,
    pub(crate) dropped: Count,
}

/// Something that is counted.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How much of something there is.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicI64);

impl Level {
    pub(crate) fn add(&self, number: i64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    pub(crate) fn of(mapping: &Mapping) -> Self {
        Self {
            port: mapping.port().to_string(),
            protocol: mapping.protocol(),
            host: mapping.host().to_string(),
            connections: Count::default(),
            open: Level::default(),
            unresolved: Count::default(),
            connect_failed: Count::default(),
            limited: Count::default(),
            bytes_up: Count::default(),
            bytes_down: Count::default(),
            dropped: Count::default(),
        }
    }

    fn labels(&self) -> [(&'static str, &str); 3] {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        [
            ("port", &self.port),
            ("protocol", protocol),
            ("host", &self.host),
        ]
    }

    fn labels_and(&self, name: &'static str, value: &'static str) -> [(&'static str, &str); 4] {
        let [port, protocol, host] = self.labels();
        [port, protocol, host, (name, value)]
    }
}

/// What is in force, asked when it is scraped: what is gone leaves no series
/// behind.
#[derive(Debug, Default)]
struct Shown(Mutex<InForce>);

#[derive(Debug, Default)]
struct InForce {
    routes: Vec<Arc<Route>>,
    names: Vec<Arc<Name>>,
}

impl Shown {
    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let in_force = self.lock();
        let shown: Vec<&Route> = in_force
            .routes
            .iter()
            .map(AsRef::as_ref)
            .take(MAX_LISTENERS)
            .collect();
        let listeners = ConstGauge::new(i64::try_from(in_force.routes.len()).unwrap_or(i64::MAX));
        listeners.encode(encoder.encode_descriptor(
            "egress_dns_proxy_listeners",
            "Ports in service; the first 1000 have metrics of their own",
            None,
            listeners.metric_type(),
        )?)?;
        let each = |samples: &mut Samples<'_>, count: fn(&Counts) -> &Count| {
            shown.iter().try_for_each(|route| {
                let counts = route.counts();
                samples.count(&counts.labels(), count(counts))
            })
        };
        counter(
            &mut encoder,
            "egress_dns_proxy_connections",
            "Connections of clients, and sessions of their datagrams",
            |samples| each(samples, |counts| &counts.connections),
        )?;
        gauge(
            &mut encoder,
            "egress_dns_proxy_open_connections",
            "Connections of clients, and sessions of their datagrams, that are open",
            |samples| {
                shown.iter().try_for_each(|route| {
                    let counts = route.counts();
                    samples.level(&counts.labels(), counts.open.get())
                })
            },
        )?;
        counter(
            &mut encoder,
            "egress_dns_proxy_connection_failures",
            "Connections of clients that led nowhere",
            |samples| {
                shown.iter().try_for_each(|route| {
                    let counts = route.counts();
                    let reasons = [
                        ("unresolved", &counts.unresolved),
                        ("connect", &counts.connect_failed),
                        ("limit", &counts.limited),
                    ];
                    reasons.into_iter().try_for_each(|(reason, count)| {
                        samples.count(&counts.labels_and("reason", reason), count)
                    })
                })
            },
        )?;
        counter(
            &mut encoder,
            "egress_dns_proxy_bytes",
            "Bytes of ended connections and sessions, up to the backend or down to the client",
            |samples| {
                shown.iter().try_for_each(|route| {
                    let counts = route.counts();
                    let directions = [("up", &counts.bytes_up), ("down", &counts.bytes_down)];
                    directions.into_iter().try_for_each(|(direction, count)| {
                        samples.count(&counts.labels_and("direction", direction), count)
                    })
                })
            },
        )?;
        counter(
            &mut encoder,
            "egress_dns_proxy_datagrams_dropped",
            "Datagrams that could not be relayed",
            |samples| {
                let udp = shown
                    .iter()
                    .map(|route| route.counts())
                    .filter(|counts| counts.protocol == Protocol::Udp);
                udp.into_iter()
                    .try_for_each(|counts| samples.count(&counts.labels(), &counts.dropped))
            },
        )?;
        gauge(
            &mut encoder,
            "egress_dns_proxy_backend_addresses",
            "Addresses that connections are made to",
            |samples| {
                shown.iter().try_for_each(|route| {
                    let counts = route.counts();
                    let rotation = route.target().rotation();
                    let healthy = rotation.healthy();
                    let states = [
                        ("healthy", healthy),
                        ("unhealthy", rotation.len().saturating_sub(healthy)),
                    ];
                    states.into_iter().try_for_each(|(state, number)| {
                        let number = i64::try_from(number).unwrap_or(i64::MAX);
                        samples.level(&counts.labels_and("state", state), number)
                    })
                })
            },
        )?;
        gauge(
            &mut encoder,
            "egress_dns_proxy_name_resolved",
            "Whether a name has resolved at any time",
            |samples| {
                let names = in_force.names.iter().take(MAX_LISTENERS);
                names.into_iter().try_for_each(|name| {
                    let host = name.host().to_string();
                    samples.level(&[("host", host.as_str())], i64::from(name.is_resolved()))
                })
            },
        )
    }
}

/// The samples of one metric.
struct Samples<'a>(prometheus_client::encoding::MetricEncoder<'a>);

impl Samples<'_> {
    fn count(&mut self, labels: &impl EncodeLabelSet, count: &Count) -> fmt::Result {
        ConstCounter::new(count.get()).encode(self.0.encode_family(labels)?)
    }

    fn level(&mut self, labels: &impl EncodeLabelSet, level: i64) -> fmt::Result {
        ConstGauge::new(level).encode(self.0.encode_family(labels)?)
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    samples(&mut Samples(metric))
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    samples(&mut Samples(metric))
}
