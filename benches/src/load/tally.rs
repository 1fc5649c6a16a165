//! What is counted.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies are told apart to three digits, between 100 ns and a minute.
const SHORTEST: u64 = 100;
const LONGEST: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// Result of a measured interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Operations that were completed.
    pub operations: u64,
    /// Bytes of bodies that arrived, at the clients and at the origin.
    pub bytes: u64,
    /// Length of the interval.
    pub seconds: f64,
    /// Operations that failed.
    pub errors: u64,
    /// What was wrong with the first of these.
    pub first_error: Option<String>,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// Longest latency in microseconds.
    pub max_us: f64,
}

/// Counts operations.
#[derive(Debug)]
pub(super) struct Tally {
    latencies: Histogram<u64>,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
    /// Failures since the last success, ever.
    in_a_row: u32,
}

impl Tally {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)
                .context("making a histogram")?,
            bytes: 0,
            errors: 0,
            first_error: None,
            in_a_row: 0,
        })
    }

    /// Begins a new interval.
    pub(super) fn clear(&mut self) {
        self.latencies.reset();
        self.bytes = 0;
        self.errors = 0;
        self.first_error = None;
    }

    pub(super) fn completed(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST);
        self.latencies.saturating_record(nanos);
        self.in_a_row = 0;
    }

    pub(super) fn received(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(super) fn failed(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.in_a_row += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Failures since the last operation that was completed.
    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// What was wrong with the first operation of the interval that failed.
    pub(super) fn first_error(&self) -> Option<&str> {
        self.first_error.as_deref()
    }

    pub(super) fn measured(&self, interval: Duration) -> Measured {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Measured {
            operations: self.latencies.len(),
            bytes: self.bytes,
            seconds: interval.as_secs_f64(),
            errors: self.errors,
            first_error: self.first_error.clone(),
            p50_us: micros(self.latencies.value_at_quantile(0.5)),
            p99_us: micros(self.latencies.value_at_quantile(0.99)),
            max_us: micros(self.latencies.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_interval_is_summed_up() -> Result<()> {
        let mut tally = Tally::new()?;
        tally.completed(Duration::from_secs(30));
        tally.clear();
        for micros in 1..=100 {
            tally.completed(Duration::from_micros(micros));
        }
        tally.received(7);
        tally.failed(&anyhow!("first"));
        tally.failed(&anyhow!("second"));

        let measured = tally.measured(Duration::from_millis(500));
        assert_eq!(measured.operations, 100);
        assert_eq!((measured.bytes, measured.errors), (7, 2));
        assert_eq!(measured.first_error.as_deref(), Some("first"));
        assert_eq!(measured.seconds.to_bits(), 0.5_f64.to_bits());
        for (found, expected) in [
            (measured.p50_us, 50.0),
            (measured.p99_us, 99.0),
            (measured.max_us, 100.0),
        ] {
            assert!((found - expected).abs() < 0.5, "{found} for {expected}");
        }
        assert_eq!(tally.in_a_row(), 2);
        Ok(())
    }
}
