//! Requests and responses.

use std::thread;

use egress_lab::{Origin, Wire, harness::TestResult};

use crate::scene::{Scene, get, has, ok};

pub(crate) fn trailers_go_both_ways() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\n\
         Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\nHost: b.test\r\n\
         Authorization: none\r\nTransfer-Encoding: chunked\r\nX-Also: 2\r\n\r\n",
    );
    let mut origin = scene.origin();
    let head = origin.head();
    for line in [
        "TE: trailers",
        "Connection: TE",
        "Trailer: X-Sum",
        "Transfer-Encoding: chunked",
    ] {
        assert!(has(&head, line), "no {line:?} in {head}");
    }
    let trailers = ["X-Sum: 1", "X-Also: 2"].map(str::to_owned).to_vec();
    assert_eq!(origin.chunks(), (b"hello".to_vec(), trailers));
    origin.say(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Time\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Time: 3\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\n\
         Connection: close\r\nETag: \"x\"\r\n\r\n",
    );
    let head = client.head();
    assert!(has(&head, "Trailer: X-Time"), "{head}");
    let trailers = ["X-Time: 3", "ETag: \"x\""].map(str::to_owned).to_vec();
    assert_eq!(client.chunks(), (b"abc".to_vec(), trailers));
    // Both connections are where they should be.
    client.say(get("a.test"));
    origin.head();
    origin.say(ok("next"));
    assert_eq!(client.reply("GET").text(), "next");
    Ok(())
}

pub(crate) fn interim_responses_go_through_at_once() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    for path in ["a", "b"] {
        origin.say(format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </{path}>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
        ));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 103 "), "{head}");
        assert!(has(&head, &format!("Link: </{path}>")), "{head}");
        assert!(!head.contains("X-Hop"), "{head}");
    }
    origin.say("HTTP/1.1 102 Processing\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 102 "));
    origin.say(ok("done"));
    assert_eq!(client.reply("GET").text(), "done");

    // An HTTP/1.0 client knows none.
    let mut client = scene.client_says("GET http://a.test/ HTTP/1.0\r\n\r\n");
    origin.head();
    origin.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    origin.say(ok("done"));
    let reply = client.reply("GET");
    assert_eq!((reply.interim, reply.body), (vec![], b"done".to_vec()));
    Ok(())
}

const EXPECTING: &str = "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\
                         Expect: 100-continue\r\nContent-Length: 4\r\n\r\n";

pub(crate) fn an_expectation_is_the_servers_to_meet() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(EXPECTING);
    let mut origin = scene.origin();
    let head = origin.head();
    assert!(has(&head, "Expect: 100-continue"), "{head}");
    origin.say("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100 "));
    client.say("body");
    origin.hear("body");
    origin.say(ok("thanks"));
    assert_eq!(client.reply("POST").text(), "thanks");
    client.say(get("a.test"));
    origin.head();
    origin.say(ok("next"));
    assert_eq!(client.reply("GET").text(), "next");
    Ok(())
}

pub(crate) fn an_expectation_may_be_refused() -> TestResult {
    let scene = Scene::start()?;
    for status in ["417 Expectation Failed", "413 Content Too Large"] {
        let mut client = scene.client_says(EXPECTING);
        let mut origin = scene.origin();
        origin.head();
        origin.say(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
        let reply = client.reply("POST");
        assert_eq!(
            (reply.status.to_string(), reply.text()),
            (status[..3].to_owned(), "no".into())
        );
        // What the client says next may be the body or another request: the
        // connection ends, and says so.
        assert!(has(&reply.head, "Connection: close"), "{}", reply.head);
        assert_eq!(client.rest(), b"");
        assert_eq!(origin.rest(), b"");
    }
    Ok(())
}

pub(crate) fn a_server_may_answer_before_the_body_is_sent() -> TestResult {
    let scene = Scene::start()?;
    let length = 50_000_000;
    let mut client = scene.client_says(format!(
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n"
    ));
    let mut origin = scene.origin();
    origin.head();
    // It reads no more than the head, and says so to a client in the middle of
    // the body.
    let mut sender = Wire::over(client.stream().try_clone()?)?;
    let sending = thread::spawn(move || sender.try_say(vec![0; length]));
    origin
        .say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    let reply = client.reply("POST");
    assert_eq!((reply.status, reply.text()), (413, "no".to_owned()));
    assert!(
        sending.join().unwrap().is_err(),
        "all of the body was taken"
    );
    drop(origin);
    Ok(())
}

pub(crate) fn get_may_have_a_body() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(
        "GET http://a.test/search HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nquery",
    );
    let mut origin = scene.origin();
    let head = origin.head();
    assert!(has(&head, "Content-Length: 5"), "{head}");
    origin.hear("query");
    origin.say(ok("one"));
    assert_eq!(client.reply("GET").text(), "one");
    client.say(
        "DELETE http://a.test/x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nquery\r\n0\r\n\r\n",
    );
    let head = origin.head();
    assert!(head.starts_with("DELETE /x HTTP/1.1\r\n"), "{head}");
    assert_eq!(origin.chunks().0, b"query");
    origin.say(ok("two"));
    assert_eq!(client.reply("DELETE").text(), "two");
    Ok(())
}

pub(crate) fn responses_without_body() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client();
    let mut origin = None;
    for (method, response, kept) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n",
            Some("Content-Length: 3000"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nX-Is: 1\r\n\r\n",
            Some("X-Is: 1"),
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
            Some("Content-Length: 100"),
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Some("Content-Length: 0"),
        ),
        ("HEAD", "HTTP/1.1 404 Not Found\r\n\r\n", None),
    ] {
        client.say(format!(
            "{method} http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"
        ));
        // All of them over one connection: none waits for a body, none
        // leaves one.
        let origin = origin.get_or_insert_with(|| scene.origin());
        let head = origin.head();
        assert!(head.starts_with(method), "{head}");
        origin.say(response);
        let head = client.head();
        let status = response.lines().next().unwrap();
        assert!(head.starts_with(status), "{head}");
        if let Some(line) = kept {
            assert!(has(&head, line), "{head}");
        }
    }
    client.say(get("a.test"));
    let mut origin = origin.unwrap();
    origin.head();
    origin.say(ok("body"));
    assert_eq!(client.reply("GET").text(), "body");
    Ok(())
}

pub(crate) fn chunks_are_sent_on_as_they_come() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client_says(
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let mut origin = scene.origin();
    origin.head();
    for text in ["one", "two"] {
        client.say(format!("{:X};ext=\"1\"\r\n{text}\r\n", text.len()));
        assert_eq!(origin.chunk(), text.as_bytes());
    }
    // The response begins while the request is under way.
    origin.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    for text in ["three", "four"] {
        origin.say(format!("{:x}\r\n{text}\r\n", text.len()));
        assert_eq!(client.chunk(), text.as_bytes());
        client.say("1\r\nx\r\n");
        assert_eq!(origin.chunk(), b"x");
    }
    client.say("0\r\n\r\n");
    assert_eq!(origin.chunks(), (vec![], vec![]));
    origin.say("0\r\n\r\n");
    assert_eq!(client.chunks(), (vec![], vec![]));
    client.say(get("a.test"));
    origin.head();
    origin.say(ok("next"));
    assert_eq!(client.reply("GET").text(), "next");
    Ok(())
}

pub(crate) fn chunks_may_come_byte_by_byte() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client();
    let request = "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\
                   Transfer-Encoding: chunked\r\n\r\n\
                   5;a=b\r\nhello\r\n00a\r\n, 10 bytes\r\n0\r\nX-Sum: 1\r\n\r\n";
    for byte in request.as_bytes() {
        client.say([*byte]);
    }
    let mut origin = scene.origin();
    origin.head();
    let (content, trailers) = origin.chunks();
    assert_eq!(content, b"hello, 10 bytes");
    assert_eq!(trailers, ["X-Sum: 1"]);
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5\r\nhello\r\n00A;x\r\n, 10 bytes\r\n0\r\n\r\n";
    for byte in response.as_bytes() {
        origin.say([*byte]);
    }
    assert_eq!(client.reply("POST").text(), "hello, 10 bytes");
    Ok(())
}

pub(crate) fn an_old_client_of_a_new_server() -> TestResult {
    let scene = Scene::start()?;
    let old = "GET http://a.test/ HTTP/1.0\r\n\r\n";
    let mut client = scene.client_says(old);
    let mut origin = scene.origin();
    let head = origin.head();
    assert!(
        head.starts_with("GET / HTTP/1.1\r\nHost: a.test\r\n"),
        "{head}"
    );
    assert!(head.contains("Via: 1.0 "), "{head}");
    origin.say(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let head = client.head();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert!(has(&head, "Connection: close"), "{head}");
    assert_eq!(client.rest(), b"abcdefg");

    // The server's connection is good for another; and an old client may ask
    // for its own to be kept.
    let mut client = scene.client();
    for body in ["first", "second"] {
        client.say("GET http://a.test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        origin.head();
        origin.say(ok(body));
        let reply = client.reply("GET");
        assert!(has(&reply.head, "Connection: keep-alive"), "{}", reply.head);
        assert_eq!(reply.text(), body);
    }
    Ok(())
}

pub(crate) fn a_new_client_of_an_old_server() -> TestResult {
    let scene = Scene::start()?;
    let mut client = scene.client();
    for body in ["first", "second"] {
        client.say(get("a.test"));
        let mut origin = scene.origin();
        origin.head();
        // The end of the connection is the end of the body.
        origin.say(format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}"
        ));
        let head = client.head();
        assert!(has(&head, "Transfer-Encoding: chunked"), "{head}");
        assert_eq!(client.chunk(), body.as_bytes());
        drop(origin);
        assert_eq!(client.chunks(), (vec![], vec![]));
    }
    let mut client = scene.client_says("GET http://a.test/ HTTP/1.0\r\n\r\n");
    let mut origin = scene.origin();
    origin.head();
    origin.say("HTTP/1.0 200 OK\r\n\r\nold");
    drop(origin);
    client.head();
    assert_eq!(client.rest(), b"old");
    Ok(())
}

pub(crate) fn requests_may_be_pipelined() -> TestResult {
    let scene = Scene::start()?;
    let origin = Origin::start(
        scene.lab.outside().netns(),
        &["198.51.100.1:81", "198.51.100.1:82"].map(|address| address.parse().unwrap()),
    )?;
    let mut client = scene.client();
    let mut requests = String::new();
    for (method, port, rest) in [
        ("GET", 81, "\r\n"),
        ("POST", 82, "Content-Length: 4\r\n\r\nbody"),
        ("HEAD", 81, "\r\n"),
        (
            "POST",
            81,
            "Transfer-Encoding: chunked\r\n\r\n4\r\nmore\r\n0\r\n\r\n",
        ),
        ("GET", 82, "\r\n"),
    ] {
        requests.push_str(&format!(
            "{method} http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n{rest}"
        ));
    }
    client.say(requests);
    client.end()?;
    for (method, port) in [
        ("GET", 81),
        ("POST", 82),
        ("HEAD", 81),
        ("POST", 81),
        ("GET", 82),
    ] {
        let reply = client.reply(method);
        let text = format!("hello from 198.51.100.1:{port}\n");
        let expected = if method == "HEAD" { "" } else { &text };
        assert_eq!((reply.status, reply.text().as_str()), (200, expected));
    }
    assert_eq!(client.rest(), b"");
    scene.stop()?;
    let mut bodies = Vec::new();
    for arrival in origin.settle()? {
        for request in arrival.requests {
            bodies.push((arrival.server.port(), String::from_utf8(request.body)?));
        }
    }
    bodies.sort();
    let expected = [(81, ""), (81, ""), (81, "more"), (82, ""), (82, "body")];
    assert_eq!(bodies, expected.map(|(port, body)| (port, body.to_owned())));
    Ok(())
}

pub(crate) fn a_client_may_end_its_side() -> TestResult {
    let scene = Scene::start()?;
    for request in [
        get("a.test"),
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
    ] {
        let mut client = scene.client_says(&request);
        client.end()?;
        let mut origin = scene.origin();
        origin.head();
        if request.starts_with("POST") {
            origin.hear("body");
        }
        // Until the body is there, too.
        origin.say("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n");
        client.head();
        origin.say(vec![b'x'; 200_000]);
        assert_eq!(client.rest(), vec![b'x'; 200_000]);
        assert_eq!(origin.rest(), b"");
    }
    Ok(())
}
