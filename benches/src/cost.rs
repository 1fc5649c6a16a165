//! What a run took.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_lab::{Command, Output};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};

use crate::samples::Samples;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) wall: Duration,
    /// Work of the processor for it, in user and kernel mode.
    pub(crate) cpu: Duration,
}

impl Cost {
    /// Cost of a call on this thread.
    pub(crate) fn of_call<T>(call: impl FnOnce() -> T) -> Result<(T, Self)> {
        let before = cpu_of_thread()?;
        let started = Instant::now();
        let value = call();
        let wall = started.elapsed();
        Ok((
            value,
            Self {
                wall,
                cpu: cpu_of_thread()?.saturating_sub(before),
            },
        ))
    }

    /// Cost of a program, which must succeed. No other program may run
    /// meanwhile.
    pub(crate) fn of_program(command: Command) -> Result<Self> {
        let before = cpu_of_children()?;
        let output = succeeded(command.run()?)?;
        Ok(Self {
            wall: output.elapsed,
            cpu: cpu_of_children_since(before)?,
        })
    }
}

/// Work that all programs that ended so far were to the processor.
pub(crate) fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// How much [`cpu_of_children`] has grown.
pub(crate) fn cpu_of_children_since(before: Duration) -> Result<Duration> {
    Ok(cpu_of_children()?.saturating_sub(before))
}

/// The output of a program that did what it was to do.
pub(crate) fn succeeded(output: Output) -> Result<Output> {
    anyhow::ensure!(
        output.code == 0,
        "exit code {}: {}",
        output.code,
        output.stderr.trim()
    );
    Ok(output)
}

/// Work of this thread. getrusage(2) knows that of a running one only as of
/// the last tick.
fn cpu_of_thread() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("clock_gettime")?;
    Ok(time.into())
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// What many runs took; or why there is nothing to say.
#[derive(Debug, Clone)]
pub(crate) enum Costs {
    Measured {
        wall: Samples,
        cpu: Samples,
    },
    /// No figure for this reason, which ends with the cause.
    Failed(String),
}

impl Costs {
    pub(crate) fn new() -> Self {
        Self::Measured {
            wall: Samples::default(),
            cpu: Samples::default(),
        }
    }

    /// Adds a run. After a failure there are no figures.
    pub(crate) fn push(&mut self, run: Result<Cost>) {
        match (&mut *self, run) {
            (Self::Failed(_), _) => {}
            (Self::Measured { wall, cpu }, Ok(cost)) => {
                wall.push_time(cost.wall);
                cpu.push_time(cost.cpu);
            }
            (Self::Measured { .. }, Err(error)) => *self = Self::Failed(format!("{error:#}")),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// Wall times in seconds.
    pub(crate) fn wall(&self) -> Option<&Samples> {
        match self {
            Self::Measured { wall, .. } if !wall.is_empty() => Some(wall),
            _ => None,
        }
    }
}
