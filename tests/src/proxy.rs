//! The smallest network in which a proxy does its work.
//!
//! ```text
//!   client ─────────── eth0 pod macvlan0 ─────────── outside
//!   10.128.0.2         .10       192.168.12.99       .1, and on lo every address
//!   fd00:128::2        ::10      2001:db8:12::99     that a test wants, DNS too
//! ```
//!
//! Only the pod has a way to the outside. The outside drops without a word
//! what is for an address that it does not have: any such is a black hole.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use egress_config::AddressFamily as Family;
use ipnet::IpNet;
use nix::sys::signal::Signal;

use crate::{
    address,
    cni::with_prefix,
    command::Command,
    error::{LabError, Result},
    eventually::eventually,
    host::Host,
    lab::{Forwarding, set_up},
    netns::NetNs,
    process::{Output, Process},
    resolver::Resolver,
    route::Route,
};

/// Where the DNS server answers, on the outside.
pub const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53));

/// A program of the lab may be slow to start on a busy machine.
const START: Duration = Duration::from_secs(20);

const CLIENTS: [(IpAddr, IpAddr, u8); 2] = [
    (
        IpAddr::V4(Ipv4Addr::new(10, 128, 0, 2)),
        IpAddr::V4(Ipv4Addr::new(10, 128, 0, 10)),
        24,
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x128, 0, 0, 0, 0, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x128, 0, 0, 0, 0, 0, 0x10)),
        64,
    ),
];

/// A client, the pod of a proxy, and the outside with its DNS server.
#[derive(Debug)]
pub struct ProxyLab {
    client: Host,
    pod: Host,
    outside: Host,
    resolver: Resolver,
}

impl ProxyLab {
    /// Builds it; the outside has `addresses`, each a whole network where its
    /// prefix says so.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn build(addresses: &[IpNet]) -> Result<Self> {
        let client = NetNs::create("client")?;
        let pod = NetNs::create("pod")?;
        let outside = NetNs::create("outside")?;
        for netns in [&client, &pod, &outside] {
            set_up(netns, Forwarding::Off, 0)?;
        }
        client.add_veth("eth0", &pod, "eth0")?;
        pod.add_veth("macvlan0", &outside, "eth0")?;
        for (netns, link) in [
            (&client, "eth0"),
            (&pod, "eth0"),
            (&pod, "macvlan0"),
            (&outside, "eth0"),
        ] {
            netns.set_up(link)?;
        }
        for (of_client, of_pod, prefix) in CLIENTS {
            client.add_address("eth0", with_prefix(of_client, prefix))?;
            pod.add_address("eth0", with_prefix(of_pod, prefix))?;
        }
        for family in Family::ALL {
            let prefix = address::lan(family).prefix_len();
            let gateway = address::gateway(family);
            pod.add_address("macvlan0", with_prefix(address::source(family), prefix))?;
            outside.add_address("eth0", with_prefix(gateway, prefix))?;
            pod.add_route(&Route::default_via(gateway))?;
        }
        for address in addresses.iter().copied().chain([NAME_SERVER.into()]) {
            outside.add_address("lo", address)?;
        }
        for netns in [&client, &pod, &outside] {
            netns.await_carrier()?;
        }
        let resolver = Resolver::start(&Host::new(outside.clone(), vec![NAME_SERVER]))?;
        let of_clients = CLIENTS.map(|(address, ..)| address).to_vec();
        let of_pod = CLIENTS.map(|(_, address, _)| address).to_vec();
        let of_outside = addresses.iter().map(IpNet::addr).collect();
        Ok(Self {
            client: Host::new(client, of_clients),
            pod: Host::new(pod, of_pod).with_resolv_conf(format!("nameserver {NAME_SERVER}\n")),
            outside: Host::new(outside, of_outside),
            resolver,
        })
    }

    /// The client: its network is the pod's and no more, without DNS.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The pod that the proxy runs in, known by the addresses that clients
    /// use.
    #[must_use]
    pub fn pod(&self) -> &Host {
        &self.pod
    }

    /// The outside.
    #[must_use]
    pub fn outside(&self) -> &Host {
        &self.outside
    }

    /// The DNS server, to script its answers.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Ends the DNS server: the port is closed from then on.
    pub fn stop_resolver(&mut self) {
        self.resolver.stop();
    }

    /// Runs a long-running program in the pod, as an image does: without any
    /// capability. Ready on return, by its admin endpoint on port 9090.
    ///
    /// # Errors
    /// When it cannot be started, or ends instead of getting ready.
    pub fn start(&self, command: Command) -> Result<RunningProxy> {
        let process = command.capabilities(&[]).spawn()?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090));
        let ready = eventually(START, || match self.pod.get(admin, "/readyz") {
            Ok(page) if page.status == 200 => Ok(true),
            _ if !process.is_running() => Ok(false),
            Ok(page) => Err(page.body),
            Err(error) => Err(error.to_string()),
        });
        if ready {
            return Ok(RunningProxy { process });
        }
        let output = process.wait()?;
        Err(LabError::new(
            "starting the proxy",
            format!("exit code {}\n{}", output.code, output.stderr),
        ))
    }
}

/// A program in the pod of a [`ProxyLab`]; killed when dropped.
#[derive(Debug)]
pub struct RunningProxy {
    process: Process,
}

impl RunningProxy {
    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it by SIGTERM, and returns what it left behind.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(self) -> Result<Output> {
        self.process.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// Waits for its end, and returns what it left behind.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(self) -> Result<Output> {
        self.process.wait()
    }
}
