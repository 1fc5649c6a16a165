//! A clock that costs a few nanoseconds to read.

use nix::time::{ClockId, clock_gettime};

/// A moment of the monotonic clock, in milliseconds. It wraps around after 49
/// days, so only what lies less apart may be compared. As old as one tick of
/// the kernel, at most 10 ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoarseInstant(u32);

impl CoarseInstant {
    pub(super) fn now() -> Self {
        // The kernel has had the clock since 2.6.32; without it time would
        // stand still, and relays would never be idle.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| {
            time.tv_sec()
                .wrapping_mul(1000)
                .wrapping_add(time.tv_nsec() / 1_000_000)
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "wraps around, as documented"
        )]
        Self(now as u32)
    }

    /// Milliseconds from `earlier` to this moment.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn follows_the_time_and_wraps_around() {
        let before = CoarseInstant::now();
        std::thread::sleep(Duration::from_millis(50));
        let passed = CoarseInstant::now().since(before);
        assert!((40..10_000).contains(&passed), "{passed}");
        assert_eq!(CoarseInstant(5).since(CoarseInstant(u32::MAX - 4)), 10);
    }
}
