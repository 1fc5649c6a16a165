//! Stopped half-way: the egress router killed after any of its changes, or
//! refused any of them, leaves nothing that the next run or `undo` does not
//! put right.
//!
//! The program runs under ptrace(2), which stops it at every system call; see
//! `tracer`. Where ptrace is forbidden these tests fail.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests end at the first surprise, and helpers answer on stdout"
)]

mod tracer;

use std::{
    env,
    panic::resume_unwind,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use egress_lab::{
    Command, Family, Lab, MacvlanMode, Output, RouterConfig, Snapshot, address,
    harness::{
        self, TestResult,
        libtest_mimic::{Failed, Trial},
    },
    program,
};
use nix::sys::signal::Signal;

use self::tracer::{Fate, traced};

const V4: &[Family] = &[Family::Ipv4];
const DUAL: &[Family] = &Family::ALL;

/// Labs in which the steps of one scenario are tried side by side. Most of a
/// run is waiting.
const LABS: usize = 3;

/// A run that makes fewer changes than this is none of a whole router.
const FEWEST_CHANGES: usize = 10;

fn main() -> ExitCode {
    if let Some(code) = tracer::role() {
        return code;
    }
    let mut tests = Vec::new();
    for scenario in SCENARIOS {
        for (fate, name, test) in [
            (Fate::Kill, "killed_then_run", killed_then_run as StepTest),
            (Fate::Kill, "killed_then_undone", killed_then_undone),
            (Fate::Refuse, "refused", refused),
        ] {
            tests.push(Trial::test(
                format!("{}::{name}", scenario.name),
                move || at_every_change(scenario, fate, test),
            ));
        }
        tests.push(Trial::test(
            format!("{}::undo_killed", scenario.name),
            move || undo_killed_at_every_change(scenario),
        ));
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for scenario in SCENARIOS {
            let name = format!("{}::{signal}_during_the_set_up", scenario.name);
            tests.push(Trial::test(name, move || {
                signalled_during_the_set_up(scenario, signal)
            }));
        }
        tests.push(Trial::test(
            format!("{signal}_while_the_address_is_taken"),
            move || signalled_while_the_address_is_taken(signal),
        ));
    }
    harness::run(&["egress-router-init"], tests)
}

// --- scenarios ---

/// A pod and what is to be run in it.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Whether the pod comes with a macvlan, down and in private mode.
    preset: bool,
    /// What ran there before, if anything.
    earlier: Option<fn() -> RouterConfig>,
    config: fn() -> RouterConfig,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "created",
        preset: false,
        earlier: None,
        config: || RouterConfig::new(V4),
    },
    Scenario {
        name: "preset_private",
        preset: true,
        earlier: None,
        config: || RouterConfig::new(V4),
    },
    Scenario {
        name: "dual_stack",
        preset: false,
        earlier: None,
        config: || RouterConfig::new(DUAL),
    },
    Scenario {
        name: "changed",
        preset: false,
        earlier: Some(other),
        config: || RouterConfig::new(DUAL),
    },
    Scenario {
        name: "changed_preset",
        preset: true,
        earlier: Some(|| RouterConfig::new(DUAL)),
        config: other,
    },
];

/// Another source, prefix length, gateway and list; IPv4 only.
fn other() -> RouterConfig {
    RouterConfig::new(V4)
        .with("EGRESS_SOURCE", "192.168.12.98/25")
        .with("EGRESS_GATEWAY", "192.168.12.2")
        .with(
            "EGRESS_DESTINATION",
            "80 tcp 203.0.113.7\n81 udp 203.0.113.8 9",
        )
        .with("EGRESS_CLUSTER_CIDRS", "10.244.0.0/16")
}

/// A lab of a scenario, and the states that matter there.
struct Stage {
    lab: Lab,
    scenario: Scenario,
    /// Before anything ran.
    pristine: Snapshot,
    /// When the run starts that is to be stopped.
    start: Snapshot,
}

impl Stage {
    fn set(scenario: Scenario) -> Result<Self, Failed> {
        let builder = Lab::builder().outside_servers(1);
        let lab = if scenario.preset {
            builder.macvlan("macvlan0", MacvlanMode::Private).build()?
        } else {
            builder.build()?
        };
        lab.router_pod().netns().skip_address_checks()?;
        let pristine = Self::state(&lab)?;
        let mut stage = Self {
            lab,
            scenario,
            start: pristine.clone(),
            pristine,
        };
        if stage.scenario.earlier.is_some() {
            stage.run_earlier()?;
            stage.start = stage.now()?;
        }
        Ok(stage)
    }

    /// Without subnet-router anycast addresses: the kernel counts how often an
    /// interface joined one, and counts differently when forwarding, the
    /// address and the carrier come in another order.
    fn state(lab: &Lab) -> Result<Snapshot, Failed> {
        let anycast = |line: &str| line.contains(" Anycast ");
        Ok(Snapshot::settled(lab.router_pod().netns())?.without(anycast))
    }

    fn now(&self) -> Result<Snapshot, Failed> {
        Self::state(&self.lab)
    }

    fn run_earlier(&self) -> TestResult {
        if let Some(earlier) = self.scenario.earlier {
            let _ = earlier().run(self.lab.router_pod())?.expect(0);
        }
        Ok(())
    }

    fn run(&self) -> TestResult {
        let _ = (self.scenario.config)()
            .run(self.lab.router_pod())?
            .expect(0);
        Ok(())
    }

    fn undo(&self) -> TestResult {
        let config = (self.scenario.config)();
        let _ = config
            .run_subcommand(self.lab.router_pod(), "undo")?
            .expect(0);
        Ok(())
    }

    /// Runs the program, with a subcommand or none, and lets `fate` come over
    /// it at its change number `step`; `None` when it made fewer.
    fn stopped(
        &self,
        subcommand: Option<&str>,
        fate: Fate,
        step: usize,
    ) -> Result<Option<Output>, Failed> {
        let config = (self.scenario.config)();
        let tracer = config.container(self.lab.router_pod(), env::current_exe()?);
        let command = traced(tracer, &program("egress-router-init")?, fate, step);
        let output = subcommand.into_iter().fold(command, Command::arg).run()?;
        if output.stdout.is_empty() {
            let _ = output.expect(0);
            return Ok(None);
        }
        Ok(Some(output))
    }
}

/// The state after a whole run in a pod where nothing ran before.
fn fresh(scenario: Scenario) -> Result<Snapshot, Failed> {
    let stage = Stage::set(Scenario {
        earlier: None,
        ..scenario
    })?;
    stage.run()?;
    stage.now()
}

// --- every change, one after the other ---

/// What is checked once the program was stopped as `output` tells.
type StepTest = fn(&Stage, &Snapshot, &Output) -> TestResult;

fn at_every_change(scenario: Scenario, fate: Fate, test: StepTest) -> TestResult {
    let fresh = fresh(scenario)?;
    each_step(scenario, |stage, step| {
        let Some(output) = stage.stopped(None, fate, step)? else {
            return Ok(false);
        };
        test(stage, &fresh, &output).map(|()| true)
    })
}

/// Tries steps from 1 up, side by side in several labs, until one says that
/// there are no more.
fn each_step(
    scenario: Scenario,
    attempt: impl Fn(&Stage, usize) -> Result<bool, Failed> + Sync,
) -> TestResult {
    let (next, last) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
    let work = || -> TestResult {
        let stage = Stage::set(scenario)?;
        loop {
            let step = next.fetch_add(1, Ordering::Relaxed);
            if step >= last.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !attempt(&stage, step)? {
                last.fetch_min(step, Ordering::Relaxed);
                return Ok(());
            }
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..LABS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(ScopedJoinHandle::join).collect()
    });
    for result in results {
        result.unwrap_or_else(|panic| resume_unwind(panic))?;
    }
    let changes = last.into_inner() - 1;
    assert!(
        changes >= FEWEST_CHANGES,
        "the program made {changes} changes"
    );
    Ok(())
}

/// A container that is started again.
fn killed_then_run(stage: &Stage, fresh: &Snapshot, killed: &Output) -> TestResult {
    assert_eq!(killed.code, 137, "{killed:?}");
    stage.run()?;
    same(
        &without_note(fresh),
        &without_note(&stage.now()?),
        "the next run",
        killed,
    );
    stage.undo()?;
    same(&stage.pristine, &stage.now()?, "undo after it", killed);
    stage.run_earlier()?;
    same(
        &stage.start,
        &stage.now()?,
        "the earlier configuration",
        killed,
    );
    Ok(())
}

fn killed_then_undone(stage: &Stage, _: &Snapshot, killed: &Output) -> TestResult {
    assert_eq!(killed.code, 137, "{killed:?}");
    stage.undo()?;
    same(&stage.pristine, &stage.now()?, "undo", killed);
    stage.run_earlier()?;
    same(
        &stage.start,
        &stage.now()?,
        "the earlier configuration",
        killed,
    );
    Ok(())
}

/// The run fails, and takes back what it did.
fn refused(stage: &Stage, _: &Snapshot, refused: &Output) -> TestResult {
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!refused.last_error_line().is_empty(), "{refused:?}");
    assert!(!refused.stderr.contains("cannot undo"), "{refused:?}");
    // A link-local address that was put back is there, but not by the kernel;
    // that it is there its route tells.
    let own = |line: &str| line.starts_with("address ") && line.contains(" fe80::");
    let (start, now) = (stage.start.without(own), stage.now()?.without(own));
    same(&start, &now, "the failed run", refused);
    Ok(())
}

fn undo_killed_at_every_change(scenario: Scenario) -> TestResult {
    each_step(scenario, |stage, step| {
        stage.run()?;
        let Some(killed) = stage.stopped(Some("undo"), Fate::Kill, step)? else {
            return Ok(false);
        };
        stage.undo()?;
        same(&stage.pristine, &stage.now()?, "undo", &killed);
        Ok(true)
    })
}

fn same(wanted: &Snapshot, found: &Snapshot, after: &str, stopped: &Output) {
    let difference = wanted.difference(found);
    assert!(
        difference.is_empty(),
        "stopped at {}{}after {after} there is\n{difference}",
        stopped.stdout,
        stopped.stderr
    );
}

/// A state without what the router noted: that tells where it came from.
fn without_note(snapshot: &Snapshot) -> Snapshot {
    snapshot.without(|line| line.starts_with("alias "))
}

// --- signals ---

/// `legacy` mode is asked to end before the network is set up: it ends at
/// once, in good order.
fn signalled_during_the_set_up(scenario: Scenario, signal: Signal) -> TestResult {
    const PROBE: Duration = Duration::from_secs(5);
    let fresh = fresh(scenario)?;
    let stage = Stage::set(scenario)?;
    let legacy = (scenario.config)()
        .with("EGRESS_ROUTER_MODE", "legacy")
        .with("EGRESS_ADMIN_LISTEN", "off")
        .with("EGRESS_ADDRESS_PROBE", format!("{}s", PROBE.as_secs()))
        .with("EGRESS_LOG", "debug");
    let process = legacy.command(stage.lab.router_pod())?.spawn()?;
    process.await_stderr("arping -D", Duration::from_secs(5))?;
    let asked = Instant::now();
    process.signal(signal)?;
    let output = process.wait()?.expect(0);
    assert!(asked.elapsed() < PROBE / 2, "it took {:?}", asked.elapsed());
    stage.run()?;
    same(
        &without_note(&fresh),
        &without_note(&stage.now()?),
        "the next run",
        &output,
    );
    stage.undo()?;
    same(&stage.pristine, &stage.now()?, "undo", &output);
    Ok(())
}

/// While it waits for another host to give the address up, nothing is changed.
fn signalled_while_the_address_is_taken(signal: Signal) -> TestResult {
    let [created, ..] = SCENARIOS;
    let mut stage = Stage::set(created)?;
    let squatter = stage
        .lab
        .add_lan_host("squatter", &[address::source(Family::Ipv4)])?;
    let legacy = (created.config)()
        .with("EGRESS_ROUTER_MODE", "legacy")
        .with("EGRESS_ADMIN_LISTEN", "off")
        .with("EGRESS_ADDRESS_PROBE", "100ms");
    let process = legacy.command(stage.lab.router_pod())?.spawn()?;
    let told = process.await_stderr("trying again", Duration::from_secs(5))?;
    assert!(
        told.contains(&squatter.netns().mac_address("eth0")?),
        "{told}"
    );
    stage.pristine.assert_same(&stage.now()?);
    process.signal(signal)?;
    let _ = process.wait()?.expect(0);
    stage.pristine.assert_same(&stage.now()?);
    Ok(())
}
