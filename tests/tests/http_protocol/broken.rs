//! Messages that do not come whole, or do not make sense.

use egress_lab::{Wire, harness::TestResult};

use crate::scene::{Scene, get};

/// Whether a client can tell that what came is not all.
fn is_cut(client: &mut Wire, method: &str) -> Result<(), String> {
    match client.try_reply(method) {
        Err(_) => {}
        Ok(reply) => return Err(format!("whole: {reply:?}")),
    }
    // And its connection is over.
    let (rest, _) = client.try_rest();
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{rest:?} came behind it"))
    }
}

pub(crate) fn a_cut_response_looks_cut() -> TestResult {
    let scene = Scene::start()?;
    let long = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(300_000)
    );
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        &long,
    ] {
        for request in [&get("a.test"), "GET http://a.test/ HTTP/1.0\r\n\r\n"] {
            let mut client = scene.client_says(request);
            let mut origin = scene.origin();
            origin.head();
            origin.say(response);
            drop(origin);
            is_cut(&mut client, "GET").map_err(|error| format!("{response:.99}: {error}"))?;
        }
    }
    // Without any length a reset alone tells.
    for request in [&get("a.test"), "GET http://a.test/ HTTP/1.0\r\n\r\n"] {
        let mut client = scene.client_says(request);
        let mut origin = scene.origin();
        origin.head();
        origin.say("HTTP/1.1 200 OK\r\n\r\nhalf");
        client.head();
        origin.reset()?;
        assert!(client.try_rest().1.is_err(), "a clean end");
    }
    scene.await_metric(
        "egress_http_proxy_failures_total{side=\"upstream\",error=\"http_response_incomplete\"}",
        12.0,
    );
    Ok(())
}

pub(crate) fn a_cut_request_looks_cut() -> TestResult {
    let scene = Scene::start()?;
    for (framing, part) in [
        ("Content-Length: 10", "half"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhel"),
    ] {
        let mut client = scene.client_says(format!(
            "PUT http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n{part}"
        ));
        let mut origin = scene.origin();
        origin.head();
        client.end()?;
        let (rest, _) = origin.try_rest();
        let rest = String::from_utf8(rest)?;
        let complete = rest.len() >= 10 || rest.contains("0\r\n\r\n");
        assert!(framing.contains("chunked") || !complete, "{rest}");
        assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
        let (rest, _) = client.try_rest();
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }
    // Chunks that are none: the origin gets no whole request, the client 400.
    let mut client = scene.client_says(
        "PUT http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n-1\r\n\r\n",
    );
    let (rest, _) = scene.origin().try_rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    assert_eq!(client.reply("PUT").status, 400);
    Ok(())
}

pub(crate) fn a_bad_response_is_no_response() -> TestResult {
    let scene = Scene::start()?;
    for response in [
        "220 mail.test ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nBroken Name: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nUnfinished: 1\r\n",
        "",
    ] {
        let mut client = scene.client_says(get("a.test"));
        let mut origin = scene.origin();
        origin.head();
        origin.say(response);
        drop(origin);
        let reply = client.reply("GET");
        assert_eq!(reply.status, 502, "{response:?}: {reply:?}");
    }
    let mut client = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    let long = "x".repeat(70_000);
    origin.say(format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\n\r\n"));
    assert_eq!(client.reply("GET").status, 502);
    Ok(())
}
