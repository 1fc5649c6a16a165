//! A router that stays.

use std::time::Duration;

use egress_lab::{
    Family, Host, Lab, Node, Page, Process, Protocol, Result, RouterConfig, Server, Snapshot,
    address, eventually,
};

/// Port of the admin endpoint.
pub(crate) const ADMIN: u16 = 9090;

/// What the program is given to do anything that it does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A router in `legacy` mode in the lab's router pod, and servers outside.
pub(crate) struct Stayer {
    pub(crate) lab: Lab,
    pub(crate) process: Process,
    servers: [Server; 3],
}

/// Whether two states are the same; otherwise how they differ.
pub(crate) fn same(before: &Snapshot, after: &Snapshot) -> std::result::Result<(), String> {
    match before.difference(after) {
        difference if difference.is_empty() => Ok(()),
        difference => Err(difference),
    }
}

/// The documented redirects, in the mode that stays.
pub(crate) fn legacy() -> RouterConfig {
    RouterConfig::new(&Family::ALL).with("EGRESS_ROUTER_MODE", "legacy")
}

impl Stayer {
    /// Starts the router and returns when the network is set up.
    pub(crate) fn start(config: &RouterConfig) -> Result<Self> {
        Self::start_in(Lab::builder().build()?, config)
    }

    pub(crate) fn start_in(lab: Lab, config: &RouterConfig) -> Result<Self> {
        let stayer = Self::launch_in(lab, config)?;
        stayer.await_log("the network is set up")?;
        Ok(stayer)
    }

    /// Starts the router.
    pub(crate) fn launch_in(lab: Lab, config: &RouterConfig) -> Result<Self> {
        let ports = [
            (Protocol::Tcp, 80),
            (Protocol::Udp, 53),
            (Protocol::Tcp, 4711),
        ];
        let [one, two, three] = [0, 1, 2].map(|index| lab.outside(index).serve(&ports));
        let process = config.command(lab.router_pod())?.spawn()?;
        Ok(Self {
            lab,
            process,
            servers: [one?, two?, three?],
        })
    }

    pub(crate) fn await_log(&self, text: &str) -> Result<String> {
        self.process.await_stderr(text, PATIENCE)
    }

    /// A client pod on the other node.
    pub(crate) fn client(&self) -> &Host {
        self.lab.client(Node::Two)
    }

    pub(crate) fn page(&self, path: &str) -> Page {
        let to = self.lab.router_pod().socket(Family::Ipv4, ADMIN);
        self.client()
            .get(to, path)
            .expect("the admin endpoint answers")
    }

    /// Waits until a page is there, and as `accept` wants it.
    pub(crate) fn await_page(&self, path: &str, accept: impl Fn(&Page) -> bool) -> Page {
        let to = self.lab.router_pod().socket(Family::Ipv4, ADMIN);
        eventually(PATIENCE, || match self.client().get(to, path) {
            Ok(page) if accept(&page) => Ok(page),
            other => Err(other),
        })
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics");
        page.sample(name)
            .unwrap_or_else(|| panic!("no {name} in\n{}", page.body))
    }

    pub(crate) fn await_metric(&self, name: &str, value: f64) {
        // It is read from the kernel every five seconds.
        eventually(PATIENCE * 2, || {
            let page = self.page("/metrics");
            if page.sample(name) == Some(value) {
                Ok(())
            } else {
                Err(page.body)
            }
        });
    }

    /// One exchange over each redirect and family.
    pub(crate) fn try_traffic(&self) -> std::result::Result<(), String> {
        for family in Family::ALL {
            let pod = |port| self.lab.router_pod().socket(family, port);
            for (protocol, port, server) in [
                (Protocol::Tcp, 80, self.lab.outside(0).socket(family, 80)),
                (Protocol::Udp, 53, self.lab.outside(0).socket(family, 53)),
                (Protocol::Tcp, 8080, self.lab.outside(1).socket(family, 80)),
                (
                    Protocol::Tcp,
                    4711,
                    self.lab.outside(2).socket(family, 4711),
                ),
            ] {
                let what = format!("{protocol} {port} {family}");
                let seen = self
                    .client()
                    .ask(protocol, pod(port), "hello")
                    .map_err(|error| format!("{what}: {error}"))?;
                let wanted = (server, address::source(family));
                if (seen.server, seen.client.ip()) != wanted {
                    return Err(format!("{what}: {seen}"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn traffic(&self) {
        self.try_traffic().unwrap();
    }

    /// The pod's network, without what the kernel keeps for itself and makes
    /// in its own time: local routes, those of a link-local address after two
    /// seconds.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let snapshot = self.lab.router_pod().snapshot().unwrap();
        snapshot.without(|line| line.starts_with("route Inet6 table 255 "))
    }

    /// How many requests the outside servers have answered.
    pub(crate) fn answered(&self) -> usize {
        self.servers.iter().map(|server| server.seen().len()).sum()
    }
}
