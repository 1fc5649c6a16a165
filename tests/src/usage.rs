//! What a running program uses of the machine.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    error::{Context, LabError, Result},
    process::Process,
};

impl Process {
    /// Resident memory now, in bytes.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn resident(&self) -> Result<u64> {
        self.status_bytes("VmRSS")
    }

    /// The most that was resident so far, in bytes.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn peak_resident(&self) -> Result<u64> {
        self.status_bytes("VmHWM")
    }

    /// Open file descriptors.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn open_files(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.pid());
        let entries = fs::read_dir(&folder).context(|| format!("reading {folder}"))?;
        Ok(entries.count())
    }

    /// Open ends of pipes.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn pipes(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.pid());
        let entries = fs::read_dir(&folder).context(|| format!("reading {folder}"))?;
        // One that was closed meanwhile is none.
        let is_pipe = |entry: &fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))
        };
        Ok(entries.flatten().filter(is_pipe).count())
    }

    fn status_bytes(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).context(|| format!("reading {path}"))?;
        let kibibytes = status.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        match kibibytes {
            Some(kibibytes) => Ok(kibibytes * 1024),
            None => Err(LabError::new(
                format!("reading {path}"),
                format!("no {name}"),
            )),
        }
    }
}

/// Lets this process have so many files open, and the programs that it starts
/// from then on.
///
/// # Errors
/// When the machine allows fewer; the message says how many are needed.
pub fn allow_open_files(needed: u64) -> Result<()> {
    let what = || format!("allowing {needed} open files");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context(what)?;
    if hard < needed {
        return Err(LabError::new(
            what(),
            format!("the hard limit is {hard}; ulimit -Hn {needed} is needed"),
        ));
    }
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).context(what)?;
    }
    Ok(())
}
