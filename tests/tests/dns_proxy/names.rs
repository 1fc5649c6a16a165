//! Names, as a scripted name server answers for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use egress_lab::{
    Answer, ClientError, Protocol, eventually, harness::TestResult, proxy::NAME_SERVER,
};

use crate::scene::{PATIENCE, Scene, answer, logged, network, parsed, serve};

/// What a busy machine may add to a time that is kept.
const SLACK: Duration = Duration::from_millis(1500);

/// D025, and no more questions than that takes.
pub(crate) fn changes_are_followed_at_one_query_per_ttl() -> TestResult {
    let lab = network()?;
    let names = [
        ("zero.test", 0, 1),
        ("two.test", 2, 2),
        ("long.test", 300, 300),
    ];
    for (name, ttl, _) in names {
        answer(&lab, name, ttl, &["198.51.100.1"]);
    }
    let _server = serve(&lab, &["198.51.100.1", "203.0.113.2"], 80)?;
    // Two ports of one name are one name.
    let lines = "8000 zero.test 80\n8001 two.test 80\n8002 long.test 80\n8003 two.test 80";
    let start = Instant::now();
    let scene = Scene::start(lab, lines)?;
    let mut held: Vec<_> = (8000..8004)
        .map(|port| scene.client(port))
        .collect::<Result<_, _>>()?;
    // Connections cost no questions.
    scene.await_questions("two.test", 2);
    for port in 8000..8004 {
        for _ in 0..20 {
            assert_eq!(scene.answered_by(port), parsed(&["198.51.100.1"])[0]);
        }
    }
    for (name, ..) in names {
        scene.answer(name, 0, &["203.0.113.2"]);
    }
    let changed = Instant::now();
    for (port, ttl) in [(8000, 1), (8001, 2), (8003, 2)] {
        let ttl = Duration::from_secs(ttl);
        scene.await_answer(
            port,
            "203.0.113.2",
            (changed + ttl + SLACK) - Instant::now(),
        );
    }
    // The answer that holds for long holds.
    assert_eq!(scene.answered_by(8002), parsed(&["198.51.100.1"])[0]);
    let elapsed = start.elapsed().as_secs();
    for (name, _, least) in names {
        for kind in ["A", "AAAA"] {
            let asked = scene.asked(name, kind);
            // Since the change the short one's time is a second, too.
            let least = if name == "two.test" { 1 } else { least };
            let most = usize::try_from(elapsed / least)? + 2;
            assert!(asked <= most, "{name} {kind}: {asked} in {elapsed} s");
        }
    }
    assert_eq!(scene.asked("long.test", "A"), 1);
    // What was open goes on with whom it was made to.
    for client in &mut held {
        assert_eq!(
            client.ask("again")?.server.ip(),
            parsed(&["198.51.100.1"])[0]
        );
    }
    drop(held);
    let _ = scene.stop()?;
    Ok(())
}

pub(crate) fn the_last_good_addresses_outlive_every_failure() -> TestResult {
    let lab = network()?;
    let names = [
        "servfail.test",
        "nxdomain.test",
        "empty.test",
        "silent.test",
    ];
    for name in names {
        answer(&lab, name, 1, &["198.51.100.1"]);
    }
    let _server = serve(&lab, &["198.51.100.1", "203.0.113.2"], 80)?;
    let ports = 8000..8004_u16;
    let lines = ports.clone().zip(names);
    let lines: Vec<_> = lines
        .map(|(port, name)| format!("{port} {name} 80"))
        .collect();
    let mut scene = Scene::start(lab, &lines.join("\n"))?;
    let mut held: Vec<_> = ports
        .clone()
        .map(|port| scene.client(port))
        .collect::<Result<_, _>>()?;
    let mut all_work = |scene: &Scene| -> TestResult {
        for port in ports.clone() {
            assert_eq!(
                scene.answered_by(port),
                parsed(&["198.51.100.1"])[0],
                "{port}"
            );
        }
        for client in &mut held {
            client.ask("still here")?;
        }
        Ok(())
    };
    all_work(&scene)?;

    scene
        .lab
        .resolver()
        .answer("servfail.test", 1, Answer::Failure);
    scene.lab.resolver().forget("nxdomain.test");
    scene.answer("empty.test", 1, &[]);
    scene
        .lab
        .resolver()
        .answer("silent.test", 1, Answer::Silence);
    // From then on they are asked less and less often.
    let asked = || names.map(|name| scene.asked(name, "A"));
    let before = asked();
    eventually(PATIENCE, || {
        let now = asked();
        let again = before
            .iter()
            .zip(&now)
            .all(|(before, now)| *now >= before + 2);
        if again { Ok(()) } else { Err(now) }
    });
    all_work(&scene)?;
    assert_eq!(scene.page("/readyz").status, 200);

    // Answers are followed again.
    for name in &names[..3] {
        scene.answer(name, 1, &["203.0.113.2"]);
    }
    for port in 8000..8003 {
        scene.await_answer(port, "203.0.113.2", Duration::from_secs(8));
    }
    for name in &names[..3] {
        scene.answer(name, 1, &["198.51.100.1"]);
    }
    for port in 8000..8003 {
        scene.await_answer(port, "198.51.100.1", Duration::from_secs(4));
    }

    // Nobody is there at all, for longer than the answers hold.
    scene.lab.stop_resolver();
    let gone = Instant::now();
    while gone.elapsed() < Duration::from_secs(3) {
        all_work(&scene)?;
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(scene.page("/readyz").status, 200);
    drop(held);
    let stderr = scene.stop()?.stderr;
    assert_eq!(
        logged(&stderr, "the name resolves again").len(),
        3,
        "{stderr}"
    );
    // Trouble is told once, not with every question.
    for name in names {
        let told = stderr
            .lines()
            .filter(|line| line.contains(name) && line.contains("its last addresses stay in use"));
        let told = told.count();
        assert!((1..=4).contains(&told), "{name}: {told}\n{stderr}");
    }
    Ok(())
}

/// D024: what the search list found at first it finds for ever.
pub(crate) fn a_name_of_the_search_list_keeps_working() -> TestResult {
    let lab = network()?;
    for name in ["db.ns.svc.local", "short.svc.local"] {
        answer(&lab, name, 1, &["198.51.100.1"]);
    }
    // As it stands it is of the outside; with the list it would be another.
    answer(&lab, "whole.test", 1, &["198.51.100.1"]);
    answer(&lab, "whole.test.svc.local", 1, &["203.0.113.2"]);
    let _server = serve(&lab, &["198.51.100.1", "203.0.113.2"], 80)?;
    let resolv_conf = format!("search svc.local\nnameserver {NAME_SERVER}\noptions ndots:5\n");
    let lines = "8000 db.ns 80\n8001 short 80\n8002 whole.test. 80";
    let scene = Scene::start_with(lab, lines, |command| command.resolv_conf(&resolv_conf))?;
    for _ in 0..3 {
        for port in 8000..8003 {
            assert_eq!(scene.answered_by(port), parsed(&["198.51.100.1"])[0]);
        }
        scene.await_questions("db.ns.svc.local", 1);
        scene.await_questions("short.svc.local", 1);
    }
    for name in ["db.ns.svc.local", "short.svc.local"] {
        scene.answer(name, 1, &["203.0.113.2"]);
    }
    for port in 8000..8002 {
        scene.await_answer(port, "203.0.113.2", Duration::from_secs(1) + SLACK);
    }
    assert_eq!(scene.asked("whole.test.svc.local", "A"), 0);
    Ok(())
}

/// D023: a port whose name is not there yet closes at once, and works as soon
/// as it is there.
pub(crate) fn a_name_that_comes_late() -> TestResult {
    let lab = network()?;
    answer(&lab, "good.test", 60, &["198.51.100.1"]);
    lab.resolver().answer("fails.test", 0, Answer::Failure);
    lab.resolver().answer("silent.test", 0, Answer::Silence);
    let _server = serve(&lab, &["198.51.100.1"], 80)?;
    let lines = "8000 absent.test 80\n8001 fails.test 80\n8002 silent.test 80\n8003 good.test 80";
    let scene = Scene::start_unready(lab, lines, |command| command)?;
    eventually(PATIENCE, || scene.ask(8003));
    let late = ["absent.test", "fails.test", "silent.test"];
    for (port, name) in (8000..).zip(late) {
        scene.await_questions(name, 1);
        let start = Instant::now();
        let answer = scene.ask(port);
        assert!(matches!(answer, Err(ClientError::Closed)), "{answer:?}");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
    let page = scene.page("/readyz");
    assert_eq!(page.status, 503);
    let waiting: BTreeSet<&str> = page.body.lines().collect();
    let expected = late.map(|name| format!("waiting for an address of {name}"));
    assert_eq!(waiting, expected.iter().map(String::as_str).collect());
    assert_eq!(scene.page("/healthz").status, 200);

    let came = Instant::now();
    for name in late {
        scene.answer(name, 60, &["198.51.100.1"]);
    }
    let took: BTreeMap<u16, Duration> = thread::scope(|scope| {
        let works = |port| {
            let scene = &scene;
            scope.spawn(move || {
                scene.await_answer(port, "198.51.100.1", PATIENCE);
                (port, came.elapsed())
            })
        };
        let waiting: Vec<_> = (8000..8003).map(works).collect();
        waiting
            .into_iter()
            .map(|port| port.join().unwrap())
            .collect()
    });
    assert!(
        took.values().all(|took| *took < Duration::from_secs(2)),
        "{took:?}"
    );
    scene.await_ready();
    let stderr = scene.stop()?.stderr;
    assert!(
        stderr.contains("connections are closed at once until it does"),
        "{stderr}"
    );
    let unresolved = logged(&stderr, "connection");
    let unresolved = unresolved.iter().filter(|line| line["end"] == "unresolved");
    assert!(unresolved.count() >= 3, "{stderr}");
    Ok(())
}

pub(crate) fn an_answer_too_long_for_udp() -> TestResult {
    let lab = network()?;
    // 200 addresses take 3.2 kB, more than anybody takes by UDP.
    let all: Vec<String> = (1..=200).map(|host| format!("198.51.100.{host}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    answer(&lab, "long.test", 60, &all);
    let _server = serve(&lab, &all, 80)?;
    let scene = Scene::start(lab, "8000 long.test 80")?;
    let queries = scene.lab.resolver().queries();
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let asked = |query: &&egress_lab::Query| query.kind == "A" && query.protocol == protocol;
        assert_eq!(queries.iter().filter(asked).count(), 1, "{protocol}");
    }
    let backends = "egress_dns_proxy_backend_addresses\
                    {port=\"8000\",protocol=\"tcp\",host=\"long.test\",state=\"healthy\"}";
    assert_eq!(scene.page("/metrics").sample(backends), Some(200.0));
    scene.ask(8000)?;
    Ok(())
}
