//! Redirect mode: ports of the pod lead to outside servers.

use std::error::Error;
use std::net::SocketAddr;

use egress_lab::{Command, Family, LabError, Protocol};

use crate::narration::{title, told};
use crate::stage::Stage;
use crate::visit;

/// The example of the OpenShift documentation.
const DESTINATION: &str = "\
80   tcp 203.0.113.25
8080 tcp 203.0.113.26 80
8443 tcp 203.0.113.26 443
203.0.113.27";

/// Shows the documented multi-destination example.
pub(crate) fn show(stage: &mut Stage, keep: bool) -> Result<(), Box<dyn Error>> {
    let ports = [80, 443, 9999].map(|port| (Protocol::Tcp, port));
    let _servers = [0, 1, 2]
        .into_iter()
        .map(|index| stage.lab.outside(index).serve(&ports))
        .collect::<Result<Vec<_>, _>>()?;
    let service_ports = [80, 8080, 8443, 9999].map(|port| (Protocol::Tcp, port));
    let service = stage.lab.add_service(&stage.pod, &service_ports)?;
    let router = || -> Result<Command, LabError> {
        Ok(stage.router("init")?.env("EGRESS_DESTINATION", DESTINATION))
    };

    title("without a router, outside servers see the client's node");
    let server = stage.lab.outside(0).socket(Family::Ipv4, 80);
    told("client on node2", server, &stage.far.tcp(server, "hello"));

    title("egress-router-init plan: what would be done (needs no privilege)");
    println!("EGRESS_SOURCE=192.168.12.99/24 EGRESS_GATEWAY=192.168.12.1 EGRESS_DESTINATION=");
    println!("{DESTINATION}\n");
    print!("{}", router()?.arg("plan").run()?.expect(0).stdout);

    title("egress-router-init, as the init container runs it");
    stage.set_up(router()?)?;

    title("with the router, outside servers see 192.168.12.99 and nothing else");
    let to_pod = |port| SocketAddr::new(stage.pod.address(Family::Ipv4), port);
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
            &stage.near.tcp(to_pod(port), "hello"),
        );
        told(
            "  client on node2 ",
            to_pod(port),
            &stage.far.tcp(to_pod(port), "hello"),
        );
        told(
            "  by the Service  ",
            to_service(port),
            &stage.far.tcp(to_service(port), "hello"),
        );
    }

    title("what the router does not do");
    let (source, answer) = stage.ask_from_lan(80);
    told(
        "a host of the physical network, to the router's address",
        source,
        &answer,
    );

    title("egress-router-init status: counters of every mapping, both directions");
    print!("{}", router()?.arg("status").run()?.expect(0).stdout);

    if keep {
        return Ok(visit::keep(stage)?);
    }
    title("egress-router-init undo");
    print!("{}", router()?.arg("undo").run()?.expect(0).stderr);
    let after = stage.far.tcp(server, "hello");
    told("client on node2, as before", server, &after);
    Ok(())
}
