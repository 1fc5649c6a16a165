//! A proxy between clients and servers on the outside.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use egress_lab::{
    Answer, ClientError, Command, Door, Family, Host, Output, Page, Process, Protocol, ProxyLab,
    Seen, Server, TcpClient, UdpClient, Wire, eventually, harness::libtest_mimic::Failed, program,
};
use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) const PROGRAM: &str = "egress-dns-proxy";

pub(crate) const LIST: &str = "EGRESS_DNS_PROXY_DESTINATION";

/// Port of the admin endpoint.
pub(crate) const ADMIN: u16 = 9090;

/// How long it may take until something is seen that happens at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Nobody has it: what is sent there is dropped without a word.
pub(crate) const BLACK_HOLE: &str = "192.0.2.66";

pub(crate) struct Scene {
    pub(crate) lab: ProxyLab,
    pub(crate) proxy: Process,
}

/// The network without a proxy. The outside has 198.51.100.0/24,
/// 203.0.113.2 and 2001:db8:25::25, and refuses where no server is started.
pub(crate) fn network() -> Result<ProxyLab, Failed> {
    let addresses = ["198.51.100.1/24", "203.0.113.2/32", "2001:db8:25::25/128"];
    Ok(ProxyLab::build(
        &addresses.map(|address| address.parse().unwrap()),
    )?)
}

/// The program in the pod, with these lines, to be changed and spawned.
pub(crate) fn proxy(lab: &ProxyLab, lines: &str) -> Result<Command, Failed> {
    Ok(lab
        .pod()
        .command(program(PROGRAM)?)
        .env(LIST, lines)
        .capabilities(&[]))
}

/// Scripts a name.
pub(crate) fn answer(lab: &ProxyLab, name: &str, ttl: u32, addresses: &[&str]) {
    let answer = Answer::Addresses(parsed(addresses));
    lab.resolver().answer(name, ttl, answer);
}

pub(crate) fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap());
    addresses.collect()
}

impl Scene {
    /// A ready proxy with these lines.
    pub(crate) fn start(lab: ProxyLab, lines: &str) -> Result<Self, Failed> {
        Self::start_with(lab, lines, |command| command)
    }

    /// A ready proxy with a changed environment.
    pub(crate) fn start_with(
        lab: ProxyLab,
        lines: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Result<Self, Failed> {
        let scene = Self::start_unready(lab, lines, change)?;
        scene.await_ready();
        Ok(scene)
    }

    /// A proxy that serves, but may wait for names.
    pub(crate) fn start_unready(
        lab: ProxyLab,
        lines: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Result<Self, Failed> {
        let proxy = change(proxy(&lab, lines)?).spawn()?;
        let scene = Self { lab, proxy };
        scene.proxy.await_stderr("\"serving\"", PATIENCE)?;
        Ok(scene)
    }

    #[track_caller]
    pub(crate) fn await_ready(&self) {
        eventually(PATIENCE, || match self.try_page("/readyz") {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(other),
        });
    }

    pub(crate) fn answer(&self, name: &str, ttl: u32, addresses: &[&str]) {
        answer(&self.lab, name, ttl, addresses);
    }

    /// Every address of the outside that has a server of the lab on port 80.
    pub(crate) fn serve(&self, addresses: &[&str], port: u16) -> Result<Server, Failed> {
        serve(&self.lab, addresses, port)
    }

    /// A port on which the test itself answers.
    pub(crate) fn door(&self, address: &str) -> Result<Door, Failed> {
        Ok(Door::open(self.lab.outside().netns(), address.parse()?)?)
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        self.lab.pod().socket(Family::Ipv4, port)
    }

    /// A new connection to a port of the proxy, whose servers are the lab's.
    pub(crate) fn client(&self, port: u16) -> Result<TcpClient, ClientError> {
        connect(self.lab.client(), self.address(port))
    }

    /// One question over a new connection.
    pub(crate) fn ask(&self, port: u16) -> Result<Seen, ClientError> {
        self.client(port)?.ask("hello")
    }

    /// The address that answers on a new connection.
    #[track_caller]
    pub(crate) fn answered_by(&self, port: u16) -> IpAddr {
        match self.ask(port) {
            Ok(seen) => seen.server.ip(),
            Err(error) => panic!("port {port}: {error}"),
        }
    }

    /// Waits until new connections to a port are answered by this address.
    #[track_caller]
    pub(crate) fn await_answer(&self, port: u16, by: &str, deadline: Duration) {
        let by: IpAddr = by.parse().unwrap();
        eventually(deadline, || match self.ask(port) {
            Ok(seen) if seen.server.ip() == by => Ok(()),
            other => Err(other),
        });
    }

    /// A new connection whose bytes the test says itself.
    pub(crate) fn wire(&self, port: u16) -> Wire {
        Wire::connect(self.lab.client().netns(), self.address(port)).unwrap()
    }

    /// A client of datagrams.
    pub(crate) fn udp(&self, port: u16) -> Result<UdpClient, ClientError> {
        datagrams(self.lab.client(), self.address(port))
    }

    pub(crate) fn try_page(&self, path: &str) -> Result<Page, ClientError> {
        let admin = self.lab.pod().socket(Family::Ipv4, ADMIN);
        self.lab.client().get(admin, path)
    }

    /// A page of the admin endpoint.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> Page {
        self.try_page(path).unwrap()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub(crate) fn await_metric(&self, name: &str, value: f64) {
        eventually(PATIENCE, || {
            let page = self.page("/metrics");
            if page.sample(name) == Some(value) {
                Ok(())
            } else {
                Err(format!("{name} is not {value}\n{}", page.body))
            }
        });
    }

    /// How often a name was asked for, by type.
    pub(crate) fn asked(&self, name: &str, kind: &str) -> usize {
        let queries = self.lab.resolver().queries();
        let same = |query: &&egress_lab::Query| query.name == name && query.kind == kind;
        queries.iter().filter(same).count()
    }

    /// Waits until a name was asked for so often again.
    #[track_caller]
    pub(crate) fn await_questions(&self, name: &str, more: usize) {
        let enough = self.asked(name, "A") + more;
        eventually(PATIENCE, || match self.asked(name, "A") {
            asked if asked < enough => Err(format!("{name} was asked for {asked} times")),
            _ => Ok(()),
        });
    }

    /// Ends the proxy, which must end well.
    pub(crate) fn stop(self) -> Result<Output, Failed> {
        self.proxy.signal(Signal::SIGTERM)?;
        Ok(self.proxy.wait()?.expect(0))
    }
}

/// Servers of the lab on one port of some addresses of the outside.
pub(crate) fn serve(lab: &ProxyLab, addresses: &[&str], port: u16) -> Result<Server, Failed> {
    let ports = [(Protocol::Tcp, port), (Protocol::Udp, port)];
    let netns = lab.outside().netns();
    Ok(Server::start(netns, &parsed(addresses), &ports)?)
}

pub(crate) fn connect(from: &Host, to: SocketAddr) -> Result<TcpClient, ClientError> {
    from.netns().run(|| TcpClient::connect(to, PATIENCE))
}

/// A client of datagrams that does not wait for long.
pub(crate) fn datagrams(from: &Host, to: SocketAddr) -> Result<UdpClient, ClientError> {
    const DEADLINE: Duration = Duration::from_secs(2);
    from.netns().run(|| UdpClient::connect(to, DEADLINE))
}

/// The lines of a log with this message.
pub(crate) fn logged(stderr: &str, message: &str) -> Vec<Value> {
    stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|line: &Value| line["message"] == message)
        .collect()
}
