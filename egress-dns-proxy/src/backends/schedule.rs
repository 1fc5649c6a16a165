//! When to resolve a name again.

use std::time::{Duration, Instant};

/// Answers are not asked for more often, whatever their TTL.
const MIN_TTL: Duration = Duration::from_secs(1);
/// A change is noticed within an hour, whatever the TTL.
const MAX_TTL: Duration = Duration::from_secs(60 * 60);
/// Nobody can connect before the first answer, so it is asked for steadily.
const UNRESOLVED_PAUSE: Duration = Duration::from_secs(1);
/// After the first failure of a name that has addresses; doubled by each
/// further one.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The most between two questions while they fail.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// When to ask for the addresses of one name. Whoever asks waits for
/// [`next`](Self::next), asks, and tells what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    next: Instant,
    stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// There was no answer yet.
    Unresolved,
    /// The addresses in use are those of the last answer, and this many
    /// questions failed since.
    Resolved { failures: u32 },
}

impl Schedule {
    /// A name that is to be resolved at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            next: now,
            stage: Stage::Unresolved,
        }
    }

    /// When to ask.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether there was an answer at any time.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        match self.stage {
            Stage::Unresolved => false,
            Stage::Resolved { .. } => true,
        }
    }

    /// An answer with addresses came, good for `ttl`.
    pub fn answered(&mut self, ttl: Duration, now: Instant) {
        self.stage = Stage::Resolved { failures: 0 };
        self.next = now + ttl.clamp(MIN_TTL, MAX_TTL);
    }

    /// No address came: an error, a time-out, or an answer without any.
    pub fn failed(&mut self, now: Instant) {
        let pause = match &mut self.stage {
            Stage::Unresolved => UNRESOLVED_PAUSE,
            Stage::Resolved { failures } => {
                let doubled = 2_u32.saturating_pow(*failures);
                *failures = failures.saturating_add(1);
                MIN_PAUSE.saturating_mul(doubled).min(MAX_PAUSE)
            }
        };
        self.next = now + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_good_for_its_ttl_within_bounds() {
        let start = Instant::now();
        for (ttl, pause) in [(0, 1), (1, 1), (7, 7), (3600, 3600), (86_400, 3600)] {
            let mut schedule = Schedule::new(start);
            assert_eq!(schedule.next(), start);
            schedule.answered(Duration::from_secs(ttl), start + SECOND);
            assert_eq!(schedule.next(), start + SECOND * (pause + 1));
        }
    }

    #[test]
    fn failures_wait_longer_each_time_until_an_answer() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.answered(SECOND, start);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            schedule.failed(start);
            pauses.push(schedule.next().duration_since(start).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        schedule.answered(SECOND, start);
        schedule.failed(start);
        assert_eq!(schedule.next(), start + SECOND);
    }

    #[test]
    fn a_name_without_an_answer_is_asked_for_steadily() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        for _ in 0..100 {
            assert!(!schedule.is_resolved());
            schedule.failed(now);
            assert_eq!(schedule.next(), now + SECOND);
            now = schedule.next();
        }
        schedule.answered(SECOND, now);
        assert!(schedule.is_resolved());
        schedule.failed(now);
        assert!(schedule.is_resolved());
    }

    proptest! {
        #[test]
        fn it_never_spins_and_never_gives_up(
            events in proptest::collection::vec(
                (proptest::option::of(0..200_000_u64), 0..10_000_u64),
                1..60,
            ),
        ) {
            let mut now = Instant::now();
            let mut schedule = Schedule::new(now);
            for (ttl, took) in events {
                now = schedule.next() + Duration::from_millis(took);
                match ttl {
                    Some(ttl) => {
                        schedule.answered(Duration::from_secs(ttl), now);
                        // A change is followed within the TTL.
                        let ttl = Duration::from_secs(ttl).max(SECOND);
                        prop_assert!(schedule.next() <= now + ttl);
                    }
                    None => {
                        let resolved = schedule.is_resolved();
                        schedule.failed(now);
                        let longest = if resolved { 30 } else { 1 };
                        prop_assert!(schedule.next() <= now + SECOND * longest);
                    }
                }
                prop_assert!(schedule.next() >= now + SECOND);
                prop_assert!(schedule.next() <= now + MAX_TTL);
            }
        }
    }
}
