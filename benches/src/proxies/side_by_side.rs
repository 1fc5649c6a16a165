//! The rounds.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::machine::Machine;

use super::figures::{Figures, Row, Section};
use super::ground::{CHECK_PORT, Ground};
use super::measure::Measurement;
use super::options::Options;
use super::origin::Origin;
use super::report::{ProxyReport, Setting};
use super::scenario::{Scenario, Work};
use super::subject::{Absent, Programs, Subject, find_peers};

/// Measures everything that `options` ask for. `progress` hears what is being
/// done. Call it inside the lab's sandbox.
///
/// # Errors
/// When the ground cannot be prepared. A subject that fails is a line in the
/// report.
pub fn run(options: &Options, programs: &Programs, progress: impl Fn(&str)) -> Result<ProxyReport> {
    let machine = Machine::here();
    let scenarios = options.scenarios();
    let ground = Ground::prepare(&rule_lists(&scenarios))?;
    let (subjects, absent) = subjects(options, programs)?;
    let mut sections: Vec<_> = scenarios
        .iter()
        .map(|scenario| section(scenario, &subjects))
        .collect();
    let measurement = Measurement {
        ground: &ground,
        load: &programs.load,
        interval: options.interval,
    };
    let check = Origin::start(ground.netns(), CHECK_PORT)?;
    for round in 0..options.rounds {
        for section in &mut sections {
            progress(&format!(
                "round {} of {}: {}",
                round + 1,
                options.rounds,
                section.scenario.name
            ));
            measure_round(&measurement, section, &subjects, round);
        }
    }
    drop(check);
    Ok(ProxyReport::new(
        &Setting {
            machine: &machine,
            options,
            programs,
            cores: ground.cores(),
            subjects: &subjects,
            absent: &absent,
        },
        &Figures::new(sections),
    ))
}

/// Every subject once. Who comes first changes from round to round.
fn measure_round(
    measurement: &Measurement<'_>,
    section: &mut Section,
    subjects: &[Subject],
    round: usize,
) {
    let scenario = section.scenario.clone();
    let first = round % subjects.len().max(1);
    let (before, after) = subjects.split_at(first);
    for subject in after.iter().chain(before) {
        if subject.role() != scenario.role {
            continue;
        }
        if let Some(row) = section.row_mut(subject.name())
            && row.is_open()
        {
            row.push(measurement.of(subject, &scenario));
        }
    }
}

fn subjects(options: &Options, programs: &Programs) -> Result<(Vec<Subject>, Vec<Absent>)> {
    let (mut peers, mut absent) = find_peers(&options.files)?;
    peers.retain(|peer| options.wants_peer(peer.name()));
    absent.retain(|peer| options.wants_peer(&peer.name));
    let mut subjects = Subject::own(programs);
    subjects.extend(peers);
    Ok((subjects, absent))
}

fn section(scenario: &Scenario, subjects: &[Subject]) -> Section {
    let mut section = Section::new(scenario.clone());
    for subject in subjects {
        if subject.takes_part_in(scenario) {
            section.add(subject.name(), row(scenario, subject));
        }
    }
    section
}

fn row(scenario: &Scenario, subject: &Subject) -> Row {
    let Some((definition, _)) = subject.program() else {
        return Row::new();
    };
    if let Work::Bulk {
        load: "forward-put",
        ..
    } = scenario.work
        && !definition.keeps_connections
    {
        return Row::LeftOut("it keeps no connection".to_owned());
    }
    match definition.most_connections {
        Some(most) if most < scenario.work.connections() => {
            Row::LeftOut(format!("its configuration allows {most} connections"))
        }
        _ => Row::new(),
    }
}

/// Lengths of the lists of names that are asked for.
fn rule_lists(scenarios: &[Scenario]) -> Vec<usize> {
    let lengths = scenarios.iter().filter_map(|scenario| match scenario.work {
        Work::Rules { rules } => Some((rules, ())),
        _ => None,
    });
    lengths.collect::<BTreeMap<_, _>>().into_keys().collect()
}
