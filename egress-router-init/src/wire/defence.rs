//! How an address that we hold is defended.

use std::time::{Duration, Instant};

use super::claim::Conflict;

/// RFC 5227 section 1.1: announcing more often would make two stubborn hosts
/// flood the LAN.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// What was done about a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defence {
    /// The address was announced again.
    Announced,
    /// The address was announced less than ten seconds ago.
    HeldBack,
}

/// A frame in which another host claimed our address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The address and the other host.
    pub conflict: Conflict,
    /// Our answer.
    pub defence: Defence,
}

/// Keeps the interval between our announcements.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    last: Option<Instant>,
}

impl Pacing {
    pub(super) fn on_conflict(&mut self, now: Instant) -> Defence {
        match self.last {
            Some(last) if now.saturating_duration_since(last) < DEFEND_INTERVAL => {
                Defence::HeldBack
            }
            _ => {
                self.last = Some(now);
                Defence::Announced
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_announcement_in_ten_seconds() {
        let start = Instant::now();
        let mut pacing = Pacing::default();
        let answers = [0, 1, 9_999, 10_000, 10_001, 19_999, 25_000]
            .map(|ms| pacing.on_conflict(start + Duration::from_millis(ms)));
        use Defence::{Announced, HeldBack};
        assert_eq!(
            answers,
            [
                Announced, HeldBack, HeldBack, Announced, HeldBack, HeldBack, Announced
            ]
        );
    }
}
