//! A router of one family in a pod of both: the other one stays closed.

use std::net::SocketAddr;

use egress_lab::{Cni, Family, Lab, Node, Protocol, RouterConfig, address, harness::TestResult};

use crate::paths::{ANSWER, ask, is_refused};

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Nothing of the other family leaves by the pod network with the node's
/// address, though the pod network itself goes on working.
pub(crate) fn the_other_one_is_closed(cni: Cni, family: Family) -> TestResult {
    let other = match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    };
    let mut lab = Lab::builder().cni(cni).build()?;
    let ports = PROTOCOLS.map(|protocol| (protocol, 80));
    let outside = lab.outside(0).serve(&ports)?;
    let peers = Node::ALL.map(|node| lab.client(node).clone());
    let _peers = [peers[0].serve(&ports)?, peers[1].serve(&ports)?];
    let own = lab.router_pod().serve(&[(Protocol::Tcp, 9000)])?;
    let service = lab.add_service(&peers[1], &ports)?;
    let networks = Family::ALL.map(|family| [cni.pods(family), cni.services(family)]);
    let networks: Vec<String> = networks
        .as_flattened()
        .iter()
        .map(ToString::to_string)
        .collect();
    let _ = RouterConfig::new(&[family])
        .with("EGRESS_CLUSTER_CIDRS", networks.join(" "))
        .with("EGRESS_LOCAL_PORTS", "9000")
        .run(lab.router_pod())?
        .expect(0);

    let pod = lab.router_pod();
    for protocol in PROTOCOLS {
        let seen = ask(
            pod,
            None,
            protocol,
            lab.outside(0).socket(family, 80),
            "out",
            ANSWER,
        )?;
        assert_eq!(seen.client.ip(), address::source(family), "{protocol}");
        let closed = lab.outside(0).socket(other, 80);
        let leak = ask(pod, None, protocol, closed, "leak", ANSWER);
        assert!(is_refused(&leak), "{other} by {protocol}: {leak:?}");
        for reached in Family::ALL {
            let to_service = SocketAddr::new(service.address(reached), 80);
            let to_pods = peers.each_ref().map(|peer| peer.socket(reached, 80));
            for to in to_pods.into_iter().chain([to_service]) {
                let seen = ask(pod, None, protocol, to, "in", ANSWER)
                    .map_err(|error| format!("{protocol} to {to}: {error}"))?;
                assert_eq!(seen.client.ip(), pod.address(reached), "{protocol} {to}");
            }
        }
    }
    assert_eq!(outside.seen().len(), PROTOCOLS.len(), "{outside:?}");
    for reached in Family::ALL {
        for host in [
            &*peers[0],
            &*peers[1],
            lab.node(Node::One),
            lab.node(Node::Two),
        ] {
            let to = pod.socket(reached, 9000);
            ask(host, None, Protocol::Tcp, to, "probe", ANSWER)
                .map_err(|error| format!("{} to {to}: {error}", host.name()))?;
        }
    }
    drop(own);
    Ok(())
}
