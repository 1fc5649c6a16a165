//! The peers: what people use who have no such router.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;
use std::{env, fmt, fs};

use anyhow::{Context as _, Result};
use egress_lab::{Command, NetNs};
use egress_router_init::netlink::nft::NftSocket;

use crate::bed::{EGRESS_INTERFACE, POD_INTERFACE};
use crate::cost::{Cost, succeeded};
use crate::mappings::Mappings;

/// Its table; for iptables the names are given.
const TABLE: &str = "linear";

/// Linear rules may take their time.
const DEADLINE: Duration = Duration::from_secs(120);

/// A way to load a rule set with one DNAT rule for each mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nft,
    IptablesRestore,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nft => "nft -f",
            Self::IptablesRestore => "iptables-restore",
        })
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Nft, Self::IptablesRestore];

    fn program(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::IptablesRestore => "iptables-restore",
        }
    }

    /// The rules. What they mean is what our table means, but for counters:
    /// only what arrives on the pod interface for the pod is translated, and
    /// only translated connections pass.
    fn script(self, mappings: &Mappings, source: Ipv4Addr) -> String {
        match self {
            Self::Nft => nft_script(mappings, source),
            Self::IptablesRestore => iptables_script(mappings, source),
        }
    }
}

/// A peer that is installed here.
#[derive(Debug)]
pub(crate) struct Peer {
    kind: Kind,
    program: PathBuf,
    version: String,
}

impl Peer {
    /// Looks for it in `PATH` and where system administration tools are.
    pub(crate) fn find(kind: Kind) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
            .map(|folder| folder.join(kind.program()))
            .find(|program| program.is_file())?;
        let output = process::Command::new(&program)
            .arg("--version")
            .output()
            .ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Some(Self {
            kind,
            program,
            version,
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Writes its rule set to a file.
    pub(crate) fn write(
        &self,
        mappings: &Mappings,
        source: Ipv4Addr,
        file: PathBuf,
    ) -> Result<PathBuf> {
        fs::write(&file, self.kind.script(mappings, source)).context("writing rules")?;
        Ok(file)
    }

    /// Loads a rule set, in place of the one before.
    pub(crate) fn load(&self, netns: &NetNs, file: &Path) -> Result<Cost> {
        let command = Command::new(netns, &self.program).deadline(DEADLINE);
        let command = match self.kind {
            Kind::Nft => command.arg("-f"),
            Kind::IptablesRestore => command,
        };
        Cost::of_program(command.arg(file.display().to_string()))
            .with_context(|| format!("{} in {}", self.kind, netns.name()))
    }

    /// Takes its rules away.
    pub(crate) fn clear(&self, netns: &NetNs, folder: &Path) -> Result<()> {
        match self.kind {
            Kind::Nft => {
                netns.run(|| NftSocket::open()?.delete_table(TABLE))?;
            }
            Kind::IptablesRestore => {
                let file = folder.join("no-rules");
                fs::write(
                    &file,
                    "*nat\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n",
                )?;
                let command = Command::new(netns, &self.program).arg(file.display().to_string());
                succeeded(command.run()?)?;
            }
        }
        Ok(())
    }
}

fn nft_script(mappings: &Mappings, source: Ipv4Addr) -> String {
    let rules = mappings.lines_of(|text, port, target| {
        use fmt::Write as _;
        write!(text, "    tcp dport {port} dnat ip to {target}")
    });
    format!(
        "table inet {TABLE}\n\
         delete table inet {TABLE}\n\
         table inet {TABLE} {{\n\
         \x20 chain translate {{\n{rules}  }}\n\
         \x20 chain prerouting {{\n\
         \x20   type nat hook prerouting priority dstnat\n\
         \x20   iifname \"{POD_INTERFACE}\" fib daddr type local goto translate\n\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat\n\
         \x20   oifname \"{EGRESS_INTERFACE}\" snat ip to {source}\n\
         \x20 }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy drop\n\
         \x20   ct state established,related accept\n\
         \x20   iifname \"{POD_INTERFACE}\" oifname \"{EGRESS_INTERFACE}\" ct status dnat accept\n\
         \x20   iifname \"{POD_INTERFACE}\" reject\n\
         \x20 }}\n\
         }}\n"
    )
}

fn iptables_script(mappings: &Mappings, source: Ipv4Addr) -> String {
    let rules = mappings.lines_of(|text, port, target| {
        use fmt::Write as _;
        write!(
            text,
            "-A TRANSLATE -p tcp -m tcp --dport {port} -j DNAT --to-destination {target}"
        )
    });
    format!(
        "*nat\n\
         :PREROUTING ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n\
         :TRANSLATE - [0:0]\n\
         -A PREROUTING -i {POD_INTERFACE} -m addrtype --dst-type LOCAL -g TRANSLATE\n\
         -A POSTROUTING -o {EGRESS_INTERFACE} -j SNAT --to-source {source}\n\
         {rules}\
         COMMIT\n\
         *filter\n\
         :FORWARD DROP [0:0]\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -i {POD_INTERFACE} -o {EGRESS_INTERFACE} -m conntrack --ctstate DNAT -j ACCEPT\n\
         -A FORWARD -i {POD_INTERFACE} -j REJECT\n\
         COMMIT\n"
    )
}
