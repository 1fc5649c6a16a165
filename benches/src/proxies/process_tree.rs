//! Processor time and memory of a program and all of its children.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A program and all of its children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessTree {
    root: i32,
}

impl ProcessTree {
    pub(crate) fn of(root: i32) -> Self {
        Self { root }
    }

    /// Work of all its threads so far, those that have ended too, in user and
    /// kernel mode, in nanoseconds: what the scheduler has charged to the
    /// processes. Processes that have ended do not count.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for pid in self.pids()? {
            let clock = clock_getcpuclockid(Pid::from_raw(pid));
            // One that has ended has none.
            if let Ok(time) = clock.and_then(clock_gettime) {
                sum += Duration::from(time);
            }
        }
        Ok(sum)
    }

    /// Memory in bytes: its own, and its share of what it shares with others
    /// ("Pss" in proc(5)).
    pub(crate) fn memory(self) -> Result<u64> {
        self.sum_of(&["Pss:"])
    }

    /// The part of it that no file backs: what is allocated, and not the
    /// pages of programs, of which others that run may take a share.
    pub(crate) fn allocated(self) -> Result<u64> {
        self.sum_of(&["Pss_Anon:", "Pss_Shmem:"])
    }

    fn sum_of(self, names: &[&str]) -> Result<u64> {
        let mut kibibytes = 0;
        for pid in self.pids()? {
            let path = format!("/proc/{pid}/smaps_rollup");
            // One that has ended has none.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            for name in names {
                kibibytes += value_kibibytes(&text, name).with_context(|| path.clone())?;
            }
        }
        anyhow::ensure!(kibibytes > 0, "the program has ended");
        Ok(kibibytes * 1024)
    }

    fn pids(self) -> Result<Vec<i32>> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let parent = fs::read_to_string(entry.path().join("stat"))
                .ok()
                .and_then(|stat| fields_of_stat(&stat).nth(1)?.parse().ok());
            if let Some(parent) = parent {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut pids = vec![self.root];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            pids.extend(children.remove(&pid).unwrap_or_default());
            next += 1;
        }
        Ok(pids)
    }
}

/// The fields after the name of the program, which may hold anything: the
/// state, the parent and so on.
fn fields_of_stat(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ")
        .map_or("", |(_, fields)| fields)
        .split(' ')
}

fn value_kibibytes(smaps_rollup: &str, name: &str) -> Result<u64> {
    smaps_rollup
        .lines()
        .find_map(|line| {
            let value = line.strip_prefix(name)?.trim();
            value.strip_suffix(" kB")?.parse().ok()
        })
        .with_context(|| format!("no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 87 0 0 0 12 34 0 0 20 0 1 0 5";
        assert_eq!(fields_of_stat(stat).nth(1), Some("7"));
    }

    #[test]
    fn the_share_of_memory() {
        let text = "00400000-7ffe [rollup]\nRss:  9 kB\nPss:    1234 kB\nPss_Anon: 7 kB\n";
        assert_eq!(value_kibibytes(text, "Pss:").unwrap(), 1234);
        assert_eq!(value_kibibytes(text, "Pss_Anon:").unwrap(), 7);
        assert!(value_kibibytes("", "Pss:").is_err());
    }

    #[test]
    fn a_child_counts() {
        let alone = ProcessTree::of(i32::try_from(std::process::id()).unwrap());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pids = alone.pids().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pids.contains(&pid));
        assert!(alone.memory().unwrap() > 0);
    }

    #[test]
    fn the_work_of_threads_that_have_ended_counts() {
        let tree = ProcessTree::of(i32::try_from(std::process::id()).unwrap());
        let before = tree.cpu().unwrap();
        let worked = std::thread::spawn(|| {
            let thread = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
            loop {
                let worked = Duration::from(clock_gettime(thread).unwrap());
                if worked > Duration::from_millis(5) {
                    return worked;
                }
            }
        });
        let worked = worked.join().unwrap();
        assert!(tree.cpu().unwrap() - before >= worked);
    }
}
