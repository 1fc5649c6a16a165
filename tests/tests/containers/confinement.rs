//! What a container may do: read from the kernel while it runs, and from what
//! its runtime was asked for.

use std::{fs, fs::File, io, path::Path, time::Duration};

use egress_lab::{Process, eventually, harness::libtest_mimic::Failed};

use crate::{
    machine::{Container, Machine, Record},
    manifest::{array, text},
};

/// The user of the proxies.
const NOBODY: u32 = 65532;

/// Bits of `CAP_NET_ADMIN` and `CAP_NET_RAW`.
const NET: u64 = 1 << 12 | 1 << 13;

/// How long the kernel's word may take to come true: a process that was just
/// started becomes the container's program last.
const SETTLED: Duration = Duration::from_secs(10);

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confinement {
    users: Vec<u32>,
    /// Inheritable, permitted, effective, bounding and ambient.
    capabilities: Vec<u64>,
    no_new_privileges: bool,
    /// 2: by a filter
    seccomp: u8,
    /// Mount options of its root.
    root: Vec<String>,
}

impl Confinement {
    /// Reads `/proc/PID`.
    pub(crate) fn of(process: &Path) -> io::Result<Self> {
        let status = fs::read_to_string(process.join("status"))?;
        let mounts = fs::read_to_string(process.join("mountinfo"))?;
        let field = |name: &str| {
            let values = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            values.unwrap_or_default().split_whitespace()
        };
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(4) == Some(&"/"))
            .ok_or_else(invalid)?;
        Ok(Self {
            users: field("Uid").filter_map(|id| id.parse().ok()).collect(),
            capabilities: sets
                .iter()
                .filter_map(|set| u64::from_str_radix(field(set).next()?, 16).ok())
                .collect(),
            no_new_privileges: field("NoNewPrivs").next() == Some("1"),
            seccomp: field("Seccomp")
                .next()
                .and_then(|mode| mode.parse().ok())
                .ok_or_else(invalid)?,
            root: root[5].split(',').map(str::to_owned).collect(),
        })
    }

    /// As the manifests have it: `capabilities` is the bounding set, and what a
    /// process of this user then has.
    fn as_shipped(user: u32, capabilities: u64) -> impl Fn(&Self) -> bool {
        move |seen| {
            seen.users == [user; 4]
                && seen.capabilities == [0, capabilities, capabilities, capabilities, 0]
                && seen.no_new_privileges
                && seen.seccomp == 2
                && seen.root.iter().any(|option| option == "ro")
        }
    }
}

/// The init container of a router, a program without arguments, as long as
/// `podman` runs.
pub(crate) fn watch_init(machine: &Machine, podman: &Process) -> Option<Confinement> {
    let wanted = Confinement::as_shipped(0, NET);
    eventually(Duration::from_secs(60), || {
        if !podman.is_running() {
            return Ok(None);
        }
        for entry in fs::read_dir(machine.root().join("proc"))?.flatten() {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if arguments == b"/egress-router-init\0" {
                let seen = Confinement::of(&entry.path())?;
                if wanted(&seen) {
                    return Ok(Some(seen));
                }
            }
        }
        Err(io::Error::other("no router runs as it should"))
    })
}

/// A container that has no privilege at all, whatever one tries.
pub(crate) fn is_unprivileged(machine: &Machine, container: &Container) -> Result<(), Failed> {
    is_confined(machine, container, NOBODY, 0)
}

/// A router that stays: as much as it needs, and no more.
pub(crate) fn is_router(machine: &Machine, container: &Container) -> Result<(), Failed> {
    is_confined(machine, container, 0, NET)
}

fn is_confined(
    machine: &Machine,
    container: &Container,
    user: u32,
    capabilities: u64,
) -> Result<(), Failed> {
    let process = machine.process(container.pid);
    let wanted = Confinement::as_shipped(user, capabilities);
    eventually(SETTLED, || match Confinement::of(&process) {
        Ok(seen) if wanted(&seen) => Ok(()),
        other => Err(format!("{}: {other:?}", container.name)),
    });
    // Not even the machine's root can write there.
    let written = File::create(process.join("root/written"));
    let refused = written.as_ref().err().map(io::Error::kind);
    if refused != Some(io::ErrorKind::ReadOnlyFilesystem) {
        return Err(format!("writing into {}: {written:?}", container.name).into());
    }
    let format =
        "{{.HostConfig.Privileged}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}}";
    let inspected = machine.ask(&["inspect", "--format", format, &container.name])?;
    if inspected.trim() != "false true [no-new-privileges]" {
        return Err(format!("podman inspect {}: {inspected}", container.name).into());
    }
    Ok(())
}

impl Record {
    /// Whether the runtime was asked for a filter that refuses what it does not
    /// name: the default profile.
    pub(crate) fn has_default_seccomp(&self) -> bool {
        let filter = &self.0["linux"]["seccomp"];
        filter["defaultAction"] == "SCMP_ACT_ERRNO" && array(&filter["syscalls"]).len() > 1
    }

    /// Capabilities that its process gets.
    pub(crate) fn capabilities(&self) -> Vec<&str> {
        let sets = &self.0["process"]["capabilities"];
        array(&sets["effective"]).iter().map(text).collect()
    }

    /// Whether it may gain none.
    pub(crate) fn no_new_privileges(&self) -> bool {
        self.0["process"]["noNewPrivileges"] == true
    }

    /// Whether its root is read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.0["root"]["readonly"] == true
    }
}
