//! When to ask for a gateway, and what its silence means.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::wire::MacAddr;

/// Questions that a gateway may leave unanswered before it counts as silent,
/// and the pause after each.
struct Patience {
    questions: u32,
    pause: Duration,
}

/// Of a gateway that was not heard yet: it fits into the time that `init` waits
/// before its last announcement anyway.
const AT_FIRST: Patience = Patience {
    questions: 2,
    pause: Duration::from_millis(100),
};

/// Of one that has answered before.
const LATER: Patience = Patience {
    questions: 3,
    pause: Duration::from_secs(1),
};

/// From an answer to the next question.
const ANSWERED: Duration = Duration::from_secs(5);

/// From one question to the next while the gateway is silent.
const SILENT: Duration = Duration::from_secs(2);

/// A gateway and what is known of it.
#[derive(Debug)]
pub(super) struct Gateway {
    address: IpAddr,
    answers: Option<bool>,
    known: Option<MacAddr>,
    unanswered: u32,
    next: Instant,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// To ask everyone, or the host that answered last.
    Question(Option<MacAddr>),
    /// To say that it is silent.
    Verdict,
}

impl Gateway {
    pub(super) fn new(address: IpAddr, now: Instant) -> Self {
        Self {
            address,
            answers: None,
            known: None,
            unanswered: 0,
            next: now,
        }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it answers; `None` before that is known.
    pub(super) fn answers(&self) -> Option<bool> {
        self.answers
    }

    /// When something is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// What is due, which is done at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Due {
        let patience = match self.answers {
            None => AT_FIRST,
            Some(true) => LATER,
            Some(false) => Patience {
                questions: u32::MAX,
                pause: SILENT,
            },
        };
        if self.unanswered == patience.questions {
            self.answers = Some(false);
            self.next = now + SILENT;
            return Due::Verdict;
        }
        // Who does not answer may have been replaced by another host.
        let known = self.known.filter(|_| self.unanswered == 0);
        self.unanswered = self.unanswered.saturating_add(1);
        self.next = now + patience.pause;
        Due::Question(known)
    }

    /// It was heard; answers whether that is news.
    pub(super) fn heard(&mut self, mac: MacAddr, now: Instant) -> bool {
        self.known = Some(mac);
        self.unanswered = 0;
        self.next = now + ANSWERED;
        self.answers.replace(true) != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac() -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, 2])
    }

    /// What is due from `start` on for `time`, in milliseconds since.
    fn schedule(gateway: &mut Gateway, start: Instant, time: u64) -> Vec<(u128, Due)> {
        let mut all = Vec::new();
        while gateway.next() <= start + Duration::from_millis(time) {
            let now = gateway.next();
            all.push(((now - start).as_millis(), gateway.take(now)));
        }
        all
    }

    #[test]
    fn one_that_never_answers_is_silent_after_two_questions() {
        let start = Instant::now();
        let mut gateway = Gateway::new("192.0.2.1".parse().unwrap(), start);
        assert_eq!(gateway.answers(), None);
        let everyone = Due::Question(None);
        assert_eq!(
            schedule(&mut gateway, start, 4200),
            [
                (0, everyone),
                (100, everyone),
                (200, Due::Verdict),
                (2200, everyone),
                (4200, everyone),
            ]
        );
        assert_eq!(gateway.answers(), Some(false));
        // And is heard when it comes.
        assert!(gateway.heard(mac(), start));
        assert_eq!(gateway.answers(), Some(true));
    }

    #[test]
    fn one_that_answers_is_asked_now_and_then_and_given_time() {
        let start = Instant::now();
        let mut gateway = Gateway::new("fe80::1".parse().unwrap(), start);
        gateway.take(start);
        assert!(gateway.heard(mac(), start));
        let (known, everyone) = (Due::Question(Some(mac())), Due::Question(None));
        assert_eq!(schedule(&mut gateway, start, 5000), [(5000, known)]);
        // The same again is no news.
        assert!(!gateway.heard(mac(), start));
        assert_eq!(
            schedule(&mut gateway, start, 8000),
            [
                (5000, known),
                (6000, everyone),
                (7000, everyone),
                (8000, Due::Verdict),
            ]
        );
        assert_eq!(gateway.answers(), Some(false));
    }
}
