//! Flows whose mapping changed.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use egress_lab::{
    ClientError, Family, Lab, Node, Process, Protocol, Server, TcpClient, UdpClient,
    harness::TestResult,
};
use nix::sys::signal::Signal;

use crate::list::{List, legacy};
use crate::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(5);

/// Far below any time-out.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A router that stays, with its list in a volume, and two servers.
struct Scene {
    lab: Lab,
    router: Process,
    volume: Volume,
    reloads: usize,
    _servers: [Server; 2],
}

impl Scene {
    fn new(list: &List) -> Self {
        let lab = Lab::builder().build().unwrap();
        let ports = [
            (Protocol::Tcp, 80),
            (Protocol::Udp, 53),
            (Protocol::Tcp, 4711),
            (Protocol::Udp, 4711),
        ];
        let servers = [0, 1].map(|index| lab.outside(index).serve(&ports).unwrap());
        let volume = Volume::new(list.as_str());
        let config = legacy().with("EGRESS_DESTINATION_FILE", volume.file().to_string_lossy());
        let router = config.command(lab.router_pod()).unwrap().spawn().unwrap();
        router
            .await_stderr("the network is set up", PATIENCE)
            .unwrap();
        Self {
            lab,
            router,
            volume,
            reloads: 0,
            _servers: servers,
        }
    }

    /// Swaps the list and waits until it is in force.
    fn swap(&mut self, list: &List) {
        self.volume.update(list.as_str());
        self.reloads += 1;
        let reloads = self.reloads;
        let said = "the redirects were reloaded";
        egress_lab::eventually(PATIENCE, || {
            let log = self.router.await_stderr(said, PATIENCE).unwrap();
            if log.matches(said).count() >= reloads {
                Ok(())
            } else {
                Err(log)
            }
        });
    }

    fn router(&self, family: Family, port: u16) -> SocketAddr {
        self.lab.router_pod().socket(family, port)
    }

    fn udp(&self, family: Family, port: u16) -> UdpClient {
        let to = self.router(family, port);
        self.lab
            .client(Node::Two)
            .netns()
            .run(|| UdpClient::connect(to, PATIENCE))
            .unwrap()
    }

    fn tcp(&self, family: Family, port: u16) -> TcpClient {
        let to = self.router(family, port);
        self.lab
            .client(Node::Two)
            .netns()
            .run(|| TcpClient::connect(to, PATIENCE))
            .unwrap()
    }

    #[track_caller]
    fn arrives(&self, flow: &UdpClient, family: Family, server: usize, port: u16) {
        let seen = flow.ask("where?").unwrap();
        assert_eq!(seen.server, self.lab.outside(server).socket(family, port));
    }
}

pub(crate) fn a_datagram_client_follows_a_changed_mapping() -> TestResult {
    let first = List::default().with(53, Protocol::Udp, 0, 53);
    let mut scene = Scene::new(&first);
    let flows = Family::ALL.map(|family| (family, scene.udp(family, 53)));
    for (family, flow) in &flows {
        scene.arrives(flow, *family, 0, 53);
    }
    // Another server.
    scene.swap(&List::default().with(53, Protocol::Udp, 1, 53));
    for (family, flow) in &flows {
        scene.arrives(flow, *family, 1, 53);
    }
    // Another port there.
    scene.swap(&List::default().with(53, Protocol::Udp, 1, 4711));
    for (family, flow) in &flows {
        scene.arrives(flow, *family, 1, 4711);
    }
    // Gone, and back.
    scene.swap(&List::default().with(54, Protocol::Udp, 1, 53));
    for (_, flow) in &flows {
        assert!(matches!(flow.ask("where?"), Err(ClientError::Refused)));
    }
    scene.swap(&first);
    for (family, flow) in &flows {
        scene.arrives(flow, *family, 0, 53);
    }
    Ok(())
}

pub(crate) fn connections_of_a_changed_mapping_end_at_once() -> TestResult {
    let mut scene = Scene::new(&List::default().with(80, Protocol::Tcp, 0, 80));
    let connections = Family::ALL.map(|family| {
        let mut connection = scene.tcp(family, 80);
        connection.ask("open").unwrap();
        connection
    });
    scene.swap(&List::default().with(80, Protocol::Tcp, 1, 80));
    for mut connection in connections {
        let start = Instant::now();
        let answer = connection.ask("still there?");
        assert!(matches!(answer, Err(ClientError::Closed)), "{answer:?}");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
    for family in Family::ALL {
        let seen = scene.tcp(family, 80).ask("new")?;
        assert_eq!(seen.server, scene.lab.outside(1).socket(family, 80));
    }
    Ok(())
}

pub(crate) fn a_mapping_takes_its_port_from_the_fallback_and_gives_it_back() -> TestResult {
    let without = List::default().with(80, Protocol::Tcp, 0, 80).or_else(0);
    let with = List::default()
        .with(80, Protocol::Tcp, 0, 80)
        .with(4711, Protocol::Udp, 1, 53)
        .or_else(0);
    let mut scene = Scene::new(&without);
    let flows = Family::ALL.map(|family| (family, scene.udp(family, 4711)));
    // The same port by the other protocol stays with the fallback.
    let mut others = Family::ALL.map(|family| scene.tcp(family, 4711));
    for (list, server, port) in [
        (&without, 0, 4711),
        (&with, 1, 53),
        (&without, 0, 4711),
        (&with, 1, 53),
    ] {
        if scene.reloads > 0 || port == 53 {
            scene.swap(list);
        }
        for (family, flow) in &flows {
            scene.arrives(flow, *family, server, port);
        }
        for other in &mut others {
            other.ask("undisturbed")?;
        }
    }
    Ok(())
}

pub(crate) fn counters_go_on_counting() -> TestResult {
    let list = List::default().with(53, Protocol::Udp, 0, 53).or_else(1);
    let mut scene = Scene::new(&list);
    let counted = |scene: &Scene| {
        // The program's own counters are read every five seconds; these at once.
        let status = legacy().run_subcommand(scene.lab.router_pod(), "status --output json");
        let output = status.unwrap().expect(0);
        let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let traffic = &status["firewall"]["Ok"];
        let packets = |kind: &str| -> Vec<u64> {
            let all = traffic[kind]
                .as_array()
                .unwrap_or_else(|| panic!("{status:#}"));
            let ports = all
                .iter()
                .filter(|line| kind == "fallbacks" || line["port"] == 53);
            ports
                .map(|line| line["packets"].as_u64().unwrap())
                .collect()
        };
        (packets("mappings"), packets("fallbacks"))
    };
    let mut expected = 0;
    for round in 0..4 {
        for family in Family::ALL {
            let flow = scene.udp(family, 53);
            for _ in 0..3 {
                scene.arrives(&flow, family, 0, 53);
            }
            let flow = scene.udp(family, 4711);
            for _ in 0..3 {
                scene.arrives(&flow, family, 1, 4711);
            }
        }
        expected += 6;
        assert_eq!(counted(&scene), (vec![expected; 2], vec![expected; 2]));
        scene.swap(
            &List::default()
                .with(53, Protocol::Udp, 0, 53)
                .with(9000 + round, Protocol::Tcp, 0, 80)
                .or_else(1),
        );
    }
    scene.router.signal(Signal::SIGTERM)?;
    Ok(())
}

/// Its entry in connection tracking is not touched: what the server sends
/// first still finds its way.
pub(crate) fn changes_beside_a_mapping_leave_its_flows_alone() -> TestResult {
    let lines = |others: &str| List::from(format!("9053 udp 203.0.113.25\n{others}"));
    let mut scene = Scene::new(&lines("203.0.113.25\n"));
    // The lab's servers only answer.
    let server = scene
        .lab
        .outside(0)
        .netns()
        .run(|| UdpSocket::bind("203.0.113.25:9053"))?;
    let client = scene
        .lab
        .client(Node::Two)
        .netns()
        .run(|| UdpSocket::bind("0.0.0.0:0"))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    client.connect(scene.router(Family::Ipv4, 9053))?;
    client.send(b"begin")?;
    let mut buffer = [0; 64];
    let (_, back) = server.recv_from(&mut buffer)?;
    for others in [
        "9054 udp 203.0.113.25\n203.0.113.25\n",
        // The same port in the other family.
        "9053 udp 2001:db8:25::25\n203.0.113.25\n",
        // A fallback that leads to the same place goes.
        "9053 udp 2001:db8:25::25\n",
        "",
    ] {
        scene.swap(&lines(others));
        server.send_to(others.as_bytes(), back)?;
        let length = client.recv(&mut buffer)?;
        assert!(others.as_bytes().starts_with(&buffer[..length]));
    }
    Ok(())
}
