//! What the operator sees.

use egress_lab::{
    eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::scene::{PATIENCE, Scene, connect, get, ok};

/// Some traffic of every kind: two requests that arrive, a tunnel, and what is
/// refused for one reason or another.
fn traffic(scene: &Scene) {
    let mut client = scene.client();
    let mut origin = None;
    for body in ["first", "second"] {
        client.say(get("a.test"));
        let origin = origin.get_or_insert_with(|| scene.origin());
        origin.head();
        origin.say(ok(body));
        assert_eq!(client.reply("GET").text(), body);
    }
    drop(client);
    let (mut client, mut origin) = scene.tunnel();
    client.say("12345");
    origin.hear("12345");
    origin.say("123");
    origin.end().unwrap();
    client.hear("123");
    client.end().unwrap();
    assert_eq!((client.rest(), origin.rest()), (vec![], vec![]));
    for (request, status) in [
        (get("denied.test"), 403),
        (connect("inside.test:80"), 403),
        (get("closed.test"), 502),
        (get("nowhere.test"), 502),
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(), 400),
    ] {
        let method = request.split(' ').next().unwrap();
        assert_eq!(
            scene.client_says(&request).reply(method).status,
            status,
            "{request}"
        );
    }
}

fn start() -> Result<Scene, Failed> {
    Scene::start_with(|command| {
        command.env(
            "EGRESS_HTTP_PROXY_DESTINATION",
            "!denied.test\n198.51.100.0/24\n*",
        )
    })
}

pub(crate) fn every_request_is_a_line() -> TestResult {
    let scene = start()?;
    traffic(&scene);
    let stderr = scene.stop()?.stderr;
    let lines: Vec<Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|line: &Value| line["message"] == "request" || line["message"] == "tunnel")
        .collect();
    let expected = [
        // Bytes include the heads.
        ("request", "GET", "a.test", 200),
        ("request", "GET", "a.test", 200),
        ("tunnel", "CONNECT", "a.test", 200),
        ("request", "GET", "denied.test", 403),
        ("tunnel", "CONNECT", "inside.test", 403),
        ("request", "GET", "closed.test", 502),
        ("request", "GET", "nowhere.test", 502),
        ("request", "GET", "", 400),
    ];
    assert_eq!(lines.len(), expected.len(), "{stderr}");
    for (line, (message, method, host, status)) in lines.iter().zip(expected) {
        assert_eq!(line["message"], message, "{line}");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["level"], "info", "{line}");
        let client = line["client"].as_str().unwrap();
        assert!(client.starts_with("10.128.0.2:"), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() >= 0.0, "{line}");
        if host.is_empty() {
            assert!(line.get("host").is_none(), "{line}");
        } else {
            assert_eq!(
                (&line["method"], &line["host"]),
                (&method.into(), &host.into())
            );
            assert_eq!(line["port"], 80, "{line}");
        }
    }
    let [first, second, tunnel, denied, guarded, closed, nowhere, bad] = &lines[..] else {
        panic!("{stderr}");
    };
    for line in [first, second, tunnel] {
        assert_eq!(line["address"], "198.51.100.1", "{line}");
        assert_eq!(
            (&line["decision"], &line["rule"]),
            (&"allowed".into(), &2.into())
        );
        assert!(line.get("error").is_none(), "{line}");
    }
    // The name was asked for once, and connected to where there was no
    // connection.
    let has = |line: &Value, name| line.get(name).is_some_and(Value::is_number);
    assert!(has(first, "dns_ms") && has(first, "connect_ms"), "{first}");
    assert!(
        !has(second, "dns_ms") && !has(second, "connect_ms"),
        "{second}"
    );
    assert!(
        !has(tunnel, "dns_ms") && has(tunnel, "connect_ms"),
        "{tunnel}"
    );
    assert_eq!(
        (&tunnel["bytes_up"], &tunnel["bytes_down"]),
        (&5.into(), &3.into())
    );
    assert!(first["bytes_down"].as_u64().unwrap() > 40, "{first}");

    assert_eq!(
        (&denied["decision"], &denied["rule"]),
        (&"denied".into(), &1.into())
    );
    assert!(
        denied.get("address").is_none() && denied.get("dns_ms").is_none(),
        "{denied}"
    );
    assert_eq!(
        (&guarded["decision"], &guarded["reason"]),
        (&"denied".into(), &"destination_ip_prohibited".into())
    );
    for (line, side, error) in [
        (closed, "upstream", "refused the connection"),
        (nowhere, "dns", "cannot resolve the host"),
        (bad, "client", ""),
    ] {
        assert_eq!(line["side"], side, "{line}");
        assert!(line["error"].as_str().unwrap().contains(error), "{line}");
    }
    Ok(())
}

pub(crate) fn metrics_count_what_happened() -> TestResult {
    let scene = start()?;
    traffic(&scene);
    scene.await_metric("egress_http_proxy_open_tunnels", 0.0);
    scene.await_metric("egress_http_proxy_open_connections", 0.0);
    let page = scene.page("/metrics");
    for (sample, value) in [
        (
            "egress_http_proxy_requests_total{kind=\"forward\",class=\"2xx\"}",
            2.0,
        ),
        (
            "egress_http_proxy_requests_total{kind=\"forward\",class=\"4xx\"}",
            2.0,
        ),
        (
            "egress_http_proxy_requests_total{kind=\"forward\",class=\"5xx\"}",
            2.0,
        ),
        (
            "egress_http_proxy_requests_total{kind=\"connect\",class=\"2xx\"}",
            1.0,
        ),
        (
            "egress_http_proxy_requests_total{kind=\"connect\",class=\"4xx\"}",
            1.0,
        ),
        // Allowed: two requests, a tunnel, one that is refused, and a name
        // that leads nowhere.
        (
            "egress_http_proxy_decisions_total{verdict=\"allowed\",reason=\"rule\"}",
            5.0,
        ),
        (
            "egress_http_proxy_decisions_total{verdict=\"denied\",reason=\"rule\"}",
            1.0,
        ),
        (
            "egress_http_proxy_decisions_total{verdict=\"denied\",reason=\"destination_ip_prohibited\"}",
            1.0,
        ),
        ("egress_http_proxy_rule_decisions_total{line=\"1\"}", 1.0),
        ("egress_http_proxy_rule_decisions_total{line=\"2\"}", 4.0),
        ("egress_http_proxy_rule_decisions_total{line=\"3\"}", 1.0),
        (
            "egress_http_proxy_failures_total{side=\"upstream\",error=\"connection_refused\"}",
            1.0,
        ),
        (
            "egress_http_proxy_failures_total{side=\"dns\",error=\"dns_error\"}",
            1.0,
        ),
        (
            "egress_http_proxy_failures_total{side=\"client\",error=\"http_request_error\"}",
            1.0,
        ),
        ("egress_http_proxy_reused_connections_total", 1.0),
        ("egress_http_proxy_connect_duration_seconds_count", 2.0),
        ("egress_dns_lookup_duration_seconds_count", 4.0),
        ("egress_config_reloads_total", 0.0),
        ("egress_config_reload_failures_total", 0.0),
        ("egress_accept_pauses_total", 0.0),
        ("egress_access_log_dropped_total", 0.0),
    ] {
        assert_eq!(page.sample(sample), Some(value), "{sample}\n{}", page.body);
    }
    for (direction, at_least) in [("up", 100.0), ("down", 100.0)] {
        let sample =
            format!("egress_http_proxy_transferred_bytes_total{{direction=\"{direction}\"}}");
        assert!(
            page.sample(&sample).unwrap() > at_least,
            "{sample}\n{}",
            page.body
        );
    }
    assert!(page.sample("process_resident_memory_bytes").unwrap() > 0.0);
    // No text of a client's choice is in it.
    for text in ["test", "10.128", "198.51"] {
        let labels = page.body.lines().filter(|line| !line.starts_with('#'));
        let told: Vec<_> = labels.filter(|line| line.contains(text)).collect();
        assert!(told.is_empty(), "{told:?}");
    }
    assert!(page.body.ends_with("# EOF\n"), "{}", page.body);
    Ok(())
}

pub(crate) fn configuration_and_probes() -> TestResult {
    let scene = Scene::start_with(|command| {
        command
            .env(
                "EGRESS_HTTP_PROXY_DESTINATION",
                "!denied.test\n198.51.100.0/24:80\n*",
            )
            .env("EGRESS_HTTP_PROXY_IDLE_TIME", "90s")
            .env("EGRESS_MAX_CONNECTIONS", "77")
    })?;
    assert_eq!(scene.page("/healthz").status, 200);
    assert_eq!(scene.page("/readyz").status, 200);
    let config: Value = serde_json::from_str(&scene.page("/config").body)?;
    for (name, value) in [
        ("listen", Value::from("[::]:8080")),
        ("tls_listen", Value::Null),
        ("mode", "enforce".into()),
        ("guard", "local".into()),
        ("ip_literals", "allow".into()),
        ("sni", "off".into()),
        ("x_forwarded_for", false.into()),
        ("header_bytes", 65536.into()),
        ("idle_time", "90s".into()),
        ("connections", 77.into()),
        ("threads", 1.into()),
    ] {
        assert_eq!(config[name], value, "{name} in {config:#}");
    }
    assert_eq!(
        config["rules"].as_array().map(Vec::len),
        Some(3),
        "{config:#}"
    );
    assert_eq!(scene.page("/").status, 404);

    // The admin port is no proxy, and the proxy has no admin pages.
    let reply = scene
        .client_says("GET /healthz HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .reply("GET");
    assert_eq!(reply.status, 400);

    // While it drains it is alive and not ready.
    let (mut client, mut origin) = scene.tunnel();
    scene.proxy.process().signal(Signal::SIGTERM)?;
    eventually(PATIENCE, || match scene.page("/readyz") {
        page if page.status == 503 => Ok(()),
        page => Err(page),
    });
    assert_eq!(scene.page("/healthz").status, 200);
    assert_eq!(scene.page("/readyz").body, "draining\n");
    client.say("more");
    origin.hear("more");
    drop((client, origin));
    Ok(())
}
