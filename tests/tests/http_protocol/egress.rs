//! The side of the pod that looks outside.

use std::{net::SocketAddr, thread, time::Duration};

use egress_lab::{
    ClientError, Command, Family, Host, Lab, Node, Origin, Process, Route, RouterConfig, TcpClient,
    Wire, address, eventually,
    harness::{TestResult, libtest_mimic::Failed},
    program,
};
use ipnet::IpNet;

use crate::scene::{ADMIN, PATIENCE, PORT, PROGRAM, Scene, connect, get, ok};

/// A proxy in a router pod as the manifests make it: the router sets up the
/// network, then the proxy runs.
struct RouterPod {
    lab: Lab,
    proxy: Process,
    origin: Origin,
}

impl RouterPod {
    fn start() -> Result<Self, Failed> {
        Self::start_with(|command| command)
    }

    fn start_with(change: impl FnOnce(Command) -> Command) -> Result<Self, Failed> {
        let lab = Lab::builder().build()?;
        let router = RouterConfig::new(&Family::ALL)
            .with("EGRESS_ROUTER_MODE", "http-proxy")
            .without("EGRESS_DESTINATION");
        let _ = router.run(lab.router_pod())?.expect(0);
        let outside = lab.outside(0);
        let origin = Origin::start(
            outside.netns(),
            &Family::ALL.map(|family| outside.socket(family, 80)),
        )?;
        for family in Family::ALL {
            let answer = egress_lab::Answer::Addresses(vec![outside.address(family)]);
            let name = match family {
                Family::Ipv4 => "a.test",
                Family::Ipv6 => "six.test",
            };
            lab.resolver().answer(name, 300, answer);
        }
        let command = lab
            .router_pod()
            .command(program(PROGRAM)?)
            .env("EGRESS_HTTP_PROXY_DESTINATION", "*")
            .capabilities(&[]);
        let proxy = change(command).spawn()?;
        let pod = Self { lab, proxy, origin };
        let admin = pod.lab.router_pod().socket(Family::Ipv4, ADMIN);
        eventually(PATIENCE, || match pod.client().get(admin, "/readyz") {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(other),
        });
        Ok(pod)
    }

    /// A client pod on the other node.
    fn client(&self) -> &Host {
        self.lab.client(Node::Two)
    }

    fn client_says(&self, text: &str) -> Wire {
        let proxy = self.lab.router_pod().socket(Family::Ipv4, PORT);
        let mut client = Wire::connect(self.client().netns(), proxy).unwrap();
        client.say(text);
        client
    }
}

/// Whom nothing answers there.
fn reaches(from: &Host, to: SocketAddr) -> Result<String, ClientError> {
    let deadline = Duration::from_millis(900);
    let mut client = from.netns().run(|| TcpClient::connect(to, deadline))?;
    match client.ask("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r") {
        Ok(seen) => Ok(seen.to_string()),
        // Any answer is one too many.
        Err(ClientError::BadAnswer(line)) => Ok(line),
        Err(error) => Err(error),
    }
}

pub(crate) fn the_lan_reaches_neither_port() -> TestResult {
    let pod = RouterPod::start()?;
    let (lan, outside) = (pod.lab.lan_host(), pod.lab.outside(0));
    let mut ways = Vec::new();
    for family in Family::ALL {
        let (source, own) = (
            address::source(family),
            pod.lab.router_pod().address(family),
        );
        // A neighbour may try to use the pod as a router to itself.
        lan.netns().add_route(&Route::to(own).via(source))?;
        for port in [PORT, ADMIN] {
            ways.push((lan, SocketAddr::new(source, port)));
            ways.push((outside, SocketAddr::new(source, port)));
            ways.push((lan, SocketAddr::new(own, port)));
        }
    }
    thread::scope(|scope| {
        let tries: Vec<_> = ways
            .iter()
            .map(|(from, to)| (to, scope.spawn(|| reaches(from, *to))))
            .collect();
        for (to, answer) in tries {
            let answer = answer.join().unwrap();
            assert!(answer.is_err(), "{to} answers {answer:?}");
        }
    });
    // Clients of the cluster are served.
    assert_eq!(pod.client_says(&get("a.test")).reply("GET").status, 200);
    assert!(pod.proxy.is_running());
    Ok(())
}

pub(crate) fn without_packet_rules_the_proxy_refuses_by_itself() -> TestResult {
    let scene = Scene::start()?;
    for family in Family::ALL {
        for port in [PORT, ADMIN] {
            let to = SocketAddr::new(address::source(family), port);
            let answer = reaches(scene.lab.outside(), to);
            assert!(
                matches!(answer, Err(ClientError::Closed | ClientError::Refused)),
                "{to} answers {answer:?}"
            );
        }
        // The same host may be a client by the pod's address.
        let own = scene.lab.pod().socket(family, PORT);
        let mut client = Wire::connect(scene.lab.client().netns(), own)?;
        client.say(get("a.test"));
        let mut origin = scene.origin();
        origin.head();
        origin.say(ok("served"));
        assert_eq!(client.reply("GET").text(), "served");
    }
    Ok(())
}

pub(crate) fn the_outside_sees_the_egress_address() -> TestResult {
    // As the manifests may name it; elsewhere it is found.
    let sources = Family::ALL.map(|family| address::source(family).to_string());
    let pod = RouterPod::start_with(|command| command.env("EGRESS_SOURCE", sources.join(" ")))?;
    let witness = pod
        .lab
        .outside(0)
        .watch_for(&Family::ALL.map(address::source))?;
    for (name, host) in [
        (
            "a.test",
            pod.lab.outside(0).address(Family::Ipv4).to_string(),
        ),
        (
            "six.test",
            format!("[{}]", pod.lab.outside(0).address(Family::Ipv6)),
        ),
    ] {
        for host in [name, &host] {
            assert_eq!(
                pod.client_says(&get(host)).reply("GET").status,
                200,
                "{host}"
            );
            let mut client = pod.client_says(&connect(&format!("{host}:80")));
            assert_eq!(client.reply("CONNECT").status, 200, "{host}");
            client.say(format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ));
            assert_eq!(client.reply("GET").status, 200, "{host}");
        }
    }
    let arrivals = pod.origin.arrivals();
    assert!(arrivals.len() >= 6, "{arrivals:?}");
    for arrival in arrivals {
        let family = Family::of(arrival.server.ip());
        assert_eq!(arrival.client.ip(), address::source(family));
    }
    let packets = witness.arrivals()?;
    assert!(
        packets.expected > 0 && packets.strangers == 0,
        "{packets:?}"
    );
    Ok(())
}

pub(crate) fn without_its_address_nothing_leaves() -> TestResult {
    let pod = RouterPod::start()?;
    // It worked before.
    for host in ["a.test", "six.test"] {
        assert_eq!(pod.client_says(&get(host)).reply("GET").status, 200);
    }
    for family in Family::ALL {
        let prefix = address::lan(family).prefix_len();
        let own = IpNet::new(address::source(family), prefix)?;
        pod.lab
            .router_pod()
            .netns()
            .delete_address("macvlan0", own)?;
    }
    let witness = pod.lab.outside(0).watch_for(&[])?;
    let before = pod.origin.arrivals().len();
    for host in ["a.test", "six.test"] {
        // Port 81: a connection that waited would not do.
        for request in [get(&format!("{host}:81")), connect(&format!("{host}:80"))] {
            let method = request.split(' ').next().unwrap();
            let reply = pod.client_says(&request).reply(method);
            assert_eq!(reply.status, 502, "{request}: {reply:?}");
            assert!(
                reply.text().contains("nothing was sent"),
                "{}",
                reply.text()
            );
        }
    }
    assert_eq!(pod.origin.arrivals().len(), before);
    let packets = witness.arrivals()?;
    assert_eq!((packets.expected, packets.strangers), (0, 0));
    Ok(())
}
