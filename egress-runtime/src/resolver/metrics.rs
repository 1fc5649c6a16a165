//! What the resolver counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::addresses::Looked;
use super::error::LookupError;

/// From a cached answer of the node's resolver to the time limit, in seconds.
const BUCKETS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Counts of look-ups and of what the cache spared. Clones share counts.
#[derive(Clone, Debug)]
pub struct ResolverMetrics {
    lookups: Family<Outcome, Counter>,
    duration: Histogram,
    pub(super) hits: Counter,
    pub(super) refusals: Counter,
    pub(super) stale: Counter,
    pub(super) joined: Counter,
    pub(super) misses: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Cached {
    result: &'static str,
}

impl ResolverMetrics {
    /// Registers `egress_dns_lookups_total{outcome}`,
    /// `egress_dns_lookup_duration_seconds` and
    /// `egress_dns_cache_total{result}`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let cache = Family::<Cached, Counter>::default();
        let cached = |result| cache.get_or_create_owned(&Cached { result });
        let metrics = Self {
            lookups: Family::default(),
            duration: Histogram::new(BUCKETS),
            hits: cached("hit"),
            refusals: cached("negative"),
            stale: cached("stale"),
            joined: cached("joined"),
            misses: cached("miss"),
        };
        registry.register(
            "egress_dns_lookups",
            "Look-ups that asked name servers, by what came of them",
            metrics.lookups.clone(),
        );
        registry.register_with_unit(
            "egress_dns_lookup_duration",
            "How long look-ups took that asked name servers",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "egress_dns_cache",
            "Names wanted: hit and negative were answered from the cache, stale with an old answer, joined waited for a look-up under way, miss began one",
            cache,
        );
        metrics
    }

    pub(super) fn looked_up(&self, result: Result<&Looked, &LookupError>, took: Duration) {
        let outcome = result.map_or_else(LookupError::reason, |_| "found");
        self.lookups.get_or_create(&Outcome { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }
}
