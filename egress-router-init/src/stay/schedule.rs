//! When to look at the network again.

use std::time::{Duration, Instant};

/// Changes of the namespace come in bursts, most of them our own.
const SETTLE: Duration = Duration::from_millis(100);

/// A namespace that somebody keeps changing is not worked on more often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// After an attempt that failed, unless something changes before.
const RETRY: Duration = Duration::from_secs(5);

/// The next look, if there is reason for one.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    next: Option<Instant>,
    last: Option<Instant>,
}

impl Schedule {
    /// Something has changed.
    pub(super) fn soon(&mut self, now: Instant) {
        let settled = now + SETTLE;
        self.at(self
            .last
            .map_or(settled, |last| settled.max(last + MIN_INTERVAL)));
    }

    /// Something did not work.
    pub(super) fn later(&mut self, now: Instant) {
        self.at(now + RETRY);
    }

    fn at(&mut self, time: Instant) {
        self.next = Some(self.next.map_or(time, |next| next.min(time)));
    }

    /// When the next look is due; `None` without a reason for one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The look that was due begins.
    pub(super) fn looked(&mut self, now: Instant) {
        self.next = None;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_look_and_the_next_one_waits() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(), None);
        schedule.soon(start);
        schedule.soon(start + SETTLE / 2);
        assert_eq!(schedule.next(), Some(start + SETTLE));
        schedule.looked(start + SETTLE);
        assert_eq!(schedule.next(), None);
        schedule.soon(start + SETTLE * 2);
        assert_eq!(schedule.next(), Some(start + SETTLE + MIN_INTERVAL));
        // Long after the last look it is only the settling that is waited for.
        schedule.looked(start + SETTLE + MIN_INTERVAL);
        schedule.soon(start + MIN_INTERVAL * 5);
        assert_eq!(schedule.next(), Some(start + MIN_INTERVAL * 5 + SETTLE));
    }

    #[test]
    fn a_change_does_not_wait_for_the_retry() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.looked(start);
        schedule.later(start);
        assert_eq!(schedule.next(), Some(start + RETRY));
        schedule.soon(start);
        assert_eq!(schedule.next(), Some(start + MIN_INTERVAL));
        schedule.later(start);
        assert_eq!(schedule.next(), Some(start + MIN_INTERVAL));
    }
}
