//! dns-proxy mode: ports of the pod lead to names, resolved while it runs.

use std::error::Error;
use std::net::SocketAddr;

use egress_lab::{Answer, Family, Protocol, Query, eventually};

use crate::narration::{log_lines, title, told};
use crate::stage::{DEADLINE, Stage};
use crate::visit;

const PROGRAM: &str = "egress-dns-proxy";

const DESTINATION: &str = "\
80      www.example.com
5432    db.example.com
514/udp log.example.com
";

/// Shows TCP, datagrams, and a name whose address changes.
pub(crate) fn show(stage: &mut Stage, keep: bool) -> Result<(), Box<dyn Error>> {
    points(stage, "www.example.com", 0);
    points(stage, "db.example.com", 1);
    points(stage, "log.example.com", 0);
    let ports = [
        (Protocol::Tcp, 80),
        (Protocol::Tcp, 5432),
        (Protocol::Udp, 514),
    ];
    let _servers = [0, 1, 2]
        .into_iter()
        .map(|index| stage.lab.outside(index).serve(&ports))
        .collect::<Result<Vec<_>, _>>()?;
    let service = stage.lab.add_service(&stage.pod, &ports)?;
    // A sysctl of the pod in the manifests.
    stage
        .pod
        .netns()
        .sysctl(&[("net/ipv4/ip_unprivileged_port_start", "0")])?;

    title("dns-proxy mode: egress-router-init redirects nothing, sets up the network");
    stage.set_up(stage.router("dns-proxy")?)?;

    title("egress-dns-proxy, as the main container runs it: without any capability");
    let proxy = stage
        .proxy(PROGRAM)?
        .env("EGRESS_DNS_PROXY_DESTINATION", DESTINATION);
    print!("{}", proxy.clone().arg("rules").run()?.expect(0).stdout);
    let process = stage.start(proxy)?;

    title("a client on node2, by the Service: servers see 192.168.12.99 and nothing else");
    let to = |port| SocketAddr::new(service.address(Family::Ipv4), port);
    for (protocol, port) in ports {
        let answer = stage.far.ask(protocol, to(port), "hello");
        told(&format!("{protocol:<3}"), to(port), &answer);
    }

    title("db.example.com moves to 203.0.113.27: followed within its TTL");
    let asked = || {
        let queries = stage.lab.resolver().queries();
        let about = |query: &&Query| query.name == "db.example.com";
        queries.iter().filter(about).count()
    };
    points(stage, "db.example.com", 2);
    let before = asked();
    eventually(DEADLINE, || match asked() {
        now if now > before => Ok(()),
        now => Err(now),
    });
    let moved = stage.lab.outside(2).socket(Family::Ipv4, 5432);
    let answer = eventually(DEADLINE, || {
        let answer = stage.far.tcp(to(5432), "hello");
        match &answer {
            Ok(seen) if seen.server == moved => Ok(answer),
            _ => Err(format!("{answer:?}")),
        }
    });
    told("tcp", to(5432), &answer);

    title("what the proxy does not do");
    let (source, answer) = stage.ask_from_lan(5432);
    told(
        "a host of the physical network, to the router's address",
        source,
        &answer,
    );

    title("its access log: a line for each connection, at its end");
    let moved = format!("upstream={moved}");
    log_lines(&process, &["upstream=203.0.113.25:80", &moved], 2);

    if keep {
        return Ok(visit::keep(stage)?);
    }
    stage.clear(process, stage.router("dns-proxy")?)?;
    Ok(())
}

/// Makes a name lead to an outside server, for whoever asks within a second.
fn points(stage: &Stage, name: &str, server: usize) {
    let address = stage.lab.outside(server).address(Family::Ipv4);
    let answer = Answer::Addresses(vec![address]);
    stage.lab.resolver().answer(name, 1, answer);
}
