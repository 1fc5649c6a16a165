//! The namespace, the cores and the files of a run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use egress_lab::{Identity, NetNs, allow_open_files};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::rule_list;

/// Where the origin is.
pub(crate) const ORIGIN_HOST: &str = "127.0.0.1";
pub(crate) const ORIGIN_PORT: u16 = 8000;
/// Always answers, for health checks.
pub(crate) const CHECK_PORT: u16 = 8001;
/// Where every subject listens.
pub(crate) const PROXY_PORT: u16 = 3128;

/// Where the subjects' folders are. A program that watches its list for
/// changes watches the folders above it as well, which takes longer the more
/// they hold: /tmp may hold anything, while a container has next to nothing.
const FOLDERS: &str = "/mnt";

/// Twice the idle tunnels, and some.
const OPEN_FILES: u64 = 20_000;

/// The namespace, the cores and the files of a run.
#[derive(Debug)]
pub(crate) struct Ground {
    netns: NetNs,
    cores: Cores,
    /// Gone before the files that they show.
    _covers: Vec<Cover>,
    folder: TempDir,
}

/// Which core is whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
}

impl Ground {
    /// Needs the sandbox of the lab. `lists` are the lengths of the lists of
    /// names that shall resolve.
    pub(crate) fn prepare(lists: &[usize]) -> Result<Self> {
        allow_open_files(OPEN_FILES)?;
        let netns = NetNs::create("bench")?;
        netns.sysctl(&[("net/ipv4/ip_local_port_range", "10000 65535")])?;
        let folder = tempfile::tempdir().context("making a folder for the benchmark")?;
        // Some peers read and write as a user of their own.
        open_to_all(folder.path())?;
        let mut covers = Vec::new();
        for (name, target, text) in [
            ("hosts", "/etc/hosts", rule_list::hosts_file(lists)),
            (
                "resolv.conf",
                "/etc/resolv.conf",
                "nameserver 127.0.0.1\n".to_owned(),
            ),
        ] {
            let file = folder.path().join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            covers.push(Cover::mount(&file, target)?);
        }
        let folders = folder.path().join("subjects");
        fs::create_dir(&folders).context("making a folder for the subjects")?;
        open_to_all(&folders)?;
        covers.push(Cover::mount(&folders, FOLDERS)?);
        // squid keeps tables there that outlive it when it is killed.
        let shared = folder.path().join("shm");
        fs::create_dir(&shared).context("making a folder for shared memory")?;
        open_to_all(&shared)?;
        covers.push(Cover::mount(&shared, "/dev/shm")?);
        let certificates = folder.path().join("certificates");
        fs::create_dir(&certificates).context("making a folder for certificates")?;
        let identity = Identity::create(&[TLS_NAME, "127.0.0.1"])?;
        identity.write_to(&certificates)?;
        let both = format!("{}{}", identity.certificate_pem(), identity.key_pem());
        fs::write(certificates.join("both.pem"), both).context("writing a certificate")?;
        Ok(Self {
            netns,
            cores: Cores::of_this_process()?,
            _covers: covers,
            folder,
        })
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    pub(crate) fn cores(&self) -> Cores {
        self.cores
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    /// Calls `action` in the namespace, on a core; what it starts stays there.
    pub(crate) fn on_core<T: Send>(
        &self,
        core: usize,
        action: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.netns.run(|| {
            let mut set = CpuSet::new();
            set.set(core)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
                .with_context(|| format!("pinning to core {core}"))?;
            action()
        })
    }

    /// An empty folder for one start of one subject; it is gone with the
    /// value.
    #[expect(clippy::unused_self, reason = "FOLDERS is mounted while this lives")]
    pub(crate) fn new_folder(&self) -> Result<TempDir> {
        let folder = tempfile::tempdir_in(FOLDERS).context("making a folder")?;
        open_to_all(folder.path())?;
        Ok(folder)
    }
}

/// The name in the certificate of the proxies.
pub(crate) const TLS_NAME: &str = "proxy.example";

impl Cores {
    fn of_this_process() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
        let proxy = cores.next().context("this process may use no core")?;
        Ok(Self {
            proxy,
            load: cores.next().unwrap_or(proxy),
        })
    }

    /// Said with the figures.
    pub(crate) fn sentence(self) -> String {
        if self.proxy == self.load {
            format!(
                "there is one core only: proxy, load generator and origin share core {}, and the \
                 figures say little",
                self.proxy
            )
        } else {
            format!(
                "proxy on core {}; load generator and origin, one process, on core {}",
                self.proxy, self.load
            )
        }
    }
}

fn open_to_all(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))
        .with_context(|| format!("opening {} to all", folder.display()))
}

/// A file or folder over another, for this process and all that it starts, until the
/// value is gone.
#[derive(Debug)]
struct Cover(&'static str);

impl Cover {
    fn mount(file: &Path, target: &'static str) -> Result<Self> {
        let none = None::<&str>;
        mount(Some(file), target, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("mounting over {target}"))?;
        Ok(Self(target))
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_said() {
        let one = Cores { proxy: 3, load: 3 };
        assert!(one.sentence().contains("one core only"));
        let two = Cores { proxy: 0, load: 1 };
        assert!(!two.sentence().contains("one core only"));
    }
}
