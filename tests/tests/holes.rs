//! What must not pass the router, each shown to pass without its packet rules:
//! pods that take it for a next hop, hosts of the physical network that route
//! into the cluster, and those that speak to the pod's own sockets. And what is
//! refused is refused at once; what an operator forbids stays forbidden.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise"
)]

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use egress_config::MapEnvironment;
use egress_lab::{
    ClientError, Cni, Command, Family, Host, Lab, Node, Process, Protocol, Route, RouterConfig,
    Seen, Server, TcpClient, UdpClient, address,
    harness::{self, TestResult, libtest_mimic::Failed},
    trials,
};
use egress_router_init::{
    config::Config,
    firewall::{
        rules::{ADMIN_CHAIN, FORWARD_CHAIN, FROM_LAN_CHAIN, Firewall, TABLE},
        table::{Rule, Statement, dsl},
    },
    netlink::nft::{NftError, NftSocket},
};
use ipnet::IpNet;

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// TCP and UDP port of the servers.
const PORT: u16 = 80;

/// How long to wait for an answer. Another question to a neighbour, or a
/// second SYN, is the business of a busy machine and no finding here.
const ANSWER: Duration = Duration::from_secs(4);

/// What is refused is so within this time: before a SYN is sent again, and far
/// below any time-out.
const AT_ONCE: Duration = Duration::from_millis(900);

/// How long to wait for what must not come.
const SILENCE: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    harness::run(
        &["egress-router-init"],
        trials![
            router_is_no_next_hop_for_pods,
            lan_hosts_do_not_get_into_the_cluster,
            lan_hosts_do_not_reach_sockets_of_the_pod,
            lan_hosts_do_not_reach_the_admin_endpoint,
            port_without_mapping_is_closed,
            connection_of_a_removed_mapping_ends_at_once_on_reload,
            connection_of_a_removed_mapping_ends_at_once_on_restart,
            operators_rules_hold_and_stay,
        ],
    )
}

// --- three holes ---

fn router_is_no_next_hop_for_pods() -> TestResult {
    let lab = Lab::builder().build()?;
    set_up(&lab)?;
    let client = lab.client(Node::One);
    let hosts = [lab.outside(1), lab.lan_host()];
    let servers = serve(&hosts)?;
    for family in Family::ALL {
        let router = lab.router_pod().address(family);
        let source = address::source(family);
        let pods = lab.cni().pods(family);
        for host in hosts {
            let route = Route::to(IpNet::from(host.address(family)))
                .via(router)
                .dev("eth0");
            client.netns().add_route(&route)?;
        }
        // Nobody translates, so the world needs a way back.
        for host in [lab.gateway(), lab.lan_host()] {
            host.netns().add_route(&Route::to(pods).via(source))?;
        }
    }
    let ways = || ways_to(&hosts);

    delete_rules(&lab)?;
    for (protocol, to) in ways() {
        let seen = eventually(|| ask(client, protocol, to))
            .map_err(|error| format!("{protocol} {to}: {error}"))?;
        assert_eq!(
            seen.client.ip(),
            client.address(Family::of(to.ip())),
            "{protocol} {to}"
        );
    }
    for family in Family::ALL {
        client
            .ping(lab.outside(1).address(family))
            .map_err(|error| format!("{family} ping: {error}"))?;
    }

    set_up(&lab)?;
    let seen = total(&servers);
    for (protocol, to) in ways() {
        refused_at_once(protocol, || ask(client, protocol, to));
    }
    for family in Family::ALL {
        assert!(client.ping(lab.outside(1).address(family)).is_err());
    }
    assert_eq!(total(&servers), seen, "{servers:?}");
    Ok(())
}

fn lan_hosts_do_not_get_into_the_cluster() -> TestResult {
    for cni in Cni::ALL {
        let mut lab = Lab::builder().cni(cni).build()?;
        set_up(&lab)?;
        let pods = Node::ALL.map(|node| lab.client(node).clone());
        let servers = serve(&pods.each_ref().map(|pod| &**pod))?;
        let service = lab.add_service(&pods[1], &PROTOCOLS.map(|protocol| (protocol, PORT)))?;
        let lan_host = lab.lan_host();
        let mut ways = ways_to(&pods.each_ref().map(|pod| &**pod));
        for family in Family::ALL {
            for network in [cni.pods(family), cni.services(family)] {
                let route = Route::to(network).via(address::source(family));
                lan_host.netns().add_route(&route)?;
            }
            let to = SocketAddr::new(service.address(family), PORT);
            ways.extend(PROTOCOLS.map(|protocol| (protocol, to)));
        }

        delete_rules(&lab)?;
        for (protocol, to) in &ways {
            ask(lan_host, *protocol, *to)
                .map_err(|error| format!("{cni}, {protocol} {to}: {error}"))?;
        }

        set_up(&lab)?;
        let seen = total(&servers);
        for (protocol, to) in &ways {
            stays_silent(lan_host, *protocol, *to);
        }
        assert_eq!(total(&servers), seen, "{cni}: {servers:?}");
        assert!(dropped(&lab, FORWARD_CHAIN)? > 0, "{cni}");
    }
    Ok(())
}

/// A proxy's port, and the admin port, of any container of the pod.
fn lan_hosts_do_not_reach_sockets_of_the_pod() -> TestResult {
    let lab = Lab::builder().build()?;
    let set_up = || -> TestResult {
        let proxy = RouterConfig::new(&Family::ALL)
            .command(lab.router_pod())?
            .env("EGRESS_ROUTER_MODE", "http-proxy");
        let _ = proxy.run()?.expect(0);
        Ok(())
    };
    set_up()?;
    let pod = lab.router_pod();
    let ports = [8080, 9090];
    let listening = ports.map(|port| PROTOCOLS.map(|protocol| (protocol, port)));
    // Of both families, as proxies bind.
    let everywhere = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let server = Server::start(pod.netns(), &[everywhere], listening.as_flattened())?;
    let mut ways = Vec::new();
    for family in Family::ALL {
        let (own, source) = (pod.address(family), address::source(family));
        for host in [lab.lan_host(), lab.gateway()] {
            let route = Route::to(IpNet::from(own)).via(source);
            host.netns().add_route(&route)?;
        }
        for address in [source, own] {
            for (protocol, port) in listening.as_flattened() {
                ways.push((*protocol, SocketAddr::new(address, *port)));
            }
        }
    }
    let strangers = [lab.lan_host(), lab.outside(0)];

    delete_rules(&lab)?;
    for host in strangers {
        for (protocol, to) in &ways {
            reaches(host, *protocol, *to, &server)
                .map_err(|error| format!("{}, {protocol} {to}: {error}", host.name()))?;
        }
    }

    set_up()?;
    let before = server.seen().len();
    for host in strangers {
        for (protocol, to) in &ways {
            stays_silent(host, *protocol, *to);
        }
    }
    assert_eq!(server.seen().len(), before);
    assert!(dropped(&lab, FROM_LAN_CHAIN)? > 0);
    // Pods and nodes go on using them.
    let neighbours = [
        lab.client(Node::One),
        lab.client(Node::Two),
        lab.node(Node::One),
        lab.node(Node::Two),
    ];
    for family in Family::ALL {
        for (protocol, port) in listening.as_flattened() {
            let to = pod.socket(family, *port);
            for host in neighbours {
                reaches(host, *protocol, to, &server)
                    .map_err(|error| format!("{}, {protocol} {to}: {error}", host.name()))?;
            }
        }
    }
    Ok(())
}

fn lan_hosts_do_not_reach_the_admin_endpoint() -> TestResult {
    let lab = Lab::builder().build()?;
    let _router = stay(
        RouterConfig::new(&Family::ALL)
            .command(lab.router_pod())?
            .env("EGRESS_DESTINATION", list(&lab)),
    )?;
    for family in Family::ALL {
        let own = lab.router_pod().socket(family, 9090);
        let source = SocketAddr::new(address::source(family), 9090);
        let route = Route::to(IpNet::from(own.ip())).via(source.ip());
        lab.lan_host().netns().add_route(&route)?;
        for to in [own, source] {
            stays_silent(lab.lan_host(), Protocol::Tcp, to);
        }
        // It is there, for who may use it.
        for host in [&**lab.client(Node::Two), lab.node(Node::One)] {
            host.netns().run(|| TcpClient::connect(own, ANSWER))?;
        }
    }
    Ok(())
}

// --- refused at once ---

fn port_without_mapping_is_closed() -> TestResult {
    for cni in Cni::ALL {
        let mut lab = Lab::builder().cni(cni).build()?;
        set_up(&lab)?;
        let pod = lab.router_pod().clone();
        let ports = PROTOCOLS.map(|protocol| (protocol, 4711));
        let service = lab.add_service(&pod, &ports)?;
        for family in Family::ALL {
            for (protocol, port) in ports {
                for address in [pod.address(family), service.address(family)] {
                    let to = SocketAddr::new(address, port);
                    let clients = Node::ALL.map(|node| &**lab.client(node));
                    for from in clients.into_iter().chain([lab.node(Node::One)]) {
                        let start = Instant::now();
                        let answer = ask(from, protocol, to);
                        assert!(
                            matches!(answer, Err(ClientError::Refused)),
                            "{cni}, {} by {protocol} to {to}: {answer:?}",
                            from.name()
                        );
                        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
                    }
                }
            }
        }
    }
    Ok(())
}

/// The file changes, as a ConfigMap does, under a router that stays.
fn connection_of_a_removed_mapping_ends_at_once_on_reload() -> TestResult {
    for rest in Rest::ALL {
        let lab = Lab::builder().build()?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("destination");
        fs::write(&file, rest.before(&lab))?;
        let router = with_file(&file).command(lab.router_pod())?;
        let router = stay(router)?;
        connections_end(&lab, rest, |after| {
            replace_file(&file, &after)?;
            router.await_stderr("the redirects were reloaded", Duration::from_secs(5))?;
            Ok(())
        })?;
    }
    Ok(())
}

/// The container starts again with another list, in the pod as it was.
fn connection_of_a_removed_mapping_ends_at_once_on_restart() -> TestResult {
    for rest in Rest::ALL {
        let lab = Lab::builder().build()?;
        let run = |destination: String| -> TestResult {
            let router = RouterConfig::new(&Family::ALL).command(lab.router_pod())?;
            let _ = router
                .env("EGRESS_DESTINATION", destination)
                .run()?
                .expect(0);
            Ok(())
        };
        run(rest.before(&lab))?;
        connections_end(&lab, rest, run)?;
    }
    Ok(())
}

/// A port whose mapping stays as it is.
const KEPT: u16 = 80;
/// One whose mapping is removed.
const REMOVED: u16 = 81;
/// One that leads to another server afterwards.
const MOVED: u16 = 82;
/// One without a mapping.
const OTHER: u16 = 90;

/// What becomes of ports without a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// They are closed.
    Closed,
    /// A fallback takes them, which changes too.
    Fallback,
}

impl Rest {
    const ALL: [Self; 2] = [Self::Closed, Self::Fallback];

    fn before(self, lab: &Lab) -> String {
        self.list(lab, &[(KEPT, 0), (REMOVED, 0), (MOVED, 0)], 0)
    }

    fn after(self, lab: &Lab) -> String {
        self.list(lab, &[(KEPT, 0), (MOVED, 1)], 1)
    }

    /// Ports and the outside server that each leads to.
    fn list(self, lab: &Lab, ports: &[(u16, usize)], fallback: usize) -> String {
        let mut lines = Vec::new();
        for family in Family::ALL {
            for (port, server) in ports {
                let to = lab.outside(*server).address(family);
                lines.extend(PROTOCOLS.map(|protocol| format!("{port} {protocol} {to}")));
            }
        }
        if self == Self::Fallback {
            lines.extend(
                Family::ALL.map(|family| lab.outside(fallback).address(family).to_string()),
            );
        }
        lines.join("\n")
    }

    /// Ports that lead somewhere before the change.
    fn open(self) -> &'static [u16] {
        match self {
            Self::Closed => &[KEPT, REMOVED, MOVED],
            Self::Fallback => &[KEPT, REMOVED, MOVED, OTHER],
        }
    }
}

/// Opens connections, changes the list, and looks which of them live.
fn connections_end(lab: &Lab, rest: Rest, change: impl FnOnce(String) -> TestResult) -> TestResult {
    let ports: Vec<_> = [KEPT, REMOVED, MOVED, OTHER]
        .iter()
        .flat_map(|port| PROTOCOLS.map(|protocol| (protocol, *port)))
        .collect();
    let servers = [lab.outside(0).serve(&ports)?, lab.outside(1).serve(&ports)?];
    let client = lab.client(Node::Two);
    let mut connections = Vec::new();
    for family in Family::ALL {
        for port in rest.open() {
            let to = lab.router_pod().socket(family, *port);
            let mut tcp = client.netns().run(|| TcpClient::connect(to, ANSWER))?;
            let udp = client.netns().run(|| UdpClient::connect(to, ANSWER))?;
            let server = lab.outside(0).socket(family, *port);
            assert_eq!(tcp.ask("one")?.server, server);
            assert_eq!(udp.ask("one")?.server, server);
            connections.push((family, *port, tcp, udp));
        }
    }

    change(rest.after(lab))?;

    let before = total(&servers);
    let mut answered = 0;
    for (family, port, tcp, udp) in &mut connections {
        let what = format!("{rest:?}, {family}, port {port}");
        let [old, new] = [0, 1].map(|server| lab.outside(server).socket(*family, *port));
        let start = Instant::now();
        let (asked_tcp, asked_udp) = (tcp.ask("two"), udp.ask("two"));
        let took = start.elapsed();
        if *port == KEPT {
            assert_eq!((asked_tcp?.server, asked_udp?.server), (old, old), "{what}");
            answered += 2;
            continue;
        }
        assert!(
            matches!(asked_tcp, Err(ClientError::Closed)),
            "{what}: {asked_tcp:?}"
        );
        assert!(took < AT_ONCE, "{what}: {took:?}");
        // A datagram of the old flow is the first of a new one, where the
        // port leads somewhere now.
        match (rest, *port, asked_udp) {
            (Rest::Closed, REMOVED, Err(ClientError::Refused)) => {}
            (Rest::Closed, MOVED, Ok(seen)) | (Rest::Fallback, _, Ok(seen))
                if seen.server == new =>
            {
                answered += 1;
            }
            (_, _, asked) => return Err(format!("{what}: {asked:?}").into()),
        }
    }
    assert_eq!(total(&servers), before + answered, "{rest:?}");
    Ok(())
}

// --- the operator's own rules ---

fn operators_rules_hold_and_stay() -> TestResult {
    let lab = Lab::builder().build()?;
    let set_up = || set_up(&lab);
    set_up()?;
    let servers = serve(&[lab.outside(0), lab.outside(1)])?;
    let forbid = |family| {
        Rule::new(vec![
            dsl::nfproto(family),
            dsl::daddr(lab.outside(1).address(family)),
            Statement::Counter,
            Statement::Drop,
        ])
    };
    add_operators_rules(&lab, Family::ALL.map(forbid).to_vec())?;
    let rules = || -> Result<Vec<String>, egress_lab::LabError> {
        let place = format!("rule {TABLE} {ADMIN_CHAIN} ");
        let snapshot = lab.router_pod().snapshot()?;
        Ok(snapshot
            .lines("nft")
            .filter(|line| line.contains(&place))
            .map(str::to_owned)
            .collect())
    };
    let ours = rules()?;
    assert_eq!(ours.len(), 2, "{ours:?}");

    let mut counted = 0;
    let mut holds = |when: &str| -> TestResult {
        for family in Family::ALL {
            let pod = lab.router_pod();
            for protocol in PROTOCOLS {
                // Port 80 leads to the first server, port 81 to the second.
                let client = lab.client(Node::One);
                let (good, bad) = (pod.socket(family, 80), pod.socket(family, 81));
                ask(client, protocol, good)?;
                stays_silent(client, protocol, bad);
                // So do processes of the pod.
                let (good, bad) = (
                    lab.outside(0).socket(family, PORT),
                    lab.outside(1).socket(family, PORT),
                );
                ask(pod, protocol, good)?;
                let asked = briefly(pod, protocol, bad);
                assert!(asked.is_err(), "{when}: {asked:?}");
            }
        }
        assert!(servers[1].seen().is_empty(), "{when}: {servers:?}");
        assert_eq!(rules()?, ours, "{when}");
        let count = dropped(&lab, ADMIN_CHAIN)?;
        assert!(count > counted, "{when}: {count} packets, {counted} before");
        counted = count;
        Ok(())
    };
    holds("when they were added")?;
    set_up()?;
    holds("after the same run again")?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("destination");
    fs::write(&file, list(&lab))?;
    let router = stay(with_file(&file).command(lab.router_pod())?)?;
    holds("under a router that stays")?;
    replace_file(&file, &format!("{}\n9000 tcp 203.0.113.27", list(&lab)))?;
    router.await_stderr("the redirects were reloaded", Duration::from_secs(5))?;
    holds("after a reload")
}

/// `nft add rule inet egress_router admin ...`: the table as it is, and these
/// rules in the operator's chain.
fn add_operators_rules(lab: &Lab, rules: Vec<Rule>) -> TestResult {
    let environment = MapEnvironment::new()
        .with("EGRESS_SOURCE", "192.168.12.99 2001:db8:12::99")
        .with("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1")
        .with("EGRESS_DESTINATION", &list(lab));
    let (config, _) = Config::from_environment(&environment).map_err(|error| error.to_string())?;
    let sources = Family::ALL.map(address::source);
    let mut table = Firewall {
        pod_interface: "eth0",
        egress_interface: "macvlan0",
        sources: &sources,
        redirects: config.redirects(),
        local_ports: &[],
        pod_networks: &[],
    }
    .table();
    let admin = table
        .chains
        .iter_mut()
        .find(|chain| chain.name == ADMIN_CHAIN);
    let admin = admin.expect("the table has the operator's chain");
    admin.operator_owned = false;
    admin.rules = rules;
    in_router(lab, |nft| nft.replace(&table).map(drop))
}

// --- helpers ---

/// Ports 80 and 81 lead to port 80 of the first two outside servers, by
/// both protocols.
fn list(lab: &Lab) -> String {
    let mut lines = Vec::new();
    for family in Family::ALL {
        for protocol in PROTOCOLS {
            for (port, server) in [(80, 0), (81, 1)] {
                let to = lab.outside(server).address(family);
                lines.push(format!("{port} {protocol} {to} {PORT}"));
            }
        }
    }
    lines.join("\n")
}

/// Runs the router, which ends.
fn set_up(lab: &Lab) -> TestResult {
    let router = RouterConfig::new(&Family::ALL)
        .command(lab.router_pod())?
        .env("EGRESS_DESTINATION", list(lab));
    let _ = router.run()?.expect(0);
    Ok(())
}

/// A router whose list is in a file.
fn with_file(file: &Path) -> RouterConfig {
    RouterConfig::new(&Family::ALL)
        .without("EGRESS_DESTINATION")
        .with("EGRESS_DESTINATION_FILE", file.to_string_lossy())
}

/// Starts the router, which stays.
fn stay(router: Command) -> Result<Process, egress_lab::LabError> {
    let router = router.env("EGRESS_ROUTER_MODE", "legacy").spawn()?;
    router.await_stderr("the network is set up", Duration::from_secs(10))?;
    Ok(router)
}

/// `mv`, so that a reader sees the old content or the new.
fn replace_file(file: &Path, content: &str) -> TestResult {
    let new = file.with_extension("new");
    fs::write(&new, content)?;
    fs::rename(new, file)?;
    Ok(())
}

fn in_router<T: Send>(
    lab: &Lab,
    action: impl FnOnce(&mut NftSocket) -> Result<T, NftError> + Send,
) -> Result<T, Failed> {
    let result = lab
        .router_pod()
        .netns()
        .run(|| NftSocket::open().and_then(|mut nft| action(&mut nft)));
    Ok(result?)
}

/// `nft delete table inet egress_router`: addresses, routes and forwarding
/// stay, and so does the traffic that they would carry.
fn delete_rules(lab: &Lab) -> TestResult {
    assert!(
        in_router(lab, |nft| nft.delete_table(TABLE))?,
        "there are rules to delete"
    );
    Ok(())
}

/// Packets counted by the rules of a chain.
fn dropped(lab: &Lab, chain: &str) -> Result<u64, Failed> {
    let counts = in_router(lab, |nft| nft.rule_counts(TABLE, chain))?;
    Ok(counts.iter().map(|count| count.packets).sum())
}

fn serve(hosts: &[&Host]) -> Result<Vec<Server>, egress_lab::LabError> {
    let ports = PROTOCOLS.map(|protocol| (protocol, PORT));
    hosts.iter().map(|host| host.serve(&ports)).collect()
}

/// The servers' ports at all of their addresses.
fn ways_to(hosts: &[&Host]) -> Vec<(Protocol, SocketAddr)> {
    let sockets = hosts
        .iter()
        .flat_map(|host| Family::ALL.map(|family| host.socket(family, PORT)));
    sockets
        .flat_map(|to| PROTOCOLS.map(|protocol| (protocol, to)))
        .collect()
}

/// How many requests were answered.
fn total(servers: &[Server]) -> usize {
    servers.iter().map(|server| server.seen().len()).sum()
}

/// Tries again for some seconds. A packet that nobody translates has no
/// address of the egress interface, so that its IPv6 neighbours are asked only
/// when that has a link-local address: a second after it was made (RFC 4862
/// section 5.4).
fn eventually<T>(mut attempt: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(_) if start.elapsed() < Duration::from_secs(5) => {}
            result => return result,
        }
    }
}

/// A reset, or an ICMP error, instead of a time-out.
#[track_caller]
fn refused_at_once(protocol: Protocol, ask: impl FnOnce() -> Result<Seen, ClientError>) {
    let start = Instant::now();
    let answer = ask();
    match (protocol, &answer) {
        (Protocol::Tcp, Err(ClientError::Refused))
        | (Protocol::Udp, Err(ClientError::Refused | ClientError::Unreachable(_))) => {}
        _ => panic!("{protocol}: {answer:?}"),
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

/// A connection opens, or a datagram arrives. The answer need not come back:
/// from the pod's own address it goes by the node, which translates what it
/// sees for the first time, and a datagram of a socket that is not bound to an
/// address leaves with that of its route.
fn reaches(
    from: &Host,
    protocol: Protocol,
    to: SocketAddr,
    server: &Server,
) -> Result<(), ClientError> {
    let before = server.seen().len();
    eventually(|| match protocol {
        Protocol::Tcp => from
            .netns()
            .run(|| TcpClient::connect(to, ANSWER))
            .map(drop),
        Protocol::Udp => match briefly(from, protocol, to) {
            Err(_) if server.seen().len() > before => Ok(()),
            answer => answer.map(drop),
        },
    })
}

/// Neither an answer nor a refusal.
#[track_caller]
fn stays_silent(from: &Host, protocol: Protocol, to: SocketAddr) {
    let answer = briefly(from, protocol, to);
    assert!(
        matches!(answer, Err(ClientError::TimedOut)),
        "{} by {protocol} to {to}: {answer:?}",
        from.name()
    );
}

fn briefly(from: &Host, protocol: Protocol, to: SocketAddr) -> Result<Seen, ClientError> {
    ask_within(SILENCE, from, protocol, to)
}

fn ask(from: &Host, protocol: Protocol, to: SocketAddr) -> Result<Seen, ClientError> {
    ask_within(ANSWER, from, protocol, to)
}

fn ask_within(
    deadline: Duration,
    from: &Host,
    protocol: Protocol,
    to: SocketAddr,
) -> Result<Seen, ClientError> {
    from.netns().run(|| match protocol {
        Protocol::Tcp => TcpClient::connect(to, deadline)?.ask("knock"),
        Protocol::Udp => UdpClient::connect(to, deadline)?.ask("knock"),
    })
}
