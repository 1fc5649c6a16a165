//! The lab, and how programs are run in its router pod.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use egress_lab::{
    Capability, ClientError, Cni, Command, Family, Host, Lab, LabError, Node, Pod, Process, Seen,
    TcpClient, address, eventually, program,
};
use nix::sys::signal::Signal;

use crate::narration::title;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A question that is not answered need not be waited for long.
const UNANSWERED: Duration = Duration::from_millis(500);

/// The lab with its router pod and two clients.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) pod: Pod,
    /// On the router's node.
    pub(crate) near: Pod,
    /// On the other node.
    pub(crate) far: Pod,
}

impl Stage {
    pub(crate) fn build() -> Result<Self, LabError> {
        let lab = Lab::builder()
            .cni(Cni::DefaultRoute)
            .families(&[Family::Ipv4])
            .outside_servers(3)
            .build()?;
        let [pod, near, far] = [
            lab.router_pod(),
            lab.client(Node::One),
            lab.client(Node::Two),
        ]
        .map(Pod::clone);
        Ok(Self {
            lab,
            pod,
            near,
            far,
        })
    }

    /// `egress-router-init` as an init container: with two capabilities.
    pub(crate) fn router(&self, mode: &str) -> Result<Command, LabError> {
        Ok(self
            .pod
            .command(program("egress-router-init")?)
            .env("EGRESS_ROUTER_MODE", mode)
            .env("EGRESS_SOURCE", "192.168.12.99/24")
            .env("EGRESS_GATEWAY", address::gateway(Family::Ipv4).to_string())
            .env("EGRESS_LOG_FORMAT", "text")
            .capabilities(&[Capability::NET_ADMIN, Capability::NET_RAW]))
    }

    /// Runs the init container and shows what it says.
    pub(crate) fn set_up(&self, router: Command) -> Result<(), LabError> {
        let began = Instant::now();
        print!("{}", router.run()?.expect(0).stderr);
        println!(
            "exit 0 after {} ms, most of it waiting whether another host has the address",
            began.elapsed().as_millis()
        );
        Ok(())
    }

    /// A proxy as the main container: without any capability.
    pub(crate) fn proxy(&self, name: &str) -> Result<Command, LabError> {
        Ok(self
            .pod
            .command(program(name)?)
            .env("EGRESS_SOURCE", "192.168.12.99/24")
            .env("EGRESS_LOG_FORMAT", "text")
            .capabilities(&[]))
    }

    /// Starts a proxy, waits until it is ready, and shows what it says.
    ///
    /// # Panics
    /// When it does not get ready.
    pub(crate) fn start(&self, proxy: Command) -> Result<Process, Box<dyn Error>> {
        let began = Instant::now();
        let process = proxy.spawn()?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090));
        let is_ready = eventually(DEADLINE, || match self.pod.get(admin, "/readyz") {
            Ok(page) if page.status == 200 => Ok(true),
            _ if !process.is_running() => Ok(false),
            Ok(page) => Err(page.body),
            Err(error) => Err(error.to_string()),
        });
        if !is_ready {
            return Err(process.wait()?.stderr.into());
        }
        print!("{}", process.await_stderr("", DEADLINE)?);
        println!("ready after {} ms", began.elapsed().as_millis());
        Ok(process)
    }

    /// Ends a proxy and takes the router away.
    pub(crate) fn clear(&self, proxy: Process, router: Command) -> Result<(), LabError> {
        title("SIGTERM: the proxy drains and ends; egress-router-init undo");
        proxy.signal(Signal::SIGTERM)?;
        let output = proxy.wait()?.expect(0);
        let is_before = |line: &&str| !line.contains("draining");
        for line in output.stderr.lines().skip_while(is_before) {
            println!("{line}");
        }
        println!("exit 0");
        print!("{}", router.arg("undo").run()?.expect(0).stderr);
        Ok(())
    }

    /// Asks the router's address from the physical network.
    pub(crate) fn ask_from_lan(&self, port: u16) -> (SocketAddr, Result<Seen, ClientError>) {
        let to = SocketAddr::new(address::source(Family::Ipv4), port);
        (to, ask_briefly(self.lab.lan_host(), to))
    }
}

fn ask_briefly(from: &Host, to: SocketAddr) -> Result<Seen, ClientError> {
    from.netns()
        .run(|| TcpClient::connect(to, UNANSWERED))?
        .ask("hello")
}
