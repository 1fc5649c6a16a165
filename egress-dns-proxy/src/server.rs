//! Accepts clients, connects each to a backend, and relays.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use egress_runtime::access_log::WorkerLog;
use egress_runtime::dial::{DialError, Dialer, Dialled};
use egress_runtime::drain::{Connections, Drain, Registered};
use egress_runtime::limits::Limits;
use egress_runtime::listener::{AcceptPauses, Accepted, ListenError, Listener, LocalGuard};
use egress_runtime::relay::{Relay, relay};
use tokio::net::TcpStream;

use crate::metrics::Metrics;
use crate::record::{End, Record};
use crate::route::{Lead, Route};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dialer: Dialer,
    pub(crate) idle: Duration,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) metrics: Metrics,
}

/// What the connections of one worker share.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections<Arc<Route>>,
    pub(crate) log: WorkerLog,
}

/// Serves the clients of one port on one worker until it is dropped.
///
/// # Errors
/// When the runtime cannot take the socket.
pub(crate) async fn serve(
    listener: Listener,
    guard: LocalGuard,
    pauses: AcceptPauses,
    lead: Arc<Lead>,
    worker: Worker,
) -> Result<Infallible, ListenError> {
    let acceptor = listener.serve(worker.shared.limits.clone(), Some(guard), pauses)?;
    loop {
        let Accepted { stream, peer } = acceptor.accept().await;
        worker.admit(stream, peer, lead.route());
    }
}

impl Worker {
    fn admit(&self, stream: TcpStream, client: SocketAddr, route: Arc<Route>) {
        let log = self.log.clone();
        let permit = match self.shared.limits.admit(client.ip()) {
            Ok(permit) => permit,
            Err(refusal) => {
                drop(Record::refused(route, log, client, refusal));
                return reset(&stream);
            }
        };
        let open = (permit, self.shared.drain.guard());
        let record = Record::new(Arc::clone(&route), log, client, open);
        let worker = self.clone();
        self.connections.spawn(route, |registered| async move {
            worker.connect(stream, record).await;
            drop(registered);
        });
    }

    /// Connects to a backend. What relays is a task of its own, which is much
    /// smaller than this one.
    async fn connect(self, stream: TcpStream, mut record: Record) {
        match self.dial(record.route()).await {
            Ok(dialled) => {
                self.shared.metrics.connected(dialled.took);
                record.connected(dialled.address, Some(dialled.took));
                let idle = self.shared.idle;
                let route = Arc::clone(record.route());
                self.connections.spawn(route, move |registered| Relaying {
                    relay: relay(stream, dialled.stream, idle, record),
                    _registered: registered,
                });
            }
            Err(end) => {
                record.ended(end);
                reset(&stream);
            }
        }
    }

    async fn dial(&self, route: &Route) -> Result<Dialled, End> {
        let target = route.target();
        let rotation = target.rotation();
        let all_healthy = rotation.healthy() == rotation.len();
        let report = |address, outcome: Result<(), &std::io::Error>| {
            // An address that was healthy and answers is no news.
            if outcome.is_err() || !all_healthy {
                target.dialled(address, outcome);
            }
        };
        let dialer = &self.shared.dialer;
        let mut order = rotation.pick(target.turn());
        let dialled = match (order.next(), order.next()) {
            (None, _) => return Err(End::Unresolved),
            (Some(only), None) => dialer.dial_reporting(&[only], report).await,
            (Some(first), Some(second)) => {
                let candidates: Vec<SocketAddr> =
                    [first, second].into_iter().chain(order).collect();
                dialer.dial_reporting(&candidates, report).await
            }
        };
        dialled.map_err(|error: DialError| End::NotConnected(Box::new(error)))
    }
}

/// A connection that moves bytes. Written by hand, because an async block has
/// room for what it is given and for what it makes of that.
struct Relaying {
    relay: Relay<Record>,
    _registered: Registered<Arc<Route>>,
}

impl Future for Relaying {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // It may have become so while this was not yet registered.
        if self.relay.counts_mut().route().is_forbidden() {
            return Poll::Ready(());
        }
        let end = ready!(Pin::new(&mut self.relay).poll(cx));
        self.relay.counts_mut().ended(End::Relayed(end));
        Poll::Ready(())
    }
}

/// Closes a connection that leads nowhere so that nobody takes its end for
/// that of an answer.
fn reset(stream: &TcpStream) {
    // Only a socket that is gone already refuses.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use egress_config::{Diagnostics, List};
    use egress_runtime::access_log::AccessLog;
    use tokio::net::TcpListener;

    use super::*;
    use crate::mapping::Mappings;
    use crate::target::{Target, TargetKey};

    #[tokio::test]
    async fn what_an_idle_connection_holds_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = TcpStream::connect(address).await.unwrap();
        let (downstream, client) = listener.accept().await.unwrap();
        let mut diagnostics = Diagnostics::new();
        let list = List::new("X", "80 db");
        let mappings = Mappings::parse(&list, &mut diagnostics);
        let mapping = mappings.iter().next().unwrap().clone();
        let target = Target::new(TargetKey::of(&mapping), Duration::from_secs(10));
        let route = Arc::new(Route::new(mapping, Arc::new(target)));
        let limits = Limits::new(1, None);
        let open = (limits.admit(client.ip()).unwrap(), Drain::new().guard());
        let log = AccessLog::off().worker();
        let record = Record::new(Arc::clone(&route), log, client, open);
        let (sizes, mut size) = tokio::sync::oneshot::channel();
        Connections::new().spawn(route, |registered| {
            let idle = Duration::from_secs(1);
            let relaying = Relaying {
                relay: relay(downstream, upstream, idle, record),
                _registered: registered,
            };
            sizes.send(size_of_val(&relaying)).unwrap();
            relaying
        });
        let size = size.try_recv().unwrap();
        assert!(size <= 420, "{size} bytes");
    }
}
