//! The container that a program believes to be in.
#![expect(
    unsafe_code,
    reason = "what a child does between fork and exec can only be said through pre_exec"
)]

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command},
    time::Instant,
};

use capctl::{
    caps::{Cap, CapSet, CapState, ambient, bounding},
    prctl::{Secbits, set_pdeathsig, set_securebits},
};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{Pid, getpid, getppid},
};

use crate::netns::NetNs;

/// What differs from the test process besides the network namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Container {
    pub(crate) resolv_conf: Option<String>,
    pub(crate) capabilities: Option<Vec<Cap>>,
    pub(crate) uid: Option<u32>,
    pub(crate) read_only_proc_sys: bool,
    pub(crate) own_pids: bool,
    pub(crate) open_files: Option<u64>,
}

impl Container {
    /// Starts a program in here and says when, the making of the container
    /// left out. The calling thread enters the namespaces for good, and can
    /// start no threads from then on.
    pub(crate) fn start(
        &self,
        netns: &NetNs,
        mut program: Command,
    ) -> io::Result<(Instant, Child)> {
        netns.enter().map_err(io::Error::other)?;
        let mut namespaces = CloneFlags::CLONE_NEWNS;
        if self.own_pids {
            namespaces |= CloneFlags::CLONE_NEWPID;
        }
        unshare(namespaces)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        if let Some(text) = &self.resolv_conf {
            mount_etc(text)?;
        }
        if let Some(uid) = self.uid {
            // Capabilities outlast the change of user; what of them the
            // program gets is decided in `confine`.
            set_securebits(Secbits::NO_SETUID_FIXUP)?;
            program.uid(uid).gid(uid);
        }
        let user = netns
            .user_namespace()
            .map(|user| user.try_clone_to_owned())
            .transpose()?;
        let confinement = Confinement {
            parent: getpid(),
            user,
            capabilities: self
                .capabilities
                .as_ref()
                .map(|kept| kept.iter().copied().collect()),
            read_only_proc_sys: self.read_only_proc_sys,
            own_pids: self.own_pids,
            open_files: self.open_files,
        };
        // SAFETY: the closure makes system calls and nothing else; it neither
        // allocates nor takes a lock.
        unsafe { program.pre_exec(move || confinement.apply()) };
        let begun = Instant::now();
        Ok((begun, program.spawn()?))
    }
}

/// Covers `/etc`, for this thread and its children.
fn mount_etc(resolv_conf: &str) -> io::Result<()> {
    mount(
        Some("lab"),
        "/etc",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64k,mode=755"),
    )?;
    fs::write("/etc/resolv.conf", resolv_conf)?;
    fs::write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
}

/// What the child does to itself between fork and exec.
struct Confinement {
    parent: Pid,
    user: Option<OwnedFd>,
    capabilities: Option<CapSet>,
    read_only_proc_sys: bool,
    own_pids: bool,
    open_files: Option<u64>,
}

impl Confinement {
    fn apply(&self) -> io::Result<()> {
        if self.own_pids {
            mount(
                Some(c"proc"),
                c"/proc",
                Some(c"proc"),
                proc_flags(),
                None::<&std::ffi::CStr>,
            )?;
        }
        if self.read_only_proc_sys {
            let none = None::<&std::ffi::CStr>;
            let path = c"/proc/sys";
            mount(
                Some(path),
                path,
                none,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                none,
            )?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, path, none, flags | proc_flags(), none)?;
        }
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        if let Some(most) = self.open_files {
            setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        }
        if let Some(kept) = self.capabilities {
            confine(kept)?;
        }
        // Last, because a change of credentials resets it.
        set_pdeathsig(Some(Signal::SIGKILL as i32))?;
        if !self.own_pids && getppid() != self.parent {
            return Err(io::Error::from(Errno::ESRCH));
        }
        Ok(())
    }
}

fn proc_flags() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

fn confine(kept: CapSet) -> io::Result<()> {
    for capability in !kept {
        // Not raised, or unknown to this kernel, is as good as dropped.
        if bounding::read(capability) == Some(true) {
            bounding::drop(capability)?;
        }
    }
    CapState {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    }
    .set_current()?;
    for capability in kept {
        ambient::raise(capability)?;
    }
    Ok(())
}
