//! Bodies that are larger than any memory should be.

use egress_lab::{Wire, harness::TestResult, move_bytes};

use crate::scene::{Scene, get, ok};

const GIBIBYTE: usize = 1 << 30;

/// What the proxy may need for it, in bytes.
const MOST_MEMORY: u64 = 4 * 1024 * 1024;

fn moves(from: &Wire, to: &Wire) -> TestResult {
    Ok(move_bytes(from.stream(), to.stream(), GIBIBYTE)?)
}

pub(crate) fn a_gibibyte_each_way_in_constant_memory() -> TestResult {
    let scene = Scene::start()?;
    // One small exchange brings in what any needs.
    let (mut client, mut origin) = scene.tunnel();
    client.say("hello");
    origin.hear("hello");
    let process = scene.proxy.process();
    let before = process.peak_resident()?;

    moves(&client, &origin)?;
    moves(&origin, &client)?;

    let length = format!("Content-Length: {GIBIBYTE}\r\n\r\n");
    let mut client = scene.client_says(format!(
        "PUT http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{length}"
    ));
    let mut origin = scene.origin();
    origin.head();
    moves(&client, &origin)?;
    origin.say(format!("HTTP/1.1 200 OK\r\n{length}"));
    client.head();
    moves(&origin, &client)?;

    let grown = process.peak_resident()? - before;
    assert!(grown < MOST_MEMORY, "{grown} bytes more than before");
    // The last byte was the last, and the connection goes on.
    client.say(get("a.test"));
    origin.head();
    origin.say(ok("next"));
    assert_eq!(client.reply("GET").text(), "next");
    Ok(())
}
