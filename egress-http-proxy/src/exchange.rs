//! One forwarded request: out to the upstream, and its response back.
//!
//! The two ways run side by side, because a server may answer before it has
//! read the whole request, and a client may wait for an interim response
//! before it sends the body.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use egress_runtime::relay::{ByteCount, IdleTimer, TransferError, Transferred, transfer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, tcp};

use crate::buffer::{Buffer, Scratch, scratch};
use crate::http1::{
    BadRequest, BadResponse, BodyLength, Chunked, Fields, HeadScanner, LineEnds, Method, Outgoing,
    Response, ResponseRewrite, Version, write_chunk, write_last_chunk, write_response,
};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::stream::{End, Reader, Stream, Writer};

/// From this size on a body is moved without passing through our memory.
const SPLICE_BYTES: u64 = 64 * 1024;

/// A request that is ready to be sent on.
pub(crate) struct Outbound {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) body: BodyLength,
    /// Whether the client keeps its connection.
    pub(crate) persists: bool,
    pub(crate) upgrades: bool,
    /// Whether the client waits for 100 before it sends the body.
    pub(crate) expects_continue: bool,
    /// Its head as the upstream gets it.
    pub(crate) head: Scratch,
    /// Whether all of it is sent.
    pub(crate) is_sent: AtomicBool,
}

impl Outbound {
    /// Whether the request may be sent a second time when the first got no
    /// answer: then the server may have done it or not (RFC 9110 section
    /// 9.2.2), and the client's bytes must still be here.
    pub(crate) fn may_repeat(&self) -> bool {
        self.method.is_idempotent() && self.body.is_none()
    }

    /// Whether the body will never be sent whole, now that a final response is
    /// there: then the client is told that its connection ends (RFC 9112
    /// section 9.6).
    fn is_abandoned(&self, upstream_persists: bool) -> bool {
        !self.is_sent.load(Ordering::Relaxed) && (self.expects_continue || !upstream_persists)
    }
}

/// What the response was, as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The status code that the client was given; 0 before.
    pub(crate) status: u16,
}

/// How an exchange went well.
#[derive(Debug)]
pub(crate) struct Exchanged {
    /// Whether the client may send another request.
    pub(crate) keeps_open: bool,
    /// Whether the upstream takes another request.
    pub(crate) upstream_persists: bool,
    /// Whether both sides now speak another protocol; the upstream's first
    /// bytes of it are in the buffer.
    pub(crate) switched: bool,
}

/// How an exchange failed.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The upstream closed a connection that had waited, before it answered: no
    /// fault of anybody.
    Stale,
    /// The client is gone.
    Client(io::Error),
    /// For the client to hear, unless it already has a part of the response.
    Refused(Refusal),
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Why a request could not be sent whole.
enum SendError {
    Client(io::Error),
    Request(BadRequest),
    /// The upstream takes no more, of which its response may tell the reason.
    Upstream,
}

/// Sends `request` to `upstream` and its response to `client`. `inbound` holds
/// what was read from the client behind the head, `response` what is read from
/// the upstream, and `idle` says when nothing has moved for too long.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a part that its owner goes on using"
)]
pub(crate) async fn exchange(
    shared: &Shared,
    request: &Outbound,
    client: &mut Stream,
    inbound: &mut Buffer,
    upstream: &mut TcpStream,
    response: &mut Buffer,
    idle: &mut IdleTimer,
    transferred: &Transferred,
    progress: &mut Progress,
) -> Result<Exchanged, Broken> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_upstream, mut to_upstream) = upstream.split();
    if request.body.is_none() {
        to_upstream
            .write_all(&request.head)
            .await
            .map_err(upstream_broke)?;
        transferred.up.add(request.head.len() as u64);
        let receiving = pin!(receive(
            shared,
            request,
            &mut from_upstream,
            response,
            &mut to_client,
            &transferred.down,
            progress,
        ));
        return while_moving(idle, transferred, receiving).await;
    }
    let both = send_and_receive(
        shared,
        request,
        (&mut from_client, &mut to_client),
        inbound,
        (&mut from_upstream, &mut to_upstream),
        response,
        transferred,
        progress,
    );
    // Boxed, so that a connection has no room for it between two requests.
    while_moving(idle, transferred, Box::pin(both).as_mut()).await
}

/// The exchange of a request with a body.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a part that its owner goes on using"
)]
async fn send_and_receive(
    shared: &Shared,
    request: &Outbound,
    (from_client, to_client): (&mut Reader<'_>, &mut Writer<'_>),
    inbound: &mut Buffer,
    (from_upstream, to_upstream): (&mut tcp::ReadHalf<'_>, &mut tcp::WriteHalf<'_>),
    response: &mut Buffer,
    transferred: &Transferred,
    progress: &mut Progress,
) -> Result<Exchanged, Broken> {
    let mut sending = pin!(send(
        request,
        from_client,
        inbound,
        to_upstream,
        &transferred.up
    ));
    let mut receiving = pin!(receive(
        shared,
        request,
        from_upstream,
        response,
        to_client,
        &transferred.down,
        progress,
    ));
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sending, if sent.is_none() => match result {
                Ok(()) => {
                    request.is_sent.store(true, Ordering::Relaxed);
                    sent = Some(true);
                }
                Err(SendError::Client(error)) => return Err(Broken::Client(error)),
                Err(SendError::Request(error)) => return Err(Refusal::from(error).into()),
                // It may have answered before it closed.
                Err(SendError::Upstream) => sent = Some(false),
            },
            result = &mut receiving => {
                let exchanged = result?;
                // What is left of the request would be taken for the next.
                let whole = sent == Some(true);
                return Ok(Exchanged {
                    keeps_open: exchanged.keeps_open && whole,
                    upstream_persists: exchanged.upstream_persists && whole,
                    ..exchanged
                });
            }
        }
    }
}

/// Runs `work` as long as bytes move.
async fn while_moving<T>(
    idle: &mut IdleTimer,
    transferred: &Transferred,
    mut work: Pin<&mut impl Future<Output = Result<T, Broken>>>,
) -> Result<T, Broken> {
    idle.touch();
    let mut seen = transferred.total();
    poll_fn(|cx| {
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let moved = transferred.total();
        if seen != moved {
            seen = moved;
            idle.touch();
        }
        idle.poll_expired(cx).map(|()| Err(Refusal::Idle.into()))
    })
    .await
}

/// Sends the head and the body of a request that has one.
async fn send(
    request: &Outbound,
    client: &mut Reader<'_>,
    inbound: &mut Buffer,
    upstream: &mut tcp::WriteHalf<'_>,
    moved: &ByteCount,
) -> Result<(), SendError> {
    let mut out = scratch();
    out.extend_from_slice(&request.head);
    match request.body {
        BodyLength::Exactly(length) => {
            let here = take(inbound, length, &mut out);
            write(upstream, &mut out, moved)
                .await
                .map_err(|_| SendError::Upstream)?;
            copy(length - here, inbound, client, upstream, moved)
                .await
                .map_err(|error| match error {
                    CopyError::From(error) => SendError::Client(error),
                    CopyError::To(_) => SendError::Upstream,
                })
        }
        BodyLength::Chunked => {
            let mut chunked = Chunked::default();
            loop {
                let read = chunked
                    .transcode(inbound.data(), &mut out, Outgoing::Chunked)
                    .map_err(|_| SendError::Request(BadRequest::Chunk))?;
                inbound.consume(read);
                write(upstream, &mut out, moved)
                    .await
                    .map_err(|_| SendError::Upstream)?;
                if chunked.is_done() {
                    return Ok(());
                }
                fill(inbound, client).await.map_err(SendError::Client)?;
            }
        }
        // Requests are never as long as the connection.
        BodyLength::UntilClose => Err(SendError::Request(BadRequest::Framing)),
    }
}

/// What a response's head means for both connections.
struct Plan {
    status: u16,
    interim: bool,
    body: BodyLength,
    to_client: BodyLength,
    exchanged: Exchanged,
}

/// Receives the response and passes it on.
async fn receive(
    shared: &Shared,
    request: &Outbound,
    upstream: &mut tcp::ReadHalf<'_>,
    buffer: &mut Buffer,
    client: &mut Writer<'_>,
    moved: &ByteCount,
    progress: &mut Progress,
) -> Result<Exchanged, Broken> {
    // What is read first decides about everything else, and waits for the
    // server: no memory is held until it has answered.
    let mut length = read_head(shared, upstream, buffer).await?;
    let mut out = scratch();
    let plan = loop {
        let head = buffer.data().get(..length).unwrap_or_default();
        let plan = rewrite(shared, request, head, &mut out)?;
        buffer.consume(length);
        if !plan.interim {
            break plan;
        }
        write(client, &mut out, moved)
            .await
            .map_err(Broken::Client)?;
        length = read_head(shared, upstream, buffer).await?;
    };
    progress.status = plan.status;
    match plan.body {
        BodyLength::Exactly(length) => {
            let here = take(buffer, length, &mut out);
            write(client, &mut out, moved)
                .await
                .map_err(Broken::Client)?;
            copy(length - here, buffer, upstream, client, moved)
                .await
                .map_err(|error| match error {
                    CopyError::From(error) => upstream_ended(error),
                    CopyError::To(error) => Broken::Client(error),
                })?;
        }
        BodyLength::Chunked => {
            let outgoing = match plan.to_client {
                BodyLength::Chunked => Outgoing::Chunked,
                BodyLength::Exactly(_) | BodyLength::UntilClose => Outgoing::Plain,
            };
            let mut chunked = Chunked::default();
            loop {
                let read = chunked
                    .transcode(buffer.data(), &mut out, outgoing)
                    .map_err(|_| Refusal::from(BadResponse::Chunk))?;
                buffer.consume(read);
                write(client, &mut out, moved)
                    .await
                    .map_err(Broken::Client)?;
                if chunked.is_done() {
                    break;
                }
                fill(buffer, upstream).await.map_err(upstream_ended)?;
            }
        }
        BodyLength::UntilClose if !plan.exchanged.switched => loop {
            match plan.to_client {
                BodyLength::Chunked => write_chunk(buffer.data(), &mut out),
                BodyLength::Exactly(_) | BodyLength::UntilClose => {
                    out.extend_from_slice(buffer.data());
                }
            }
            buffer.consume(buffer.data().len());
            write(client, &mut out, moved)
                .await
                .map_err(Broken::Client)?;
            if buffer.fill(upstream).await.map_err(upstream_ended)? == 0 {
                if plan.to_client == BodyLength::Chunked {
                    write_last_chunk(&mut out);
                    write(client, &mut out, moved)
                        .await
                        .map_err(Broken::Client)?;
                }
                break;
            }
        },
        BodyLength::UntilClose => write(client, &mut out, moved)
            .await
            .map_err(Broken::Client)?,
    }
    // TLS keeps what is written until it is told.
    client.flush().await.map_err(Broken::Client)?;
    Ok(Exchanged {
        // Bytes behind the response belong to nothing that was asked for.
        upstream_persists: plan.exchanged.upstream_persists && buffer.is_empty(),
        ..plan.exchanged
    })
}

/// Reads until a head is whole, and returns its length.
async fn read_head(
    shared: &Shared,
    upstream: &mut tcp::ReadHalf<'_>,
    buffer: &mut Buffer,
) -> Result<usize, Broken> {
    let mut scanner = HeadScanner::new(LineEnds::Lenient);
    loop {
        // Lenient line ends are never refused.
        let scanned = scanner.scan(buffer.data()).ok().flatten();
        if scanned.unwrap_or(buffer.data().len()) > shared.settings.header_bytes {
            return Err(Refusal::from(BadResponse::TooLarge).into());
        }
        if let Some(length) = scanned {
            return Ok(length);
        }
        let begun = !buffer.is_empty();
        match buffer.fill(upstream).await {
            Ok(0) if begun => return Err(Refusal::Incomplete.into()),
            Ok(0) => return Err(Broken::Stale),
            Ok(_) => {}
            Err(error) if begun => return Err(Refusal::Upstream(error).into()),
            Err(error) => return Err(upstream_broke(error)),
        }
    }
}

fn rewrite(
    shared: &Shared,
    request: &Outbound,
    head: &[u8],
    out: &mut Vec<u8>,
) -> Result<Plan, Refusal> {
    let mut room = Fields::new();
    let response = Response::parse(head, request.method, &mut room)?;
    let switched = response.status() == 101;
    if switched && !request.upgrades {
        return Err(BadResponse::Upgrade.into());
    }
    let body = if switched {
        BodyLength::UntilClose
    } else {
        response.body()
    };
    let to_client = match (body, request.version) {
        (BodyLength::Exactly(length), _) => BodyLength::Exactly(length),
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11) => BodyLength::Chunked,
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => BodyLength::UntilClose,
    };
    let keeps_open = request.persists
        && to_client != BodyLength::UntilClose
        && !request.is_abandoned(response.persists())
        && !shared.drain.is_draining();
    let plan = Plan {
        status: response.status(),
        interim: response.is_interim(),
        body,
        to_client,
        exchanged: Exchanged {
            keeps_open,
            upstream_persists: response.persists(),
            switched,
        },
    };
    // RFC 9110 section 15.2: an HTTP/1.0 client knows no interim response.
    if plan.interim && request.version == Version::Http10 {
        return Ok(plan);
    }
    let rewrite = ResponseRewrite {
        via: &shared.via,
        body: to_client,
        keeps_open,
        client: request.version,
    };
    write_response(&response, &rewrite, out);
    Ok(plan)
}

/// Moves what is there of a body of `length` bytes to `out`.
fn take(buffer: &mut Buffer, length: u64, out: &mut Vec<u8>) -> u64 {
    let data = buffer.data();
    let here = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .min(data.len());
    out.extend_from_slice(data.get(..here).unwrap_or_default());
    buffer.consume(here);
    here as u64
}

enum CopyError {
    From(io::Error),
    To(io::Error),
}

/// Copies exactly `left` bytes. `buffer` is empty unless nothing is left.
async fn copy<R, W>(
    mut left: u64,
    buffer: &mut Buffer,
    from: &mut R,
    to: &mut W,
    moved: &ByteCount,
) -> Result<(), CopyError>
where
    R: tokio::io::AsyncRead + End + Unpin,
    W: tokio::io::AsyncWrite + End + Unpin,
{
    if left >= SPLICE_BYTES
        && let (Some(from), Some(to)) = (from.socket(), to.socket())
    {
        buffer.release();
        let copied = transfer(from, to, left, moved).await;
        return match copied {
            Ok(copied) if copied == left => Ok(()),
            Ok(_) => Err(CopyError::From(io::ErrorKind::UnexpectedEof.into())),
            Err(TransferError::From(error)) => Err(CopyError::From(error)),
            Err(TransferError::To(error)) => Err(CopyError::To(error)),
        };
    }
    let mut out = scratch();
    while left > 0 {
        fill(buffer, from).await.map_err(CopyError::From)?;
        left -= take(buffer, left, &mut out);
        write(to, &mut out, moved).await.map_err(CopyError::To)?;
    }
    Ok(())
}

async fn fill<R>(buffer: &mut Buffer, from: &mut R) -> io::Result<()>
where
    R: tokio::io::AsyncRead + End + Unpin,
{
    match buffer.fill(from).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Writes and empties `out`.
async fn write<W: tokio::io::AsyncWrite + Unpin>(
    to: &mut W,
    out: &mut Vec<u8>,
    moved: &ByteCount,
) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    to.write_all(out).await?;
    moved.add(out.len() as u64);
    out.clear();
    Ok(())
}

/// Before any byte of the response: the server closed while we wrote.
fn upstream_broke(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Broken::Stale,
        _ => Refusal::Upstream(error).into(),
    }
}

/// Within the body of the response.
fn upstream_ended(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Refusal::Incomplete.into(),
        _ => Refusal::Upstream(error).into(),
    }
}

/// Where a request's upstream connection came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// It waited since another request.
    Pool,
    /// It was opened for this one.
    Dialled,
}

/// An upstream connection.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) origin: Origin,
}
