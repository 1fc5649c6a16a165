//! All that was measured, by scenario, subject and metric.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::samples::Samples;

use super::scenario::{Role, Scenario};

/// What is measured of a subject in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Operations a second.
    Rate,
    /// Bytes of bodies a second.
    Throughput,
    /// Processor seconds of the proxy for an operation.
    CpuPerOperation,
    /// Processor seconds of the proxy for a byte.
    CpuPerByte,
    /// Median latency in seconds.
    Median,
    /// 99th percentile of the latency in seconds.
    NinetyNinth,
    /// Memory of the proxy for a connection, in bytes.
    PerConnection,
    /// Requests a second that the rules allow.
    Hits,
    /// Requests a second that the rules deny.
    Misses,
    /// From before fork to the first byte of the first answer, in seconds.
    FirstAnswer,
    /// Memory after the first answer, in bytes.
    AtRest,
}

/// What one measurement found.
pub(crate) type Found = BTreeMap<Metric, f64>;

/// All measurements of a subject in a scenario, or why there are none.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    Measured(BTreeMap<Metric, Samples>),
    /// It ends with the cause.
    Failed(String),
    /// It has no part in the scenario for this reason.
    LeftOut(String),
}

/// Rows of a scenario, in the order of the subjects.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) scenario: Scenario,
    rows: Vec<(String, Row)>,
}

/// All that was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(Vec<Section>);

impl Row {
    pub(crate) fn new() -> Self {
        Self::Measured(BTreeMap::new())
    }

    /// Adds a round. After a failure there are no figures.
    pub(crate) fn push(&mut self, round: Result<Found>) {
        match (&mut *self, round) {
            (Self::Failed(_) | Self::LeftOut(_), _) => {}
            (Self::Measured(all), Ok(found)) => {
                for (metric, value) in found {
                    all.entry(metric).or_default().push(value);
                }
            }
            (Self::Measured(_), Err(error)) => *self = Self::Failed(format!("{error:#}")),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Measured(_))
    }

    pub(crate) fn samples(&self, metric: Metric) -> Option<&Samples> {
        match self {
            Self::Measured(all) => all.get(&metric),
            Self::Failed(_) | Self::LeftOut(_) => None,
        }
    }
}

impl Section {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            rows: Vec::new(),
        }
    }

    /// Adds a subject.
    pub(crate) fn add(&mut self, subject: &str, row: Row) {
        self.rows.push((subject.to_owned(), row));
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().map(|(name, row)| (name.as_str(), row))
    }

    pub(crate) fn row_mut(&mut self, subject: &str) -> Option<&mut Row> {
        let mut rows = self.rows.iter_mut();
        rows.find(|(name, _)| name == subject).map(|(_, row)| row)
    }

    pub(crate) fn samples(&self, subject: &str, metric: Metric) -> Option<&Samples> {
        let (_, row) = self.rows().find(|(name, _)| *name == subject)?;
        row.samples(metric)
    }

    /// Whether any subject has this metric.
    pub(crate) fn has(&self, metric: Metric) -> bool {
        self.rows().any(|(_, row)| row.samples(metric).is_some())
    }
}

impl Figures {
    pub(crate) fn new(sections: Vec<Section>) -> Self {
        Self(sections)
    }

    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &Section> {
        self.0
            .iter()
            .filter(move |section| section.scenario.role == role)
    }

    pub(crate) fn samples(
        &self,
        scenario: &str,
        subject: &str,
        metric: Metric,
    ) -> Option<&Samples> {
        let mut sections = self.0.iter();
        sections
            .find(|section| section.scenario.name == scenario)?
            .samples(subject, metric)
    }

    /// What has no figure because it failed, and why.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for section in &self.0 {
            for (subject, row) in section.rows() {
                if let Row::Failed(reason) = row {
                    failures.push(format!("{subject}, {}: {reason}", section.scenario.name));
                }
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_ends_a_row() {
        let mut row = Row::new();
        row.push(Ok(Found::from([(Metric::Rate, 7.0)])));
        assert!(row.samples(Metric::Rate).is_some());
        row.push(Err(anyhow::anyhow!("reset")));
        row.push(Ok(Found::from([(Metric::Rate, 7.0)])));
        assert!(row.samples(Metric::Rate).is_none());
        assert!(!row.is_open());
    }
}
