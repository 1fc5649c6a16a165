//! What is exported, as a Prometheus has it after a scrape.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Labels = BTreeMap<String, String>;

/// Series by the name of their metric.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    series: BTreeMap<String, Vec<Labels>>,
}

impl Exported {
    /// Adds a page of metrics, as the pod monitor has it scraped from this job.
    pub(crate) fn add(&mut self, job: &str, page: &str) {
        let pod = format!("{job}-0");
        let target = [
            ("namespace", "egress-router"),
            ("job", job),
            ("pod", &pod),
            ("container", "egress-router"),
            ("endpoint", "metrics"),
            ("instance", "10.128.0.10:9090"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        // What Prometheus itself tells of a scrape.
        let up = ("up".to_owned(), Labels::new());
        for (name, mut labels) in page.lines().filter_map(sample).chain([up]) {
            labels.extend(target.clone());
            self.series.entry(name).or_default().push(labels);
        }
    }

    /// The series of a metric; none when nobody exports it.
    pub(crate) fn series(&self, name: &str) -> &[Labels] {
        self.series.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every metric that the programs export.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let names = self.series.keys().map(String::as_str);
        names.filter(|name| *name != "up").collect()
    }
}

/// Those of `metrics` that have no sample on a page yet. A page does not name a
/// metric before its first sample.
pub(crate) fn missing<'m>(page: &str, metrics: &[&'m str]) -> Vec<&'m str> {
    let names: BTreeSet<_> = page
        .lines()
        .filter_map(sample)
        .map(|(name, _)| name)
        .collect();
    let is_missing = |metric: &&&str| !names.contains(**metric);
    metrics.iter().filter(is_missing).copied().collect()
}

/// Name and labels of the sample in a line, if it holds one.
fn sample(line: &str) -> Option<(String, Labels)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, _value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), Labels::new()));
    };
    let mut labels = labels.strip_suffix('}')?;
    let mut found = Labels::new();
    // No value of ours holds a quote.
    while let Some((label, rest)) = labels.split_once("=\"") {
        let (value, rest) = rest.split_once('"')?;
        found.insert(label.to_owned(), value.to_owned());
        labels = rest.trim_start_matches(',');
    }
    assert!(labels.is_empty(), "{line}");
    Some((name.to_owned(), found))
}
