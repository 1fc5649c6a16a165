//! The addresses of a name: all of them, and those that are dead.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use egress_lab::{ClientError, Family, address, harness::TestResult};

use crate::scene::{BLACK_HOLE, Scene, answer, connect, network, parsed, serve};

fn addresses(name: &str, state: &str) -> String {
    format!(
        "egress_dns_proxy_backend_addresses\
         {{port=\"8000\",protocol=\"tcp\",host=\"{name}\",state=\"{state}\"}}"
    )
}

pub(crate) fn sixty_addresses_all_take_traffic() -> TestResult {
    let lab = network()?;
    let all: Vec<String> = (1..=60).map(|host| format!("198.51.100.{host}")).collect();
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    let _server = serve(&lab, &all, 80)?;
    let ipv4 = parsed(&all);
    // IPv4 is preferred: nobody listens on this one.
    all.push("2001:db8:25::25");
    answer(&lab, "sixty.test", 60, &all);
    let scene = Scene::start(lab, "8000 sixty.test 80")?;
    let mut turns = BTreeMap::<IpAddr, usize>::new();
    for _ in 0..120 {
        *turns.entry(scene.answered_by(8000)).or_default() += 1;
    }
    assert_eq!(
        turns,
        ipv4.into_iter().map(|address| (address, 2)).collect()
    );
    Ok(())
}

pub(crate) fn both_families() -> TestResult {
    let lab = network()?;
    answer(&lab, "six.test", 60, &["2001:db8:25::25"]);
    let _server = serve(&lab, &["2001:db8:25::25", "198.51.100.1"], 80)?;
    let scene = Scene::start(
        lab,
        "8000 six.test 80\n8001 2001:db8:25::25 80\n8002 198.51.100.1 80",
    )?;
    for of_client in Family::ALL {
        for (port, of_server) in [
            (8000, Family::Ipv6),
            (8001, Family::Ipv6),
            (8002, Family::Ipv4),
        ] {
            let to = scene.lab.pod().socket(of_client, port);
            let seen = connect(scene.lab.client(), to)?.ask("hello")?;
            // As the outside must see it.
            assert_eq!(seen.client.ip(), address::source(of_server));
            assert_eq!(Family::of(seen.server.ip()), of_server);
        }
    }
    Ok(())
}

pub(crate) fn a_dead_address_takes_no_client_down() -> TestResult {
    let lab = network()?;
    answer(
        &lab,
        "some.test",
        60,
        &["198.51.100.1", "198.51.100.2", "198.51.100.9"],
    );
    let _server = serve(&lab, &["198.51.100.1", "198.51.100.2"], 80)?;
    let scene = Scene::start_with(lab, "8000 some.test 80", |command| {
        command.env("EGRESS_DNS_PROXY_HEALTH_CHECK", "200ms")
    })?;
    for _ in 0..30 {
        scene.answered_by(8000);
    }
    let states = |healthy, unhealthy| {
        scene.await_metric(&addresses("some.test", "healthy"), healthy);
        scene.await_metric(&addresses("some.test", "unhealthy"), unhealthy);
    };
    states(2.0, 1.0);
    // It comes back by itself, and then has its turn.
    let back = scene.serve(&["198.51.100.9"], 80)?;
    states(3.0, 0.0);
    let ninth = parsed(&["198.51.100.9"])[0];
    let answered: Vec<IpAddr> = (0..9).map(|_| scene.answered_by(8000)).collect();
    assert_eq!(
        answered.iter().filter(|address| **address == ninth).count(),
        3,
        "{answered:?}"
    );
    // And goes again: whoever is led there is led on.
    back.stop();
    for _ in 0..30 {
        assert_ne!(scene.answered_by(8000), ninth);
    }
    states(2.0, 1.0);
    let stderr = scene.stop()?.stderr;
    assert!(!stderr.contains("not_connected"), "{stderr}");
    Ok(())
}

pub(crate) fn a_black_hole_costs_a_moment_once() -> TestResult {
    let lab = network()?;
    answer(
        &lab,
        "hole.test",
        60,
        &[BLACK_HOLE, "192.0.2.67", "198.51.100.1"],
    );
    let _server = serve(&lab, &["198.51.100.1"], 80)?;
    let scene = Scene::start(lab, "8000 hole.test 80")?;
    let mut slow = 0;
    for _ in 0..20 {
        let start = Instant::now();
        scene.answered_by(8000);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        if took > Duration::from_millis(200) {
            slow += 1;
        }
    }
    // From then on they come last.
    assert!(slow <= 4, "{slow} of 20");
    scene.await_metric(&addresses("hole.test", "unhealthy"), 2.0);
    Ok(())
}

pub(crate) fn where_all_are_dead_one_that_lives_again_serves() -> TestResult {
    let lab = network()?;
    answer(&lab, "dead.test", 60, &["198.51.100.8", "198.51.100.9"]);
    let scene = Scene::start_with(lab, "8000 dead.test 80", |command| {
        // What is unhealthy is dialled where nothing else is left: nobody
        // waits for a check.
        command.env("EGRESS_DNS_PROXY_HEALTH_CHECK", "1h")
    })?;
    let start = Instant::now();
    let answer = scene.ask(8000);
    assert!(matches!(answer, Err(ClientError::Closed)), "{answer:?}");
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let _server = scene.serve(&["198.51.100.9"], 80)?;
    for _ in 0..3 {
        scene.answered_by(8000);
    }
    scene.await_metric(&addresses("dead.test", "unhealthy"), 1.0);
    let stderr = scene.stop()?.stderr;
    assert!(stderr.contains("refused the connection"), "{stderr}");
    Ok(())
}
