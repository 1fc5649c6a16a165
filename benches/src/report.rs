//! What was measured, as text that is also Markdown.

use std::fmt;

use crate::apply::{Apply, ListName, OwnWork};
use crate::connect::{Connect, Connects, Position};
use crate::cost::Costs;
use crate::machine::Machine;
use crate::peer::{Kind, Peer};
use crate::samples::Samples;
use crate::settings::Settings;
use crate::table::{Table, digits, size, time};

/// All figures of a run, and how they compare with the goals.
#[derive(Debug)]
pub struct Report {
    head: Vec<String>,
    sections: Vec<Section>,
    failures: Vec<String>,
}

#[derive(Debug)]
struct Section {
    title: String,
    text: String,
    table: Table,
}

/// The list for which the goals are.
const GOAL_SIZE: usize = 50_000;

const DRIVER: &str = "our driver";
const PROGRAM: &str = "egress-router-init";

impl Report {
    pub(crate) fn new(
        settings: &Settings,
        machine: &Machine,
        peers: &[Peer],
        figures: &Figures,
    ) -> Self {
        let mut head: Vec<_> = machine.lines().into();
        head.extend(
            peers
                .iter()
                .map(|peer| format!("{}: {}", peer.kind(), peer.version())),
        );
        head.extend(
            figures
                .absent
                .iter()
                .map(|kind| format!("{kind}: not installed, not measured")),
        );
        Self {
            head,
            sections: vec![
                figures.goals_section(),
                figures.apply_section(settings),
                figures.reload_section(settings),
                figures.connect_section(settings),
                figures.own_work_section(settings),
            ],
            failures: figures.failures(),
        }
    }

    /// What has no figure because it failed, and why.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.head {
            writeln!(f, "- {line}")?;
        }
        for Section { title, text, table } in &self.sections {
            write!(f, "\n## {title}\n\n{text}\n\n{table}")?;
        }
        if !self.failures.is_empty() {
            writeln!(f, "\n## Failed\n")?;
        }
        for failure in &self.failures {
            writeln!(f, "- {failure}")?;
        }
        Ok(())
    }
}

/// Everything that was measured.
pub(crate) struct Figures {
    /// Peers that are not installed.
    pub(crate) absent: Vec<Kind>,
    pub(crate) own_work: Vec<OwnWork>,
    pub(crate) apply: Vec<Apply>,
    pub(crate) connect: Vec<Connect>,
}

impl Figures {
    fn apply_section(&self, settings: &Settings) -> Section {
        let mut table = cost_table("of our driver");
        for apply in &self.apply {
            let ours = apply.driver.wall();
            let program = self.program(ListName::Mappings(apply.size));
            table.row(cost_row(apply.size, "reading the list", &apply.read, ours));
            table.row(cost_row(apply.size, DRIVER, &apply.driver, ours));
            if let Some(program) = program {
                table.row(cost_row(apply.size, PROGRAM, &program.costs, ours));
            }
            for peer in &apply.peers {
                table.row(cost_row(
                    apply.size,
                    &peer.kind.to_string(),
                    &peer.apply,
                    ours,
                ));
            }
            self.absent_rows(&mut table, apply.size);
        }
        Section {
            title: "Time to apply".to_owned(),
            text: format!(
                "From no rules to all rules in force; medians of {} rounds. \"{DRIVER}\" is the \
                 call in the program that makes and sends the packet rules; \"{PROGRAM}\" is the \
                 whole program in `init` mode on a fresh pod, which also reads the list and makes \
                 the macvlan, addresses, routes and rules, without the probe and without the wait \
                 before its last announcement. The peers load one DNAT rule for each mapping from \
                 a file that is written already.",
                settings.apply_rounds
            ),
            table,
        }
    }

    fn reload_section(&self, settings: &Settings) -> Section {
        let mut table = cost_table("of our driver");
        for apply in &self.apply {
            let ours = apply.driver_reload.wall();
            let label = format!("{DRIVER}, list read again");
            table.row(cost_row(apply.size, &label, &apply.driver_reload, ours));
            for peer in &apply.peers {
                table.row(cost_row(
                    apply.size,
                    &peer.kind.to_string(),
                    &peer.reload,
                    ours,
                ));
            }
            self.absent_rows(&mut table, apply.size);
        }
        Section {
            title: "Time to reload with one mapping changed".to_owned(),
            text: format!(
                "Medians of {} rounds. The peers load their file again, which replaces all of \
                 their rules; the router changes the one element that differs, and ends the \
                 connections of the old mapping.",
                settings.apply_rounds
            ),
            table,
        }
    }

    fn absent_rows(&self, table: &mut Table, size: usize) {
        for kind in &self.absent {
            table.row([grouped(size), kind.to_string(), "not installed".to_owned()]);
        }
    }

    fn connect_section(&self, settings: &Settings) -> Section {
        let head = [
            "mappings",
            "rules of",
            "to the",
            "median",
            "min",
            "max",
            "mean",
            "a second",
            "of first of ten",
        ];
        let mut table = Table::new(3, &head);
        for connect in &self.connect {
            let mut cells = vec![
                grouped(connect.size),
                rules_of(connect.peer).to_owned(),
                match connect.position {
                    Position::First => "first",
                    Position::Last => "last",
                }
                .to_owned(),
            ];
            match &connect.outcome {
                Ok(connects) => cells.extend(self.connect_cells(connect.peer, connects)),
                Err(_) => cells.push("failed".to_owned()),
            }
            table.row(cells);
        }
        Section {
            title: "Time to open a connection".to_owned(),
            text: format!(
                "connect(2) from a pod through the router to a server outside: {} connections to \
                 each mapping in {} turns. Minimum and maximum are of the turns' medians; \"a \
                 second\" is how many connections one thread opens and closes; the ratio is to \
                 the first of ten mappings under the same rules, turn by turn.",
                settings.connects * settings.connect_rounds,
                settings.connect_rounds
            ),
            table,
        }
    }

    fn connect_cells(&self, peer: Option<Kind>, connects: &Connects) -> Vec<String> {
        let first = self.first_of_ten(peer);
        vec![
            time(connects.all.median()),
            time(connects.medians.min()),
            time(connects.medians.max()),
            time(connects.all.mean()),
            format!("{:.0}", connects.per_second.median()),
            first.map_or_else(String::new, |first| {
                times(connects.medians.ratios_to(&first.medians).median())
            }),
        ]
    }

    fn own_work_section(&self, settings: &Settings) -> Section {
        let mut table = Table::new(
            1,
            &[
                "list",
                "median",
                "min",
                "max",
                "processor",
                "largest resident set",
            ],
        );
        for work in &self.own_work {
            let mut cells = vec![match work.list {
                ListName::DocumentedExample => "documented example, 4 lines".to_owned(),
                ListName::Mappings(count) => format!("{} mappings", grouped(count)),
            }];
            cells.extend(cost_cells(&work.costs));
            cells.push(size(work.memory.median()));
            table.row(cells);
        }
        Section {
            title: "Own work of the whole program".to_owned(),
            text: format!(
                "`{PROGRAM}` in `init` mode on a fresh pod, from fork to exit, without the wait \
                 before its last announcement; the probe is off. Medians of {} rounds.",
                settings.apply_rounds
            ),
            table,
        }
    }

    fn goals_section(&self) -> Section {
        let mut table = Table::new(1, &["goal", "measured", "met"]);
        for goal in self.goals() {
            table.row(goal.cells());
        }
        Section {
            title: "Goals".to_owned(),
            text: format!(
                "What was asked for, at {} mappings where it names none.",
                grouped(GOAL_SIZE)
            ),
            table,
        }
    }

    fn goals(&self) -> Vec<Goal> {
        let apply = self.apply.iter().find(|apply| apply.size == GOAL_SIZE);
        let driver = apply.and_then(|apply| apply.driver.wall());
        let nft = apply.and_then(|apply| {
            apply
                .peers
                .iter()
                .find(|peer| peer.kind == Kind::Nft)?
                .apply
                .wall()
        });
        let program = |list| self.program(list).and_then(|work| work.costs.wall());
        let whole = program(ListName::Mappings(GOAL_SIZE));
        let part = |ours: Option<&Samples>| Some(ours?.ratios_to(nft?).median());
        let memory = |list| self.program(list).map(|work| work.memory.median());
        let to_last = || {
            let last = self.connects(None, GOAL_SIZE, Position::Last)?;
            Some(
                last.medians
                    .ratios_to(&self.first_of_ten(None)?.medians)
                    .median(),
            )
        };
        let seconds = |samples: Option<&Samples>| samples.map(Samples::median);
        vec![
            Goal::new(
                format!("{DRIVER}: time of linear nft -f"),
                times,
                0.1,
                part(driver),
            ),
            Goal::new(
                format!("{PROGRAM}: time of linear nft -f"),
                times,
                0.1,
                part(whole),
            ),
            Goal::new(
                format!("{DRIVER}: time to apply"),
                time,
                0.150,
                seconds(driver),
            ),
            Goal::new(
                format!("{PROGRAM}: time to apply"),
                time,
                0.150,
                seconds(whole),
            ),
            Goal::new(
                "connection to the last: of first of ten".to_owned(),
                times,
                1.1,
                to_last(),
            ),
            Goal::new(
                "own work, documented example".to_owned(),
                time,
                0.020,
                seconds(program(ListName::DocumentedExample)),
            ),
            Goal::new(
                "memory, 10 mappings".to_owned(),
                size,
                8e6,
                memory(ListName::Mappings(10)),
            ),
            Goal::new(
                "memory".to_owned(),
                size,
                40e6,
                memory(ListName::Mappings(GOAL_SIZE)),
            ),
        ]
    }

    fn program(&self, list: ListName) -> Option<&OwnWork> {
        self.own_work.iter().find(|work| work.list == list)
    }

    fn first_of_ten(&self, peer: Option<Kind>) -> Option<&Connects> {
        self.connects(peer, 10, Position::First)
    }

    fn connects(&self, peer: Option<Kind>, size: usize, position: Position) -> Option<&Connects> {
        let wanted = |c: &&Connect| (c.peer, c.size, c.position) == (peer, size, position);
        self.connect.iter().find(wanted)?.outcome.as_ref().ok()
    }

    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut costs = |what: String, costs: &Costs| {
            if let Costs::Failed(reason) = costs {
                failures.push(format!("{what}: {reason}"));
            }
        };
        for Apply {
            size,
            read,
            driver,
            driver_reload,
            peers,
        } in &self.apply
        {
            costs(format!("{DRIVER} reading {size} mappings"), read);
            costs(format!("{DRIVER} applying {size} mappings"), driver);
            costs(format!("{DRIVER} reloading {size} mappings"), driver_reload);
            for peer in peers {
                costs(
                    format!("{} applying {size} mappings", peer.kind),
                    &peer.apply,
                );
                costs(
                    format!("{} reloading {size} mappings", peer.kind),
                    &peer.reload,
                );
            }
        }
        for connect in &self.connect {
            if let Err(reason) = &connect.outcome {
                let rules = rules_of(connect.peer);
                failures.push(format!(
                    "connecting by {} rules of {rules}: {reason}",
                    connect.size
                ));
            }
        }
        failures
    }
}

/// Something that shall be smaller than a limit.
struct Goal {
    text: String,
    format: fn(f64) -> String,
    limit: f64,
    measured: Option<f64>,
}

impl Goal {
    fn new(text: String, format: fn(f64) -> String, limit: f64, measured: Option<f64>) -> Self {
        Self {
            text,
            format,
            limit,
            measured,
        }
    }

    fn cells(&self) -> [String; 3] {
        let Self {
            text,
            format,
            limit,
            measured,
        } = self;
        [
            format!("{text} < {}", format(*limit)),
            measured.map_or_else(|| "not measured".to_owned(), format),
            match measured {
                Some(value) if value < limit => "yes",
                Some(_) => "NO",
                None => "",
            }
            .to_owned(),
        ]
    }
}

fn cost_table(ratio: &str) -> Table {
    Table::new(
        2,
        &["mappings", "by", "median", "min", "max", "processor", ratio],
    )
}

fn cost_row(size: usize, who: &str, costs: &Costs, reference: Option<&Samples>) -> Vec<String> {
    let mut cells = vec![grouped(size), who.to_owned()];
    cells.extend(cost_cells(costs));
    if let (Some(wall), Some(reference)) = (costs.wall(), reference) {
        cells.push(times(wall.ratios_to(reference).median()));
    }
    cells
}

/// Median, minimum and maximum of the wall time, median of processor time.
fn cost_cells(costs: &Costs) -> Vec<String> {
    match costs {
        Costs::Failed(_) => vec!["failed".to_owned()],
        Costs::Measured { wall, cpu } => [wall.median(), wall.min(), wall.max(), cpu.median()]
            .map(time)
            .into(),
    }
}

/// A factor.
fn times(ratio: f64) -> String {
    match ratio {
        _ if ratio < 0.995 => format!("{ratio:.3} ×"),
        _ => format!("{} ×", digits(ratio)),
    }
}

/// `50 000`
fn grouped(number: usize) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousands => format!("{} {:03}", grouped(thousands), number % 1_000),
    }
}

/// Whose rules.
fn rules_of(peer: Option<Kind>) -> &'static str {
    match peer {
        None => PROGRAM,
        Some(Kind::Nft) => "nft, linear",
        Some(Kind::IptablesRestore) => "iptables, linear",
    }
}
