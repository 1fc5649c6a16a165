//! The settings beside the rules.

use std::{net::SocketAddr, sync::Arc};

use egress_lab::{Answer, Door, Family, Wire, harness::TestResult};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use crate::scene::{PORT, Scene, connect, get, has, ok};

const DECISIONS: &str = "egress_http_proxy_decisions_total";

const GUARDED: [&str; 2] = ["destination_ip_prohibited", "denied by the guard"];

/// The proxy answers itself: with 403, the error of RFC 9209 and a reason.
#[track_caller]
fn denies(scene: &Scene, request: &str, [error, reason]: [&str; 2]) {
    let method = request.split(' ').next().unwrap();
    let reply = scene.client_says(request).reply(method);
    assert_eq!(reply.status, 403, "{request}: {}", reply.head);
    let why: String = reply.fields("proxy-status").collect();
    let begin = format!("egress-http-proxy; error={error}; details=\"");
    assert!(
        why.starts_with(&begin) && why.contains(reason),
        "{request}: {why}"
    );
}

/// The origin gets a request for this host, and its answer comes back.
#[track_caller]
fn arrives(scene: &Scene, host: &str) {
    let mut client = scene.client_says(get(host));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("here").replace("OK\r\n", "OK\r\nConnection: close\r\n"));
    assert_eq!(client.reply("GET").text(), "here", "{host}");
}

pub(crate) fn audit_allows_and_tells() -> TestResult {
    let scene = Scene::start_with(|command| {
        command
            .env("EGRESS_HTTP_PROXY_MODE", "audit")
            .env("EGRESS_HTTP_PROXY_DESTINATION", "!a.test\n*.example.com")
    })?;
    arrives(&scene, "a.test");
    arrives(&scene, "b.test");
    let (_client, _origin) = scene.tunnel();
    for host in ["inside.test", "self.test:8080"] {
        denies(&scene, &get(host), GUARDED);
    }
    for (labels, count) in [
        ("verdict=\"would_deny\",reason=\"rule\"", 2.0),
        ("verdict=\"would_deny\",reason=\"no_rule\"", 1.0),
        (
            "verdict=\"denied\",reason=\"destination_ip_prohibited\"",
            2.0,
        ),
    ] {
        assert_eq!(
            scene.metric(&format!("{DECISIONS}{{{labels}}}")),
            count,
            "{labels}"
        );
    }
    let log = scene.proxy.process().await_stderr(
        "\"host\":\"b.test\",\"port\":80,\"address\":\"198.51.100.1\",\"decision\":\"would_deny\"",
        crate::scene::PATIENCE,
    )?;
    assert!(
        log.contains("\"decision\":\"would_deny\",\"rule\":1"),
        "{log}"
    );
    Ok(())
}

pub(crate) fn addresses_may_be_refused_as_hosts() -> TestResult {
    let scene = Scene::start_with(|command| command.env("EGRESS_HTTP_PROXY_IP_LITERALS", "deny"))?;
    let literal = ["http_request_denied", "the host is an address"];
    for host in ["198.51.100.1", "0xc6.51.100.1", "[2001:db8:25::25]"] {
        denies(&scene, &get(host), literal);
        denies(&scene, &connect(&format!("{host}:80")), literal);
    }
    assert!(scene.is_quiet());
    arrives(&scene, "a.test");
    Ok(())
}

pub(crate) fn the_guard() -> TestResult {
    // The origin and all else in this lab are of special-purpose ranges.
    let guarded = |level: &str, rules: &str| {
        Scene::start_with(|command| {
            command
                .env("EGRESS_HTTP_PROXY_GUARD", level)
                .env("EGRESS_HTTP_PROXY_DESTINATION", rules)
        })
    };
    let scene = guarded("private", "*")?;
    for (number, address) in [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.12.1",
        "100.64.0.1",
        "169.254.169.254",
        "198.51.100.1",
        "fd00::1",
        "fe80::1",
        "224.0.0.1",
        "255.255.255.255",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("private{number}.test");
        let answer = Answer::Addresses(vec![address.parse()?]);
        scene.lab.resolver().answer(&name, 300, answer);
        denies(&scene, &get(&name), GUARDED);
        denies(&scene, &connect(&format!("{name}:80")), GUARDED);
    }
    // A rule that names the network knows what it does; one that allows all
    // does not.
    arrives(&guarded("private", "198.51.100.0/24\n*")?, "a.test");
    for rules in ["0.0.0.0/0\n*", "*.test\n*"] {
        denies(&guarded("private", rules)?, &get("a.test"), GUARDED);
    }
    arrives(&guarded("local", "*")?, "a.test");

    let scene = guarded("off", "*")?;
    let inside = Door::open(
        scene.lab.pod().netns(),
        SocketAddr::from(([127, 0, 0, 1], 81)),
    )?;
    let mut client = scene.client_says(get("inside.test:81"));
    let mut origin = inside.accept();
    origin.head();
    origin.say(ok("inside"));
    assert_eq!(client.reply("GET").text(), "inside");
    Ok(())
}

/// What a TLS client says first.
fn hello(name: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

pub(crate) fn the_server_name_of_a_tunnel() -> TestResult {
    let scene = Scene::start_with(|command| {
        command.env("EGRESS_HTTP_PROXY_SNI", "match").env(
            "EGRESS_HTTP_PROXY_DESTINATION",
            "!evil.a.test\n*.a.test\n198.51.100.1",
        )
    })?;
    let door = Door::open(scene.lab.outside().netns(), "198.51.100.1:443".parse()?)?;
    let tls = connect("a.test:443");
    let open = |request: &str| {
        let mut client = scene.client_says(request);
        let origin = door.accept();
        assert_eq!(client.reply("CONNECT").status, 200);
        (client, origin)
    };
    // The host itself, in any case, and another one that the rules allow.
    for name in ["a.test", "A.TEST", "www.a.test"] {
        let (mut client, mut origin) = open(&tls);
        let hello = hello(name);
        // It may come in pieces.
        let (first, second) = hello.split_at(7);
        client.say(first);
        client.say(second);
        origin.hear(&hello);
        origin.say("answer");
        client.hear("answer");
    }
    // Not a name of its own choice, none, nor what is no TLS.
    let without_name = hello("198.51.100.1");
    for (said, reason) in [
        (hello("b.test"), "sni_mismatch"),
        (hello("evil.a.test"), "sni_mismatch"),
        (without_name.clone(), "sni_missing"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "not_tls"),
        (
            b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n".to_vec(),
            "not_tls",
        ),
    ] {
        let counter = format!("{DECISIONS}{{verdict=\"denied\",reason=\"{reason}\"}}");
        let before = scene.metric(&counter);
        let (mut client, mut origin) = open(&tls);
        client.say(&said);
        let (rest, _) = origin.try_rest();
        assert_eq!(rest, b"", "{reason}");
        let (rest, _) = client.try_rest();
        assert_eq!(rest, b"", "{reason}");
        assert_eq!(scene.metric(&counter), before + 1.0, "{reason}");
    }
    // To an address a client names none.
    let (mut client, mut origin) = open(&connect("198.51.100.1:443"));
    client.say(&without_name);
    origin.hear(&without_name);
    // Other ports carry what they carry.
    let (mut client, mut origin) = scene.tunnel();
    client.say("SSH-2.0-OpenSSH\r\n");
    origin.hear("SSH-2.0-OpenSSH\r\n");
    Ok(())
}

pub(crate) fn the_client_may_be_named() -> TestResult {
    for (setting, fields) in [
        (None, ["", "1.2.3.4", ""]),
        (
            Some("on"),
            ["10.128.0.2", "1.2.3.4, 10.128.0.2", "fd00:128::2"],
        ),
    ] {
        let scene = Scene::start_with(|command| match setting {
            Some(setting) => command.env("EGRESS_HTTP_PROXY_X_FORWARDED_FOR", setting),
            None => command,
        })?;
        let named = get("a.test").replace("\r\n\r\n", "\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
        let mut origin = None;
        for (family, request, expected) in [
            (Family::Ipv4, &get("a.test"), fields[0]),
            (Family::Ipv4, &named, fields[1]),
            (Family::Ipv6, &get("a.test"), fields[2]),
        ] {
            let proxy = scene.lab.pod().socket(family, PORT);
            let mut client = Wire::connect(scene.lab.client().netns(), proxy)?;
            client.say(request);
            let origin = origin.get_or_insert_with(|| scene.origin());
            let head = origin.head();
            let line = format!("X-Forwarded-For: {expected}");
            let is_there = head.to_lowercase().contains("x-forwarded-for");
            assert_eq!(is_there, !expected.is_empty(), "{head}");
            assert!(expected.is_empty() || has(&head, &line), "{head}");
            assert!(!head.to_lowercase().contains("\r\nforwarded:"), "{head}");
            origin.say(ok("answer"));
            assert_eq!(client.reply("GET").text(), "answer");
        }
    }
    Ok(())
}
