//! A router that has nothing to do.

use std::{thread, time::Duration};

use egress_lab::harness::TestResult;

use crate::fixture::{Stayer, legacy};

/// Long enough for every interval of the program.
const WHILE: Duration = Duration::from_millis(5500);

/// What looking and counting may cost in that time, on a busy machine and
/// without optimisation.
const CPU_SECONDS: f64 = 0.25;

pub(crate) fn nothing_is_done_for_nothing() -> TestResult {
    let router = Stayer::start(&legacy())?;
    router.traffic();
    let before = router.snapshot();
    let spent = router.metric("process_cpu_seconds_total");
    thread::sleep(WHILE);
    let spent = router.metric("process_cpu_seconds_total") - spent;
    assert!(
        spent < CPU_SECONDS,
        "{spent} s of processor time in {WHILE:?}"
    );
    assert_eq!(router.metric("egress_router_repairs_total"), 0.0);
    before.assert_same(&router.snapshot());
    Ok(())
}
