//! A worker: accepts clients and serves each in a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use egress_runtime::limits::Refusal as Limited;
use egress_runtime::listener::{Accepted, Acceptor};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tracing::debug;

use crate::connection::{Client, serve};
use crate::http2;
use crate::pool;
use crate::refusal::Refusal;
use crate::shared::{Live, Worker};
use crate::stream::Stream;
use crate::tunnel::Counted;

/// Clients beyond a limit that are told so at a time; the rest is only closed.
const TOLD: usize = 64;
/// How long a client beyond a limit may take to send its request.
const TELL_TIME: Duration = Duration::from_secs(1);

/// The TLS settings in force.
pub(crate) type Certificates = watch::Receiver<Arc<ServerConfig>>;

/// Where a worker accepts clients.
pub(crate) struct Doors {
    /// In the clear.
    pub(crate) plain: Option<Acceptor>,
    /// Over TLS.
    pub(crate) tls: Option<(Acceptor, Certificates)>,
}

/// Serves until the program drains and nothing is in flight any more.
pub(crate) async fn run(worker: Arc<Worker>, doors: Doors) {
    let drain = worker.shared.drain.clone();
    let told = Arc::new(Semaphore::new(TOLD));
    let accept = async {
        tokio::join!(
            plain(&worker, doors.plain, &told),
            tls(&worker, doors.tls, &told),
            sweep(&worker)
        );
    };
    tokio::select! {
        () = accept => {}
        () = drain.draining() => {}
    }
    // The listening sockets are closed now; what was accepted goes on.
    worker.pool.clear();
    drain.finished().await;
}

async fn sweep(worker: &Worker) {
    let mut ticks = interval(pool::MAX_IDLE / 4);
    loop {
        ticks.tick().await;
        let limits = &worker.shared.limits;
        if limits.open() > limits.connections() / 4 * 3 {
            // Clients need the file descriptors soon.
            worker.pool.clear();
        } else {
            worker.pool.sweep(Instant::now());
        }
    }
}

async fn plain(worker: &Arc<Worker>, acceptor: Option<Acceptor>, told: &Arc<Semaphore>) {
    let Some(acceptor) = acceptor else {
        return;
    };
    loop {
        let Accepted { stream, peer } = acceptor.accept().await;
        let Some(counted) = admit(worker, stream, peer, told) else {
            continue;
        };
        let (stream, counted) = counted;
        let for_task = Arc::clone(worker);
        worker.connections.spawn(Live::Requests, move |registered| {
            let client = Client::new(Stream::Tcp(stream), peer, counted);
            serve(for_task, client, registered)
        });
    }
}

async fn tls(
    worker: &Arc<Worker>,
    acceptor: Option<(Acceptor, Certificates)>,
    told: &Arc<Semaphore>,
) {
    let Some((acceptor, certificates)) = acceptor else {
        return;
    };
    loop {
        let Accepted { stream, peer } = acceptor.accept().await;
        let Some((stream, counted)) = admit(worker, stream, peer, told) else {
            continue;
        };
        let handshake = TlsAcceptor::from(Arc::clone(&certificates.borrow())).accept(stream);
        let for_task = Arc::clone(worker);
        worker.connections.spawn(Live::Requests, move |registered| async move {
            let worker = for_task;
            let stream = match timeout(worker.shared.settings.header_time, handshake).await {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => {
                    worker.shared.metrics.failed("client", "tls_alert_received");
                    debug!(client = %peer, "TLS handshake failed: {error}");
                    return;
                }
                Err(_) => {
                    worker.shared.metrics.failed("client", "connection_timeout");
                    debug!(client = %peer, "TLS handshake took longer than EGRESS_HTTP_PROXY_HEADER_TIME");
                    return;
                }
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(http2::serve(&worker, *stream, peer, counted)).await;
                drop(registered);
                return;
            }
            let client = Client::new(Stream::Tls(stream), peer, counted);
            Box::pin(serve(worker, client, registered)).await;
        });
    }
}

/// Counts a client, or tells it that it is one too many.
fn admit(
    worker: &Arc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    told: &Arc<Semaphore>,
) -> Option<(TcpStream, Counted)> {
    let refusal = match worker.shared.limits.admit(peer.ip()) {
        Ok(permit) => return Some((stream, (permit, worker.shared.drain.guard()))),
        Err(Limited::Total(_)) => {
            worker.shared.metrics.limited("connections");
            Refusal::TooMany
        }
        Err(Limited::PerClient(_)) => {
            worker.shared.metrics.limited("connections_per_client");
            Refusal::TooManyOfClient
        }
    };
    debug!(client = %peer, "{refusal}");
    if let Ok(turn) = Arc::clone(told).try_acquire_owned() {
        tokio::spawn(async move {
            // Closed in any case.
            let _ = timeout(TELL_TIME, tell(stream, &refusal)).await;
            drop(turn);
        });
    }
    None
}

/// Answers a request unread. What was read cannot be reset with the answer.
async fn tell(mut stream: TcpStream, refusal: &Refusal) -> std::io::Result<()> {
    let mut answer = Vec::new();
    refusal.write(false, false, &mut answer);
    stream.readable().await?;
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut unread) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
