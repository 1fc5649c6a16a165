//! What the operator sees, and the limits that he sets.

use egress_lab::{
    ClientError, Door, Family, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use serde_json::Value;

use crate::scene::{PATIENCE, Scene, answer, connect, logged, network, serve};

/// Some traffic of every kind.
fn traffic() -> Result<(Scene, Door), Failed> {
    let lab = network()?;
    answer(&lab, "a.test", 60, &["198.51.100.1"]);
    let lines =
        "# list\n8000 a.test 80\n8001 198.51.100.9 80\n5353/udp a.test 53\n8002 absent.test 80";
    let _server = serve(&lab, &["198.51.100.1"], 53)?;
    let scene = Scene::start_unready(lab, lines, |command| command)?;
    let resolved = "egress_dns_proxy_name_resolved{host=\"a.test\"}";
    scene.await_metric(resolved, 1.0);
    let door = scene.door("198.51.100.1:80")?;
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    client.say("12345");
    server.hear("12345");
    server.say("123");
    server.end()?;
    client.end()?;
    assert_eq!((client.rest(), server.rest()), (b"123".to_vec(), vec![]));
    for port in [8001, 8002] {
        let answer = scene.ask(port);
        assert!(
            matches!(answer, Err(ClientError::Closed)),
            "{port}: {answer:?}"
        );
    }
    scene.udp(5353)?.ask("hello")?;
    Ok((scene, door))
}

pub(crate) fn every_connection_is_a_line() -> TestResult {
    let (scene, _door) = traffic()?;
    let stderr = scene.stop()?.stderr;
    // Workers write their lines independently.
    let mut connections = logged(&stderr, "connection");
    connections.sort_by_key(|line| line["port"].as_u64());
    let sessions = logged(&stderr, "session");
    let [done, refused, unresolved] = &connections[..] else {
        panic!("{stderr}");
    };
    let [session] = &sessions[..] else {
        panic!("{stderr}");
    };
    for (line, port, protocol, host, host_port, number, end, bytes) in [
        (done, 8000, "tcp", "a.test", 80, 2, "finished", (5, 3)),
        (
            refused,
            8001,
            "tcp",
            "198.51.100.9",
            80,
            3,
            "not_connected",
            (0, 0),
        ),
        (
            unresolved,
            8002,
            "tcp",
            "absent.test",
            80,
            5,
            "unresolved",
            (0, 0),
        ),
    ]
    .into_iter()
    .chain([(session, 5353, "udp", "a.test", 53, 4, "idle", (5, 0))])
    {
        for (name, value) in [
            ("level", Value::from("info")),
            ("port", port.into()),
            ("protocol", protocol.into()),
            ("host", host.into()),
            ("host_port", host_port.into()),
            ("line", number.into()),
            ("end", end.into()),
            ("bytes_up", bytes.0.into()),
        ] {
            assert_eq!(line[name], value, "{name} in {line}");
        }
        assert!(
            line["client"].as_str().unwrap().starts_with("10.128.0.2:"),
            "{line}"
        );
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() >= 0.0, "{line}");
        let down = line["bytes_down"].as_u64().unwrap();
        assert!(down == bytes.1 || (protocol == "udp" && down > 0), "{line}");
    }
    assert_eq!(done["upstream"], "198.51.100.1:80");
    assert_eq!(session["upstream"], "198.51.100.1:53");
    assert!(done["connect_ms"].as_f64().unwrap() >= 0.0, "{done}");
    for line in [refused, unresolved] {
        assert!(
            line.get("upstream").is_none() && line.get("connect_ms").is_none(),
            "{line}"
        );
    }
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("198.51.100.9:80"), "{error}");
    for line in [done, unresolved, session] {
        assert!(line.get("error").is_none(), "{line}");
    }
    Ok(())
}

pub(crate) fn the_access_log_may_be_off() -> TestResult {
    let lab = network()?;
    let _server = serve(&lab, &["198.51.100.1"], 80)?;
    let scene = Scene::start_with(lab, "8000 198.51.100.1 80", |command| {
        command.env("EGRESS_ACCESS_LOG", "off")
    })?;
    scene.ask(8000)?;
    let stderr = scene.stop()?.stderr;
    assert_eq!(logged(&stderr, "connection").len(), 0, "{stderr}");
    assert_eq!(logged(&stderr, "serving").len(), 1, "{stderr}");
    Ok(())
}

pub(crate) fn metrics_per_listener_and_backend() -> TestResult {
    let (scene, _door) = traffic()?;
    let of = |name: &str, port: u16, protocol: &str, host: &str, more: &str| {
        format!(
            "egress_dns_proxy_{name}{{port=\"{port}\",protocol=\"{protocol}\",host=\"{host}\"{more}}}"
        )
    };
    scene.await_metric(&of("open_connections", 8000, "tcp", "a.test", ""), 0.0);
    let page = scene.page("/metrics");
    for (sample, value) in [
        (of("connections_total", 8000, "tcp", "a.test", ""), 1.0),
        (
            of("connections_total", 8001, "tcp", "198.51.100.9", ""),
            1.0,
        ),
        (of("connections_total", 8002, "tcp", "absent.test", ""), 1.0),
        (of("connections_total", 5353, "udp", "a.test", ""), 1.0),
        (of("open_connections", 5353, "udp", "a.test", ""), 1.0),
        (
            of("bytes_total", 8000, "tcp", "a.test", ",direction=\"up\""),
            5.0,
        ),
        (
            of("bytes_total", 8000, "tcp", "a.test", ",direction=\"down\""),
            3.0,
        ),
        (
            of(
                "connection_failures_total",
                8000,
                "tcp",
                "a.test",
                ",reason=\"connect\"",
            ),
            0.0,
        ),
        (
            of(
                "connection_failures_total",
                8001,
                "tcp",
                "198.51.100.9",
                ",reason=\"connect\"",
            ),
            1.0,
        ),
        (
            of(
                "connection_failures_total",
                8002,
                "tcp",
                "absent.test",
                ",reason=\"unresolved\"",
            ),
            1.0,
        ),
        (
            of(
                "connection_failures_total",
                8002,
                "tcp",
                "absent.test",
                ",reason=\"limit\"",
            ),
            0.0,
        ),
        (
            of(
                "backend_addresses",
                8000,
                "tcp",
                "a.test",
                ",state=\"healthy\"",
            ),
            1.0,
        ),
        (
            of(
                "backend_addresses",
                8001,
                "tcp",
                "198.51.100.9",
                ",state=\"unhealthy\"",
            ),
            1.0,
        ),
        (
            of(
                "backend_addresses",
                8002,
                "tcp",
                "absent.test",
                ",state=\"healthy\"",
            ),
            0.0,
        ),
        (
            of("datagrams_dropped_total", 5353, "udp", "a.test", ""),
            0.0,
        ),
        (
            "egress_dns_proxy_name_resolved{host=\"a.test\"}".into(),
            1.0,
        ),
        (
            "egress_dns_proxy_name_resolved{host=\"absent.test\"}".into(),
            0.0,
        ),
        ("egress_dns_proxy_listeners".into(), 4.0),
        (
            "egress_dns_proxy_connect_duration_seconds_count".into(),
            1.0,
        ),
        ("egress_config_reload_failures_total".into(), 0.0),
        ("egress_access_log_dropped_total".into(), 0.0),
        ("egress_accept_pauses_total".into(), 0.0),
    ] {
        assert_eq!(page.sample(&sample), Some(value), "{sample}\n{}", page.body);
    }
    assert!(page.sample("process_resident_memory_bytes").unwrap() > 0.0);
    assert!(
        page.sample("egress_dns_lookup_duration_seconds_count")
            .unwrap()
            > 0.0
    );
    assert!(page.body.ends_with("# EOF\n"), "{}", page.body);
    Ok(())
}

pub(crate) fn connections_are_limited() -> TestResult {
    let lab = network()?;
    let _server = serve(&lab, &["198.51.100.1"], 80)?;
    let scene = Scene::start_with(
        lab,
        "8000 198.51.100.1 80\n8001 198.51.100.1 80",
        |command| {
            command
                .env("EGRESS_MAX_CONNECTIONS", "3")
                .env("EGRESS_MAX_CONNECTIONS_PER_CLIENT", "2")
        },
    )?;
    let limited = |port| {
        format!(
            "egress_dns_proxy_connection_failures_total{{port=\"{port}\",protocol=\"tcp\",\
             host=\"198.51.100.1\",reason=\"limit\"}}"
        )
    };
    let mut open = [scene.client(8000)?, scene.client(8001)?];
    for client in &mut open {
        client.ask("hello")?;
    }
    let refused = scene.ask(8000);
    assert!(matches!(refused, Err(ClientError::Closed)), "{refused:?}");
    scene.await_metric(&limited(8000), 1.0);
    // Another client, and then nobody.
    let other = scene.lab.pod().socket(Family::Ipv6, 8001);
    let mut third = connect(scene.lab.client(), other)?;
    third.ask("hello")?;
    let refused = connect(scene.lab.client(), other).and_then(|mut client| client.ask("hello"));
    assert!(matches!(refused, Err(ClientError::Closed)), "{refused:?}");
    scene.await_metric(&limited(8001), 1.0);
    // Health checks are answered, and who is in is not disturbed.
    assert_eq!(scene.page("/readyz").status, 200);
    for client in &mut open {
        client.ask("still here")?;
    }
    drop(open);
    eventually(PATIENCE, || scene.ask(8000));
    drop(third);
    let stderr = scene.stop()?.stderr;
    let lines = logged(&stderr, "connection");
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line["end"] == "limit")
        .filter_map(|line| line["error"].as_str())
        .collect();
    for variable in [
        "EGRESS_MAX_CONNECTIONS_PER_CLIENT",
        "EGRESS_MAX_CONNECTIONS ",
    ] {
        let named = told.iter().any(|error| error.contains(variable));
        assert!(named, "{variable}in {told:?}");
    }
    Ok(())
}

pub(crate) fn names_need_a_name_server_only_where_there_are_names() -> TestResult {
    let lab = network()?;
    let _server = serve(&lab, &["198.51.100.1"], 80)?;
    // No resolv.conf names a server: addresses do without.
    let scene = Scene::start_with(lab, "8000 198.51.100.1 80", |command| {
        command.resolv_conf("# nobody\n")
    })?;
    scene.ask(8000)?;
    assert!(scene.lab.resolver().queries().is_empty());
    Ok(())
}
