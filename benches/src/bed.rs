//! The lab and its router pods.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use egress_lab::{Command, Family, Lab, Node, Pod, address, program};
use egress_router_init::firewall::rules::TABLE;
use egress_router_init::netlink::nft::NftSocket;
use tempfile::TempDir;

use crate::cost::succeeded;

/// The pod network's interface in a router pod of the lab.
pub(crate) const POD_INTERFACE: &str = "eth0";

/// The physical network's, as the router names the one that it makes.
pub(crate) const EGRESS_INTERFACE: &str = "macvlan0";

/// Port of the server outside.
pub(crate) const SERVER_PORT: u16 = 8080;

/// First of the source addresses on the LAN; every router has its own.
const FIRST_SOURCE: u8 = 60;

/// The lab, and a folder for lists and rule sets.
pub(crate) struct Bed {
    lab: Lab,
    program: PathBuf,
    folder: TempDir,
    sources: std::ops::Range<u8>,
}

/// A pod for a router.
pub(crate) struct RouterPod {
    pod: Pod,
    source: Ipv4Addr,
    program: PathBuf,
}

impl Bed {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::builder()
            .families(&[Family::Ipv4])
            .outside_servers(1)
            .build()?;
        let program = program("egress-router-init")?;
        let folder = tempfile::tempdir().context("making a folder for rule sets")?;
        Ok(Self {
            lab,
            program,
            folder,
            sources: FIRST_SOURCE..100,
        })
    }

    /// The client's pod.
    pub(crate) fn client(&self) -> &Pod {
        self.lab.client(Node::One)
    }

    /// The outside server's machine.
    pub(crate) fn server(&self) -> &egress_lab::Host {
        self.lab.outside(0)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a list for `EGRESS_DESTINATION_FILE`.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A pod for a router, on the client's node.
    pub(crate) fn add_router_pod(&mut self, name: &str) -> Result<RouterPod> {
        let number = self.sources.next().context("no source address is left")?;
        let IpAddr::V4(source) = address::on_lan(Family::Ipv4, number) else {
            anyhow::bail!("the LAN has no IPv4");
        };
        let pod = self.lab.add_pod(name, Node::One)?;
        Ok(RouterPod {
            pod,
            source,
            program: self.program.clone(),
        })
    }
}

/// Where the outermost mappings of every list lead.
pub(crate) fn server_socket() -> Result<SocketAddrV4> {
    match address::outside_server(Family::Ipv4, 0) {
        IpAddr::V4(ip) => Ok(SocketAddrV4::new(ip, SERVER_PORT)),
        IpAddr::V6(_) => anyhow::bail!("the outside has no IPv4"),
    }
}

impl RouterPod {
    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    pub(crate) fn source(&self) -> Ipv4Addr {
        self.source
    }

    /// The router in `init` mode with a list, without the wait of its probe.
    pub(crate) fn init(&self, list: &Path) -> Command {
        self.pod
            .command(&self.program)
            .env("EGRESS_ROUTER_MODE", "init")
            .env("EGRESS_SOURCE", self.source.to_string())
            .env("EGRESS_GATEWAY", address::gateway(Family::Ipv4).to_string())
            .env("EGRESS_DESTINATION_FILE", list.display().to_string())
            .env("EGRESS_ADDRESS_PROBE", "off")
            .deadline(Duration::from_secs(60))
    }

    /// Takes the router away.
    pub(crate) fn undo(&self) -> Result<()> {
        succeeded(self.pod.command(&self.program).arg("undo").run()?)?;
        Ok(())
    }

    /// Takes only the packet rules away, to make room for a peer's.
    pub(crate) fn delete_table(&self) -> Result<()> {
        self.pod
            .netns()
            .run(|| NftSocket::open()?.delete_table(TABLE))?;
        Ok(())
    }
}
