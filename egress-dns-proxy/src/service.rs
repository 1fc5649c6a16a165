//! The ports in service, and what a reload does to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use egress_config::{Protocol, ReloadExisting};
use egress_runtime::listener::{AcceptPauses, LocalGuard};
use egress_runtime::readiness::Readiness;
use egress_runtime::resolver::ResolverError;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::error;

use crate::destinations::Destinations;
use crate::mapping::{Mapping, Mappings};
use crate::metrics::Metrics;
use crate::ports::{PortKey, Ports, PortsError, Sockets};
use crate::route::{Lead, Route};
use crate::server;
use crate::udp::{self, UdpWorker};

/// Everything that serves. It lives on the control runtime, its tasks on those
/// of the workers.
pub(crate) struct Service {
    pub(crate) workers: Vec<(Handle, UdpWorker)>,
    pub(crate) guard: LocalGuard,
    pub(crate) pauses: AcceptPauses,
    pub(crate) metrics: Metrics,
    pub(crate) existing: ReloadExisting,
    pub(crate) destinations: Destinations,
    pub(crate) listeners: HashMap<PortKey, Listening>,
}

/// A port in service.
pub(crate) struct Listening {
    lead: Arc<Lead>,
    /// One per worker.
    tasks: Vec<JoinHandle<()>>,
}

/// What a reload did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Applied {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    pub(crate) kept: usize,
    /// Connections that were cut off.
    pub(crate) closed: usize,
}

/// Why mappings cannot be put in force.
#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    #[error(transparent)]
    Ports(#[from] PortsError),
    #[error(transparent)]
    Resolver(#[from] ResolverError),
}

impl ServiceError {
    /// Whether a capability is missing.
    pub(crate) fn is_permission(&self) -> bool {
        match self {
            Self::Ports(error) => error.is_permission(),
            Self::Resolver(_) => false,
        }
    }
}

impl Service {
    /// Takes the ports of `mappings` that are not in service yet, all or none,
    /// without serving there.
    ///
    /// # Errors
    /// Every port that cannot be taken.
    pub(crate) fn take_ports(&self, mappings: &Mappings) -> Result<Ports, ServiceError> {
        let keys = mappings.iter().map(PortKey::of);
        let new = keys.filter(|key| !self.listeners.contains_key(key));
        Ok(Ports::take(new, self.workers.len())?)
    }

    /// Puts `mappings` in force, with `ports` that were taken for them. What
    /// leads to the same place as before is not touched. New names hold
    /// `readiness`, if given, until they resolve.
    ///
    /// # Errors
    /// When nothing was changed, because something is missing.
    pub(crate) async fn apply(
        &mut self,
        mappings: &Mappings,
        ports: Ports,
        readiness: Option<&Readiness>,
    ) -> Result<Applied, ServiceError> {
        self.destinations.prepare_for(mappings)?;
        let mut sockets: HashMap<PortKey, Sockets> = ports.listen()?.into_iter().collect();
        if !self.listeners.is_empty() {
            // A port in service that leads elsewhere goes on without a break.
            self.destinations.look_ahead(mappings).await;
        }
        let mut applied = Applied::default();
        let mut forbidden = false;
        for mapping in mappings {
            let key = PortKey::of(mapping);
            if let Some(listening) = self.listeners.get(&key) {
                let route = listening.lead.route();
                if route.adopt(mapping) {
                    applied.kept += 1;
                } else {
                    let target = self.destinations.target(mapping, readiness);
                    let new = Arc::new(Route::new(mapping.clone(), target));
                    let old = listening.lead.replace(new);
                    forbidden |= self.forbid(&old);
                    applied.changed += 1;
                }
            } else if let Some(sockets) = sockets.remove(&key) {
                let listening = self.open(mapping, sockets, readiness);
                self.listeners.insert(key, listening);
                applied.added += 1;
            }
        }
        let wanted: HashSet<PortKey> = mappings.iter().map(PortKey::of).collect();
        let gone: Vec<Listening> = self
            .listeners
            .extract_if(|key, _| !wanted.contains(key))
            .map(|(_, listening)| listening)
            .collect();
        for listening in gone {
            forbidden |= self.forbid(&listening.lead.route());
            listening.close().await;
            applied.removed += 1;
        }
        if forbidden {
            for (_, worker) in &self.workers {
                applied.closed += worker
                    .worker
                    .connections
                    .abort_where(|route| route.is_forbidden());
            }
        }
        self.destinations.retain(mappings);
        self.show(mappings);
        Ok(applied)
    }

    /// Accepts no more clients; sessions of datagrams go on until they are
    /// quiet.
    pub(crate) async fn stop_accepting(&mut self) {
        let tcp = self
            .listeners
            .extract_if(|key, _| key.protocol == Protocol::Tcp);
        let tcp: Vec<Listening> = tcp.map(|(_, listening)| listening).collect();
        for listening in tcp {
            listening.close().await;
        }
    }

    /// Cuts off what is still open, and returns how much.
    pub(crate) fn cut_off(&self) -> usize {
        let workers = self.workers.iter();
        workers
            .map(|(_, worker)| worker.worker.connections.abort_all())
            .sum()
    }

    fn open(
        &mut self,
        mapping: &Mapping,
        sockets: Sockets,
        readiness: Option<&Readiness>,
    ) -> Listening {
        let target = self.destinations.target(mapping, readiness);
        let lead = Arc::new(Lead::new(Arc::new(Route::new(mapping.clone(), target))));
        let workers = self.workers.iter();
        let tasks = match sockets {
            Sockets::Tcp(listeners) => {
                let pairs = workers.zip(listeners);
                let serve = |((handle, worker), listener): (&(Handle, UdpWorker), _)| {
                    let serving = server::serve(
                        listener,
                        self.guard.clone(),
                        self.pauses.clone(),
                        Arc::clone(&lead),
                        worker.worker.clone(),
                    );
                    handle.spawn(async move {
                        let Err(error) = serving.await;
                        error!("{error}");
                    })
                };
                pairs.map(serve).collect()
            }
            Sockets::Udp(sockets) => {
                let pairs = workers.zip(sockets);
                let port = mapping.port();
                let serve = |((handle, worker), socket): (&(Handle, UdpWorker), _)| {
                    let serving = udp::serve(socket, Arc::clone(&lead), worker.clone());
                    handle.spawn(async move {
                        let Err(error) = serving.await;
                        error!(%port, "we cannot receive datagrams: {error}");
                    })
                };
                pairs.map(serve).collect()
            }
        };
        Listening { lead, tasks }
    }

    /// Marks a route that is out of force. Returns whether its connections are
    /// to be cut off: a client of datagrams would go on for ever.
    fn forbid(&self, route: &Route) -> bool {
        let close = match (self.existing, route.mapping().protocol()) {
            (ReloadExisting::Close, _) | (_, Protocol::Udp) => true,
            (ReloadExisting::Keep, Protocol::Tcp) => false,
        };
        if close {
            route.forbid();
        }
        close
    }

    fn show(&self, mappings: &Mappings) {
        let routes = mappings
            .iter()
            .filter_map(|mapping| self.listeners.get(&PortKey::of(mapping)))
            .map(|listening| listening.lead.route())
            .collect();
        let names = self.destinations.names().cloned().collect();
        self.metrics.show(routes, names);
    }
}

impl Listening {
    /// Gives the port back.
    async fn close(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // It was aborted, or had ended with an error that it logged.
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests;
