//! One machine of the lab, as tests see it.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use egress_config::{AddressFamily as Family, Protocol};

use crate::{
    client::{self, ClientError, Seen, TcpClient, UdpClient},
    command::Command,
    error::Result,
    netns::NetNs,
    server::Server,
    snapshot::Snapshot,
};

/// How long the shorthands here wait for an answer. One lost SYN (1 s) must
/// show as a failure, so it is less.
const DEADLINE: Duration = Duration::from_millis(900);

/// A server, router, node or pod: its namespace and the addresses by which
/// others know it. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Host {
    netns: NetNs,
    addresses: Vec<IpAddr>,
    resolv_conf: Option<String>,
    environment: Vec<(String, String)>,
}

impl Host {
    pub(crate) fn new(netns: NetNs, addresses: Vec<IpAddr>) -> Self {
        Self {
            netns,
            addresses,
            resolv_conf: None,
            environment: Vec::new(),
        }
    }

    pub(crate) fn with_resolv_conf(mut self, text: String) -> Self {
        self.resolv_conf = Some(text);
        self
    }

    pub(crate) fn with_environment(mut self, name: &str, value: String) -> Self {
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.netns.name()
    }

    /// The host's network namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its address of one family.
    ///
    /// # Panics
    /// When the lab was built without that family.
    #[must_use]
    #[track_caller]
    pub fn address(&self, family: Family) -> IpAddr {
        match self.addresses.iter().find(|ip| Family::of(**ip) == family) {
            Some(ip) => *ip,
            None => panic!("{} has no {family} address", self.name()),
        }
    }

    /// A port of its address of one family.
    ///
    /// # Panics
    /// As [`Host::address`].
    #[must_use]
    #[track_caller]
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    /// A program to run here, with the environment and `resolv.conf` that the
    /// cluster gives to a pod.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let command = Command::new(&self.netns, program).envs(self.environment.iter().cloned());
        match &self.resolv_conf {
            Some(text) => command.resolv_conf(text),
            None => command,
        }
    }

    /// Serves ports on all of the host's addresses.
    ///
    /// # Errors
    /// When one is taken.
    pub fn serve(&self, ports: &[(Protocol, u16)]) -> Result<Server> {
        Server::start(&self.netns, &self.addresses, ports)
    }

    /// Asks a server over a new TCP connection, within 0.9 s.
    ///
    /// # Errors
    /// As the network answered.
    pub fn tcp(&self, to: SocketAddr, payload: &str) -> std::result::Result<Seen, ClientError> {
        self.netns
            .run(|| TcpClient::connect(to, DEADLINE))?
            .ask(payload)
    }

    /// Asks a server with one UDP datagram, within 0.9 s.
    ///
    /// # Errors
    /// As the network answered.
    pub fn udp(&self, to: SocketAddr, payload: &str) -> std::result::Result<Seen, ClientError> {
        self.netns
            .run(|| UdpClient::connect(to, DEADLINE))?
            .ask(payload)
    }

    /// Asks a server by the protocol given.
    ///
    /// # Errors
    /// As the network answered.
    pub fn ask(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        payload: &str,
    ) -> std::result::Result<Seen, ClientError> {
        match protocol {
            Protocol::Tcp => self.tcp(to, payload),
            Protocol::Udp => self.udp(to, payload),
        }
    }

    /// Sends one echo request and awaits the reply, within 0.9 s.
    ///
    /// # Errors
    /// As the network answered.
    pub fn ping(&self, to: IpAddr) -> std::result::Result<(), ClientError> {
        self.netns.run(|| client::ping(to, DEADLINE))
    }

    /// Asks a DNS server for a name's addresses of one family, within 0.9 s.
    ///
    /// # Errors
    /// When no answer comes, or one that is not NOERROR.
    pub fn lookup(
        &self,
        server: IpAddr,
        protocol: Protocol,
        name: &str,
        family: Family,
    ) -> std::result::Result<Vec<IpAddr>, ClientError> {
        self.netns
            .run(|| client::lookup(server, protocol, name, family, DEADLINE))
    }

    /// All of the namespace's configuration.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of(&self.netns)
    }
}
