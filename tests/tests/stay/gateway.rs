//! A gateway that goes silent while the router stays.

use egress_lab::{Family, Lab, address, harness::TestResult};

use crate::fixture::{Stayer, legacy};

/// Port of the LAN's bridge behind which the gateway is.
const PORT: &str = "gateway";

fn answers(router: &Stayer, expected: f64) {
    for family in Family::ALL {
        let gateway = address::gateway(family);
        let metric = format!("egress_router_gateway_answers{{gateway=\"{gateway}\"}}");
        router.await_metric(&metric, expected);
    }
}

pub(crate) fn a_gateway_is_told_when_it_goes_silent_and_when_it_is_back() -> TestResult {
    let lab = Lab::builder().build()?;
    lab.lan().set_down(PORT)?;
    let router = Stayer::start_in(lab, &legacy())?;
    for family in Family::ALL {
        let gateway = address::gateway(family);
        router.await_log(&format!("EGRESS_GATEWAY: {gateway} does not answer"))?;
    }
    answers(&router, 0.0);
    // It is no reason to keep clients away from a router that is set up.
    assert_eq!(router.page("/readyz").status, 200);

    router.lab.lan().set_up(PORT)?;
    for family in Family::ALL {
        let gateway = address::gateway(family);
        router.await_log(&format!("EGRESS_GATEWAY: {gateway} answers again"))?;
    }
    answers(&router, 1.0);
    router.lab.gateway().netns().await_carrier()?;
    router.traffic();

    router.lab.lan().set_down(PORT)?;
    answers(&router, 0.0);
    router.process.signal(nix::sys::signal::Signal::SIGTERM)?;
    let output = router.process.wait()?.expect(0);
    // Once for each time and gateway.
    let told = output.stderr.matches("does not answer").count();
    assert_eq!(told, 2 * Family::ALL.len(), "{}", output.stderr);
    // A gateway is not of the pod's network: there is nothing to repair.
    assert!(!output.stderr.contains("set up again"), "{}", output.stderr);
    Ok(())
}
