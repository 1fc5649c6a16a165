//! When operations are due.

use std::time::{Duration, Instant};

/// So many operations a second, evenly. One that cannot begin when it is due
/// counts from then on, so that a proxy that stalls does not slow down the
/// clock that it is measured by (coordinated omission).
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    per_second: u32,
    begun: u64,
}

impl Pace {
    pub(super) fn new(start: Instant, per_second: u32) -> Self {
        Self {
            start,
            per_second: per_second.max(1),
            begun: 0,
        }
    }

    /// When the next operation is due.
    fn next(&self) -> Instant {
        let nanos = u128::from(self.begun) * 1_000_000_000 / u128::from(self.per_second);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Begins the next operation if it is due, and says since when.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next();
        (due <= now).then(|| {
            self.begun += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_evenly_and_none_is_left_out() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1_500);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start), None);

        let stalled = start + Duration::from_secs(2);
        let late: Vec<_> = std::iter::from_fn(|| pace.take(stalled)).collect();
        assert_eq!(late.len(), 3_000);
        assert_eq!(late.first(), Some(&(start + Duration::from_nanos(666_666))));
        assert_eq!(late.last(), Some(&stalled));
        assert!(pace.next() > stalled);
    }
}
