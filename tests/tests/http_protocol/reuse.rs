//! Upstream connections, one after the other and again.

use egress_lab::{Origin, harness::TestResult};

use crate::scene::{Scene, get, ok};

const REUSED: &str = "egress_http_proxy_reused_connections_total";

const POST: &str = "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";

pub(crate) fn upstream_connections_are_reused() -> TestResult {
    let scene = Scene::start()?;
    let origin = Origin::start(scene.lab.outside().netns(), &["198.51.100.1:81".parse()?])?;
    // Five clients, each with requests of its own.
    for _ in 0..5 {
        let mut client = scene.client();
        for _ in 0..4 {
            client.say(get("a.test:81"));
            assert_eq!(client.reply("GET").status, 200);
        }
    }
    let counts = |arrivals: Vec<egress_lab::Arrival>| -> Vec<_> {
        let requests = arrivals.iter().map(|arrival| arrival.requests.len());
        requests.collect()
    };
    assert_eq!(counts(origin.arrivals()), [20]);
    assert_eq!(scene.metric(REUSED), 19.0);
    // The other name of the same address is the same server.
    let mut client = scene.client_says(get("b.test:81"));
    assert_eq!(client.reply("GET").status, 200);
    assert_eq!(counts(origin.arrivals()), [21]);
    scene.stop()?;
    assert!(origin.arrivals().iter().all(|arrival| arrival.ended));
    Ok(())
}

pub(crate) fn upstream_connections_that_end_are_not() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client();
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        // Something unasked comes behind it.
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npoison",
    ] {
        client.say(get("a.test"));
        let mut origin = scene.origin();
        origin.head();
        origin.say(response);
        assert_eq!(client.reply("GET").text(), "ok");
        // Ours is ended, too.
        let (rest, _) = origin.try_rest();
        assert_eq!(rest, b"");
    }
    assert_eq!(scene.metric(REUSED), 0.0);
    Ok(())
}

/// A client's and an origin's connection after one request.
fn used(scene: &Scene) -> (egress_lab::Wire, egress_lab::Wire) {
    let mut client = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("first"));
    assert_eq!(client.reply("GET").text(), "first");
    (client, origin)
}

pub(crate) fn a_stale_connection_is_replaced() -> TestResult {
    let scene = Scene::start()?;
    // It has ended before the next request.
    let (mut client, origin) = used(&scene);
    drop(origin);
    client.say(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok("second"));
    assert_eq!(client.reply("GET").text(), "second");
    // It ends when it gets the next request, at the same time as it were. By
    // an end and by a reset.
    for by_reset in [false, true] {
        client.say(get("a.test"));
        origin.head();
        if by_reset {
            origin.reset()?;
        } else {
            drop(origin);
        }
        origin = scene.origin();
        origin.head();
        origin.say(ok("third"));
        assert_eq!(client.reply("GET").text(), "third");
    }
    Ok(())
}

pub(crate) fn what_cannot_be_repeated_is_not() -> TestResult {
    let scene = Scene::start()?;
    let (mut client, mut origin) = used(&scene);
    client.say(POST);
    origin.head();
    origin.hear("body");
    drop(origin);
    // The server may have done it or not: only the client can know what to do.
    let reply = client.reply("POST");
    assert_eq!(reply.status, 502);
    let status: Vec<_> = reply.fields("proxy-status").collect();
    assert_eq!(
        status,
        ["egress-http-proxy; error=http_response_incomplete"]
    );
    assert!(scene.is_quiet(), "the request was sent a second time");
    // Nor is one over a new connection.
    let mut client = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    drop(origin);
    assert_eq!(client.reply("GET").status, 502);
    assert!(scene.is_quiet(), "the request was sent a second time");
    Ok(())
}
