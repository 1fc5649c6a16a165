//! What is in flight, by dropped guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Tells connections that the program is ending, and waits for them. Clones
/// share state.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    in_flight: AtomicUsize,
    draining: AtomicBool,
    begun: Notify,
    emptied: Notify,
}

/// One thing in flight, until it is dropped.
#[derive(Debug)]
#[must_use = "a guard that is dropped at once guards nothing"]
pub struct Guard {
    drain: Drain,
}

impl Drain {
    /// Nothing in flight, not draining.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one thing in flight.
    pub fn guard(&self) -> Guard {
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Guard {
            drain: self.clone(),
        }
    }

    /// How much is in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// The program is ending.
    pub fn begin(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.shared.begun.notify_waiters();
    }

    /// Whether the program is ending.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Waits until the program is ending. For a connection between two
    /// requests; one that is busy asks [`is_draining`](Self::is_draining) when
    /// it is done, and has nothing to keep meanwhile.
    pub async fn draining(&self) {
        let begun = self.shared.begun.notified();
        if !self.shared.draining.load(Ordering::SeqCst) {
            begun.await;
        }
    }

    /// Waits until nothing is in flight. Whoever waits sets the deadline.
    pub async fn finished(&self) {
        loop {
            let emptied = self.shared.emptied.notified();
            if self.shared.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let shared = &self.drain.shared;
        if shared.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.emptied.notify_waiters();
        }
    }
}
