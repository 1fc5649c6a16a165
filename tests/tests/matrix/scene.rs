//! A lab with a configured router and everybody who talks through it.

use std::{fmt, net::IpAddr, time::Duration};

use egress_lab::{
    Answer, Cni, Family, Forwarding, Host, Lab, MacvlanMode, Node, Process, Protocol, RouterConfig,
    Server, Service, Witness, address,
    harness::{TestResult, libtest_mimic::Failed},
};
use nix::sys::signal::Signal;

/// TCP port of the pod itself: the admin endpoint of a router that stays, a
/// listener of another container where it does not.
pub(crate) const OWN_PORT: u16 = 9090;

/// TCP port of the API server's Service.
pub(crate) const API_PORT: u16 = 443;

/// A name that the cluster resolver knows.
pub(crate) const NAME: &str = "db.example.com";

/// Every outside server listens on these, by both protocols.
const SERVER_PORTS: [u16; 2] = [80, 7000];

/// A way through the router.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    /// The pod's port.
    pub(crate) port: u16,
    /// The outside server it leads to, and its port.
    pub(crate) server: usize,
    pub(crate) server_port: u16,
}

/// Explicit ports and translated ones, the same port by both protocols, and
/// what only the fallback takes.
pub(crate) const REDIRECTS: [Redirect; 6] = [
    redirect("tcp", Protocol::Tcp, 80, 0, 80),
    redirect("tcp translated", Protocol::Tcp, 8080, 1, 80),
    redirect("udp", Protocol::Udp, 80, 1, 80),
    redirect("udp translated", Protocol::Udp, 8080, 0, 80),
    redirect("tcp fallback", Protocol::Tcp, 7000, 2, 7000),
    redirect("udp fallback", Protocol::Udp, 7000, 2, 7000),
];

const fn redirect(
    name: &'static str,
    protocol: Protocol,
    port: u16,
    server: usize,
    server_port: u16,
) -> Redirect {
    Redirect {
        name,
        protocol,
        port,
        server,
        server_port,
    }
}

/// `EGRESS_DESTINATION` for [`REDIRECTS`]; fallbacks come last.
fn destination(lab: &Lab, families: &[Family]) -> String {
    let outside = |server: usize, family| lab.outside(server).address(family);
    let mut lines = Vec::new();
    for family in families {
        for redirect in REDIRECTS.iter().filter(|redirect| redirect.server < 2) {
            let Redirect {
                protocol,
                port,
                server,
                server_port,
                ..
            } = redirect;
            lines.push(format!(
                "{port} {protocol} {} {server_port}",
                outside(*server, *family)
            ));
        }
    }
    lines.extend(
        families
            .iter()
            .map(|family| outside(2, *family).to_string()),
    );
    lines.join("\n")
}

/// Where the egress interface comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The router makes it, and stays (`legacy`).
    Created,
    /// It is there in private mode, as OpenShift's SDN leaves it; the router
    /// ends when it is done (`init`).
    Preset,
}

impl Link {
    pub(crate) const ALL: [Self; 2] = [Self::Created, Self::Preset];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "macvlan created",
            Self::Preset => "macvlan preset",
        })
    }
}

/// How `EGRESS_SOURCE` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// With the length of the LAN's prefix.
    WithPrefix,
    /// Without length, which means the address alone.
    Alone,
    /// With a prefix that is smaller than the LAN's and without the gateway.
    Narrow,
}

impl Sources {
    /// Name of a test.
    pub(crate) fn name(self, cni: Cni) -> String {
        let what = match self {
            Self::WithPrefix => "with_prefix",
            Self::Alone => "without_length",
            Self::Narrow => "gateway_outside_of_prefix",
        };
        format!("{cni}::source_{what}").replace(' ', "_")
    }

    fn of(self, families: &[Family]) -> String {
        let written = |family: &Family| {
            let source = address::source(*family);
            match (self, family) {
                (Self::Alone, _) => source.to_string(),
                (Self::Narrow, Family::Ipv4) => format!("{source}/28"),
                (Self::Narrow, Family::Ipv6) => format!("{source}/124"),
                (Self::WithPrefix, _) => {
                    format!("{source}/{}", address::lan(*family).prefix_len())
                }
            }
        };
        families.iter().map(written).collect::<Vec<_>>().join(" ")
    }
}

/// What a scene is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) cni: Cni,
    pub(crate) families: &'static [Family],
    pub(crate) rp_filter: u8,
    pub(crate) forwarding: Forwarding,
    pub(crate) sources: Sources,
}

/// The lab and who serves in it.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    /// In front of the router pod.
    pub(crate) service: Service,
    /// In front of a server on node 2, at `KUBERNETES_SERVICE_HOST`.
    pub(crate) api: Service,
    pub(crate) link: Link,
    /// The outside servers.
    pub(crate) outside: Vec<Server>,
    /// What arrives at each of them.
    witnesses: Vec<Witness>,
    /// The router, where it stays.
    router: Option<Process>,
    _servers: Vec<Server>,
}

impl Scene {
    /// Builds the lab and configures the router.
    pub(crate) fn set(settings: Settings, link: Link) -> Result<Self, Failed> {
        let families = settings.families;
        let mut builder = Lab::builder()
            .cni(settings.cni)
            .families(families)
            .rp_filter(settings.rp_filter)
            .pod_forwarding(settings.forwarding);
        if link == Link::Preset {
            builder = builder.macvlan("macvlan0", MacvlanMode::Private);
        }
        let mut lab = builder.build()?;

        let pod = lab.router_pod().clone();
        let ports: Vec<_> = REDIRECTS.iter().map(|r| (r.protocol, r.port)).collect();
        let service = lab.add_service(&pod, &ports)?;
        let api_server = lab.client(Node::Two).clone();
        let mut servers = vec![api_server.serve(&[(Protocol::Tcp, API_PORT)])?];
        let api = lab.add_api_server(&api_server, API_PORT)?;
        let known = vec!["198.51.100.7".parse()?, "2001:db8::7".parse()?];
        lab.resolver().answer(NAME, 30, Answer::Addresses(known));

        let sources: Vec<IpAddr> = families
            .iter()
            .map(|family| address::source(*family))
            .collect();
        let everything = SERVER_PORTS.map(|port| [(Protocol::Tcp, port), (Protocol::Udp, port)]);
        let mut outside = Vec::new();
        let mut witnesses = Vec::new();
        for index in 0..3 {
            outside.push(lab.outside(index).serve(everything.as_flattened())?);
            witnesses.push(lab.outside(index).watch_for(&sources)?);
        }

        let router = RouterConfig::new(families)
            .command(lab.router_pod())?
            .env("EGRESS_SOURCE", settings.sources.of(families))
            .env("EGRESS_DESTINATION", destination(&lab, families));
        let router = match link {
            Link::Created => {
                let process = router.env("EGRESS_ROUTER_MODE", "legacy").spawn()?;
                process.await_stderr("the network is set up", Duration::from_secs(10))?;
                Some(process)
            }
            Link::Preset => {
                let _ = router
                    .env("EGRESS_LOCAL_PORTS", OWN_PORT.to_string())
                    .run()?
                    .expect(0);
                servers.push(pod.serve(&[(Protocol::Tcp, OWN_PORT)])?);
                None
            }
        };
        Ok(Self {
            lab,
            service,
            api,
            link,
            outside,
            witnesses,
            router,
            _servers: servers,
        })
    }

    /// The address that the outside is to see.
    pub(crate) fn source(&self, family: Family) -> IpAddr {
        address::source(family)
    }

    /// The family of the cluster's DNS and API server.
    pub(crate) fn primary(&self) -> Family {
        self.lab.families().first().copied().unwrap_or(Family::Ipv4)
    }

    pub(crate) fn pod(&self) -> &Host {
        self.lab.router_pod()
    }

    /// Ends a router that stays, so that nobody repairs what a test breaks.
    pub(crate) fn stop_router(&mut self) -> TestResult {
        if let Some(router) = self.router.take() {
            router.signal(Signal::SIGTERM)?;
            let _ = router.wait()?.expect(0);
        }
        Ok(())
    }

    /// How many requests the outside servers answered.
    pub(crate) fn answered(&self) -> usize {
        self.outside.iter().map(|server| server.seen().len()).sum()
    }

    /// Packets at the outside servers: from `EGRESS_SOURCE`, from others.
    pub(crate) fn arrivals(&self) -> Result<(u64, u64), Failed> {
        let mut sum = (0, 0);
        for witness in &self.witnesses {
            let arrivals = witness.arrivals()?;
            sum = (sum.0 + arrivals.expected, sum.1 + arrivals.strangers);
        }
        Ok(sum)
    }
}
