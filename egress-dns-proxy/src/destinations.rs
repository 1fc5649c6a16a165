//! The targets and names in use, each with the task that keeps it up to date.
//!
//! Mappings that lead to the same place share a target, and targets of one
//! host share its name, so that a name is asked for once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use egress_runtime::dial::Dialer;
use egress_runtime::readiness::Readiness;
use egress_runtime::resolver::{Resolver, ResolverError, ResolverMetrics};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::health::keep_checking;
use crate::mapping::{HostName, Mapping, Mappings};
use crate::names::Name;
use crate::target::{Target, TargetKey};

/// How long a reload waits for names that are new.
const AHEAD: Duration = Duration::from_secs(1);

/// Every target and name of the mappings in force.
pub(crate) struct Destinations {
    resolver: Option<Resolver>,
    resolver_metrics: ResolverMetrics,
    dialer: Dialer,
    health_check: Duration,
    targets: HashMap<TargetKey, Kept<Target>>,
    names: HashMap<HostName, Kept<Name>>,
}

/// Something and its task, which ends when this is dropped.
#[derive(Debug)]
struct Kept<T> {
    value: Arc<T>,
    _task: JoinSet<()>,
}

impl<T> Kept<T> {
    fn new(value: Arc<T>, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        Self {
            value,
            _task: tasks,
        }
    }
}

impl Destinations {
    /// None yet. Unhealthy addresses are dialled by `dialer` every
    /// `health_check`.
    pub(crate) fn new(
        resolver_metrics: ResolverMetrics,
        dialer: Dialer,
        health_check: Duration,
    ) -> Self {
        Self {
            resolver: None,
            resolver_metrics,
            dialer,
            health_check,
            targets: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// Makes sure that names can be resolved, if there is one: who has only
    /// addresses needs no resolver.
    ///
    /// # Errors
    /// When there is no usable `/etc/resolv.conf`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn prepare_for(&mut self, mappings: &Mappings) -> Result<(), ResolverError> {
        let named = mappings
            .iter()
            .any(|mapping| mapping.host().name().is_some());
        if named && self.resolver.is_none() {
            let metrics = self.resolver_metrics.clone();
            self.resolver = Some(Resolver::from_system(Handle::current(), metrics)?);
        }
        Ok(())
    }

    /// Where `mapping` leads. The first mapping that leads to a name begins to
    /// follow it, and holds `readiness`, if any, until it resolves.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn target(
        &mut self,
        mapping: &Mapping,
        readiness: Option<&Readiness>,
    ) -> Arc<Target> {
        let key = TargetKey::of(mapping);
        if let Some(known) = self.targets.get(&key) {
            return Arc::clone(&known.value);
        }
        let target = Arc::new(Target::new(key.clone(), self.health_check));
        if let Some(host) = mapping.host().name()
            && let Some(resolver) = self.resolver.clone()
        {
            self.name(host, resolver, readiness).tell(&target);
        }
        let checking = keep_checking(Arc::clone(&target), self.dialer);
        self.targets
            .insert(key, Kept::new(Arc::clone(&target), checking));
        target
    }

    /// Begins to follow the names of `mappings` that are new, and waits until
    /// their first look-ups are over, but not for long.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) async fn look_ahead(&mut self, mappings: &Mappings) {
        for mapping in mappings {
            self.target(mapping, None);
        }
        let looked_up = async {
            for name in self.names() {
                name.looked_up().await;
            }
        };
        // Who is not found by then is served as soon as he is.
        let _ = timeout(AHEAD, looked_up).await;
    }

    /// Lets go of what no mapping leads to any more.
    pub(crate) fn retain(&mut self, mappings: &Mappings) {
        let used: HashSet<TargetKey> = mappings.iter().map(TargetKey::of).collect();
        self.targets.retain(|key, _| used.contains(key));
        let hosts: HashSet<&HostName> = used.iter().filter_map(|key| key.host.name()).collect();
        self.names.retain(|name, _| hosts.contains(name));
    }

    /// Every name that is followed.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<Name>> {
        self.names.values().map(|kept| &kept.value)
    }

    fn name(
        &mut self,
        host: &HostName,
        resolver: Resolver,
        readiness: Option<&Readiness>,
    ) -> Arc<Name> {
        match self.names.entry(host.clone()) {
            Entry::Occupied(known) => Arc::clone(&known.get().value),
            Entry::Vacant(vacant) => {
                let name = Arc::new(Name::new(host.clone()));
                let hold =
                    readiness.map(|readiness| readiness.hold(format!("an address of {host}")));
                let following = Arc::clone(&name).follow(resolver, hold);
                vacant.insert(Kept::new(Arc::clone(&name), following));
                name
            }
        }
    }
}
