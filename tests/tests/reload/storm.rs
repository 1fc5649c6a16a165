//! Replacements by the hundred, under load.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use egress_lab::{
    ClientError, Family, Host, Lab, Node, Protocol, Server, TcpClient, UdpClient, eventually,
    harness::TestResult,
};
use egress_router_init::{
    config::FirewallDriver,
    firewall::{Count, Counters},
    router::Router,
};

use crate::list::{List, legacy};
use crate::load::{Load, Target};
use crate::volume::Volume;

/// What ends at once ends within this time, far below any time-out.
const AT_ONCE: Duration = Duration::from_millis(500);

const PATIENCE: Duration = Duration::from_secs(5);

/// Mappings that come and go: one more with every replacement, and when there
/// are so many more, as many go.
const PASSING: u16 = 40;
const STEP: u16 = 20;

/// Ports of the mappings that are removed half-way.
const ENDING: u16 = 7000;

/// Port of the mapping that changes its target.
const CHANGING: u16 = 7500;

/// Survivors, and what comes and goes in a round.
fn list(round: u16, with_ending: bool) -> List {
    let mut list = List::default()
        .with(80, Protocol::Tcp, 0, 80)
        .with(8080, Protocol::Tcp, 1, 80)
        .with(53, Protocol::Udp, 0, 53)
        .with(CHANGING, Protocol::Udp, changing_server(round), 53);
    if with_ending {
        list = list
            .with(ENDING, Protocol::Tcp, 2, 80)
            .with(ENDING, Protocol::Udp, 2, 53);
    }
    for passing in round / STEP * STEP..round + PASSING {
        list = list.with(10_000 + passing, Protocol::Tcp, 2, 80);
    }
    list
}

/// The server behind [`CHANGING`] in a round.
fn changing_server(round: u16) -> u8 {
    if (round / 50).is_multiple_of(2) { 0 } else { 1 }
}

fn serve(lab: &Lab) -> Vec<Server> {
    let ports = [(Protocol::Tcp, 80), (Protocol::Udp, 53)];
    (0..3)
        .map(|index| lab.outside(index).serve(&ports).unwrap())
        .collect()
}

fn target(lab: &Lab, family: Family, port: u16, server: usize, server_port: u16) -> Target {
    Target {
        through: lab.router_pod().socket(family, port),
        server: lab.outside(server).socket(family, server_port),
    }
}

/// Every kind of client of the mappings that survive.
fn survivors(lab: &Lab) -> Load {
    let targets: Vec<Target> = Family::ALL
        .into_iter()
        .flat_map(|family| {
            [
                target(lab, family, 80, 0, 80),
                target(lab, family, 8080, 1, 80),
            ]
        })
        .collect();
    let client = lab.client(Node::Two);
    // A client's port is used again only after a minute.
    client
        .netns()
        .sysctl(&[("net/ipv4/ip_local_port_range", "1024 65535")])
        .unwrap();
    // Closed connections would fill the tables, and looking for those whose
    // mapping is gone would cost more with every round.
    let closed = [("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")];
    for tracker in [lab.router_pod(), lab.node(Node::One), lab.node(Node::Two)] {
        tracker.netns().sysctl(&closed).unwrap();
    }
    let mut load = Load::from(client).connections(&targets);
    for family in Family::ALL {
        load = load
            .conversation(target(lab, family, 8080, 1, 80))
            .datagrams(target(lab, family, 53, 0, 53));
    }
    load
}

/// Clients of the mappings that are removed.
struct Ending {
    connections: Vec<TcpClient>,
    flows: Vec<UdpClient>,
}

impl Ending {
    fn of(lab: &Lab) -> Self {
        let client = lab.client(Node::Two).netns();
        let to = |family| lab.router_pod().socket(family, ENDING);
        let mut ending = Self {
            connections: Family::ALL
                .map(|family| {
                    client
                        .run(|| TcpClient::connect(to(family), PATIENCE))
                        .unwrap()
                })
                .into(),
            flows: Family::ALL
                .map(|family| {
                    client
                        .run(|| UdpClient::connect(to(family), PATIENCE))
                        .unwrap()
                })
                .into(),
        };
        ending.go_on();
        ending
    }

    fn go_on(&mut self) {
        for connection in &mut self.connections {
            connection.ask("still there").unwrap();
        }
        for flow in &self.flows {
            flow.ask("still there").unwrap();
        }
    }

    fn have_ended(&mut self) {
        for connection in &mut self.connections {
            let start = Instant::now();
            let answer = connection.ask("still there");
            assert!(matches!(answer, Err(ClientError::Closed)), "{answer:?}");
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        }
        for flow in &self.flows {
            let start = Instant::now();
            let answer = flow.ask("still there");
            assert!(matches!(answer, Err(ClientError::Refused)), "{answer:?}");
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        }
    }
}

/// Flows that keep their source port and follow [`CHANGING`].
fn followers(lab: &Lab) -> Vec<(Family, UdpClient)> {
    let client = lab.client(Node::One).netns();
    let open = |family| {
        let to = lab.router_pod().socket(family, CHANGING);
        (
            family,
            client.run(|| UdpClient::connect(to, PATIENCE)).unwrap(),
        )
    };
    Family::ALL.map(open).into()
}

fn follow(lab: &Lab, followers: &[(Family, UdpClient)], round: u16) {
    for (family, flow) in followers {
        let seen = flow.ask("where?").unwrap();
        let server = lab
            .outside(changing_server(round).into())
            .socket(*family, 53);
        assert_eq!(seen.server, server, "round {round}");
    }
}

fn count_of(counters: &Counters, port: u16, to: SocketAddr) -> Count {
    let is_it = |flow: &egress_router_init::firewall::Flow| {
        (flow.port.get(), flow.target, flow.target_port.get()) == (port, to.ip(), to.port())
    };
    let found = counters.mappings.iter().find(|(flow, _)| is_it(flow));
    found
        .unwrap_or_else(|| panic!("no counter of {port} to {to}: {counters:?}"))
        .1
}

pub(crate) fn a_thousand_replacements_disturb_nobody() -> TestResult {
    const ROUNDS: u16 = 1000;
    let lab = Lab::builder().build()?;
    let _servers = serve(&lab);
    let first = list(0, true).config();
    let took = lab.router_pod().netns().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut router = Router::open(FirewallDriver::Nftables).unwrap();
            let outcome = router.converge(&first).await.unwrap();
            let mut load = survivors(&lab);
            let mut ending = Ending::of(&lab);
            let followers = followers(&lab);
            let watched: Vec<_> = Family::ALL
                .map(|f| (53, lab.outside(0).socket(f, 53)))
                .into();
            let mut counted = vec![Count::default(); watched.len()];
            let mut took = Duration::ZERO;
            for round in 1..=ROUNDS {
                let config = list(round, round < ROUNDS / 2).config();
                let start = Instant::now();
                let replaced = router
                    .reload(&config, &outcome.pod_interface, &outcome.egress.name)
                    .unwrap();
                took += start.elapsed();
                // One of each family.
                assert!(replaced.added >= 2, "{replaced:?}");
                assert!(!round.is_multiple_of(STEP) || replaced.removed >= 2 * usize::from(STEP));
                load.check(round);
                if round.is_multiple_of(50) {
                    follow(&lab, &followers, round);
                    let counters = router.counters().unwrap();
                    for ((port, to), before) in watched.iter().zip(&mut counted) {
                        let now = count_of(&counters, *port, *to);
                        assert!(now.packets > before.packets && now.bytes > before.bytes);
                        *before = now;
                    }
                }
                if round + 1 == ROUNDS / 2 {
                    ending.go_on();
                }
                if round == ROUNDS / 2 {
                    ending.have_ended();
                }
            }
            let served = load.stop();
            let counters = router.counters().unwrap();
            report(&served, ROUNDS, took);
            // Not one packet was missed, or counted twice: both directions.
            for (port, to) in watched {
                let name = format!("datagrams to {to} ");
                let datagrams = served
                    .iter()
                    .find(|(client, _)| client.starts_with(&name))
                    .unwrap()
                    .1;
                assert_eq!(count_of(&counters, port, to).packets, 2 * datagrams, "{to}");
            }
            took
        })
    });
    assert!(took < Duration::from_secs(60), "{took:?}");
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "numbers that somebody may want to read"
)]
fn report(served: &[(String, u64)], rounds: u16, took: Duration) {
    println!("{rounds} replacements in {took:?} of their own; undisturbed:");
    for (client, count) in served {
        println!("  {count:>7} {client}");
        assert!(*count > 100, "{client} was served {count} times");
    }
}

pub(crate) fn swapped_files_disturb_nobody() -> TestResult {
    const ROUNDS: u16 = 40;
    let lab = Lab::builder().build()?;
    let _servers = serve(&lab);
    let mut volume = Volume::new(list(0, true).as_str());
    let config = legacy().with("EGRESS_DESTINATION_FILE", volume.file().to_string_lossy());
    let router = config.command(lab.router_pod())?.spawn()?;
    router.await_stderr("the network is set up", PATIENCE)?;
    let mut load = survivors(&lab);
    let mut ending = Ending::of(&lab);
    let followers = followers(&lab);
    let start = Instant::now();
    for round in 1..=ROUNDS {
        // Fifty rounds apart, so that the changing mapping changes each time.
        volume.update(list(round * 50, round < ROUNDS / 2).as_str());
        await_reloads(&lab, round);
        load.check(round);
        follow(&lab, &followers, round * 50);
        if round + 1 == ROUNDS / 2 {
            ending.go_on();
        }
        if round == ROUNDS / 2 {
            ending.have_ended();
        }
    }
    report(&load.stop(), ROUNDS, start.elapsed());
    Ok(())
}

fn await_reloads(lab: &Lab, count: u16) {
    let client: &Host = lab.client(Node::One);
    let admin = lab.router_pod().socket(Family::Ipv4, 9090);
    eventually(PATIENCE, || match client.get(admin, "/metrics") {
        Ok(page) if page.sample("egress_config_reloads_total") == Some(count.into()) => Ok(()),
        other => Err(other),
    });
}
