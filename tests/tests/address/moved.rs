//! The pod is started anew on the other node.

use std::time::{Duration, Instant};

use egress_lab::{
    Family, Host, Lab, Node, Pod, Protocol, RouterConfig, TcpClient, address, harness::TestResult,
};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

/// How fast the gateway has to follow.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Moves, of which the one in the middle counts: the machine may be busy.
const MOVES: usize = 5;

const PATIENCE: Duration = Duration::from_secs(10);

/// What one move took.
#[derive(Debug)]
struct Moved {
    /// From the address on the new pod's link until the gateway's entry.
    known: Duration,
    /// From the program's word that the network is set up until a reply from
    /// outside, through the new pod.
    answered: Duration,
}

#[expect(
    clippy::print_stdout,
    reason = "numbers that somebody may want to read"
)]
pub(crate) fn a_warm_gateway_follows_at_once() -> TestResult {
    for family in Family::ALL {
        let mut lab = Lab::builder().build()?;
        let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
        let mut pod = lab.router_pod().clone();
        let _ = RouterConfig::new(&[family]).run(&pod)?.expect(0);
        let mut moves = Vec::new();
        for number in 0..MOVES {
            let old = warm_up(&lab, &pod, family);
            let node = if pod.node() == Node::One {
                Node::Two
            } else {
                Node::One
            };
            // As the CNI does when a pod is deleted.
            pod.netns().delete_link("macvlan0")?;
            pod = lab.add_pod(&format!("router{number}"), node)?;
            moves.push(start(&lab, &pod, family, &old)?);
        }
        let middle = |of: fn(&Moved) -> Duration| {
            let mut times: Vec<_> = moves.iter().map(of).collect();
            times.sort();
            times[MOVES / 2]
        };
        let (known, answered) = (middle(|moved| moved.known), middle(|moved| moved.answered));
        println!(
            "{family}: the gateway knows {known:?} after the address is on the link, and a reply \
             arrives {answered:?} after the network is set up"
        );
        assert!(known < AT_ONCE && answered < AT_ONCE, "{moves:?}");
    }
    Ok(())
}

/// Traffic that makes the gateway know the pod for sure; answers the MAC
/// address that it knows.
fn warm_up(lab: &Lab, pod: &Pod, family: Family) -> String {
    let gateway = lab.gateway();
    let ask = || {
        lab.client(Node::Two)
            .tcp(pod.socket(family, 80), "warm up")
            .unwrap()
    };
    // The pod learns where the gateway is, and asks no more; then the gateway
    // has to ask itself.
    ask();
    forget(gateway, address::source(family));
    ask();
    let (mac, state) = neighbour(gateway, address::source(family)).unwrap();
    assert_eq!(state, NeighbourState::Reachable);
    assert_eq!(mac, pod.netns().mac_address("macvlan0").unwrap());
    mac
}

fn start(lab: &Lab, pod: &Pod, family: Family, old: &str) -> Result<Moved, egress_lab::LabError> {
    let source = address::source(family);
    let (gateway, client) = (lab.gateway(), lab.client(Node::Two));
    let router = RouterConfig::new(&[family]).command(pod)?.spawn()?;
    // Nobody sends anything: the program's own word must do.
    let mut on_link = None;
    let known = loop {
        let has_address = || {
            pod.netns()
                .addresses("macvlan0")
                .is_ok_and(|all| all.contains(&source))
        };
        if on_link.is_none() && has_address() {
            on_link = Some(Instant::now());
        }
        if let Some((mac, _)) = neighbour(gateway, source)
            && mac != old
        {
            assert_eq!(mac, pod.netns().mac_address("macvlan0")?);
            break on_link.map(|since| since.elapsed()).unwrap_or_default();
        }
        let waited = on_link.map(|since| since.elapsed()).unwrap_or_default();
        assert!(
            waited < PATIENCE && router.is_running(),
            "the gateway still has {old}"
        );
    };
    router.await_stderr("the network is set up", PATIENCE)?;
    let said = Instant::now();
    let seen = client
        .netns()
        .run(|| TcpClient::connect(pod.socket(family, 80), PATIENCE))
        .and_then(|mut connection| connection.ask("through the new pod"))
        .unwrap();
    let answered = said.elapsed();
    assert_eq!(seen.client.ip(), source);
    let _ = router.wait()?.expect(0);
    Ok(Moved { known, answered })
}

fn destination(source: std::net::IpAddr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(match source {
        std::net::IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        std::net::IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    })
}

/// What a host knows of a neighbour.
fn find(host: &Host, address: std::net::IpAddr) -> Option<NeighbourMessage> {
    let request = Message::GetNeighbour(NeighbourMessage::default());
    let all = host
        .netns()
        .netlink(|netlink| netlink.dump(request))
        .unwrap();
    all.into_iter().find_map(|message| match message {
        Message::NewNeighbour(known) if known.attributes.contains(&destination(address)) => {
            Some(known)
        }
        _ => None,
    })
}

fn neighbour(host: &Host, address: std::net::IpAddr) -> Option<(String, NeighbourState)> {
    let known = find(host, address)?;
    let mac = known
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes.clone()),
            _ => None,
        })?;
    let text: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    Some((text.join(":"), known.header.state))
}

/// `ip neighbour del`
fn forget(host: &Host, address: std::net::IpAddr) {
    if let Some(known) = find(host, address) {
        let mut message = NeighbourMessage::default();
        message.header = known.header;
        message.attributes = vec![destination(address)];
        let request = Message::DelNeighbour(message);
        host.netns()
            .netlink(|netlink| netlink.change(request, 0))
            .unwrap();
    }
}
