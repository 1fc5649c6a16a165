//! Limits, and what a client hears of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use egress_lab::{Family, Wire, eventually, harness::TestResult};

use crate::scene::{PATIENCE, PORT, Scene, get, has, ok};

pub(crate) fn connections() -> TestResult {
    let scene = Scene::start_with(|command| command.env("EGRESS_MAX_CONNECTIONS", "2"))?;
    let first = scene.tunnel();
    let (mut second, mut origin) = scene.tunnel();
    assert_eq!(scene.metric("egress_http_proxy_open_connections"), 2.0);
    let mut third = scene.client_says(get("a.test"));
    let reply = third.reply("GET");
    assert_eq!(reply.status, 503);
    assert!(
        reply
            .fields("proxy-status")
            .eq(["egress-http-proxy; error=connection_limit_reached"]),
        "{}",
        reply.head
    );
    assert!(has(&reply.head, "Retry-After: 1"), "{}", reply.head);
    assert!(reply.text().contains("EGRESS_MAX_CONNECTIONS"));
    assert_eq!(third.rest(), b"");
    // One that says nothing is not waited for.
    scene.client().rest();
    let hit = "egress_http_proxy_limits_hit_total{limit=\"connections\"}";
    assert_eq!(scene.metric(hit), 2.0);
    // Those that are open are not disturbed, and make room when they end.
    second.say("still here");
    origin.hear("still here");
    drop(first);
    let mut fourth = eventually(PATIENCE, || {
        let mut client = scene.client_says(get("a.test:81"));
        match client.reply("GET").status {
            503 => Err("no room"),
            _ => Ok(client),
        }
    });
    fourth.say(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("room"));
    assert_eq!(fourth.reply("GET").text(), "room");
    assert_eq!(scene.page("/readyz").status, 200);
    Ok(())
}

pub(crate) fn connections_of_one_client() -> TestResult {
    let scene = Scene::start_with(|command| command.env("EGRESS_MAX_CONNECTIONS_PER_CLIENT", "1"))?;
    let first = scene.tunnel();
    let mut second = scene.client_says(get("a.test"));
    let reply = second.reply("GET");
    assert_eq!(reply.status, 429);
    assert!(has(&reply.head, "Retry-After: 1"), "{}", reply.head);
    assert!(reply.text().contains("EGRESS_MAX_CONNECTIONS_PER_CLIENT"));
    // Another client is another matter.
    let proxy = scene.lab.pod().socket(Family::Ipv6, PORT);
    let mut other = Wire::connect(scene.lab.client().netns(), proxy)?;
    other.say(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("other"));
    assert_eq!(other.reply("GET").text(), "other");
    let hit = "egress_http_proxy_limits_hit_total{limit=\"connections_per_client\"}";
    assert_eq!(scene.metric(hit), 1.0);
    drop(first);
    eventually(PATIENCE, || {
        let reply = scene.client_says(get("a.test:81")).reply("GET");
        if reply.status == 429 {
            Err(reply)
        } else {
            Ok(())
        }
    });
    Ok(())
}

/// A request whose head has a field of so many bytes.
fn with_field(length: usize) -> String {
    let long = "x".repeat(length);
    format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\n\r\n")
}

pub(crate) fn length_of_a_head() -> TestResult {
    for (limit, fits, exceeds) in [(None, 65_000, 65_600), (Some("2048"), 1_900, 2_100)] {
        let scene = Scene::start_with(|command| match limit {
            Some(limit) => command.env("EGRESS_HTTP_PROXY_HEADER_BYTES", limit),
            None => command,
        })?;
        let mut client = scene.client_says(with_field(fits));
        let mut origin = scene.origin();
        assert!(origin.head().len() > fits);
        origin.say(ok("fits"));
        assert_eq!(client.reply("GET").text(), "fits");
        let mut client = scene.client_says(with_field(exceeds));
        let reply = client.reply("GET");
        assert_eq!(reply.status, 431);
        assert!(has(&reply.head, "Connection: close"), "{}", reply.head);
        // A head without end, and many short fields.
        for part in ["X-Long: a", "\r\nA: b"] {
            let request = format!("GET http://a.test/ HTTP/1.1{}", "\r\nHost: a.test");
            let endless = format!("{request}{}", part.repeat(exceeds / 4));
            let mut client = scene.client_says(endless.replacen("a.testX", "a.test\r\nX", 1));
            assert_eq!(client.reply("GET").status, 431);
        }
        assert!(scene.is_quiet());
    }
    Ok(())
}

pub(crate) fn time_of_a_head() -> TestResult {
    let time = Duration::from_millis(500);
    let scene = Scene::start_with(|command| command.env("EGRESS_HTTP_PROXY_HEADER_TIME", "500ms"))?;
    // A connection between two requests has all the time that it may be idle.
    let mut kept = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("first"));
    assert_eq!(kept.reply("GET").text(), "first");

    let start = Instant::now();
    let mut half = scene.client_says("GET http://a.test/ HTTP/1.1\r\nHost: a.te");
    let mut silent = scene.client();
    let reply = half.reply("GET");
    assert_eq!(reply.status, 408);
    assert!(has(&reply.head, "Connection: close"), "{}", reply.head);
    assert!(start.elapsed() >= time, "{:?}", start.elapsed());
    assert!(silent.rest().starts_with(b"HTTP/1.1 408 "));

    // Bytes now and then do not help.
    let mut slow = scene.client();
    let start = Instant::now();
    let mut answer = Wire::over(slow.stream().try_clone()?)?;
    let waiting = thread::spawn(move || answer.reply("GET").status);
    for byte in get("a.test").bytes().cycle() {
        if waiting.is_finished() {
            break;
        }
        slow.say([byte]);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(waiting.join().unwrap(), 408);
    assert!(start.elapsed() < 10 * time, "{:?}", start.elapsed());

    kept.say(get("a.test"));
    origin.head();
    origin.say(ok("second"));
    assert_eq!(kept.reply("GET").text(), "second");
    Ok(())
}

pub(crate) fn idle_time() -> TestResult {
    let time = Duration::from_millis(500);
    let scene = Scene::start_with(|command| command.env("EGRESS_HTTP_PROXY_IDLE_TIME", "500ms"))?;
    let (mut busy, mut busy_origin) = scene.tunnel();
    let (mut half_busy, mut half_busy_origin) = scene.tunnel();
    let start = Instant::now();
    let (mut idle, mut idle_origin) = scene.tunnel();
    let waiting = thread::spawn(move || {
        let (rest, _) = idle.try_rest();
        assert_eq!((rest, idle_origin.try_rest().0), (vec![], vec![]));
    });
    let mut kept = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("kept"));
    assert_eq!(kept.reply("GET").text(), "kept");
    while !waiting.is_finished() || start.elapsed() < 3 * time {
        busy.say("x");
        busy_origin.hear("x");
        busy_origin.say("y");
        busy.hear("y");
        // One way is enough.
        half_busy_origin.say("z");
        half_busy.hear("z");
        thread::sleep(time / 10);
    }
    waiting.join().unwrap();
    drop((busy, busy_origin, half_busy, half_busy_origin));
    assert_eq!(kept.rest(), b"");

    // A server that says nothing is not waited for either.
    let mut client = scene.client_says(get("a.test"));
    origin.head();
    let reply = client.reply("GET");
    assert_eq!(reply.status, 504);
    assert!(
        reply
            .fields("proxy-status")
            .eq(["egress-http-proxy; error=http_response_timeout"]),
        "{}",
        reply.head
    );
    let (rest, _) = origin.try_rest();
    assert_eq!(rest, b"");
    // Nor one that stops in the middle.
    let mut client = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.head();
    let (rest, end) = client.try_rest();
    assert!(rest == b"half" && end.is_err(), "{rest:?} {end:?}");
    let idle =
        "egress_http_proxy_failures_total{side=\"upstream\",error=\"http_response_timeout\"}";
    assert_eq!(scene.metric(idle), 3.0);
    Ok(())
}
