//! The end, with a thousand tunnels open.

use std::time::{Duration, Instant};

use egress_lab::{
    Door, Wire, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use nix::sys::signal::Signal;

use crate::{
    crowd::Crowd,
    scene::{OPEN_TUNNELS, PATIENCE, Scene, get},
};

fn scene(drain: &'static str) -> Result<(Scene, Crowd), Failed> {
    let scene = Scene::start_with(|command| command.env("EGRESS_DRAIN_SECONDS", drain))?;
    let crowd = Crowd::tunnels(&scene, "a.test", 1000);
    assert_eq!(scene.metric(OPEN_TUNNELS), 1000.0);
    Ok((scene, crowd))
}

/// Asks it to end, and waits until it says that it is not ready any more.
fn sigterm(scene: &Scene) -> TestResult {
    scene.proxy.process().signal(Signal::SIGTERM)?;
    eventually(PATIENCE, || match scene.page("/readyz") {
        page if page.status == 503 => Ok(()),
        page => Err(page),
    });
    assert_eq!(scene.page("/healthz").status, 200);
    Ok(())
}

pub(crate) fn what_is_in_flight_may_finish() -> TestResult {
    let (scene, crowd) = scene("25")?;
    let door = Door::open(scene.lab.outside().netns(), "198.51.100.1:81".parse()?)?;
    let ask = |request: &str| {
        let mut client = scene.client();
        client.say(request);
        let mut origin = door.accept();
        origin.head();
        (client, origin)
    };
    // A response and a request half of the way, one that waits for its answer,
    // and a connection between two requests.
    let (mut down, mut down_origin) = ask(&get("a.test:81"));
    down_origin.say("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\nhalf");
    down.head();
    down.hear("half");
    let (mut up, mut up_origin) =
        ask("PUT http://a.test:81/ HTTP/1.1\r\nHost: a.test:81\r\nContent-Length: 8\r\n\r\nhalf");
    up_origin.hear("half");
    let (mut waits, mut waits_origin) = ask(&get("a.test:81"));
    let mut between = scene.client();
    between.say(get("a.test"));
    assert_eq!(between.reply("GET").status, 200);

    let start = Instant::now();
    sigterm(&scene)?;
    eventually(PATIENCE, || {
        match Wire::connect(scene.lab.client().netns(), scene.address()) {
            Ok(_) => Err("still accepts"),
            Err(_) => Ok(()),
        }
    });
    assert_eq!(between.rest(), b"");

    crowd.speak();
    down_origin.say(vec![b'd'; 300_000 - 4]);
    down.hear(vec![b'd'; 300_000 - 4]);
    assert_eq!(down.rest(), b"");
    up.say("done");
    up_origin.hear("done");
    up_origin.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    waits_origin.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for (client, method) in [(&mut up, "PUT"), (&mut waits, "GET")] {
        let reply = client.reply(method);
        assert_eq!(reply.text(), "ok");
        assert!(reply.fields("connection").eq(["close"]), "{}", reply.head);
        assert_eq!(client.rest(), b"");
    }
    crowd.speak();
    assert!(scene.proxy.process().is_running());

    drop(crowd);
    let output = scene.proxy.wait()?.expect(0);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert!(
        !output.stderr.contains("ended by the proxy"),
        "{}",
        output.stderr
    );
    Ok(())
}

pub(crate) fn what_does_not_finish_is_closed() -> TestResult {
    let (scene, crowd) = scene("2")?;
    let start = Instant::now();
    sigterm(&scene)?;
    crowd.speak();
    assert_eq!(crowd.await_end(), 0);
    let drained = start.elapsed();
    let output = scene.proxy.wait()?.expect(0);
    let took = start.elapsed();
    assert!(drained >= Duration::from_secs(2), "{drained:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(
        output.stderr.contains("EGRESS_DRAIN_SECONDS are over"),
        "{}",
        output.stderr
    );
    // None of them is lost from the log.
    assert_eq!(
        output.stderr.matches("\"message\":\"tunnel\"").count(),
        1000
    );
    assert_eq!(
        output
            .stderr
            .matches("\"error\":\"ended by the proxy\"")
            .count(),
        1000
    );
    Ok(())
}

pub(crate) fn a_second_sigterm_ends_at_once() -> TestResult {
    let (scene, crowd) = scene("60")?;
    sigterm(&scene)?;
    crowd.speak();
    let start = Instant::now();
    scene.proxy.process().signal(Signal::SIGTERM)?;
    assert_eq!(crowd.await_end(), 0);
    let output = scene.proxy.wait()?.expect(0);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        output.stderr.matches("\"message\":\"tunnel\"").count(),
        1000
    );
    Ok(())
}
