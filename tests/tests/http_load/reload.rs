//! Rules that change while everything goes on.

use std::time::{Duration, Instant};

use egress_lab::{
    Volume, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};

use crate::{
    crowd::{Crowd, shown},
    requests::Requests,
    scene::{PATIENCE, Scene},
};

const KEY: &str = "destination";
const BOTH: &str = "a.test\nb.test\n";
const ONE: &str = "a.test\n";

const RELOADS: &str = "egress_config_reloads_total";
const FAILURES: &str = "egress_config_reload_failures_total";

/// From the swap of the link to the first request that is judged by the new
/// rules.
const AT_ONCE: Duration = Duration::from_secs(2);

fn scene(volume: &Volume, existing: &str) -> Result<Scene, Failed> {
    let path = volume.file(KEY).to_string_lossy().into_owned();
    Scene::start_with(|command| {
        command
            .env_remove("EGRESS_HTTP_PROXY_DESTINATION")
            .env("EGRESS_HTTP_PROXY_DESTINATION_FILE", path)
            .env("EGRESS_RELOAD_EXISTING", existing)
    })
}

pub(crate) fn a_reload_disturbs_nobody() -> TestResult {
    let mut volume = Volume::new(&[(KEY, BOTH)])?;
    let scene = scene(&volume, "keep")?;
    let crowds = ["a.test", "b.test"].map(|host| Crowd::tunnels(&scene, host, 500));
    let requests = Requests::start(&scene);
    let mut slowest = Duration::ZERO;
    for round in 0..6 {
        let (rules, status) = if round % 2 == 0 {
            (ONE, 403)
        } else {
            (BOTH, 200)
        };
        let start = Instant::now();
        volume.update(&[(KEY, rules)])?;
        eventually(PATIENCE, || match scene.status("b.test") {
            now if now == status => Ok(()),
            now => Err(now),
        });
        slowest = slowest.max(start.elapsed());
        for crowd in &crowds {
            crowd.speak();
        }
    }
    assert!(slowest < AT_ONCE, "{slowest:?}");
    scene.await_metric(RELOADS, 6.0);

    // Every line of it is bad in a way of its own.
    volume.update(&[(
        KEY,
        "a.test\nb..test\n# a comment\n10.0.0.0/33\n*\nc.test:0\nexa mple.test\n",
    )])?;
    scene.await_metric(FAILURES, 1.0);
    let log = scene
        .proxy
        .process()
        .await_stderr("the old ones stay in force", PATIENCE)?;
    for line in [2, 4, 5, 6, 7] {
        let place = format!("EGRESS_HTTP_PROXY_DESTINATION_FILE line {line}: ");
        assert!(log.contains(&place), "no {place:?} in\n{log}");
    }
    assert_eq!((scene.status("a.test"), scene.status("b.test")), (200, 200));
    // A file that is gone is as bad.
    volume.update(&[])?;
    scene.await_metric(FAILURES, 2.0);
    volume.update(&[(KEY, ONE)])?;
    scene.await_metric(RELOADS, 9.0);
    assert_eq!((scene.status("a.test"), scene.status("b.test")), (200, 403));

    let answered = requests.stop();
    for crowd in &crowds {
        crowd.speak();
    }
    println!(
        "{answered} requests, rules in force after {}",
        shown(slowest)
    );
    assert!(answered > 1000, "{answered}");
    assert_eq!(scene.metric("egress_http_proxy_open_tunnels"), 1000.0);
    assert_eq!(scene.page("/readyz").status, 200);
    Ok(())
}

pub(crate) fn forbidden_tunnels_may_be_closed() -> TestResult {
    let mut volume = Volume::new(&[(KEY, BOTH)])?;
    let scene = scene(&volume, "close")?;
    let [stays, goes] = ["a.test", "b.test"].map(|host| Crowd::tunnels(&scene, host, 300));
    let requests = Requests::start(&scene);
    // A change that forbids nobody closes nothing.
    volume.update(&[(KEY, "b.test\na.test\n")])?;
    scene.await_metric(RELOADS, 1.0);
    stays.speak();
    goes.speak();
    volume.update(&[(KEY, ONE)])?;
    assert_eq!(goes.await_end(), 0);
    stays.speak();
    stays.assert_idle();
    requests.stop();
    scene.await_metric("egress_http_proxy_open_tunnels", 300.0);
    let log = scene
        .proxy
        .process()
        .await_stderr("\"closed\":300", PATIENCE)?;
    assert!(log.contains("\"closed\":0"), "{log}");
    drop((stays, goes));
    let output = scene.proxy.stop()?;
    let ended = output
        .stderr
        .matches("\"error\":\"ended by the proxy\"")
        .count();
    assert_eq!(ended, 300);
    Ok(())
}
