//! Runs of the router in the simulated kernel.

use egress_config::AddressFamily;

use super::kernel::Kernel;
use crate::config::Config;
use crate::plan::{Plan, PlanError, Step, converge, restore, undo};
use crate::state::{Address, Link, Route, RoutingRule, State};

/// Rounds that a run may take, as in `router`.
const ROUNDS: usize = 6;

/// Watches a kernel while steps are carried out.
pub(super) type Watch<'a> = &'a mut dyn FnMut(&Kernel, &Step);

/// Nobody watches.
pub(super) fn unwatched(_: &Kernel, _: &Step) {}

/// Steps of a run, one after the other, and what interrupts it.
struct Budget(Option<usize>);

impl Budget {
    fn spend(&mut self) -> bool {
        match &mut self.0 {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// A whole run; answers how many rounds it took.
pub(super) fn run(
    kernel: &mut Kernel,
    config: &Config,
    watch: Watch<'_>,
) -> Result<usize, PlanError> {
    run_until(kernel, config, None, watch)
}

/// A run that is killed after so many steps.
pub(super) fn run_until(
    kernel: &mut Kernel,
    config: &Config,
    steps: Option<usize>,
    watch: Watch<'_>,
) -> Result<usize, PlanError> {
    let mut budget = Budget(steps);
    let mut plan = converge(config, &kernel.state)?;
    for round in 0..ROUNDS {
        if round > 0 && plan.is_converged() {
            return Ok(round);
        }
        for step in &plan.steps {
            if !budget.spend() {
                return Ok(round);
            }
            if let Err(refusal) = kernel.carry_out(step, Some(&plan)) {
                panic!("{step}: {refusal}\nround {round} of\n{}", list(&plan.steps));
            }
            watch(kernel, step);
        }
        plan = converge(config, &kernel.state)?;
    }
    let plan: &Plan = &plan;
    panic!("does not settle:\n{}", list(&plan.steps));
}

/// `undo`, killed after so many steps.
pub(super) fn undo_until(kernel: &mut Kernel, steps: Option<usize>, watch: Watch<'_>) {
    let plan = undo(&kernel.state);
    carry_out(kernel, &plan, Budget(steps), watch);
}

/// The undoing of a failed run.
pub(super) fn roll_back(kernel: &mut Kernel, before: &State) {
    let plan = restore(before, &kernel.state);
    carry_out(kernel, &plan, Budget(None), &mut unwatched);
}

fn carry_out(kernel: &mut Kernel, steps: &[Step], mut budget: Budget, watch: Watch<'_>) {
    for step in steps {
        if !budget.spend() {
            return;
        }
        if let Err(refusal) = kernel.carry_out(step, None) {
            panic!("{step}: {refusal}\nin\n{}", list(steps));
        }
        watch(kernel, step);
    }
}

/// Steps as the commands that would do the same.
pub(super) fn list(steps: &[Step]) -> String {
    (1..)
        .zip(steps)
        .map(|(number, step)| format!("{number:>4}  {step}\n"))
        .collect()
}

/// What makes two states the same: not the order of lists, nor the identity of
/// an interface that was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View(Vec<String>);

impl View {
    pub(super) fn of(state: &State) -> Self {
        let link = |link: &Link| {
            let link = Link {
                index: 0,
                mac: Vec::new(),
                ..link.clone()
            };
            format!("{link:?}")
        };
        let address = |address: &Address| format!("address {} {}", address.link, address.address);
        let rule = |rule: &RoutingRule| format!("rule {:?} {rule}", rule.family);
        let mut lines: Vec<String> = state.links.iter().map(link).collect();
        lines.extend(state.addresses.iter().map(address));
        lines.extend(
            state
                .routes
                .iter()
                .map(|route: &Route| format!("route {route}")),
        );
        lines.extend(state.rules.iter().map(rule));
        lines.push(format!("forwarding of IPv6 {:?}", state.ipv6_forwarding));
        lines.push(format!("low ports {:?}", state.unprivileged_ports));
        lines.push(format!("packet rules {:?}", state.firewall_present));
        lines.sort();
        Self(lines)
    }

    /// All but the notes in the aliases.
    pub(super) fn without_notes(state: &State) -> Self {
        let link = |link: &Link| Link {
            alias: None,
            ..link.clone()
        };
        Self::of(&State {
            links: state.links.iter().map(link).collect(),
            ..state.clone()
        })
    }

    /// The lines that only one of the two has; empty when they are the same.
    pub(super) fn difference(&self, expected: &Self) -> String {
        let only = |left: &Self, right: &Self, sign: &str| -> String {
            let mut rest = right.0.clone();
            let is_missing = |line: &&String| match rest.iter().position(|l| l == *line) {
                Some(position) => {
                    rest.remove(position);
                    false
                }
                None => true,
            };
            let lines = left.0.iter().filter(is_missing);
            lines.map(|line| format!("{sign} {line}\n")).collect()
        };
        only(expected, self, "-") + &only(self, expected, "+")
    }
}

/// What must hold at every moment of a run and of an undoing.
#[derive(Default)]
pub(super) struct Guard {
    /// Families that once had our default route.
    moved: Vec<AddressFamily>,
}

impl Guard {
    /// A run is under way.
    pub(super) fn running(&mut self, kernel: &Kernel, step: &Step) {
        self.guarded(kernel, step);
        for family in AddressFamily::ALL {
            let default = kernel.default_route(family);
            if default.is_some_and(|route| !route.is_foreign() && route.link.is_some()) {
                self.moved.push(family);
            }
            if self.moved.contains(&family) {
                let is_pods = |route: &&Route| route.is_foreign() && route.is_by("eth0");
                let leak = default.filter(is_pods);
                assert_eq!(
                    leak, None,
                    "the pod's own default route is in force after: {step}"
                );
            }
        }
    }

    /// No interface of the router's is up without its packet rules.
    pub(super) fn guarded(&mut self, kernel: &Kernel, step: &Step) {
        let guarded = kernel.guarded.as_ref().map(|rules| rules.egress.as_str());
        for link in &kernel.state.links {
            let is_the_routers = link.is_ours()
                || crate::originals::Originals::from_alias(link.alias.as_deref()).is_some();
            assert!(
                !link.up || !is_the_routers || guarded == Some(&link.name),
                "{} is up, and the rules are for {guarded:?}, after: {step}",
                link.name
            );
        }
    }
}
