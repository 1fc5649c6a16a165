//! What was asked for.

use crate::samples::Samples;
use crate::table::{digits, size, time};

use super::figures::{Figures, Metric};
use super::metric_text::Better;
use super::subject::{DNS_PROXY, HTTP_PROXY, RELAY};

/// Peers of the HTTP role from the distribution's packages.
const PACKAGED: &[&str] = &["squid", "trafficserver", "tinyproxy"];
const SQUID: &[&str] = &["squid"];
const HAPROXY: &[&str] = &["haproxy"];
const BARE: &[&str] = &[RELAY];

/// Something that was asked for.
#[derive(Debug, Clone, Copy)]
struct Goal {
    what: &'static str,
    scenario: &'static str,
    subject: &'static str,
    metric: Metric,
    against: Against,
    limit: f64,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// Its part of the best of these in the same scenario.
    BestOf(&'static [&'static str]),
    /// Its part of the same subject's in another scenario; not less.
    Scenario(&'static str),
    /// How much more it is than the same subject's in another scenario, in
    /// bytes.
    BytesOver(&'static str),
    /// The figure itself, in its unit.
    Nothing,
}

/// A goal and what became of it, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) what: String,
    pub(crate) against: String,
    pub(crate) goal: String,
    /// `None`: not measured.
    pub(crate) measured: Option<String>,
    pub(crate) met: Option<bool>,
}

/// Every goal, in the order in which they were asked for.
pub(crate) fn outcomes(figures: &Figures) -> Vec<Outcome> {
    all().iter().map(|goal| goal.outcome(figures)).collect()
}

/// Rows of the goals for the HTTP proxy: what, scenario, metric, against
/// squid, against the best packaged peer, of the relay.
const HTTP: [(&str, &str, Metric, [f64; 3]); 8] = [
    (
        "forward GET kept alive, 32 connections",
        "forward",
        Metric::Rate,
        [4.5, 1.8, 0.75],
    ),
    (
        "forward GET, a new client connection each",
        "forward-new",
        Metric::Rate,
        [3.6, 1.2, 1.1],
    ),
    (
        "CONNECT, one request and close, 32 at a time",
        "connect",
        Metric::Rate,
        [2.4, 1.45, 0.95],
    ),
    (
        "the same, one at a time",
        "connect-1",
        Metric::Rate,
        [1.35, 1.1, 0.97],
    ),
    (
        "requests inside 32 open tunnels",
        "requests",
        Metric::Rate,
        [1.5, 1.5, 1.0],
    ),
    (
        "bulk, 1 tunnel",
        "bulk-1",
        Metric::Throughput,
        [4.8, 4.8, 1.0],
    ),
    (
        "bulk, 16 tunnels",
        "bulk-16",
        Metric::Throughput,
        [4.0, 4.0, 0.95],
    ),
    (
        "bulk, plain forward GET",
        "forward-get",
        Metric::Throughput,
        [8.0, 1.5, 0.6],
    ),
];

fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    for (what, scenario, metric, limits) in HTTP {
        for (peers, limit) in [SQUID, PACKAGED, BARE].into_iter().zip(limits) {
            goals.push(Goal {
                what,
                scenario,
                subject: HTTP_PROXY,
                metric,
                against: Against::BestOf(peers),
                limit,
            });
        }
    }
    for (what, scenario, subject, metric, against, limit) in [
        (
            "CPU for a forward request",
            "forward",
            HTTP_PROXY,
            Metric::CpuPerOperation,
            Against::BestOf(SQUID),
            0.25,
        ),
        (
            "CPU for a forward request",
            "forward",
            HTTP_PROXY,
            Metric::CpuPerOperation,
            Against::BestOf(PACKAGED),
            0.6,
        ),
        (
            "memory for an idle tunnel, 9 000 of them",
            "idle-9000",
            HTTP_PROXY,
            Metric::PerConnection,
            Against::Nothing,
            2048.0,
        ),
        (
            "100 000 rules: rate of hits",
            "rules-100000",
            HTTP_PROXY,
            Metric::Hits,
            Against::Scenario("rules-10"),
            0.97,
        ),
        (
            "100 000 rules: rate of misses",
            "rules-100000",
            HTTP_PROXY,
            Metric::Misses,
            Against::Scenario("rules-10"),
            0.97,
        ),
        (
            "100 000 rules: start to first answer",
            "rules-100000",
            HTTP_PROXY,
            Metric::FirstAnswer,
            Against::Nothing,
            0.3,
        ),
        (
            "100 000 rules: memory",
            "rules-100000",
            HTTP_PROXY,
            Metric::AtRest,
            Against::BytesOver("rules-10"),
            30e6,
        ),
        (
            "start to first answer",
            "start",
            HTTP_PROXY,
            Metric::FirstAnswer,
            Against::Nothing,
            0.006,
        ),
        (
            "memory at rest",
            "start",
            HTTP_PROXY,
            Metric::AtRest,
            Against::Nothing,
            4e6,
        ),
        (
            "p99 at 1 500 forward GET a second",
            "rate-forward",
            HTTP_PROXY,
            Metric::NinetyNinth,
            Against::BestOf(PACKAGED),
            1.0,
        ),
        (
            "p99 at 1 000 tunnels a second",
            "rate-connect",
            HTTP_PROXY,
            Metric::NinetyNinth,
            Against::BestOf(PACKAGED),
            1.0,
        ),
        (
            "TCP: new connections",
            "tcp-new",
            DNS_PROXY,
            Metric::Rate,
            Against::BestOf(HAPROXY),
            1.2,
        ),
        (
            "TCP: new connections",
            "tcp-new",
            DNS_PROXY,
            Metric::Rate,
            Against::BestOf(BARE),
            0.97,
        ),
        (
            "TCP: bulk, 1 connection",
            "tcp-bulk-1",
            DNS_PROXY,
            Metric::Throughput,
            Against::BestOf(HAPROXY),
            4.0,
        ),
        (
            "TCP: bulk, 1 connection",
            "tcp-bulk-1",
            DNS_PROXY,
            Metric::Throughput,
            Against::BestOf(BARE),
            0.95,
        ),
        (
            "TCP: bulk, 16 connections",
            "tcp-bulk-16",
            DNS_PROXY,
            Metric::Throughput,
            Against::BestOf(HAPROXY),
            3.5,
        ),
        (
            "TCP: bulk, 16 connections",
            "tcp-bulk-16",
            DNS_PROXY,
            Metric::Throughput,
            Against::BestOf(BARE),
            0.9,
        ),
        (
            "TCP: memory for an idle connection, 9 000 of them",
            "tcp-idle-9000",
            DNS_PROXY,
            Metric::PerConnection,
            Against::Nothing,
            1536.0,
        ),
        (
            "TCP: start to first answer",
            "tcp-start",
            DNS_PROXY,
            Metric::FirstAnswer,
            Against::Nothing,
            0.006,
        ),
        (
            "TCP: memory at rest",
            "tcp-start",
            DNS_PROXY,
            Metric::AtRest,
            Against::Nothing,
            4e6,
        ),
    ] {
        goals.push(Goal {
            what,
            scenario,
            subject,
            metric,
            against,
            limit,
        });
    }
    goals
}

impl Goal {
    fn outcome(&self, figures: &Figures) -> Outcome {
        let measured = self.measured(figures);
        let (sign, limit) = match self.metric.better() {
            Better::Higher => ("≥", self.text(self.limit)),
            Better::Lower => ("≤", self.text(self.limit)),
        };
        Outcome {
            what: self.what.to_owned(),
            against: match (self.against, measured) {
                (Against::BestOf(PACKAGED), Some((_, Some(best)))) => {
                    format!("best packaged peer: {best}")
                }
                (Against::BestOf(PACKAGED), _) => "best packaged peer".to_owned(),
                (Against::BestOf(peers), _) => peers.concat(),
                (Against::Scenario(_), _) => "10 rules".to_owned(),
                (Against::BytesOver(_), _) => "more than with 10".to_owned(),
                (Against::Nothing, _) => String::new(),
            },
            goal: format!("{sign} {limit}"),
            measured: measured.map(|(value, _)| self.text(value)),
            met: measured.map(|(value, _)| self.is_met(value)),
        }
    }

    fn is_met(&self, value: f64) -> bool {
        match self.metric.better() {
            Better::Higher => value >= self.limit,
            Better::Lower => value <= self.limit,
        }
    }

    /// The figure, and who it was held against.
    fn measured(&self, figures: &Figures) -> Option<(f64, Option<&'static str>)> {
        let ours = figures.samples(self.scenario, self.subject, self.metric)?;
        match self.against {
            Against::Nothing => Some((ours.median(), None)),
            Against::Scenario(other) => {
                let other = figures.samples(other, self.subject, self.metric)?;
                Some((ours.ratios_to(other).median(), None))
            }
            Against::BytesOver(other) => {
                let other = figures.samples(other, self.subject, self.metric)?;
                Some((ours.median() - other.median(), None))
            }
            Against::BestOf(peers) => {
                let measured = peers.iter().filter_map(|name| {
                    let samples = figures.samples(self.scenario, name, self.metric)?;
                    Some((*name, samples))
                });
                let (name, theirs) = best(measured, self.metric.better())?;
                Some((ours.ratios_to(theirs).median(), Some(name)))
            }
        }
    }

    fn text(&self, value: f64) -> String {
        match (self.against, self.metric) {
            (Against::BestOf(_) | Against::Scenario(_), _) => format!("{} ×", digits(value)),
            (Against::BytesOver(_), _) => size(value),
            (Against::Nothing, Metric::FirstAnswer) => time(value),
            (Against::Nothing, metric) => metric.text(value),
        }
    }
}

fn best<'a>(
    all: impl Iterator<Item = (&'static str, &'a Samples)>,
    better: Better,
) -> Option<(&'static str, &'a Samples)> {
    all.reduce(|best, other| {
        let wins = match better {
            Better::Higher => other.1.median() > best.1.median(),
            Better::Lower => other.1.median() < best.1.median(),
        };
        if wins { other } else { best }
    })
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Found, Row, Section};
    use super::super::scenario::{Extent, Scenario};
    use super::*;

    /// Figures of one scenario: who, metric, the rounds.
    fn figures(all: &[(&str, &str, Metric, [f64; 2])]) -> Figures {
        let scenarios = Scenario::all(&Extent::full());
        let mut sections: Vec<Section> = scenarios.into_iter().map(Section::new).collect();
        for (scenario, subject, metric, rounds) in all {
            let mut row = Row::new();
            for value in rounds {
                row.push(Ok(Found::from([(*metric, *value)])));
            }
            let section = sections
                .iter_mut()
                .find(|section| section.scenario.name == *scenario);
            section.unwrap().add(subject, row);
        }
        Figures::new(sections)
    }

    fn outcome(figures: &Figures, what: &str, against: &str) -> Outcome {
        let all = outcomes(figures);
        let mut found = all
            .into_iter()
            .filter(|one| one.what == what && one.against.starts_with(against));
        let outcome = found.next().unwrap();
        assert_eq!(found.next(), None, "{what} against {against}");
        outcome
    }

    #[test]
    fn every_goal_is_about_a_scenario_that_there_is() {
        let names: Vec<_> = Scenario::all(&Extent::full())
            .into_iter()
            .map(|scenario| scenario.name)
            .collect();
        for goal in all() {
            assert!(names.iter().any(|name| name == goal.scenario), "{goal:?}");
            if let Against::Scenario(other) | Against::BytesOver(other) = goal.against {
                assert!(names.iter().any(|name| name == other), "{goal:?}");
            }
        }
    }

    #[test]
    fn nothing_measured_is_said_and_not_met() {
        for outcome in outcomes(&Figures::default()) {
            assert_eq!((outcome.measured, outcome.met), (None, None));
        }
    }

    #[test]
    fn rates_are_held_against_the_best_round_by_round() {
        let what = "forward GET kept alive, 32 connections";
        let figures = figures(&[
            ("forward", HTTP_PROXY, Metric::Rate, [90.0, 180.0]),
            ("forward", "squid", Metric::Rate, [20.0, 40.0]),
            ("forward", "tinyproxy", Metric::Rate, [60.0, 120.0]),
        ]);
        let squid = outcome(&figures, what, "squid");
        assert_eq!(squid.measured.as_deref(), Some("4.50 ×"));
        assert_eq!((squid.met, squid.goal.as_str()), (Some(true), "≥ 4.50 ×"));
        let best = outcome(&figures, what, "best packaged peer: tinyproxy");
        assert_eq!(best.measured.as_deref(), Some("1.50 ×"));
        assert_eq!(best.met, Some(false));
        assert_eq!(outcome(&figures, what, RELAY).met, None);
    }

    #[test]
    fn less_is_better_for_time_and_memory() {
        let figures = figures(&[
            ("rate-connect", HTTP_PROXY, Metric::NinetyNinth, [2.0, 2.0]),
            ("rate-connect", "squid", Metric::NinetyNinth, [4.0, 4.0]),
            ("rate-connect", "tinyproxy", Metric::NinetyNinth, [1.0, 1.0]),
            (
                "idle-9000",
                HTTP_PROXY,
                Metric::PerConnection,
                [1024.0, 1024.0],
            ),
        ]);
        let late = outcome(&figures, "p99 at 1 000 tunnels a second", "best");
        assert_eq!(late.against, "best packaged peer: tinyproxy");
        assert_eq!(late.met, Some(false));
        let idle = outcome(&figures, "memory for an idle tunnel, 9 000 of them", "");
        assert_eq!(idle.measured.as_deref(), Some("1.00 KiB"));
        assert_eq!((idle.met, idle.goal.as_str()), (Some(true), "≤ 2.00 KiB"));
    }

    #[test]
    fn many_rules_are_held_against_few() {
        let figures = figures(&[
            ("rules-10", HTTP_PROXY, Metric::AtRest, [3e6, 3e6]),
            ("rules-100000", HTTP_PROXY, Metric::AtRest, [34e6, 34e6]),
        ]);
        let memory = outcome(&figures, "100 000 rules: memory", "");
        assert_eq!(memory.measured.as_deref(), Some("31.0 MB"));
        assert_eq!(memory.met, Some(false));
    }
}
