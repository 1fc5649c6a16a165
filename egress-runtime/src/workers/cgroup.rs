//! The CPU quota of our cgroup, of version 2 or 1.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Time on processors in each period, both in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    time: u64,
    period: u64,
}

/// Not a quota, or none is set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unlimited;

impl Quota {
    /// Processors that the quota pays for, rounded up.
    pub(super) fn processors(self) -> usize {
        usize::try_from(self.time.div_ceil(self.period)).unwrap_or(usize::MAX)
    }

    fn new(time: &str, period: &str) -> Result<Self, Unlimited> {
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| Unlimited);
        let (time, period) = (number(time)?, number(period)?);
        if time == 0 || period == 0 {
            return Err(Unlimited);
        }
        Ok(Self { time, period })
    }

    fn is_less_than(self, other: Self) -> bool {
        u128::from(self.time) * u128::from(other.period)
            < u128::from(other.time) * u128::from(self.period)
    }
}

/// The content of `cpu.max`: `QUOTA PERIOD`, or `max PERIOD` for no limit.
/// (Linux, Documentation/admin-guide/cgroup-v2.rst)
impl FromStr for Quota {
    type Err = Unlimited;

    fn from_str(text: &str) -> Result<Self, Unlimited> {
        let (time, period) = text.trim().split_once(' ').ok_or(Unlimited)?;
        Self::new(time, period)
    }
}

/// The smallest quota of our cgroup and those above it. `read` returns the
/// content of a file below `root`, none when there is no such file.
pub(super) fn quota(root: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<Quota> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    groups
        .lines()
        .flat_map(|line| quotas(root, line, &read))
        .reduce(|least, quota| {
            if quota.is_less_than(least) {
                quota
            } else {
                least
            }
        })
}

/// The quotas of one line of proc_pid_cgroup(5): `ID:CONTROLLERS:PATH`, with
/// no controllers in version 2.
fn quotas(root: &Path, line: &str, read: &impl Fn(&Path) -> Option<String>) -> Vec<Quota> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let cgroups = root.join("sys/fs/cgroup");
    if controllers.is_empty() {
        return up_from(&cgroups, path)
            .filter_map(|group| read(&group.join("cpu.max"))?.parse().ok())
            .collect();
    }
    if !controllers.split(',').any(|name| name == "cpu") {
        return Vec::new();
    }
    // The mount is named after the controllers, with `cpu` as a link to it.
    up_from(&cgroups.join("cpu"), path)
        .filter_map(|group| {
            let time = read(&group.join("cpu.cfs_quota_us"))?;
            let period = read(&group.join("cpu.cfs_period_us"))?;
            Quota::new(&time, &period).ok()
        })
        .collect()
}

/// The folders from `path` up to the mount. Without a cgroup namespace the path
/// is the node's, and the folder that it names is mounted itself: the last.
fn up_from<'a>(mount: &'a Path, path: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    Path::new(path)
        .ancestors()
        .map(|path| mount.join(path.strip_prefix("/").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Option<Quota> {
        quota(Path::new("/"), |path| {
            let (_, content) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some((*content).to_owned())
        })
    }

    fn per_100_ms(time: u64) -> Option<Quota> {
        let period = 100_000;
        Some(Quota { time, period })
    }

    #[test]
    fn reads_cpu_max() {
        assert_eq!("150000 100000\n".parse(), Ok(per_100_ms(150_000).unwrap()));
        for unlimited in [
            "max 100000\n",
            "",
            "100000",
            "x y",
            "0 100000",
            "1 0",
            "-1 5",
        ] {
            assert_eq!(unlimited.parse::<Quota>(), Err(Unlimited), "{unlimited:?}");
        }
    }

    #[test]
    fn rounds_up() {
        let processors = |text: &str| text.parse::<Quota>().unwrap().processors();
        assert_eq!(processors("100000 100000"), 1);
        assert_eq!(processors("100001 100000"), 2);
        assert_eq!(processors("1 100000"), 1);
        assert_eq!(processors("250000 50000"), 5);
    }

    #[test]
    fn the_smallest_on_the_way_up_counts() {
        let files = [
            ("/proc/self/cgroup", "0::/pod/main\n"),
            ("/sys/fs/cgroup/pod/main/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/pod/cpu.max", "200000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "300000 100000\n"),
        ];
        assert_eq!(found(&files), per_100_ms(200_000));
    }

    #[test]
    fn version_2_in_a_container() {
        let files = [
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ];
        assert_eq!(found(&files), per_100_ms(50_000));
    }

    #[test]
    fn version_1_with_the_path_of_the_node() {
        let groups = "5:memory:/kubepods/a\n4:cpu,cpuacct:/kubepods/a\n1:cpuset:/b\n";
        let files = [
            ("/proc/self/cgroup", groups),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(found(&files), per_100_ms(250_000));
    }

    #[test]
    fn no_quota() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("/proc/self/cgroup", "0::/\nnonsense\n")]), None);
        let minus_one = [
            ("/proc/self/cgroup", "4:cpu:/\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(found(&minus_one), None);
    }
}
