//! One subject in one scenario, once.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::figures::{Found, Metric};
use super::generator::{Generator, Interval, Order};
use super::ground::Ground;
use super::process_tree::ProcessTree;
use super::rule_list::RuleList;
use super::running::Running;
use super::scenario::{Role, Scenario, Work};
use super::subject::Subject;

/// Where and with what is measured.
#[derive(Debug)]
pub(crate) struct Measurement<'a> {
    pub(crate) ground: &'a Ground,
    /// `egress-bench-load`.
    pub(crate) load: &'a Path,
    pub(crate) interval: Interval,
}

impl Measurement<'_> {
    /// Starts the subject, measures it and ends it.
    pub(crate) fn of(&self, subject: &Subject, scenario: &Scenario) -> Result<Found> {
        let rules = match scenario.work {
            Work::Rules { rules } => RuleList::of_names(rules),
            _ => RuleList::origin_only(),
        };
        let running = subject
            .program()
            .map(|(definition, program)| Running::start(self.ground, definition, program, &rules))
            .transpose()?;
        match &scenario.work {
            work @ (Work::Requests { .. } | Work::Bulk { .. }) => {
                let keeps = subject
                    .program()
                    .is_none_or(|(definition, _)| definition.keeps_connections);
                let mut order = Order::of_work(work, scenario.role, running.is_none(), keeps)
                    .context("nothing to ask for")?;
                if scenario.role == Role::Tls {
                    order = order.trusting(&self.ground.certificates());
                }
                let tree = running.as_ref().map(Running::tree);
                let bulk = matches!(work, Work::Bulk { .. });
                self.load(&order, tree, bulk)
            }
            Work::Idle { connections } => self.idle(
                &running.context("nothing runs")?,
                scenario.role,
                *connections,
            ),
            Work::Rules { .. } => self.rules(&running.context("nothing runs")?, &rules),
            Work::Start => start(&running.context("nothing runs")?),
        }
    }

    fn load(&self, order: &Order, tree: Option<ProcessTree>, bulk: bool) -> Result<Found> {
        let order = order.clone().for_(self.interval);
        let mut generator = Generator::start(self.ground, self.load, &order)?;
        let (before, after, measured) =
            generator.measured(|| tree.map(ProcessTree::cpu).transpose())?;
        let cpu = before
            .zip(after)
            .map(|(before, after)| after.saturating_sub(before).as_secs_f64());
        let (operations, bytes) = (count(measured.operations), count(measured.bytes));
        let mut found = Found::new();
        if bulk {
            ensure!(measured.bytes > 0, "no byte was moved");
            found.insert(Metric::Throughput, bytes / measured.seconds);
            found.extend(cpu.map(|cpu| (Metric::CpuPerByte, cpu / bytes)));
        } else {
            ensure!(measured.operations > 0, "no operation was completed");
            found.insert(Metric::Rate, operations / measured.seconds);
            found.extend(cpu.map(|cpu| (Metric::CpuPerOperation, cpu / operations)));
            found.insert(Metric::Median, measured.p50_us / 1e6);
            found.insert(Metric::NinetyNinth, measured.p99_us / 1e6);
        }
        Ok(found)
    }

    fn idle(&self, running: &Running, role: Role, connections: usize) -> Result<Found> {
        let before = running.tree().allocated()?;
        let order = Order::new(role, false, "idle", connections);
        let mut generator = Generator::start(self.ground, self.load, &order)?;
        generator.ready(connections)?;
        let after = running.tree().allocated()?;
        let grown = count(after) - count(before);
        let each = grown / count(u64::try_from(connections)?);
        Ok(Found::from([(Metric::PerConnection, each)]))
    }

    fn rules(&self, running: &Running, rules: &RuleList) -> Result<Found> {
        let mut found = start(running)?;
        let connections = Work::Rules { rules: 0 }.connections();
        let folder = self.ground.new_folder()?;
        for (load, hosts, metric) in [
            ("forward", rules.hits(), Metric::Hits),
            ("misses", rules.misses(), Metric::Misses),
        ] {
            let file = folder.path().join(load);
            fs::write(&file, hosts.join("\n"))
                .with_context(|| format!("writing {}", file.display()))?;
            let order = Order::new(Role::Http, false, load, connections).hosts(&file);
            let measured = self.load(&order, None, false)?;
            found.extend(measured.get(&Metric::Rate).map(|rate| (metric, *rate)));
        }
        Ok(found)
    }
}

fn start(running: &Running) -> Result<Found> {
    Ok(Found::from([
        (Metric::FirstAnswer, running.first_answer().as_secs_f64()),
        (Metric::AtRest, count(running.tree().memory()?)),
    ]))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what is counted in a few seconds is far below 2^52"
)]
fn count(number: u64) -> f64 {
    number as f64
}
