//! The ports that the proxy takes.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use egress_lab::{Capability, ClientError, Family, harness::TestResult};

use crate::scene::{Scene, answer, logged, network, proxy, serve};

/// Exit codes of section 1 of the contract.
const FAILED: i32 = 1;
const BAD_CONFIGURATION: i32 = 64;
const NO_PERMISSION: i32 = 77;

const UNPRIVILEGED: &str = "net/ipv4/ip_unprivileged_port_start";

const LOW: &str = "53 198.51.100.1\n53/udp 198.51.100.1\n8000 198.51.100.1 53";

pub(crate) fn low_ports_need_a_sysctl_or_a_capability() -> TestResult {
    let lab = network()?;
    lab.pod().netns().sysctl(&[(UNPRIVILEGED, "1024")])?;
    let refused = proxy(&lab, LOW)?.run()?.expect(NO_PERMISSION);
    // Both ports, each with what helps.
    let told: Vec<&str> = refused
        .stderr
        .lines()
        .filter(|line| line.contains("port 53") || line.contains("]:53"))
        .collect();
    assert_eq!(told.len(), 2, "{}", refused.stderr);
    for line in told {
        for remedy in [
            "net.ipv4.ip_unprivileged_port_start",
            "53 or less",
            "NET_BIND_SERVICE",
        ] {
            assert!(line.contains(remedy), "{remedy} in {line}");
        }
    }
    assert!(
        !refused.stderr.contains("\"serving\""),
        "{}",
        refused.stderr
    );

    // Either helps.
    let _server = serve(&lab, &["198.51.100.1"], 53)?;
    let capability = [Capability::NET_BIND_SERVICE];
    let scene = Scene::start_with(lab, LOW, |command| command.capabilities(&capability))?;
    scene.ask(53)?;
    scene.udp(53)?.ask("hello")?;
    let Scene { lab, proxy } = scene;
    drop(proxy);
    lab.pod().netns().sysctl(&[(UNPRIVILEGED, "0")])?;
    let scene = Scene::start(lab, LOW)?;
    scene.ask(53)?;
    scene.udp(53)?.ask("hello")?;
    scene.ask(8000)?;
    let _ = scene.stop()?;
    Ok(())
}

pub(crate) fn a_taken_port_fails_before_any_is_served() -> TestResult {
    let lab = network()?;
    let pod = lab.pod().netns();
    let ipv4 = SocketAddr::from(([0, 0, 0, 0], 8001));
    let tcp = pod.run(|| TcpListener::bind(ipv4))?;
    let udp = pod.run(|| UdpSocket::bind("[::]:8003"))?;
    let admin = pod.run(|| TcpListener::bind("[::]:9090"))?;
    let lines = "8000 198.51.100.1\n8001 198.51.100.1\n8002/udp 198.51.100.1\n\
                 8003/udp 198.51.100.1\n8004 198.51.100.1";
    // Nobody is ever let in meanwhile.
    let ended = AtomicBool::new(false);
    let first = lab.pod().socket(Family::Ipv4, 8000);
    let (refused, let_in) = thread::scope(|scope| {
        let trying = scope.spawn(|| {
            lab.client().netns().run(|| {
                let mut let_in = 0;
                while !ended.load(Ordering::Relaxed) {
                    let tried = TcpStream::connect_timeout(&first, Duration::from_secs(1));
                    let_in += usize::from(tried.is_ok());
                }
                let_in
            })
        });
        let refused = proxy(&lab, lines).and_then(|command| Ok(command.run()?));
        ended.store(true, Ordering::Relaxed);
        (refused, trying.join().unwrap())
    });
    let refused = refused?.expect(FAILED);
    assert_eq!(let_in, 0);
    for (port, is_named) in [
        ("8000", false),
        ("8001", true),
        ("8002", false),
        ("8003", true),
    ] {
        let named = refused
            .stderr
            .lines()
            .any(|line| line.contains(port) && line.contains("another program"));
        assert_eq!(named, is_named, "{port} in {}", refused.stderr);
    }
    drop((tcp, udp));
    // The admin endpoint's port is one like any other.
    let refused = proxy(&lab, lines)?.run()?.expect(FAILED);
    assert!(
        refused.last_error_line().contains("9090"),
        "{}",
        refused.stderr
    );
    drop(admin);
    let scene = Scene::start(lab, lines)?;
    let _ = scene.stop()?;
    Ok(())
}

pub(crate) fn a_port_used_twice_is_a_bad_configuration() -> TestResult {
    let lab = network()?;
    let lines = "8000 a.test\n8000/udp a.test\n8000 b.test";
    let refused = proxy(&lab, lines)?.run()?.expect(BAD_CONFIGURATION);
    assert_eq!(
        refused.last_error_line(),
        "Proxy port 8000 already used, must be unique for each destination"
    );
    assert!(refused.stderr.contains("line 3"), "{}", refused.stderr);
    Ok(())
}

/// Clients come by the pod's address, never by the one that looks outside.
pub(crate) fn the_egress_address_answers_nobody() -> TestResult {
    let lab = network()?;
    answer(&lab, "a.test", 60, &["198.51.100.1"]);
    let _server = serve(&lab, &["198.51.100.1"], 80)?;
    let scene = Scene::start(lab, "8000 a.test 80\n8000/udp a.test 80")?;
    for family in Family::ALL {
        let source = egress_lab::address::source(family);
        for port in [8000, 9090] {
            let answer = scene
                .lab
                .outside()
                .tcp(SocketAddr::new(source, port), "hello");
            assert!(
                matches!(answer, Err(ClientError::Closed | ClientError::Refused)),
                "{source} port {port}: {answer:?}"
            );
        }
        let answer = scene
            .lab
            .outside()
            .udp(SocketAddr::new(source, 8000), "hello");
        assert!(
            matches!(answer, Err(ClientError::TimedOut)),
            "{source}: {answer:?}"
        );
    }
    // By the pod's it works.
    scene.ask(8000)?;
    scene.udp(8000)?.ask("hello")?;
    let stderr = scene.stop()?.stderr;
    assert_eq!(logged(&stderr, "connection").len(), 1, "{stderr}");
    assert_eq!(logged(&stderr, "session").len(), 1, "{stderr}");
    Ok(())
}
