//! What is told of a request or tunnel, once, at its end.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use egress_runtime::access_log::Entry;
use egress_runtime::relay::{RelayEnd, Transferred};
use tokio::time::Instant;

use crate::acl::{Decision, Host, Target};
use crate::metrics::Kind;
use crate::refusal::Refusal;
use crate::shared::{Flow, Worker};

/// One request or tunnel. It becomes a line of the access log and a count in
/// the metrics when it is dropped, however that comes about.
pub(crate) struct Record {
    worker: Arc<Worker>,
    began: Instant,
    client: SocketAddr,
    kind: Kind,
    method: Cow<'static, str>,
    /// The target and what went its way, once it is known.
    flow: Option<Arc<Flow>>,
    decision: Option<Decision>,
    status: u16,
    dns: Option<Duration>,
    connect: Option<Duration>,
    outcome: Outcome,
}

/// How it went.
enum Outcome {
    /// Nothing is amiss.
    Fine,
    /// A tunnel is open. Said unless the relay says better: its task was cut
    /// off.
    Relaying,
    Failed(Box<Failed>),
}

struct Failed {
    side: &'static str,
    text: String,
}

impl Record {
    pub(crate) fn new(worker: &Arc<Worker>, client: SocketAddr) -> Self {
        Self {
            worker: Arc::clone(worker),
            began: Instant::now(),
            client,
            kind: Kind::Forward,
            method: Cow::Borrowed("-"),
            flow: None,
            decision: None,
            status: 0,
            dns: None,
            connect: None,
            outcome: Outcome::Fine,
        }
    }

    /// The client asked for this.
    pub(crate) fn asked(&mut self, kind: Kind, method: &str, target: Target) -> Arc<Flow> {
        self.kind = kind;
        self.method = method_name(method);
        let flow = Arc::new(Flow {
            target,
            transferred: Transferred::default(),
            upstream: OnceLock::new(),
        });
        self.flow = Some(Arc::clone(&flow));
        flow
    }

    /// The policy has spoken.
    pub(crate) fn decided(&mut self, decision: Decision) {
        self.decision = Some(decision);
    }

    /// The look-up of the name took so long.
    pub(crate) fn resolved(&mut self, took: Duration) {
        self.dns = Some(took);
    }

    /// The request goes to `address`, over a new connection if it `took` time.
    pub(crate) fn connected(&mut self, address: SocketAddr, took: Option<Duration>) {
        let metrics = &self.worker.shared.metrics;
        match took {
            Some(took) => metrics.connected(took),
            None => metrics.reused(),
        }
        if let Some(flow) = &self.flow {
            // A second connection goes to the same host.
            let _ = flow.upstream.set(address);
        }
        self.connect = took;
    }

    /// The client got this status.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// The request was refused, or broke off.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        // A denial is in `decision`.
        if let Refusal::Denied(_) = refusal {
            return;
        }
        self.failed(refusal.side(), refusal.proxy_error(), refusal.to_string());
    }

    /// The client went away, or its connection broke.
    pub(crate) fn client_failed(&mut self, error: &std::io::Error) {
        self.failed("client", "connection_terminated", error.to_string());
    }

    /// From now on it is a tunnel, until [`relayed`](Self::relayed).
    pub(crate) fn begin_relay(&mut self) {
        self.outcome = Outcome::Relaying;
    }

    /// The tunnel has ended.
    pub(crate) fn relayed(&mut self, end: &RelayEnd) {
        match end {
            RelayEnd::Finished => self.outcome = Outcome::Fine,
            RelayEnd::Idle => self.refused(&Refusal::Idle),
            RelayEnd::Downstream(error) => self.client_failed(error),
            RelayEnd::Upstream(error) => {
                self.failed("upstream", "connection_terminated", error.to_string());
            }
        }
    }

    fn failed(&mut self, side: &'static str, error: &'static str, text: String) {
        self.worker.shared.metrics.failed(side, error);
        self.outcome = Outcome::Failed(Box::new(Failed { side, text }));
    }

    fn write(&self, entry: &mut Entry<'_>, up: u64, down: u64) {
        entry
            .socket("client", self.client)
            .str("method", &self.method);
        if let Some(flow) = &self.flow {
            let target = &flow.target;
            match target.host() {
                Host::Name(name) => entry.str("host", name.as_str()),
                Host::Address(address @ IpAddr::V4(_)) => entry.ip("host", *address),
                // In brackets.
                host @ Host::Address(IpAddr::V6(_)) => entry.display("host", host),
            };
            entry.number("port", target.port().into());
            if let Some(upstream) = flow.upstream.get() {
                entry.ip("address", upstream.ip());
            }
        }
        if let Some(decision) = self.decision {
            entry.str("decision", decision.verdict().name());
            match decision.line() {
                Some(line) => entry.number("rule", line.into()),
                None => entry.str("reason", decision.reason().name()),
            };
        }
        entry
            .number("status", self.status.into())
            .number("bytes_up", up)
            .number("bytes_down", down)
            .duration_ms("duration_ms", self.began.elapsed());
        if let Some(dns) = self.dns {
            entry.duration_ms("dns_ms", dns);
        }
        if let Some(connect) = self.connect {
            entry.duration_ms("connect_ms", connect);
        }
        let (side, text) = match &self.outcome {
            Outcome::Fine => return,
            Outcome::Relaying => ("proxy", "ended by the proxy"),
            Outcome::Failed(failed) => (failed.side, failed.text.as_str()),
        };
        entry.str("side", side).str("error", text);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (up, down) = self.flow.as_ref().map_or((0, 0), |flow| {
            (flow.transferred.up.get(), flow.transferred.down.get())
        });
        let worker = &self.worker;
        worker
            .shared
            .metrics
            .ended(self.kind, self.status, up, down);
        let message = match self.kind {
            Kind::Forward => "request",
            Kind::Connect => "tunnel",
        };
        worker
            .access_log
            .line(message, |entry| self.write(entry, up, down));
    }
}

/// The usual methods need no memory.
fn method_name(name: &str) -> Cow<'static, str> {
    const USUAL: [&str; 8] = [
        "GET", "CONNECT", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH",
    ];
    match USUAL.iter().find(|&&usual| usual == name) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(name.to_owned()),
    }
}
