//! What all workers share, and what each has of its own.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use egress_runtime::access_log::WorkerLog;
use egress_runtime::dial::Dialer;
use egress_runtime::drain::{Connections, Drain};
use egress_runtime::limits::Limits;
use egress_runtime::relay::Transferred;
use egress_runtime::resolver::Resolver;
use tokio::sync::watch;

use crate::acl::{Sni, Target};
use crate::enforced::Enforced;
use crate::http1::Via;
use crate::metrics::Metrics;
use crate::pool::Pool;

/// The settings that a request meets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Longest head, in bytes.
    pub(crate) header_bytes: usize,
    /// How long a client may take to send one.
    pub(crate) header_time: Duration,
    /// How long nothing may move.
    pub(crate) idle: Duration,
    pub(crate) sni: Sni,
    /// Whether the upstream is told the client's address.
    pub(crate) forwarded_for: bool,
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// The rules in force; a reload sends new ones.
    pub(crate) enforced: watch::Receiver<Arc<Enforced>>,
    pub(crate) resolver: Resolver,
    pub(crate) dialer: Dialer,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) via: Via,
    pub(crate) metrics: Metrics,
}

/// One worker: a thread with connections of its own.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) connections: Connections<Live>,
    pub(crate) access_log: WorkerLog,
}

/// What a live connection is about, for those who look at it from outside.
#[derive(Clone, Debug)]
pub(crate) enum Live {
    /// It sends requests, each of which is judged by itself.
    Requests,
    /// It is a tunnel.
    Tunnel(Arc<Flow>),
}

/// Where the bytes of a request or a tunnel go, and how many went.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) target: Target,
    pub(crate) transferred: Transferred,
    /// Once it is connected.
    pub(crate) upstream: OnceLock<SocketAddr>,
}

impl Shared {
    /// The rules in force.
    pub(crate) fn enforced(&self) -> Arc<Enforced> {
        Arc::clone(&self.enforced.borrow())
    }
}
