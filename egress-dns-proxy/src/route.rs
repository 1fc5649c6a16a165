//! Where a port leads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mapping::Mapping;
use crate::metrics::Counts;
use crate::target::{Target, TargetKey};

/// A mapping in force. A connection keeps the one that it was made by.
#[derive(Debug)]
pub(crate) struct Route {
    mapping: Mapping,
    /// A reload may move the mapping to another line.
    line: AtomicU32,
    target: Arc<Target>,
    counts: Counts,
    forbidden: AtomicBool,
}

impl Route {
    pub(crate) fn new(mapping: Mapping, target: Arc<Target>) -> Self {
        Self {
            line: AtomicU32::new(mapping.line()),
            counts: Counts::of(&mapping),
            mapping,
            target,
            forbidden: AtomicBool::new(false),
        }
    }

    /// The mapping, but for its line.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The line of the mapping.
    pub(crate) fn line(&self) -> u32 {
        self.line.load(Ordering::Relaxed)
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether `mapping`, of the same port, leads to the same place; then its
    /// line is that of this route from now on.
    pub(crate) fn adopt(&self, mapping: &Mapping) -> bool {
        let same = TargetKey::of(mapping) == *self.target.key();
        if same {
            self.line.store(mapping.line(), Ordering::Relaxed);
        }
        same
    }

    /// Its connections are to be cut off: no mapping leads there any more.
    pub(crate) fn forbid(&self) {
        self.forbidden.store(true, Ordering::Relaxed);
    }

    /// Whether its connections are to be cut off.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.forbidden.load(Ordering::Relaxed)
    }
}

/// Where a port leads at the moment, for all workers.
#[derive(Debug)]
pub(crate) struct Lead(Mutex<Arc<Route>>);

impl Lead {
    pub(crate) fn new(route: Arc<Route>) -> Self {
        Self(Mutex::new(route))
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        Arc::clone(&self.lock())
    }

    /// Leads new connections elsewhere. Returns where it led.
    pub(crate) fn replace(&self, route: Arc<Route>) -> Arc<Route> {
        std::mem::replace(&mut self.lock(), route)
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Arc<Route>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
