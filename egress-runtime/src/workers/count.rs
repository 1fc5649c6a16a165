//! How many workers there are.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::cgroup::{Quota, quota};

/// `wanted`, or as many workers as the processors that the CPU quota of our
/// cgroup pays for, rounded up: at least one, and no more than there are
/// processors that we may run on.
#[must_use]
pub fn count(wanted: Option<NonZeroUsize>) -> NonZeroUsize {
    wanted.unwrap_or_else(|| within(processors(), quota(Path::new("/"), read)))
}

fn within(processors: usize, quota: Option<Quota>) -> NonZeroUsize {
    let paid = quota.map_or(usize::MAX, Quota::processors);
    NonZeroUsize::new(processors.min(paid)).unwrap_or(NonZeroUsize::MIN)
}

/// The standard library's count would already be cut to the quota, rounded
/// down.
fn processors() -> usize {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        return 1;
    };
    (0..CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .count()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_taken() {
        let wanted = NonZeroUsize::new(3).unwrap();
        assert_eq!(count(Some(wanted)), wanted);
    }

    #[test]
    fn at_least_one_and_at_most_the_processors() {
        let quota = |text: &str| text.parse().ok();
        assert_eq!(within(8, quota("150000 100000")).get(), 2);
        assert_eq!(within(8, quota("10000 100000")).get(), 1);
        assert_eq!(within(2, quota("800000 100000")).get(), 2);
        assert_eq!(within(4, None).get(), 4);
        assert_eq!(within(0, None).get(), 1);
    }

    #[test]
    fn this_machine_has_processors() {
        let available = std::thread::available_parallelism().unwrap();
        assert!(processors() >= available.get());
        assert!(count(None).get() <= processors());
    }
}
