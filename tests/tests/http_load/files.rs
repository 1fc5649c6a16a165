//! More clients than file descriptors.

use egress_lab::{eventually, harness::TestResult};

use crate::{
    crowd::{Crowd, shown},
    scene::{OPEN_CONNECTIONS, PATIENCE, Scene},
};

const PAUSES: &str = "egress_accept_pauses_total";

pub(crate) fn without_files_it_waits_and_recovers() -> TestResult {
    let scene = Scene::start_with(|command| {
        command
            .open_files(200)
            .env("EGRESS_MAX_CONNECTIONS", "1000")
            .env("EGRESS_HTTP_PROXY_HEADER_TIME", "30s")
    })?;
    let files = scene.proxy.process().open_files()?;
    let crowd = Crowd::half_heads(&scene, 400);
    eventually(PATIENCE, || match scene.metric(PAUSES) {
        0.0 => Err("accepts without pause"),
        _ => Ok(()),
    });
    for _ in 0..20 {
        assert_eq!(scene.page("/healthz").status, 200);
        assert_eq!(scene.page("/readyz").status, 200);
    }
    let start = std::time::Instant::now();
    drop(crowd);
    assert_eq!(scene.status("a.test"), 200);
    println!("serves again after {}", shown(start.elapsed()));
    scene.await_metric(OPEN_CONNECTIONS, 0.0);
    eventually(PATIENCE, || match scene.proxy.process().open_files() {
        Ok(open) if open <= files + 4 => Ok(()),
        other => Err(format!("{other:?} instead of {files}")),
    });
    let log = scene
        .proxy
        .process()
        .await_stderr("we accept clients again", PATIENCE)?;
    assert!(log.contains("raise the limit of open files"), "{log}");
    Ok(())
}
