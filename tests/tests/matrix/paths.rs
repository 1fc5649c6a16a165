//! Everything that must work in every cell.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use egress_lab::{
    ClientError, Family, Host, Node, Protocol, Seen, TcpClient, UdpClient,
    harness::{TestResult, libtest_mimic::Failed},
};

use crate::scene::{API_PORT, Link, NAME, OWN_PORT, REDIRECTS, Redirect, Scene};

/// A row of the table.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) check: fn(&mut Scene, Family) -> TestResult,
}

/// In this order: the last ones break the egress interface, and look back.
pub(crate) const PATHS: [Path; 16] = [
    Path {
        name: "client on the same node",
        check: |s, f| client(s, f, Node::One),
    },
    Path {
        name: "client on another node",
        check: |s, f| client(s, f, Node::Two),
    },
    Path {
        name: "Service, same node",
        check: |s, f| service(s, f, s.lab.client(Node::One)),
    },
    Path {
        name: "Service, another node",
        check: |s, f| service(s, f, s.lab.client(Node::Two)),
    },
    Path {
        name: "the node itself",
        check: |s, f| node(s, f, Node::One),
    },
    Path {
        name: "another node itself",
        check: |s, f| node(s, f, Node::Two),
    },
    Path {
        name: "Service, the node itself",
        check: |s, f| service(s, f, s.lab.node(Node::One)),
    },
    Path {
        name: "Service, another node itself",
        check: |s, f| service(s, f, s.lab.node(Node::Two)),
    },
    Path {
        name: "kubelet probe",
        check: |s, f| probe(s, f, Node::One),
    },
    Path {
        name: "probe from another node",
        check: |s, f| probe(s, f, Node::Two),
    },
    Path {
        name: "cluster DNS by UDP",
        check: |s, f| dns(s, f, Protocol::Udp),
    },
    Path {
        name: "cluster DNS by TCP",
        check: |s, f| dns(s, f, Protocol::Tcp),
    },
    Path {
        name: "API server",
        check: api_server,
    },
    Path {
        name: "process in the pod",
        check: local_process,
    },
    Path {
        name: "link down: nothing leaves",
        check: fail_closed,
    },
    Path {
        name: "outside saw the source only",
        check: only_the_source,
    },
];

/// How long to wait for an answer. Another question to a neighbour, or a
/// second SYN, is the business of a busy machine and no finding here.
pub(crate) const ANSWER: Duration = Duration::from_secs(4);

/// How long to wait for what must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(100);

fn client(scene: &Scene, family: Family, node: Node) -> TestResult {
    redirects(scene, scene.lab.client(node), scene.pod().address(family))
}

fn service(scene: &Scene, family: Family, from: &Host) -> TestResult {
    redirects(scene, from, scene.service.address(family))
}

/// From the address that the kernel takes, and from the node's address on the
/// LAN, which lies inside the network of the egress interface.
fn node(scene: &Scene, family: Family, node: Node) -> TestResult {
    let node = scene.lab.node(node);
    redirects(scene, node, scene.pod().address(family))?;
    let from = node.socket(family, 0);
    for redirect in &REDIRECTS {
        let to = scene.pod().socket(family, redirect.port);
        let asked = ask(
            node,
            Some(from),
            redirect.protocol,
            to,
            redirect.name,
            ANSWER,
        );
        judge(scene, family, redirect, asked)?;
    }
    Ok(())
}

fn redirects(scene: &Scene, from: &Host, to: IpAddr) -> TestResult {
    for redirect in &REDIRECTS {
        let to = SocketAddr::new(to, redirect.port);
        let asked = ask(from, None, redirect.protocol, to, redirect.name, ANSWER);
        judge(scene, Family::of(to.ip()), redirect, asked)?;
    }
    Ok(())
}

/// Asks a server, from a given address or from that which the kernel takes.
pub(crate) fn ask(
    host: &Host,
    from: Option<SocketAddr>,
    protocol: Protocol,
    to: SocketAddr,
    payload: &str,
    deadline: Duration,
) -> Result<Seen, ClientError> {
    host.netns().run(|| match (protocol, from) {
        (Protocol::Tcp, _) => TcpClient::connect_from(from, to, deadline)?.ask(payload),
        (Protocol::Udp, Some(from)) => UdpClient::connect_from(from, to, deadline)?.ask(payload),
        (Protocol::Udp, None) => UdpClient::connect(to, deadline)?.ask(payload),
    })
}

/// The right server answered, and saw `EGRESS_SOURCE`.
fn judge(
    scene: &Scene,
    family: Family,
    redirect: &Redirect,
    asked: Result<Seen, ClientError>,
) -> TestResult {
    let name = redirect.name;
    let seen = asked.map_err(|error| format!("{name}: {error}"))?;
    let server = scene
        .lab
        .outside(redirect.server)
        .socket(family, redirect.server_port);
    if (seen.server, seen.client.ip(), seen.payload.as_str())
        != (server, scene.source(family), name)
    {
        return Err(format!("{name}: {seen}, not {server} by {}", scene.source(family)).into());
    }
    Ok(())
}

/// A port of the pod answers although the default route has moved, also when
/// who asks has an address of the physical network.
fn probe(scene: &Scene, family: Family, node: Node) -> TestResult {
    let node = scene.lab.node(node);
    let to = scene.pod().socket(family, OWN_PORT);
    for from in [None, Some(node.socket(family, 0))] {
        let answer = match scene.link {
            Link::Created => ready(node, from, to),
            Link::Preset => listener(node, from, to),
        };
        answer.map_err(|error| match from {
            Some(from) => format!(
                "from {}: {}",
                from.ip(),
                error.message().unwrap_or_default()
            ),
            None => error.message().unwrap_or_default().to_owned(),
        })?;
    }
    Ok(())
}

/// `GET /readyz` of the router that stays.
fn ready(node: &Host, from: Option<SocketAddr>, to: SocketAddr) -> TestResult {
    let client = node
        .netns()
        .run(|| TcpClient::connect_from(from, to, ANSWER))?;
    let mut stream: &TcpStream = client.stream();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(answer.into())
    }
}

/// The listener of another container.
fn listener(node: &Host, from: Option<SocketAddr>, to: SocketAddr) -> TestResult {
    let mut client = node
        .netns()
        .run(|| TcpClient::connect_from(from, to, ANSWER))?;
    let seen = client.ask("probe")?;
    if seen.server == to {
        Ok(())
    } else {
        Err(seen.into())
    }
}

fn dns(scene: &Scene, family: Family, protocol: Protocol) -> TestResult {
    let server = scene.lab.resolver_address(scene.primary());
    let addresses = scene.pod().lookup(server, protocol, NAME, family)?;
    if addresses.len() == 1 {
        Ok(())
    } else {
        Err(format!("{addresses:?}").into())
    }
}

fn api_server(scene: &mut Scene, _: Family) -> TestResult {
    let family = scene.primary();
    let to = SocketAddr::new(scene.api.address(family), API_PORT);
    let seen = ask(scene.pod(), None, Protocol::Tcp, to, "watch", ANSWER)?;
    if seen.client.ip() == scene.pod().address(family) {
        Ok(())
    } else {
        Err(seen.into())
    }
}

/// What a process in the pod sends without binding leaves with
/// `EGRESS_SOURCE`.
fn local_process(scene: &mut Scene, family: Family) -> TestResult {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let to = scene.lab.outside(0).socket(family, 80);
        let seen = ask(scene.pod(), None, protocol, to, "local", ANSWER)
            .map_err(|error| format!("{protocol}: {error}"))?;
        if seen.client.ip() != scene.source(family) {
            return Err(seen.into());
        }
    }
    Ok(())
}

/// Without the egress interface nobody reaches the outside: not by the pod
/// network with the address of the node.
fn fail_closed(scene: &mut Scene, family: Family) -> TestResult {
    scene.stop_router()?;
    let answered = scene.answered();
    scene.pod().netns().set_down("macvlan0")?;
    let outside = scene.lab.outside(0).socket(family, 80);
    let pod = scene.pod().socket(family, 80);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let leak = ask(scene.pod(), None, protocol, outside, "leak", ANSWER);
        if !is_refused(&leak) {
            return Err(format!("process in the pod, {protocol}: {leak:?}").into());
        }
    }
    let clients = Node::ALL.map(|node| scene.lab.client(node));
    let leaks: Vec<Seen> = thread::scope(|scope| {
        let attempts: Vec<_> = clients
            .into_iter()
            .flat_map(|client| [(client, Protocol::Tcp), (client, Protocol::Udp)])
            .map(|(client, protocol)| {
                scope.spawn(move || ask(client, None, protocol, pod, "leak", SILENCE))
            })
            .collect();
        attempts
            .into_iter()
            .filter_map(|attempt| attempt.join().ok()?.ok())
            .collect()
    });
    if leaks.is_empty() && scene.answered() == answered {
        return Ok(());
    }
    Err(format!("the outside was reached: {leaks:?}").into())
}

/// Whether a process in the pod was told at once that it cannot send that: by
/// the routes, or by the packet rules (EPERM where there is no connection to
/// reset).
pub(crate) fn is_refused(answer: &Result<Seen, ClientError>) -> bool {
    match answer {
        Err(ClientError::Unreachable(_) | ClientError::Refused) => true,
        Err(ClientError::Io(error)) => error.kind() == ErrorKind::PermissionDenied,
        Ok(_) | Err(_) => false,
    }
}

/// Of all that arrived at the outside servers.
fn only_the_source(scene: &mut Scene, _: Family) -> TestResult {
    let (expected, strangers) = scene.arrivals()?;
    if (expected, strangers) == (expected.max(1), 0) {
        return Ok(());
    }
    let others: Vec<String> = scene
        .outside
        .iter()
        .flat_map(|server| server.seen())
        .filter(|seen| seen.client.ip() != scene.source(Family::of(seen.client.ip())))
        .map(|seen| seen.to_string())
        .collect();
    Err(Failed::from(format!(
        "{expected} packets with the source address, {strangers} with others: {}",
        others.join(", ")
    )))
}
