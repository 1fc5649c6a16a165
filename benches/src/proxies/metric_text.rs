//! How metrics are named and written.

use crate::table::{digits, size, time};

use super::figures::Metric;
use super::scenario::Work;

/// Which values are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Metric {
    /// In the order of the columns.
    pub(crate) const ALL: [Self; 11] = [
        Self::Rate,
        Self::Throughput,
        Self::CpuPerOperation,
        Self::CpuPerByte,
        Self::Median,
        Self::NinetyNinth,
        Self::PerConnection,
        Self::Hits,
        Self::Misses,
        Self::FirstAnswer,
        Self::AtRest,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "a second",
            Self::Throughput => "throughput",
            Self::CpuPerOperation => "CPU each",
            Self::CpuPerByte => "CPU for a GB",
            Self::Median => "p50",
            Self::NinetyNinth => "p99",
            Self::PerConnection => "memory each",
            Self::Hits => "allowed a second",
            Self::Misses => "denied a second",
            Self::FirstAnswer => "first answer after",
            Self::AtRest => "memory then",
        }
    }

    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Rate | Self::Hits | Self::Misses => whole(value),
            Self::Throughput => format!("{} GB/s", digits(value / 1e9)),
            Self::CpuPerOperation | Self::Median | Self::NinetyNinth | Self::FirstAnswer => {
                time(value)
            }
            Self::CpuPerByte => time(value * 1e9),
            Self::PerConnection => format!("{} KiB", digits(value / 1024.0)),
            Self::AtRest => size(value),
        }
    }

    pub(crate) fn better(self) -> Better {
        match self {
            Self::Rate | Self::Throughput | Self::Hits | Self::Misses => Better::Higher,
            Self::CpuPerOperation
            | Self::CpuPerByte
            | Self::Median
            | Self::NinetyNinth
            | Self::PerConnection
            | Self::FirstAnswer
            | Self::AtRest => Better::Lower,
        }
    }

    /// What a scenario is about.
    pub(crate) fn main_of(work: &Work) -> Self {
        match work {
            Work::Requests { rate: None, .. } => Self::Rate,
            Work::Requests { rate: Some(_), .. } => Self::NinetyNinth,
            Work::Bulk { .. } => Self::Throughput,
            Work::Idle { .. } => Self::PerConnection,
            Work::Rules { .. } => Self::Hits,
            Work::Start => Self::FirstAnswer,
        }
    }
}

/// `52 345`
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        for (metric, value, text) in [
            (Metric::Rate, 1_234_567.4, "1 234 567"),
            (Metric::Hits, 999.6, "1 000"),
            (Metric::Rate, 12.0, "12"),
            (Metric::Throughput, 2.345e9, "2.35 GB/s"),
            (Metric::CpuPerOperation, 0.000_021, "21.0 µs"),
            (Metric::CpuPerByte, 0.2e-9, "200 ms"),
            (Metric::PerConnection, 1536.0, "1.50 KiB"),
        ] {
            assert_eq!(metric.text(value), text);
        }
    }
}
