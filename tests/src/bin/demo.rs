//! The redirect router at work, step by step: `make demo`.
//!
//! Builds the lab, runs the real binary with the documented multi-destination
//! example, and shows what a client did and what each outside server saw.
//! `--keep` leaves the lab up and says how to enter each namespace.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program is read on a terminal"
)]

use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use egress_lab::{
    ClientError, Cni, Command, Family, Host, Lab, LabError, NetNs, Node, Protocol, Seen, TcpClient,
    address, enter_sandbox, program,
};
use nix::sys::signal::{SigSet, Signal};

/// The example of the OpenShift documentation.
const DESTINATION: &str = "\
80   tcp 203.0.113.25
8080 tcp 203.0.113.26 80
8443 tcp 203.0.113.26 443
203.0.113.27";

const PICTURE: &str =
    "  client pods                router pod               physical network 192.168.12.0/24
  node1, node2   ── eth0 ──  egress-router  ── macvlan0 ── gateway .1 ── outside servers
  10.244.0.0/16              10.244.1.x     192.168.12.99                203.0.113.25 .26 .27";

const DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let keep = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some(other) => {
            eprintln!("unknown argument {other}; the only one is --keep");
            return ExitCode::from(64);
        }
    };
    match demonstrate(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demonstration failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(keep: bool) -> Result<(), LabError> {
    // Built before the machine's network is left behind.
    let router = program("egress-router-init")?;
    enter_sandbox()?;
    let started = Instant::now();

    title("a small cluster, made of network namespaces");
    println!("{PICTURE}");
    let mut lab = Lab::builder()
        .cni(Cni::DefaultRoute)
        .families(&[Family::Ipv4])
        .outside_servers(3)
        .build()?;
    let ports = [80, 443, 9999].map(|port| (Protocol::Tcp, port));
    let _servers = [lab.outside(0), lab.outside(1), lab.outside(2)]
        .map(|server| server.serve(&ports))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let pod = lab.router_pod().clone();
    let service_ports = [80, 8080, 8443, 9999].map(|port| (Protocol::Tcp, port));
    let service = lab.add_service(&pod, &service_ports)?;
    println!("built in {} ms", started.elapsed().as_millis());

    title("without a router, outside servers see the client's node");
    let client = lab.client(Node::Two).clone();
    let server = lab.outside(0).socket(Family::Ipv4, 80);
    told("client on node2", server, &client.tcp(server, "hello"));

    title("egress-router-init plan: what would be done (needs no privilege)");
    println!("EGRESS_SOURCE=192.168.12.99/24 EGRESS_GATEWAY=192.168.12.1 EGRESS_DESTINATION=");
    println!("{DESTINATION}\n");
    let run = |argument: Option<&str>| {
        let mut command: Command = pod
            .command(&router)
            .env("EGRESS_ROUTER_MODE", "init")
            .env("EGRESS_SOURCE", "192.168.12.99/24")
            .env("EGRESS_GATEWAY", address::gateway(Family::Ipv4).to_string())
            .env("EGRESS_DESTINATION", DESTINATION)
            .env("EGRESS_LOG_FORMAT", "text");
        if let Some(argument) = argument {
            command = command.arg(argument);
        }
        command.run()
    };
    print!("{}", run(Some("plan"))?.expect(0).stdout);

    title("egress-router-init, as the init container runs it");
    let set_up = Instant::now();
    print!("{}", run(None)?.expect(0).stderr);
    println!(
        "exit 0 after {} ms, most of it waiting whether another host has the address",
        set_up.elapsed().as_millis()
    );

    title("with the router, outside servers see 192.168.12.99 and nothing else");
    let near = lab.client(Node::One).clone();
    let to_pod = |port| SocketAddr::new(pod.address(Family::Ipv4), port);
    let to_service = |port| SocketAddr::new(service.address(Family::Ipv4), port);
    for (port, what) in [
        (80, "line 1: 80 -> 203.0.113.25"),
        (8080, "line 2: 8080 -> 203.0.113.26:80"),
        (8443, "line 3: 8443 -> 203.0.113.26:443"),
        (9999, "line 4: every other port -> 203.0.113.27"),
    ] {
        println!("{what}");
        told(
            "  client on node1 ",
            to_pod(port),
            &near.tcp(to_pod(port), "hello"),
        );
        told(
            "  client on node2 ",
            to_pod(port),
            &client.tcp(to_pod(port), "hello"),
        );
        told(
            "  by the Service  ",
            to_service(port),
            &client.tcp(to_service(port), "hello"),
        );
    }

    title("what the router does not do");
    let lan_host = lab.lan_host().clone();
    let source = SocketAddr::new(address::source(Family::Ipv4), 80);
    told(
        "a host of the physical network, to the router's address",
        source,
        &short(&lan_host, source),
    );

    title("egress-router-init status: counters of every mapping, both directions");
    print!("{}", run(Some("status"))?.expect(0).stdout);

    if keep {
        kept(&lab);
        return Ok(());
    }
    title("egress-router-init undo");
    print!("{}", run(Some("undo"))?.expect(0).stderr);
    let after = client.tcp(server, "hello");
    told("client on node2, as before", server, &after);
    drop(lab);
    println!(
        "\nThe lab is gone. Everything took {:.1} s.",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn title(text: &str) {
    if io::stdout().is_terminal() {
        println!("\n\x1b[1m== {text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
}

/// What the client did and what the server saw.
fn told(who: &str, to: SocketAddr, answer: &Result<Seen, ClientError>) {
    match answer {
        Ok(seen) => println!(
            "{who} asked {to}: server {} saw {} say {:?}",
            seen.server,
            seen.client.ip(),
            seen.payload
        ),
        Err(error) => println!("{who} asked {to}: {error}"),
    }
}

/// A question that is not answered need not be waited for long.
fn short(from: &Host, to: SocketAddr) -> Result<Seen, ClientError> {
    let limit = DEADLINE / 10;
    from.netns()
        .run(|| TcpClient::connect(to, limit))?
        .ask("hello")
}

fn kept(lab: &Lab) {
    title("the lab stays up; press ctrl-c to end it");
    let hosts: Vec<(&NetNs, Vec<IpAddr>)> = [
        &**lab.router_pod(),
        &**lab.client(Node::One),
        &**lab.client(Node::Two),
        lab.node(Node::One),
        lab.node(Node::Two),
        lab.gateway(),
        lab.lan_host(),
        lab.outside(0),
        lab.outside(1),
        lab.outside(2),
    ]
    .map(|host: &Host| (host.netns(), host.addresses().to_vec()))
    .into();
    for (netns, addresses) in hosts {
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        println!(
            "{:<14} {:<32} {} sh",
            netns.name(),
            addresses.join(" "),
            netns.enter_command()
        );
    }
    let mut end = SigSet::empty();
    end.add(Signal::SIGINT);
    end.add(Signal::SIGTERM);
    // Threads of the servers inherit nothing of this: only this one waits.
    if end
        .thread_block()
        .and_then(|()| end.wait().map(drop))
        .is_err()
    {
        eprintln!("cannot wait for a signal");
    }
}
