//! How it ends.

use std::{
    fs,
    time::{Duration, Instant},
};

use egress_lab::{Family, Lab, RouterConfig, TcpClient, address, harness::TestResult};
use nix::sys::signal::Signal;

use crate::fixture::{PATIENCE, Stayer, legacy};

/// An open connection over the router.
fn connection(router: &Stayer) -> TcpClient {
    let to = router.lab.router_pod().socket(Family::Ipv4, 80);
    let mut connection = router
        .client()
        .netns()
        .run(|| TcpClient::connect(to, PATIENCE))
        .unwrap();
    connection.ask("open").unwrap();
    connection
}

fn await_draining(router: &Stayer) {
    let page = router.await_page("/readyz", |page| page.status == 503);
    assert_eq!(page.body, "draining\n");
}

pub(crate) fn one_sigterm_ends_an_idle_router() -> TestResult {
    let router = Stayer::start(&legacy())?;
    router.traffic();
    let start = Instant::now();
    router.process.signal(Signal::SIGTERM)?;
    let _ = router.process.wait()?.expect(0);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

pub(crate) fn open_connections_may_end_first() -> TestResult {
    let router = Stayer::start(&legacy())?;
    let mut connection = connection(&router);
    router.process.signal(Signal::SIGTERM)?;
    await_draining(&router);
    connection.ask("still open")?;
    assert!(router.process.is_running());
    drop(connection);
    let start = Instant::now();
    let _ = router.process.wait()?.expect(0);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

pub(crate) fn open_connections_get_so_long() -> TestResult {
    let drain = Duration::from_millis(1500);
    let router = Stayer::start(&legacy().with("EGRESS_DRAIN_SECONDS", "1500ms"))?;
    let connection = connection(&router);
    let start = Instant::now();
    router.process.signal(Signal::SIGTERM)?;
    let output = router.process.wait()?.expect(0);
    let took = start.elapsed();
    assert!(
        took >= drain && took < drain + Duration::from_secs(2),
        "{took:?}"
    );
    assert!(
        output.stderr.contains("EGRESS_DRAIN_SECONDS is over"),
        "{}",
        output.stderr
    );
    drop(connection);
    Ok(())
}

pub(crate) fn a_second_sigterm_ends_at_once() -> TestResult {
    let router = Stayer::start(&legacy())?;
    let connection = connection(&router);
    router.process.signal(Signal::SIGTERM)?;
    await_draining(&router);
    let start = Instant::now();
    router.process.signal(Signal::SIGTERM)?;
    let _ = router.process.wait()?.expect(0);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    drop(connection);
    Ok(())
}

pub(crate) fn sigterm_ends_the_wait_for_the_address() -> TestResult {
    let mut lab = Lab::builder().build()?;
    let _holder = lab.add_lan_host("holder", &[address::source(Family::Ipv6)])?;
    let config = legacy().with("EGRESS_ADDRESS_PROBE", "60ms");
    let router = Stayer::launch_in(lab, &config)?;
    router.await_log("in use by another host")?;
    router.process.signal(Signal::SIGTERM)?;
    let _ = router.process.wait()?.expect(0);
    Ok(())
}

pub(crate) fn wait_needs_no_privilege() -> TestResult {
    let lab = Lab::builder().build()?;
    let before = lab.router_pod().snapshot()?;
    let mut command = RouterConfig::new(&[])
        .command(lab.router_pod())?
        .capabilities(&[])
        .arg("wait");
    let is_root = fs::read_to_string("/proc/self/uid_map")?
        .split_whitespace()
        .nth(2)
        != Some("1");
    if is_root {
        command = command.uid(65532);
    }
    for name in ["EGRESS_SOURCE", "EGRESS_GATEWAY", "EGRESS_DESTINATION"] {
        command = command.env_remove(name);
    }
    let process = command.spawn()?;
    process.await_stderr("waiting for SIGTERM", PATIENCE)?;
    process.signal(Signal::SIGHUP)?;
    process.signal(Signal::SIGTERM)?;
    let _ = process.wait()?.expect(0);
    before.assert_same(&lab.router_pod().snapshot()?);
    Ok(())
}
