//! CONNECT: a tunnel to the target.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use egress_runtime::drain::{Guard, Registered};
use egress_runtime::limits::Permit;
use egress_runtime::relay::{Relay, StreamRelay, Transferred, relay, relay_streams};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::acl::{ClientHello, Sni};
use crate::buffer::Buffer;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::shared::{Flow, Live, Shared, Worker};
use crate::stream::{End, Stream};

/// The port on which a tunnel is expected to carry TLS.
const HTTPS: u16 = 443;
/// Longest ClientHello that is waited for, in bytes.
const MAX_CLIENT_HELLO: usize = 64 * 1024;

/// What keeps a connection counted while it lives.
pub(crate) type Counted = (Permit, Guard);

/// A tunnel that is ready to move bytes.
pub(crate) struct Tunnel {
    pub(crate) flow: Arc<Flow>,
    pub(crate) record: Record,
    pub(crate) counted: Option<Counted>,
    pub(crate) upstream: TcpStream,
    /// Bytes for the upstream that the client sent already.
    pub(crate) early_up: Vec<u8>,
    /// Bytes for the client that the upstream sent already.
    pub(crate) early_down: Vec<u8>,
}

/// Relays `client` and the tunnel's upstream in a task of its own, which is
/// small: most tunnels are idle most of the time.
pub(crate) fn spawn(worker: &Arc<Worker>, client: Stream, tunnel: Tunnel) {
    let Tunnel {
        flow,
        mut record,
        counted,
        upstream,
        early_up,
        early_down,
    } = tunnel;
    let idle = worker.shared.settings.idle;
    let live = Live::Tunnel(Arc::clone(&flow));
    record.begin_relay();
    let account = Account {
        flow,
        record,
        _counted: counted,
        _open: OpenTunnel::new(worker),
    };
    let moving = match client {
        Stream::Tcp(client) => {
            let relay = relay(client, upstream, idle, account);
            Moving::Tcp(relay.with_early(early_up, early_down))
        }
        Stream::Tls(client) => {
            let relay = relay_streams(client, upstream, idle, account);
            Moving::Tls(Box::new(relay.with_early(early_up, early_down)))
        }
    };
    worker.connections.spawn(live, |registered| Relaying {
        moving,
        _registered: registered,
    });
}

/// A tunnel that moves bytes. Written by hand, because an async block has room
/// for what it is given and for what it makes of that.
struct Relaying {
    moving: Moving,
    _registered: Registered<Live>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, in a task of its own"
)]
enum Moving {
    Tcp(Relay<Account>),
    /// Boxed: most tunnels are not inside TLS.
    Tls(Box<StreamRelay<Account, Box<TlsStream<TcpStream>>, TcpStream>>),
}

/// What a tunnel counts in and for, and what is told at its end.
struct Account {
    flow: Arc<Flow>,
    record: Record,
    _counted: Option<Counted>,
    _open: OpenTunnel,
}

impl AsRef<Transferred> for Account {
    fn as_ref(&self) -> &Transferred {
        &self.flow.transferred
    }
}

impl Future for Relaying {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (end, account) = match &mut self.moving {
            Moving::Tcp(relay) => (ready!(Pin::new(&mut *relay).poll(cx)), relay.counts_mut()),
            Moving::Tls(relay) => (ready!(Pin::new(&mut *relay).poll(cx)), relay.counts_mut()),
        };
        account.record.relayed(&end);
        Poll::Ready(())
    }
}

/// Counts as an open tunnel until it is dropped.
pub(crate) struct OpenTunnel(Arc<Worker>);

impl OpenTunnel {
    pub(crate) fn new(worker: &Arc<Worker>) -> Self {
        worker.shared.metrics.tunnels.inc();
        Self(Arc::clone(worker))
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.shared.metrics.tunnels.dec();
    }
}

/// Judges the server name with which the client begins, where that is asked
/// for. What was read is in `inbound` afterwards.
///
/// # Errors
/// When the tunnel is not to carry this. The client has been told that it is
/// open, so there is nothing to answer.
pub(crate) async fn judge_server_name(
    shared: &Shared,
    flow: &Flow,
    client: &mut (impl AsyncRead + End + Unpin),
    inbound: &mut Buffer,
    record: &mut Record,
) -> Result<(), Refusal> {
    if shared.settings.sni == Sni::Off || flow.target.port() != HTTPS {
        return Ok(());
    }
    let hello = timeout(shared.settings.header_time, client_hello(client, inbound))
        .await
        .map_err(|_| Refusal::HeaderTime)?
        .map_err(Refusal::Client)?;
    let enforced = shared.enforced();
    let Some(decision) = enforced.policy().judge_sni(&flow.target, &hello) else {
        return Ok(());
    };
    record.decided(decision);
    shared.metrics.decided(decision);
    if decision.passes() {
        return Ok(());
    }
    Err(Refusal::Denied(decision))
}

async fn client_hello(
    client: &mut (impl AsyncRead + End + Unpin),
    inbound: &mut Buffer,
) -> std::io::Result<ClientHello> {
    loop {
        let hello = ClientHello::parse(inbound.data());
        let complete = !matches!(hello, ClientHello::Partial);
        if complete || inbound.data().len() > MAX_CLIENT_HELLO || inbound.fill(client).await? == 0 {
            return Ok(hello);
        }
    }
}

/// Tells the client that its tunnel is open.
pub(crate) async fn accept(client: &mut Stream) -> std::io::Result<()> {
    // RFC 9110 section 9.3.6: without Content-Length and Transfer-Encoding.
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    client.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_open_tunnel_holds_is_small() {
        let size = size_of::<Relaying>();
        assert!(size <= 456, "{size} bytes");
    }
}
