//! CONNECT: a tunnel to the target.

use std::sync::Arc;

use egress_runtime::drain::Guard;
use egress_runtime::limits::Permit;
use egress_runtime::relay::{relay, relay_streams};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::acl::{ClientHello, Sni};
use crate::buffer::Buffer;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::shared::{Flow, Live, Shared, Worker};
use crate::stream::Stream;

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
    let idle = worker.shared.settings.idle;
    let live = Live::Tunnel(Arc::clone(&tunnel.flow));
    let open = OpenTunnel::new(worker);
    worker.connections.spawn(live, |registered| async move {
        let Tunnel {
            flow,
            mut record,
            counted,
            upstream,
            early_up,
            early_down,
        } = tunnel;
        // Said unless the relay says better: the task was cut off.
        record.cut("ended by the proxy");
        let moved = &flow.transferred;
        let end = match client {
            Stream::Tcp(client) => {
                relay(client, upstream, idle, moved)
                    .with_early(early_up, early_down)
                    .await
            }
            Stream::Tls(client) => {
                relay_streams(*client, upstream, idle, moved)
                    .with_early(early_up, early_down)
                    .await
            }
        };
        record.relayed(&end);
        drop((record, counted, registered, open));
    });
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
    client: &mut (impl tokio::io::AsyncRead + Unpin),
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
    client: &mut (impl tokio::io::AsyncRead + Unpin),
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
