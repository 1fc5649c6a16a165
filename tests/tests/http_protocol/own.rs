//! Requests whose way would lead back.

use egress_lab::{Family, address, harness::TestResult};

use crate::scene::{ADMIN, PORT, Scene, connect, get, has, ok};

/// Every way to write an address of the pod that anybody came up with.
fn spellings(scene: &Scene) -> Vec<String> {
    let mut hosts: Vec<String> = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "0x7f.0.0.1",
        "0x7f.1",
        "0x7F000001",
        "0177.0.0.1",
        "017700000001",
        "2130706433",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[::ffff:0:127.0.0.1]",
        "[::1%25lo]",
        "[fe80::1]",
        "169.254.169.254",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ip6-localhost",
        "%6c%6f%63%61%6c%68%6f%73%74",
        "127%2e0%2e0%2e1",
        "self.test",
        "SELF.test.",
        "inside.test",
        "127\u{3002}0.0.1",
        "\u{2460}27.0.0.1",
        "user@127.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec();
    for family in Family::ALL {
        for own in [scene.lab.pod().address(family), address::source(family)] {
            hosts.push(match own {
                std::net::IpAddr::V4(own) => own.to_string(),
                std::net::IpAddr::V6(own) => format!("[{own}]"),
            });
        }
    }
    hosts.extend(
        [
            "[::ffff:10.128.0.10]",
            "0x0a.128.10",
            "[2002:0a80:000a::]",
            "[64:ff9b::a80:a]",
        ]
        .map(str::to_owned),
    );
    hosts
}

pub(crate) fn no_spelling_of_the_proxy_leads_to_it() -> TestResult {
    for mode in ["enforce", "audit"] {
        let scene = Scene::start_with(|command| command.env("EGRESS_HTTP_PROXY_MODE", mode))?;
        let mut requests = 0;
        let mut led = Vec::new();
        for host in spellings(&scene) {
            for port in [PORT, ADMIN] {
                let target = format!("{host}:{port}");
                let absolute = format!("http://{target}/metrics");
                for request in [
                    format!("GET {absolute} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
                    format!("CONNECT {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
                ] {
                    requests += 1;
                    let method = request.split(' ').next().unwrap().to_owned();
                    let reply = scene.client_says(&request).reply(&method);
                    // A name that does not exist is no way either.
                    let no_name = reply.status == 502 && host == "ip6-localhost";
                    if !matches!(reply.status, 400 | 403) && !no_name {
                        led.push((method, target.clone(), reply.status));
                    }
                }
            }
        }
        assert!(led.is_empty(), "{mode}: {led:?}");
        // Not even a connection was tried.
        let seen = scene.metric("egress_http_proxy_connect_duration_seconds_count");
        assert_eq!(seen, 0.0);
        let refused = |class| {
            ["forward", "connect"]
                .map(|kind| {
                    scene.metric(&format!(
                        "egress_http_proxy_requests_total{{kind=\"{kind}\",class=\"{class}\"}}"
                    ))
                })
                .iter()
                .sum::<f64>()
        };
        assert_eq!(refused("4xx") + refused("5xx"), f64::from(requests));
    }
    Ok(())
}

pub(crate) fn without_guard_a_request_to_itself_ends_at_once() -> TestResult {
    let scene = Scene::start_with(|command| command.env("EGRESS_HTTP_PROXY_GUARD", "off"))?;
    for host in ["self.test:8080", "127.0.0.1:8080", "[::1]:8080"] {
        let mut client = scene.client_says(get(host));
        // Its own answer to what is no request to a proxy.
        assert_eq!(client.reply("GET").status, 400, "{host}");
    }
    // A tunnel into itself is one the operator has asked for; the request in
    // it is judged like any.
    let mut client = scene.client_says(connect("self.test:8080"));
    assert_eq!(client.reply("CONNECT").status, 200);
    client.say(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("through itself"));
    assert_eq!(client.reply("GET").text(), "through itself");
    Ok(())
}

pub(crate) fn a_request_that_came_through_before_is_a_loop() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    let head = origin.head();
    origin.say(ok("once"));
    let reply = client.reply("GET");
    let via = head
        .lines()
        .find_map(|line| line.strip_prefix("Via: "))
        .unwrap();
    assert!(has(&reply.head, &format!("Via: {via}")), "{}", reply.head);
    for line in [
        format!("Via: {via}"),
        format!("Via: 1.0 first, {via}, 1.1 last"),
        format!("via: 1.0 first\r\nVIA:{via} (comment)"),
    ] {
        for request in [get("a.test"), connect("a.test:80")] {
            let method = request.split(' ').next().unwrap();
            let request = request.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
            let reply = scene.client_says(&request).reply(method);
            assert_eq!(reply.status, 508, "{request}");
        }
    }
    // Another proxy of the same make is none.
    let other = via.replace(|digit: char| digit.is_ascii_hexdigit(), "7");
    assert_ne!(other, via);
    let request = get("a.test").replace("\r\n\r\n", &format!("\r\nVia: {other}\r\n\r\n"));
    let mut client = scene.client_says(request);
    let head = origin.head();
    assert!(has(&head, &format!("Via: {other}")), "{head}");
    assert!(has(&head, &format!("Via: {via}")), "{head}");
    origin.say(ok("twice"));
    assert_eq!(client.reply("GET").text(), "twice");
    Ok(())
}
