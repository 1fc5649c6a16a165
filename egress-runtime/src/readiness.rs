//! Readiness by released holds.
//!
//! Whoever has work to do before the program may receive traffic takes a
//! [`Hold`] and drops it when the work is done; the program is ready when no
//! hold is left. The first hold comes with the [`Readiness`] itself, so there
//! is no moment before the others are taken in which it looks ready.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the program is ready, and what it waits for. Clones share state.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// By the order in which they were taken; names may repeat.
    holds: BTreeMap<u64, Cow<'static, str>>,
    next: u64,
    draining: bool,
}

/// Keeps the program from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "a hold that is dropped at once holds nothing"]
pub struct Hold {
    readiness: Readiness,
    key: u64,
}

impl Readiness {
    /// Not ready, and the hold that makes it so, named after what is awaited.
    pub fn held_by(what: impl Into<Cow<'static, str>>) -> (Self, Hold) {
        let readiness = Self {
            state: Arc::new(Mutex::new(State::default())),
        };
        let hold = readiness.hold(what);
        (readiness, hold)
    }

    /// Not ready until the returned hold is dropped. `what` completes the
    /// sentence "waiting for ...". A program that was ready may take a hold
    /// again, for as long as it cannot serve.
    pub fn hold(&self, what: impl Into<Cow<'static, str>>) -> Hold {
        let mut state = self.lock();
        let key = state.next;
        state.next += 1;
        state.holds.insert(key, what.into());
        Hold {
            readiness: self.clone(),
            key,
        }
    }

    /// Turns readiness off for good: the program is ending.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// Why the program is not ready, oldest reason first; empty when it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        let draining = state.draining.then(|| "draining".to_owned());
        let holds = state
            .holds
            .values()
            .map(|what| format!("waiting for {what}"));
        draining.into_iter().chain(holds).collect()
    }

    /// Whether no hold is left and the program is not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        !state.draining && state.holds.is_empty()
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.readiness.lock().holds.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_the_last_hold_is_dropped() {
        let (readiness, network) = Readiness::held_by("the network");
        let rules = readiness.hold("the packet rules");
        assert_eq!(
            readiness.reasons(),
            ["waiting for the network", "waiting for the packet rules"]
        );
        drop(network);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reasons(), ["waiting for the packet rules"]);
        drop(rules);
        assert!(readiness.is_ready());
        assert_eq!(readiness.reasons(), Vec::<String>::new());
    }

    #[test]
    fn holds_of_one_name_count_separately() {
        let (readiness, first) = Readiness::held_by("the link");
        let second = readiness.hold("the link");
        drop(first);
        assert!(!readiness.is_ready());
        drop(second);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_ready_program_can_be_held_again() {
        let (readiness, start) = Readiness::held_by("the start");
        drop(start);
        let link = readiness.hold(format!("link {}", "net1"));
        assert_eq!(readiness.reasons(), ["waiting for link net1"]);
        drop(link);
        assert!(readiness.is_ready());
    }

    #[test]
    fn draining_is_for_good() {
        let (readiness, start) = Readiness::held_by("the start");
        let other = readiness.clone();
        other.drain();
        assert_eq!(readiness.reasons(), ["draining", "waiting for the start"]);
        drop(start);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reasons(), ["draining"]);
    }
}
