//! Accepts clients on one worker.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::{info, warn};

use super::local_guard::LocalGuard;
use crate::limits::{Limits, has_last};

/// How long to wait, at most, when no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts the clients of one listening socket.
pub struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    guard: Option<LocalGuard>,
    pauses: AcceptPauses,
    starved: AtomicBool,
}

/// A connection, with TCP_NODELAY, keepalive and TCP_USER_TIMEOUT set.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The client, an IPv4 one as such.
    pub peer: SocketAddr,
}

/// Counts how often accepting paused. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct AcceptPauses(Counter);

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        address: SocketAddr,
        limits: Limits,
        guard: Option<LocalGuard>,
        pauses: AcceptPauses,
    ) -> Self {
        Self {
            listener,
            address,
            limits,
            guard,
            pauses,
            starved: AtomicBool::new(false),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next client. Cancel safe, but for a client that waits until we have
    /// a file descriptor for it.
    pub async fn accept(&self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let refused = self.guard.as_ref().is_some_and(|g| g.refuses(&stream));
                    if refused {
                        continue;
                    }
                    let stream = if has_last(&stream) {
                        match self.wait_for_another(stream).await {
                            Ok(stream) => stream,
                            // Closed, as if it had not been accepted.
                            Err(_) => continue,
                        }
                    } else {
                        stream
                    };
                    self.recover();
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return Accepted { stream, peer };
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Waits until a file descriptor is free that is not one of the last, and
    /// moves `stream` there.
    async fn wait_for_another(&self, stream: TcpStream) -> io::Result<TcpStream> {
        let stream = stream.into_std()?;
        loop {
            self.pause(&Errno::EMFILE.into()).await;
            if let Ok(moved) = stream.try_clone()
                && !has_last(&moved)
            {
                return TcpStream::from_std(moved);
            }
        }
    }

    /// Clients wait in the queue of the kernel meanwhile.
    async fn pause(&self, error: &io::Error) {
        if !self.starved.swap(true, Ordering::Relaxed) {
            let address = self.address;
            let open = self.limits.open();
            warn!(
                %address, connections = open,
                "we cannot accept clients for now: {error}; raise the limit of open files, \
                 or lower EGRESS_MAX_CONNECTIONS"
            );
        }
        self.pauses.0.inc();
        // Either is a reason to try again.
        let _ = timeout(PAUSE, self.limits.freed()).await;
    }

    fn recover(&self) {
        if self.starved.load(Ordering::Relaxed) {
            self.starved.store(false, Ordering::Relaxed);
            let address = self.address;
            info!(%address, "we accept clients again");
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl AcceptPauses {
    /// Registers `egress_accept_pauses_total`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let pauses = Self::default();
        registry.register(
            "egress_accept_pauses",
            "Times that accepting paused because no file descriptor or memory was left",
            pauses.0.clone(),
        );
        pauses
    }
}

/// Errors of the connection that would have been accepted, after accept(2);
/// the next one may be fine.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        Errno::from_raw(error.raw_os_error().unwrap_or_default()),
        Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
            | Errno::ECONNRESET
    )
}
