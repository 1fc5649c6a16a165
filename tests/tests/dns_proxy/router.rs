//! In a router pod as the manifests make it: the router sets up the network,
//! then the proxy runs. The pod's default route is the egress interface.

use std::{net::SocketAddr, thread, time::Duration};

use egress_lab::{
    Answer, ClientError, Family, Host, Lab, Node, Process, Protocol, Route, RouterConfig, Server,
    TcpClient, address, eventually,
    harness::{TestResult, libtest_mimic::Failed},
    program,
};
use ipnet::IpNet;

use crate::scene::{ADMIN, LIST, PATIENCE, PROGRAM, connect, datagrams, logged};

const PORTS: [(Protocol, u16, Family); 4] = [
    (Protocol::Tcp, 8000, Family::Ipv4),
    (Protocol::Tcp, 8001, Family::Ipv6),
    (Protocol::Udp, 5353, Family::Ipv4),
    (Protocol::Udp, 5354, Family::Ipv6),
];

const LINES: &str = "8000 four.test 80\n8001 six.test 80\n\
                     5353/udp four.test 53\n5354/udp six.test 53";

struct RouterPod {
    lab: Lab,
    proxy: Process,
    server: Server,
}

impl RouterPod {
    fn start() -> Result<Self, Failed> {
        let lab = Lab::builder().build()?;
        let router = RouterConfig::new(&Family::ALL)
            .with("EGRESS_ROUTER_MODE", "dns-proxy")
            .without("EGRESS_DESTINATION");
        let _ = router.run(lab.router_pod())?.expect(0);
        let outside = lab.outside(0);
        let server = outside.serve(&[(Protocol::Tcp, 80), (Protocol::Udp, 53)])?;
        for (name, family) in [("four.test", Family::Ipv4), ("six.test", Family::Ipv6)] {
            let answer = Answer::Addresses(vec![outside.address(family)]);
            lab.resolver().answer(name, 300, answer);
        }
        let proxy = lab
            .router_pod()
            .command(program(PROGRAM)?)
            .env(LIST, LINES)
            .capabilities(&[])
            .spawn()?;
        let pod = Self { lab, proxy, server };
        let admin = pod.lab.router_pod().socket(Family::Ipv4, ADMIN);
        let client = pod.lab.client(Node::Two);
        eventually(PATIENCE, || match client.get(admin, "/readyz") {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(other),
        });
        Ok(pod)
    }
}

/// Asks by the address of the pod that is given.
fn ask(from: &Host, protocol: Protocol, to: SocketAddr) -> Result<egress_lab::Seen, ClientError> {
    match protocol {
        Protocol::Tcp => connect(from, to)?.ask("hello"),
        Protocol::Udp => datagrams(from, to)?.ask("hello"),
    }
}

pub(crate) fn the_outside_sees_the_egress_address() -> TestResult {
    let pod = RouterPod::start()?;
    let outside = pod.lab.outside(0);
    let witness = outside.watch_for(&Family::ALL.map(address::source))?;
    let mut asked = 0;
    // Datagrams are answered from the pod's address, or a client would not
    // hear them: they are connected, and the way back is not the default
    // route.
    for node in Node::ALL {
        for of_client in Family::ALL {
            for (protocol, port, of_server) in PORTS {
                let to = pod.lab.router_pod().socket(of_client, port);
                let seen = ask(pod.lab.client(node), protocol, to)
                    .map_err(|error| format!("{protocol} {to} from {node:?}: {error}"))?;
                assert_eq!(seen.client.ip(), address::source(of_server));
                assert_eq!(seen.server.ip(), outside.address(of_server));
                asked += 1;
            }
        }
    }
    assert_eq!(pod.server.seen().len(), asked);
    let packets = witness.arrivals()?;
    assert!(
        packets.expected > 0 && packets.strangers == 0,
        "{packets:?}"
    );
    Ok(())
}

pub(crate) fn the_lan_reaches_no_port() -> TestResult {
    let pod = RouterPod::start()?;
    let (lan, outside) = (pod.lab.lan_host(), pod.lab.outside(1));
    let mut ways = Vec::new();
    for family in Family::ALL {
        let source = address::source(family);
        let own = pod.lab.router_pod().address(family);
        // A neighbour may try to use the pod as a router to itself.
        lan.netns().add_route(&Route::to(own).via(source))?;
        let ports = PORTS.map(|(protocol, port, _)| (protocol, port));
        for (protocol, port) in ports.into_iter().chain([(Protocol::Tcp, ADMIN)]) {
            ways.push((lan, protocol, SocketAddr::new(source, port)));
            ways.push((outside, protocol, SocketAddr::new(source, port)));
            ways.push((lan, protocol, SocketAddr::new(own, port)));
        }
    }
    thread::scope(|scope| {
        let tries: Vec<_> = ways
            .iter()
            .map(|(from, protocol, to)| (to, scope.spawn(|| from.ask(*protocol, *to, "hello"))))
            .collect();
        for (to, answer) in tries {
            let answer = answer.join().unwrap();
            assert!(answer.is_err(), "{to} answers {answer:?}");
        }
    });
    assert_eq!(pod.server.seen(), []);
    // Clients of the cluster are served.
    let to = pod.lab.router_pod().socket(Family::Ipv4, 8000);
    ask(pod.lab.client(Node::Two), Protocol::Tcp, to)?;
    Ok(())
}

pub(crate) fn without_its_address_nothing_leaves() -> TestResult {
    let pod = RouterPod::start()?;
    let client = pod.lab.client(Node::Two);
    let router = pod.lab.router_pod();
    // It worked before.
    for (protocol, port, _) in PORTS {
        ask(client, protocol, router.socket(Family::Ipv4, port))?;
    }
    let before = pod.server.seen().len();
    for family in Family::ALL {
        let prefix = address::lan(family).prefix_len();
        let own = IpNet::new(address::source(family), prefix)?;
        router.netns().delete_address("macvlan0", own)?;
    }
    let witness = pod.lab.outside(0).watch_for(&[])?;
    thread::scope(|scope| {
        let tries: Vec<_> = PORTS
            .iter()
            .map(|(protocol, port, _)| {
                let to = router.socket(Family::Ipv4, *port);
                (protocol, scope.spawn(move || ask(client, *protocol, to)))
            })
            .collect();
        for (protocol, answer) in tries {
            let answer = answer.join().unwrap();
            let nothing = matches!(
                (protocol, &answer),
                (Protocol::Tcp, Err(ClientError::Closed))
                    | (Protocol::Udp, Err(ClientError::TimedOut))
            );
            assert!(nothing, "{protocol}: {answer:?}");
        }
    });
    assert_eq!(pod.server.seen().len(), before);
    let packets = witness.arrivals()?;
    assert_eq!((packets.expected, packets.strangers), (0, 0));
    // The log says why.
    pod.proxy.signal(nix::sys::signal::Signal::SIGTERM)?;
    let stderr = pod.proxy.wait()?.expect(0).stderr;
    let failed: Vec<_> = ["connection", "session"]
        .iter()
        .flat_map(|message| logged(&stderr, message))
        .filter(|line| line["end"] == "not_connected")
        .collect();
    assert_eq!(failed.len(), PORTS.len(), "{stderr}");
    for line in &failed {
        let error = line["error"].as_str().unwrap();
        let source = if line["host"] == "four.test" {
            address::source(Family::Ipv4)
        } else {
            address::source(Family::Ipv6)
        };
        assert!(error.contains(&source.to_string()), "{line}");
        assert!(error.contains("nothing was sent"), "{line}");
    }
    Ok(())
}

/// The pod's own way out while a datagram waits for its answer.
pub(crate) fn a_session_ends_with_the_address() -> TestResult {
    const MOMENT: Duration = Duration::from_millis(500);
    let pod = RouterPod::start()?;
    let client = pod.lab.client(Node::Two);
    let router = pod.lab.router_pod();
    let to = router.socket(Family::Ipv4, 5353);
    let kept = client
        .netns()
        .run(|| egress_lab::UdpClient::connect(to, MOMENT))?;
    kept.ask("before")?;
    let mut open = client
        .netns()
        .run(|| TcpClient::connect(router.socket(Family::Ipv4, 8000), MOMENT))?;
    open.ask("before")?;
    let prefix = address::lan(Family::Ipv4).prefix_len();
    let own = IpNet::new(address::source(Family::Ipv4), prefix)?;
    router.netns().delete_address("macvlan0", own)?;
    let witness = pod.lab.outside(0).watch_for(&[])?;
    assert!(kept.ask("after").is_err());
    assert!(open.ask("after").is_err());
    let packets = witness.arrivals()?;
    assert_eq!((packets.expected, packets.strangers), (0, 0));
    Ok(())
}
