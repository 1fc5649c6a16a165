//! Connections that do nothing, and what they cost.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use egress_lab::{eventually, harness::TestResult};

use crate::{
    crowd::{Crowd, shown},
    scene::{OPEN_CONNECTIONS, OPEN_TUNNELS, PATIENCE, Scene},
};

const TUNNELS: usize = 9000;
const HALF_HEADS: usize = 5000;

/// What a tunnel may cost, in bytes.
const PER_TUNNEL: u64 = 8 * 1024;

/// What may be lost to fragmentation with a connection, in bytes.
const LOST: u64 = 256;

/// Waits until nobody is connected.
fn await_nobody(scene: &Scene) {
    scene.await_metric(OPEN_CONNECTIONS, 0.0);
    scene.await_metric(OPEN_TUNNELS, 0.0);
}

/// Asks after the proxy's health, over and over, while something else happens;
/// it answers every time. Returns the longest that it took.
fn healthy_while<T>(scene: &Scene, work: impl FnOnce() -> T) -> (T, Duration) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(scene.page("/healthz").status, 200);
                assert_eq!(scene.page("/readyz").status, 200);
                longest = longest.max(start.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, probing.join().unwrap())
    })
}

pub(crate) fn nine_thousand_tunnels_and_a_slowloris() -> TestResult {
    let scene = Scene::start_with(|command| {
        command
            .env("EGRESS_HTTP_PROXY_HEADER_TIME", "2s")
            // Nothing but the tunnels is measured.
            .env("EGRESS_ACCESS_LOG", "off")
    })?;
    let process = scene.proxy.process();
    // What the first connections bring in for good.
    drop(Crowd::tunnels(&scene, "a.test", 500));
    await_nobody(&scene);
    let files = process.open_files()?;
    let before = process.resident()?;

    let mut left = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let (tunnels, longest) =
            healthy_while(&scene, || Crowd::tunnels(&scene, "a.test", TUNNELS));
        let opened = start.elapsed();
        assert_eq!(scene.metric(OPEN_TUNNELS), 9000.0);
        tunnels.speak();
        let idle = process.resident()?.saturating_sub(before);
        println!(
            "{TUNNELS} tunnels in {}, {} bytes each, health within {}",
            shown(opened),
            idle / TUNNELS as u64,
            shown(longest)
        );
        assert!(
            idle / (TUNNELS as u64) < PER_TUNNEL,
            "{idle} bytes more than before"
        );

        let start = Instant::now();
        let (told, longest) =
            healthy_while(&scene, || Crowd::half_heads(&scene, HALF_HEADS).await_end());
        println!(
            "{HALF_HEADS} half heads gone after {}, {told} of them told why, health within {}",
            shown(start.elapsed()),
            shown(longest)
        );
        // The tunnels are as they were, and who comes now is served.
        tunnels.speak();
        assert_eq!(scene.status("a.test"), 200);

        drop(tunnels);
        await_nobody(&scene);
        left.push(process.resident()?.saturating_sub(before));
        eventually(PATIENCE, || match process.open_files() {
            // A connection to the server may wait for another request.
            Ok(open) if open <= files + 2 => Ok(()),
            other => Err(format!("{other:?} instead of {files}")),
        });
    }
    println!("{left:?} bytes are left");
    // The allocator keeps memory for the next who needs it, and finds most of
    // it again: what is lost is less than any of our objects.
    let lost = left[2].saturating_sub(left[1]);
    let each = lost / (TUNNELS + HALF_HEADS) as u64;
    assert!(each < LOST, "{each} bytes are lost with each connection");
    Ok(())
}

pub(crate) fn five_thousand_half_heads() -> TestResult {
    let scene = Scene::start_with(|command| {
        command
            .env("EGRESS_HTTP_PROXY_HEADER_TIME", "5s")
            .env("EGRESS_ACCESS_LOG", "off")
    })?;
    let process = scene.proxy.process();
    drop(Crowd::tunnels(&scene, "a.test", 100));
    await_nobody(&scene);
    let before = process.resident()?;
    let files = process.open_files()?;
    let (half_heads, _) = healthy_while(&scene, || Crowd::half_heads(&scene, HALF_HEADS));
    let (served, longest) =
        healthy_while(&scene, || (0..50).all(|_| scene.status("a.test") == 200));
    assert!(served);
    let each = (process.resident()? - before) / HALF_HEADS as u64;
    println!(
        "{each} bytes per half head, health within {}",
        shown(longest)
    );
    // Each of them hears why.
    assert_eq!(half_heads.await_end(), HALF_HEADS);
    drop(half_heads);
    await_nobody(&scene);
    eventually(PATIENCE, || match process.open_files() {
        Ok(open) if open <= files + 4 => Ok(()),
        other => Err(format!("{other:?} instead of {files}")),
    });
    Ok(())
}
