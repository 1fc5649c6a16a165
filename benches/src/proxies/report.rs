//! What was measured, as text that is also Markdown.

use std::fmt::{self, Write as _};

use crate::machine::Machine;
use crate::samples::Samples;
use crate::table::{Table, digits};

use super::figures::{Figures, Metric, Row, Section};
use super::goals;
use super::ground::Cores;
use super::options::Options;
use super::plot::{Plot, plot};
use super::scenario::Role;
use super::subject::{Absent, DIRECT, Programs, RELAY, Subject};

/// All figures of a run, and how they compare with the goals.
#[derive(Debug)]
pub struct ProxyReport {
    head: Vec<String>,
    goals: Table,
    tables: String,
    plots: Vec<Plot>,
    failures: Vec<String>,
}

/// Under what it was measured.
pub(crate) struct Setting<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) options: &'a Options,
    pub(crate) programs: &'a Programs,
    pub(crate) cores: Cores,
    pub(crate) subjects: &'a [Subject],
    pub(crate) absent: &'a [Absent],
}

impl ProxyReport {
    pub(crate) fn new(setting: &Setting<'_>, figures: &Figures) -> Self {
        let mut goals = Table::new(2, &["goal", "against", "asked for", "measured", "met"]);
        for outcome in goals::outcomes(figures) {
            let met = match outcome.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let measured = outcome
                .measured
                .unwrap_or_else(|| "not measured".to_owned());
            goals.row([
                outcome.what,
                outcome.against,
                outcome.goal,
                measured,
                met.to_owned(),
            ]);
        }
        Self {
            head: setting.lines(),
            goals,
            tables: tables(setting, figures),
            plots: Role::ALL
                .into_iter()
                .filter_map(|role| plot(role, figures))
                .collect(),
            failures: figures.failures(),
        }
    }

    /// What has no figure because it failed, and why.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The machine and the goals.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for line in &self.head {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {line}");
        }
        let _ = write!(
            text,
            "\n## Goals\n\nRatios are medians of the rounds' ratios.\n\n{}",
            self.goals
        );
        if !self.failures.is_empty() {
            let _ = writeln!(text, "\n## Failed\n");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "- {}", failure.trim().replace('\n', " / "));
        }
        text
    }

    /// A table for each scenario.
    #[must_use]
    pub fn tables(&self) -> &str {
        &self.tables
    }

    /// A picture for each kind of proxy that was measured.
    #[must_use]
    pub fn plots(&self) -> &[Plot] {
        &self.plots
    }
}

impl fmt::Display for ProxyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.summary(), self.tables)
    }
}

impl Setting<'_> {
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.machine.lines().into();
        lines.push(self.cores.sentence());
        lines.push(format!("our proxies: {}", self.programs.build));
        for subject in self.subjects {
            if let Some(version) = subject.version() {
                let role = subject.role().title();
                let keeps = subject
                    .program()
                    .is_none_or(|(definition, _)| definition.keeps_connections);
                let note = if keeps {
                    ""
                } else {
                    "; it keeps no client connection, so each request has a new one"
                };
                lines.push(format!("{} as {role}: {version}{note}", subject.name()));
            }
        }
        for absent in self.absent {
            let role = absent.role.title();
            let remedy = absent
                .package
                .as_ref()
                .map_or_else(String::new, |package| format!("; package: {package}"));
            lines.push(format!(
                "{} as {role}: not installed, not measured{remedy}",
                absent.name
            ));
        }
        lines
    }

    /// Whom ratios are to: the one that was named, or who is replaced.
    fn reference(&self, section: &Section) -> Option<String> {
        let default = match section.scenario.role {
            Role::Http => "squid",
            Role::Tcp | Role::Tls => "haproxy",
        };
        let wanted = self.options.against.iter().map(String::as_str);
        let mut names = wanted.chain([default]);
        names
            .find(|name| section.rows().any(|(row, _)| row == *name))
            .map(str::to_owned)
    }
}

fn tables(setting: &Setting<'_>, figures: &Figures) -> String {
    let mut text = format!(
        "Cells are medians of {} rounds with minimum and maximum. Each round, each subject is \
         started anew and measured for {} s after {} s of warm-up. \"CPU\" is the processor time \
         of the whole process tree of the proxy, in user and kernel mode, as the scheduler \
         counts it in nanoseconds. Ratios are of the column in front, medians of the rounds' \
         ratios.\n",
        setting.options.rounds,
        setting.options.interval.measured.as_secs_f64(),
        setting.options.interval.warm_up.as_secs_f64()
    );
    for role in Role::ALL {
        let mut sections = figures.of_role(role).peekable();
        if sections.peek().is_some() {
            let _ = writeln!(text, "\n## {}", role.title());
        }
        for section in sections {
            let scenario = &section.scenario;
            let _ = write!(
                text,
                "\n### {}: {}\n\n{}",
                scenario.name,
                scenario.title,
                table(section, setting.reference(section).as_deref())
            );
        }
    }
    text
}

fn table(section: &Section, reference: Option<&str>) -> Table {
    let main = Metric::main_of(&section.scenario.work);
    let mut others: Vec<_> = Metric::ALL
        .into_iter()
        .filter(|metric| *metric != main && section.has(*metric))
        .collect();
    others.insert(0, main);
    let references: Vec<&str> = reference
        .into_iter()
        .chain([RELAY, DIRECT])
        .filter(|name| section.samples(name, main).is_some())
        .collect();

    let mut head = vec![String::new()];
    for metric in &others {
        head.push(metric.title().to_owned());
        if has_ratios(*metric, main) {
            head.extend(
                references
                    .iter()
                    .filter(|name| section.samples(name, *metric).is_some())
                    .map(|name| format!("of {name}")),
            );
        }
    }
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(1, &head);
    for (subject, row) in section.rows() {
        let mut cells = vec![subject.to_owned()];
        match row {
            Row::Failed(_) => cells.push("failed".to_owned()),
            Row::LeftOut(reason) => cells.push(reason.clone()),
            Row::Measured(_) => {
                for metric in &others {
                    let samples = row.samples(*metric);
                    cells.push(samples.map_or_else(String::new, |all| spread(*metric, all)));
                    if !has_ratios(*metric, main) {
                        continue;
                    }
                    for name in &references {
                        if let Some(theirs) = section.samples(name, *metric) {
                            cells.push(samples.map_or_else(String::new, |ours| {
                                format!("{} ×", digits(ours.ratios_to(theirs).median()))
                            }));
                        }
                    }
                }
            }
        }
        table.row(cells);
    }
    table
}

/// Ratios of everything would hide the ones that matter.
fn has_ratios(metric: Metric, main: Metric) -> bool {
    metric == main || matches!(metric, Metric::CpuPerOperation | Metric::CpuPerByte)
}

/// `median (min to max)`
fn spread(metric: Metric, samples: &Samples) -> String {
    let [median, min, max] =
        [samples.median(), samples.min(), samples.max()].map(|value| metric.text(value));
    format!("{median} ({min} to {max})")
}

#[cfg(test)]
mod tests {
    use super::super::figures::Found;
    use super::super::scenario::{Extent, Scenario};
    use super::*;

    #[test]
    fn a_table_compares() {
        let scenario = Scenario::all(&Extent::full()).into_iter().next().unwrap();
        let mut section = Section::new(scenario);
        for (subject, rate, cpu) in [("we", 300.0, Some(0.001)), ("squid", 100.0, Some(0.004))] {
            let mut row = Row::new();
            let mut found = Found::from([(Metric::Rate, rate)]);
            found.extend(cpu.map(|cpu| (Metric::CpuPerOperation, cpu)));
            row.push(Ok(found));
            section.add(subject, row);
        }
        section.add("broken", Row::Failed("reset".to_owned()));
        assert_eq!(
            table(&section, Some("squid")).to_string(),
            "|        |         a second | of squid |                     CPU each | of squid |\n\
             |--------|-----------------:|---------:|-----------------------------:|---------:|\n\
             | we     | 300 (300 to 300) |   3.00 × | 1.00 ms (1.00 ms to 1.00 ms) |   0.25 × |\n\
             | squid  | 100 (100 to 100) |   1.00 × | 4.00 ms (4.00 ms to 4.00 ms) |   1.00 × |\n\
             | broken |           failed |          |                              |          |\n"
        );
    }
}
