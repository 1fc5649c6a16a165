//! The end of the program.

use std::time::{Duration, Instant};

use egress_lab::{
    ClientError, Server, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use nix::sys::signal::Signal;

use crate::scene::{PATIENCE, Scene, answer, logged, network, serve};

fn start(drain_seconds: &str) -> Result<(Scene, Server), Failed> {
    let lab = network()?;
    answer(&lab, "a.test", 60, &["198.51.100.1"]);
    let server = serve(&lab, &["198.51.100.1"], 80)?;
    let scene = Scene::start_with(lab, "8000 a.test 80", |command| {
        command.env("EGRESS_DRAIN_SECONDS", drain_seconds)
    })?;
    Ok((scene, server))
}

pub(crate) fn open_connections_end_by_themselves() -> TestResult {
    let (scene, _server) = start("60")?;
    let mut open = scene.client(8000)?;
    open.ask("before")?;
    scene.proxy.signal(Signal::SIGTERM)?;
    eventually(PATIENCE, || match scene.page("/readyz") {
        page if page.status == 503 && page.body == "draining\n" => Ok(()),
        page => Err(page),
    });
    scene.proxy.await_stderr("\"draining\"", PATIENCE)?;
    // Nobody new, and nobody is disturbed.
    let answer = scene.ask(8000);
    assert!(matches!(answer, Err(ClientError::Refused)), "{answer:?}");
    assert_eq!(scene.page("/healthz").status, 200);
    for _ in 0..3 {
        open.ask("during")?;
    }
    assert!(scene.proxy.is_running());
    drop(open);
    let output = scene.proxy.wait()?.expect(0);
    let line = &logged(&output.stderr, "connection")[0];
    assert_eq!(line["end"], "finished", "{}", output.stderr);
    assert!(!output.stderr.contains("cut off"), "{}", output.stderr);
    Ok(())
}

pub(crate) fn time_for_it_is_limited() -> TestResult {
    let (scene, _server) = start("1")?;
    let mut open = scene.client(8000)?;
    open.ask("before")?;
    let start = Instant::now();
    scene.proxy.signal(Signal::SIGTERM)?;
    open.await_end()?;
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(5),
        "{took:?}"
    );
    let output = scene.proxy.wait()?.expect(0);
    assert_eq!(logged(&output.stderr, "connection")[0]["end"], "drain");
    let cut = logged(&output.stderr, "what was still open is cut off");
    assert_eq!(cut[0]["closed"], 1, "{}", output.stderr);
    Ok(())
}

pub(crate) fn a_second_signal_ends_it_at_once() -> TestResult {
    let (scene, _server) = start("600")?;
    let mut open = scene.client(8000)?;
    open.ask("before")?;
    scene.proxy.signal(Signal::SIGTERM)?;
    scene.proxy.await_stderr("\"draining\"", PATIENCE)?;
    open.ask("during")?;
    let start = Instant::now();
    scene.proxy.signal(Signal::SIGTERM)?;
    open.await_end()?;
    let output = scene.proxy.wait()?.expect(0);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    // Its line is written nevertheless.
    assert_eq!(logged(&output.stderr, "connection")[0]["end"], "drain");
    Ok(())
}
