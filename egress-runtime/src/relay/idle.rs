//! When nothing has moved for too long.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::clock::CoarseInstant;

/// Longer is meant as never, and would not fit the clock.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Tells when it was not touched for the idle time.
///
/// A touch is a note of the time, not a change of the timer: the timer finds
/// out when it fires, and sets itself for the rest.
pub struct IdleTimer {
    sleep: Pin<Box<Sleep>>,
    idle: u32,
    touched: CoarseInstant,
}

impl IdleTimer {
    /// Starts now. `idle` is cut to 30 days; precise to some 10 ms.
    ///
    /// # Panics
    /// Outside a tokio runtime with its time driver enabled.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        let idle = idle.min(LONGEST);
        Self {
            sleep: Box::pin(sleep(idle)),
            idle: u32::try_from(idle.as_millis()).unwrap_or(u32::MAX),
            touched: CoarseInstant::now(),
        }
    }

    /// Something moved.
    pub fn touch(&mut self) {
        self.touched = CoarseInstant::now();
    }

    /// Ready when the last touch is the idle time ago.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let rest = self
                .idle
                .saturating_sub(CoarseInstant::now().since(self.touched));
            if rest == 0 {
                return Poll::Ready(());
            }
            self.set(Duration::from_millis(rest.into()));
        }
    }

    /// Uses the timer for something else than idleness: ready after `time`.
    pub(super) fn set(&mut self, time: Duration) {
        self.sleep.as_mut().reset(Instant::now() + time);
    }

    /// Ready when the time of [`set`](Self::set) has passed.
    pub(super) fn poll_set(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}

impl fmt::Debug for IdleTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleTimer")
            .field("idle", &Duration::from_millis(self.idle.into()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn expires_after_the_last_touch() {
        let idle = Duration::from_millis(600);
        let began = Instant::now();
        let mut timer = IdleTimer::new(idle);
        tokio::select! {
            () = poll_fn(|cx| timer.poll_expired(cx)) => panic!("too early"),
            () = sleep(Duration::from_millis(300)) => {}
        }
        timer.touch();
        poll_fn(|cx| timer.poll_expired(cx)).await;
        let passed = began.elapsed();
        assert!(passed >= Duration::from_millis(880), "{passed:?}");
    }
}
