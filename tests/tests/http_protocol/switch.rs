//! Connections that carry something else: after an upgrade, and by CONNECT.

use egress_lab::{Wire, harness::TestResult};

use crate::scene::{Scene, connect, get, ok};

const UPGRADE: &str = "GET http://a.test/chat HTTP/1.1\r\nHost: a.test\r\n\
                       Connection: Upgrade\r\nUpgrade: chat/2\r\n\r\n";

/// A client and an origin after an upgrade.
fn upgraded(scene: &Scene) -> (Wire, Wire) {
    let mut client = scene.client_says(UPGRADE);
    let mut origin = scene.origin();
    let head = origin.head().to_lowercase();
    assert!(head.contains("connection: upgrade"), "{head}");
    assert!(head.contains("upgrade: chat/2"), "{head}");
    // The server's first words come with its head.
    origin.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n\r\n\0\x01welcome");
    let reply = client.reply("GET");
    assert_eq!(reply.status, 101, "{reply:?}");
    assert!(reply.fields("upgrade").eq(["chat/2"]), "{reply:?}");
    client.hear("\0\x01welcome");
    (client, origin)
}

pub(crate) fn upgraded_connections_are_tunnels() -> TestResult {
    let scene = Scene::start()?;
    let (mut client, mut origin) = upgraded(&scene);
    speak(&mut client, &mut origin);
    assert_eq!(scene.metric("egress_http_proxy_open_tunnels"), 1.0);
    end_client_first(client, origin);
    let (client, origin) = upgraded(&scene);
    end_origin_first(client, origin);
    scene.await_metric("egress_http_proxy_open_tunnels", 0.0);
    Ok(())
}

pub(crate) fn an_upgrade_may_be_declined() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(UPGRADE);
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("plain"));
    assert_eq!(client.reply("GET").text(), "plain");
    // Nobody asked for this one.
    client.say(get("a.test"));
    origin.head();
    origin.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.reply("GET").status, 502);
    Ok(())
}

pub(crate) fn either_side_of_a_tunnel_may_speak_first() -> TestResult {
    let scene = Scene::start()?;
    // A client that does not wait for the answer.
    let mut client = scene.client_says(format!("{}early\0", connect("a.test:80")));
    let mut origin = scene.origin();
    origin.hear("early\0");
    origin.say("220 ready\r\n");
    let reply = client.reply("CONNECT");
    assert_eq!(reply.status, 200);
    for field in ["content-length", "transfer-encoding", "connection"] {
        assert_eq!(reply.fields(field).count(), 0, "{}", reply.head);
    }
    client.hear("220 ready\r\n");
    speak(&mut client, &mut origin);

    let (mut client, mut origin) = scene.tunnel();
    origin.say("220 ready\r\n");
    client.hear("220 ready\r\n");
    speak(&mut client, &mut origin);
    Ok(())
}

pub(crate) fn either_side_of_a_tunnel_may_end_first() -> TestResult {
    let scene = Scene::start()?;
    let (client, origin) = scene.tunnel();
    end_client_first(client, origin);
    let (client, origin) = scene.tunnel();
    end_origin_first(client, origin);
    scene.await_metric("egress_http_proxy_open_tunnels", 0.0);
    Ok(())
}

pub(crate) fn a_reset_goes_through_a_tunnel() -> TestResult {
    let scene = Scene::start()?;
    let (client, mut origin) = scene.tunnel();
    client.reset()?;
    assert!(origin.try_rest().1.is_err(), "a clean end");
    let (mut client, mut origin) = scene.tunnel();
    origin.say("half of it");
    client.hear("half of it");
    origin.reset()?;
    assert!(client.try_rest().1.is_err(), "a clean end");
    scene.await_metric("egress_http_proxy_open_tunnels", 0.0);
    Ok(())
}

/// All bytes, both ways, and a few at a time.
#[track_caller]
fn speak(client: &mut Wire, origin: &mut Wire) {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for _ in 0..3 {
        client.say(&all);
        origin.hear(&all);
        origin.say(&all);
        client.hear(&all);
    }
}

/// What the origin says after the client's end still arrives.
#[track_caller]
fn end_client_first(mut client: Wire, mut origin: Wire) {
    client.say("last words");
    client.end().unwrap();
    assert_eq!(origin.rest(), b"last words");
    let answer = vec![b'o'; 300_000];
    origin.say(&answer);
    drop(origin);
    assert_eq!(client.rest(), answer);
}

/// And the other way round.
#[track_caller]
fn end_origin_first(mut client: Wire, mut origin: Wire) {
    origin.say("last words");
    origin.end().unwrap();
    assert_eq!(client.rest(), b"last words");
    let answer = vec![b'c'; 300_000];
    client.say(&answer);
    drop(client);
    assert_eq!(origin.rest(), answer);
}
