//! Datagrams.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use egress_lab::{
    ClientError, Family, UdpClient, address, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use nix::sys::signal::Signal;

use crate::scene::{PATIENCE, Scene, answer, datagrams, logged, network, serve};

const FAILURES: &str = "egress_dns_proxy_connection_failures_total\
                        {port=\"5353\",protocol=\"udp\",host=\"a.test\",reason=";

fn start(lines: &str, variables: &[(&str, &str)]) -> Result<Scene, Failed> {
    let lab = network()?;
    answer(&lab, "a.test", 60, &["198.51.100.1"]);
    answer(&lab, "two.test", 60, &["198.51.100.1", "203.0.113.2"]);
    answer(&lab, "half.test", 60, &["198.51.100.1", "198.51.100.9"]);
    answer(&lab, "six.test", 60, &["2001:db8:25::25"]);
    Scene::start_with(lab, lines, |command| {
        command.envs(variables.iter().copied())
    })
}

/// A socket on the outside for a test that answers by itself.
fn backend(scene: &Scene, address: &str) -> Result<UdpSocket, Failed> {
    let netns = scene.lab.outside().netns();
    let socket = netns.run(|| UdpSocket::bind(address))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

pub(crate) fn every_client_has_a_session() -> TestResult {
    let scene = start(
        "5353/udp a.test 53\n5354/udp two.test 53\n5355/udp six.test 53",
        &[],
    )?;
    let all = ["198.51.100.1", "203.0.113.2", "2001:db8:25::25"];
    let server = scene.serve(&all, 53)?;
    let mut seen_from = BTreeSet::new();
    let clients: Vec<UdpClient> = (0..4).map(|_| scene.udp(5353)).collect::<Result<_, _>>()?;
    for client in &clients {
        let first = client.ask("first")?;
        assert_eq!(first.client.ip(), address::source(Family::Ipv4));
        // The same client is the same to the server, too.
        for payload in ["second", "third"] {
            let next = client.ask(payload)?;
            assert_eq!((next.client, next.server), (first.client, first.server));
            assert_eq!(next.payload, payload);
        }
        seen_from.insert(first.client);
    }
    assert_eq!(seen_from.len(), clients.len());
    // Sessions take turns among the addresses of a name.
    let turns: BTreeSet<_> = (0..4)
        .map(|_| Ok(scene.udp(5354)?.ask("turn")?.server.ip()))
        .collect::<Result<_, ClientError>>()?;
    assert_eq!(turns.len(), 2);
    let seen = scene.udp(5355)?.ask("six")?;
    assert_eq!(seen.client.ip(), address::source(Family::Ipv6));
    assert_eq!(server.seen().len(), 4 * 3 + 4 + 1);
    let open = "egress_dns_proxy_open_connections{port=\"5353\",protocol=\"udp\",host=\"a.test\"}";
    assert_eq!(scene.page("/metrics").sample(open), Some(4.0));
    Ok(())
}

pub(crate) fn datagrams_of_every_size() -> TestResult {
    let scene = start("5353/udp a.test 53", &[])?;
    let server = backend(&scene, "198.51.100.1:53")?;
    let client = scene
        .lab
        .client()
        .netns()
        .run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.connect(scene.address(5353))?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 65_536];
    // The last is the most that IPv4 carries (RFC 768).
    for size in [0, 1, 1_200, 1_473, 9_000, 65_507] {
        let payload: Vec<u8> = (0..=250).cycle().take(size).collect();
        client.send(&payload)?;
        let (length, session) = server.recv_from(&mut buffer)?;
        assert!(buffer[..length] == payload, "{size} up");
        // Any number of answers, of any size.
        for part in [&payload[..], b"and more"] {
            server.send_to(part, session)?;
            let length = client.recv(&mut buffer)?;
            assert!(buffer[..length] == *part, "{size} down");
        }
    }
    let stderr = scene.stop()?.stderr;
    let line = &logged(&stderr, "session")[0];
    let up = 1 + 1_200 + 1_473 + 9_000 + 65_507;
    assert_eq!(
        (&line["bytes_up"], &line["bytes_down"]),
        (&up.into(), &(up + 6 * 8).into())
    );
    Ok(())
}

pub(crate) fn answers_come_from_the_address_that_was_asked() -> TestResult {
    let lab = network()?;
    answer(&lab, "a.test", 60, &["198.51.100.1"]);
    let pod = lab.pod().netns();
    pod.add_address("eth0", "10.128.0.77/24".parse()?)?;
    pod.add_address("eth0", "fd00:128::77/64".parse()?)?;
    let _server = serve(&lab, &["198.51.100.1"], 53)?;
    let scene = Scene::start(lab, "5353/udp a.test 53")?;
    for asked in ["10.128.0.10", "10.128.0.77", "fd00:128::10", "fd00:128::77"] {
        let asked = SocketAddr::new(asked.parse()?, 5353);
        // Connected, it hears nobody else.
        let client = eventually(PATIENCE, || datagrams(scene.lab.client(), asked));
        client
            .ask("hello")
            .map_err(|error| format!("{asked}: {error}"))?;
    }
    Ok(())
}

pub(crate) fn sessions_end_when_they_are_quiet() -> TestResult {
    let scene = start(
        "5353/udp a.test 53",
        &[("EGRESS_DNS_PROXY_UDP_IDLE_TIME", "500ms")],
    )?;
    let _server = scene.serve(&["198.51.100.1"], 53)?;
    let (quiet, busy) = (scene.udp(5353)?, scene.udp(5353)?);
    let before = (quiet.ask("first")?.client, busy.ask("first")?.client);
    let open = "egress_dns_proxy_open_connections{port=\"5353\",protocol=\"udp\",host=\"a.test\"}";
    eventually(PATIENCE, || {
        assert_eq!(
            busy.ask("more").map_err(|error| error.to_string())?.client,
            before.1
        );
        match scene.page("/metrics").sample(open) {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_ne!(quiet.ask("second")?.client, before.0);
    let stderr = scene.stop()?.stderr;
    let lines = logged(&stderr, "session");
    assert_eq!(lines.len(), 3, "{stderr}");
    assert_eq!(lines[0]["end"], "idle", "{stderr}");
    assert!(
        lines[0]["duration_ms"].as_f64().unwrap() >= 490.0,
        "{stderr}"
    );
    Ok(())
}

pub(crate) fn sessions_are_limited() -> TestResult {
    let scene = start(
        "5353/udp a.test 53\n5354/udp two.test 53\n8000 a.test 53",
        &[
            ("EGRESS_DNS_PROXY_UDP_SESSIONS", "2"),
            ("EGRESS_DNS_PROXY_UDP_IDLE_TIME", "3s"),
        ],
    )?;
    let _server = scene.serve(&["198.51.100.1", "203.0.113.2"], 53)?;
    let (first, second) = (scene.udp(5353)?, scene.udp(5354)?);
    let known = first.ask("first")?.client;
    second.ask("second")?;
    // The limit is that of the program, not of a port.
    let third = UdpClientWithin::open(&scene)?;
    third.send()?;
    scene.await_metric(&format!("{FAILURES}\"limit\"}}"), 1.0);
    assert_eq!(first.ask("again")?.client, known);
    // Connections are another matter.
    scene.ask(8000)?;
    // There is room when one has ended.
    eventually(PATIENCE, || {
        third.send().map_err(|error| error.to_string())?;
        third.receive().map_err(|error| error.to_string())
    });
    Ok(())
}

/// A client that asks often and waits little.
struct UdpClientWithin(UdpSocket);

impl UdpClientWithin {
    fn open(scene: &Scene) -> Result<Self, Failed> {
        let socket = scene
            .lab
            .client()
            .netns()
            .run(|| UdpSocket::bind("0.0.0.0:0"))?;
        socket.connect(scene.address(5353))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self(socket))
    }

    fn send(&self) -> std::io::Result<()> {
        self.0.send(b"third").map(drop)
    }

    fn receive(&self) -> std::io::Result<()> {
        self.0.recv(&mut [0; 512]).map(drop)
    }
}

pub(crate) fn a_refused_session_goes_elsewhere() -> TestResult {
    let scene = start("5353/udp half.test 53", &[])?;
    let _server = scene.serve(&["198.51.100.1"], 53)?;
    for _ in 0..6 {
        let client = scene.udp(5353)?;
        // What the backend refused is lost, as it would be without us; the
        // next datagram goes where somebody listens.
        let answer = eventually(PATIENCE, || client.ask("hello"));
        assert_eq!(answer.server, "198.51.100.1:53".parse()?);
    }
    let healthy = "egress_dns_proxy_backend_addresses\
                   {port=\"5353\",protocol=\"udp\",host=\"half.test\",state=\"healthy\"}";
    scene.await_metric(healthy, 1.0);
    Ok(())
}

/// What was asked before the end is answered before it.
pub(crate) fn a_drain_waits_for_answers() -> TestResult {
    let scene = start("5353/udp a.test 53", &[])?;
    let server = backend(&scene, "198.51.100.1:53")?;
    let client = scene.udp(5353)?;
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| client.ask("hello"));
        let mut buffer = [0; 512];
        let (_, session) = server.recv_from(&mut buffer)?;
        scene.proxy.signal(Signal::SIGTERM)?;
        scene.proxy.await_stderr("\"draining\"", PATIENCE)?;
        let own = server.local_addr()?;
        server.send_to(
            format!("{own} saw {session} payload=hello").as_bytes(),
            session,
        )?;
        Ok::<_, Failed>(asking.join().unwrap()?)
    })?;
    assert_eq!(answer.payload, "hello");
    // Quiet for a second, it is over.
    let output = scene.proxy.wait()?.expect(0);
    assert_eq!(logged(&output.stderr, "session")[0]["end"], "idle");
    assert!(!output.stderr.contains("cut off"), "{}", output.stderr);
    Ok(())
}
