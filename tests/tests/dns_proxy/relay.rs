//! What happens to the bytes of a connection.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use egress_lab::{
    Command, NetNs, Wire, eventually,
    harness::{TestResult, libtest_mimic::Failed},
    move_bytes,
};

use crate::scene::{PATIENCE, Scene, answer, logged, network};

const SERVER: &str = "198.51.100.1:80";

/// A proxy whose port 8000 leads to a server that is the test.
fn start(change: impl FnOnce(Command) -> Command) -> Result<Scene, Failed> {
    let lab = network()?;
    answer(&lab, "a.test", 60, &["198.51.100.1"]);
    Scene::start_with(lab, "8000 a.test 80\n8001 a.test 81", change)
}

/// D029
pub(crate) fn half_close_both_ways() -> TestResult {
    let scene = start(|command| command)?;
    let door = scene.door(SERVER)?;
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    client.say("question");
    client.end()?;
    assert_eq!(server.rest(), b"question");
    // Long after the client has ended, the answer is still wanted.
    for part in ["the ", "whole ", "answer"] {
        server.say(part);
        client.hear(part);
    }
    server.end()?;
    assert_eq!(client.rest(), b"");

    let (mut client, mut server) = (scene.wire(8000), door.accept());
    server.say("greeting");
    server.end()?;
    assert_eq!(client.rest(), b"greeting");
    for part in ["all ", "that ", "follows"] {
        client.say(part);
        server.hear(part);
    }
    client.end()?;
    assert_eq!(server.rest(), b"");
    let stderr = scene.stop()?.stderr;
    let lines = logged(&stderr, "connection");
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines.iter().all(|line| line["end"] == "finished"),
        "{stderr}"
    );
    Ok(())
}

pub(crate) fn either_side_may_speak_first() -> TestResult {
    let scene = start(|command| command)?;
    let door = scene.door(SERVER)?;
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    server.say("220 ready\r\n");
    client.hear("220 ready\r\n");
    // And a client that does not wait until it is connected through.
    let mut client = scene.wire(8000);
    client.say("early\0");
    let mut server = door.accept();
    server.hear("early\0");
    server.say("late");
    client.hear("late");
    Ok(())
}

pub(crate) fn resets_go_through() -> TestResult {
    let scene = start(|command| command)?;
    let door = scene.door(SERVER)?;
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    client.say("x");
    server.hear("x");
    server.reset()?;
    assert!(client.try_rest().1.is_err());
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    client.say("x");
    server.hear("x");
    client.reset()?;
    assert!(server.try_rest().1.is_err());
    // A port where nobody listens is no answer of no bytes.
    let refused = Wire::connect(scene.lab.client().netns(), scene.address(8001));
    let refused = refused.and_then(|mut client| client.try_rest().1);
    assert!(refused.is_err());
    let stderr = scene.stop()?.stderr;
    let lines = logged(&stderr, "connection");
    let mut ends: Vec<_> = lines
        .iter()
        .map(|line| line["end"].as_str().unwrap())
        .collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        ["client_error", "not_connected", "upstream_error"],
        "{stderr}"
    );
    Ok(())
}

/// D028, with a shorter time.
pub(crate) fn idle_time() -> TestResult {
    let time = Duration::from_millis(700);
    let scene = start(|command| command.env("EGRESS_DNS_PROXY_IDLE_TIME", "700ms"))?;
    let door = scene.door(SERVER)?;
    let pair = || -> (Wire, Wire) { (scene.wire(8000), door.accept()) };
    let (mut both, mut up, mut down) = (pair(), pair(), pair());
    let start = Instant::now();
    let (mut idle, mut idle_server) = (scene.wire(8000), door.accept());
    let waiting = thread::spawn(move || {
        let (rest, _) = idle.try_rest();
        let took = start.elapsed();
        assert_eq!((rest, idle_server.try_rest().0), (vec![], vec![]));
        took
    });
    while !waiting.is_finished() || start.elapsed() < 3 * time {
        // One way is enough.
        for (client, server) in [&mut both, &mut up] {
            client.say("x");
            server.hear("x");
        }
        for (client, server) in [&mut both, &mut down] {
            server.say("y");
            client.hear("y");
        }
        thread::sleep(time / 10);
    }
    let took = waiting.join().unwrap();
    assert!(took >= time, "{took:?}");
    drop((both, up, down));
    let stderr = scene.stop()?.stderr;
    let lines = logged(&stderr, "connection");
    let idle: Vec<_> = lines.iter().filter(|line| line["end"] == "idle").collect();
    assert_eq!((lines.len(), idle.len()), (4, 1), "{stderr}");
    let lasted = idle[0]["duration_ms"].as_f64().unwrap();
    assert!(lasted >= 690.0, "{stderr}");
    Ok(())
}

/// D028: an hour, and keepalive on both sides all along.
pub(crate) fn idle_connections_are_kept_alive() -> TestResult {
    let scene = start(|command| command)?;
    let door = scene.door(SERVER)?;
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    client.say("x");
    server.hear("x");
    let config: serde_json::Value = serde_json::from_str(&scene.page("/config").body)?;
    assert_eq!(config["idle_time"], "1h");
    let pod = scene.lab.pod().netns();
    // The client's connection is to a socket for both families.
    for (table, local, remote) in [("tcp6", Some(8000), None), ("tcp", None, Some(80))] {
        let next = eventually(PATIENCE, || keepalive(pod, table, local, remote));
        assert!(next <= Duration::from_secs(60), "{table}: {next:?}");
    }
    client.say("y");
    server.hear("y");
    Ok(())
}

/// When the kernel will ask the peer of the one connection with these ports
/// whether it is there, from `/proc/net/tcp` (proc(5): `tr` is 2 for the
/// keepalive timer).
fn keepalive(
    netns: &NetNs,
    table: &str,
    local: Option<u16>,
    remote: Option<u16>,
) -> Result<Duration, String> {
    const ESTABLISHED: &str = "01";
    const KEEPALIVE: &str = "02";
    let text = netns
        .run(|| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
        .map_err(|error| error.to_string())?;
    let is = |field: &str, port: Option<u16>| {
        port.is_none_or(|port| field.ends_with(&format!(":{port:04X}")))
    };
    let timer = text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = is(fields[1], local) && is(fields[2], remote) && fields[3] == ESTABLISHED;
        ours.then(|| fields[5].split_once(':').unwrap())
    });
    match timer {
        // In hundredths of a second.
        Some((KEEPALIVE, when)) => {
            let ticks = u64::from_str_radix(when, 16).map_err(|error| error.to_string())?;
            Ok(Duration::from_millis(10 * ticks))
        }
        other => Err(format!("{other:?} in\n{text}")),
    }
}

pub(crate) fn bulk_is_spliced_in_constant_memory() -> TestResult {
    const LENGTH: usize = 256 << 20;
    /// What the proxy may need for it.
    const MOST_MEMORY: u64 = 4 << 20;
    let scene = start(|command| command)?;
    let door = scene.door(SERVER)?;
    let (mut client, mut server) = (scene.wire(8000), door.accept());
    client.say("hello");
    server.hear("hello");
    let before = (scene.proxy.peak_resident()?, scene.proxy.pipes()?);
    for (from, to) in [(&client, &server), (&server, &client)] {
        move_bytes(from.stream(), to.stream(), LENGTH)?;
    }
    let grown = scene.proxy.peak_resident()? - before.0;
    assert!(grown < MOST_MEMORY, "{grown} bytes more than before");
    // splice(2) needs a pipe, which is kept for the next.
    let pipes = scene.proxy.pipes()?;
    assert!(pipes > before.1, "{pipes} ends of pipes, as before");
    // The last byte was the last, and the connection goes on.
    client.say("bye");
    server.hear("bye");
    client.end()?;
    server.end()?;
    assert_eq!((client.rest(), server.rest()), (vec![], vec![]));
    let stderr = scene.stop()?.stderr;
    let line = &logged(&stderr, "connection")[0];
    let moved = LENGTH as u64;
    assert_eq!(
        (&line["bytes_up"], &line["bytes_down"]),
        (&(moved + 8).into(), &moved.into())
    );
    Ok(())
}
