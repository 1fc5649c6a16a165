//! What a run of `init` costs.

use std::{fs, time::Duration};

use egress_lab::{Family, Lab, Process, RouterConfig, eventually, harness::TestResult};

/// Without optimisation, on a busy machine; the benchmark has the numbers.
const PROCESSOR: Duration = Duration::from_millis(100);

/// As above, in KiB.
const MEMORY: u64 = 24 * 1024;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the documentation of the image we replace sets up.
const DOCUMENTED: &str = "80   tcp 203.0.113.25\n\
                          8080 tcp 203.0.113.26 80\n\
                          8443 tcp 203.0.113.26 443\n\
                          203.0.113.27";

#[expect(
    clippy::print_stdout,
    reason = "numbers that somebody may want to read"
)]
pub(crate) fn the_documented_example_takes_little() -> TestResult {
    let (processor, memory) = eventually(PATIENCE, run);
    println!("init: {processor:?} of processor time, {memory} KiB at most");
    assert!(processor < PROCESSOR, "{processor:?}");
    assert!(memory < MEMORY, "{memory} KiB");
    Ok(())
}

/// Processor time and peak memory of a run, read between its last line and
/// its end: it waits a fifth of a second before it repeats the announcement.
fn run() -> Result<(Duration, u64), String> {
    let lab = Lab::builder().build().unwrap();
    let config = RouterConfig::new(&[Family::Ipv4]).with("EGRESS_DESTINATION", DOCUMENTED);
    let process = config.command(lab.router_pod()).unwrap().spawn().unwrap();
    process
        .await_stderr("the network is set up", PATIENCE)
        .unwrap();
    let used = used(&process).map_err(|error| format!("it ended too soon: {error}"));
    let _ = process.wait().unwrap().expect(0);
    used
}

fn used(process: &Process) -> std::io::Result<(Duration, u64)> {
    let proc = format!("/proc/{}", process.pid());
    // proc_pid_schedstat: nanoseconds on a processor first; it has one thread.
    let schedule = fs::read_to_string(format!("{proc}/schedstat"))?;
    let nanoseconds = schedule
        .split(' ')
        .next()
        .and_then(|first| first.parse().ok());
    let status = fs::read_to_string(format!("{proc}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    // A zombie has no memory.
    let none = || std::io::Error::other("no memory");
    Ok((
        Duration::from_nanos(nanoseconds.unwrap_or_default()),
        peak.ok_or_else(none)?,
    ))
}
