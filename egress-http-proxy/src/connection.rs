//! A client's connection: one request after the other.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use egress_runtime::drain::Registered;
use egress_runtime::relay::IdleTimer;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::acl::{AbsoluteForm, Target};
use crate::buffer::{Buffer, scratch};
use crate::exchange::{Broken, Exchanged, Origin, Outbound, Progress, Upstream, exchange};
use crate::http1::{
    BadRequest, Fields, Form, HeadScanner, LineEnds, Method, Request, RequestLine, RequestRewrite,
    is_token, write_request,
};
use crate::metrics::Kind;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::route::{dial, route};
use crate::shared::{Flow, Live, Worker};
use crate::stream::Stream;
use crate::tunnel::{self, Counted, Tunnel};

/// How long, and how much, a client is listened to that was refused while it
/// sends, so that it reads the answer before its connection is reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) address: SocketAddr,
    /// Until a tunnel takes them over.
    pub(crate) counted: Option<Counted>,
    idle: Option<IdleTimer>,
}

impl Client {
    pub(crate) fn new(stream: Stream, address: SocketAddr, counted: Counted) -> Self {
        Self {
            stream,
            address,
            counted: Some(counted),
            idle: None,
        }
    }
}

/// What came of waiting for a request.
enum Arrived {
    /// A head of so many bytes.
    Head(usize),
    /// Nothing, and nothing is amiss: the client is done, or we are.
    End,
}

/// What a head asks for.
enum Asked {
    Tunnel {
        flow: Arc<Flow>,
        persists: bool,
    },
    Forward {
        flow: Arc<Flow>,
        outbound: Outbound,
    },
    /// OPTIONS that ends here.
    Options {
        persists: bool,
    },
}

/// Whether the connection carries another request.
enum Next {
    Request,
    Close,
    /// Close after the client had time to read the answer.
    Linger,
    /// The connection belongs to a tunnel now.
    Tunnel(Box<Tunnel>),
}

/// Serves a client until it or we close.
pub(crate) async fn serve(worker: Arc<Worker>, mut client: Client, registered: Registered<Live>) {
    let mut inbound = Buffer::default();
    let mut is_first = true;
    loop {
        let next = match arrive(&worker, &mut client, &mut inbound, is_first).await {
            Ok(Arrived::Head(length)) => {
                one_request(&worker, &mut client, &mut inbound, length).await
            }
            Ok(Arrived::End) => Next::Close,
            Err(refusal) => {
                let mut record = Record::new(&worker, client.address);
                refuse(&mut client.stream, &refusal, false, false, &mut record).await;
                Next::Linger
            }
        };
        match next {
            Next::Request => is_first = false,
            Next::Close => break,
            Next::Linger => {
                linger(&mut client.stream, &mut inbound).await;
                break;
            }
            Next::Tunnel(tunnel) => {
                drop(registered);
                tunnel::spawn(&worker, client.stream, *tunnel);
                return;
            }
        }
    }
}

/// Waits for the next head.
async fn arrive(
    worker: &Worker,
    client: &mut Client,
    inbound: &mut Buffer,
    is_first: bool,
) -> Result<Arrived, Refusal> {
    let shared = &worker.shared;
    let settings = &shared.settings;
    let Client { stream, idle, .. } = client;
    if !is_first && inbound.is_empty() {
        inbound.release();
        let idle = idle_timer(idle, settings.idle);
        idle.touch();
        tokio::select! {
            biased;
            arrived = inbound.fill(stream) => {
                if !matches!(arrived, Ok(1..)) {
                    return Ok(Arrived::End);
                }
            }
            () = poll_fn(|cx| idle.poll_expired(cx)) => return Ok(Arrived::End),
            () = shared.drain.draining() => return Ok(Arrived::End),
        }
    }
    // As a rule a head arrives at once, and nobody looks at the clock.
    let mut deadline = None;
    let mut scanner = HeadScanner::new(LineEnds::Strict);
    let mut line_is_good = false;
    loop {
        // RFC 9112 section 2.2: an empty line in front of a request is ignored.
        while inbound.data().starts_with(b"\r\n") {
            inbound.consume(2);
            scanner = HeadScanner::new(LineEnds::Strict);
        }
        let begun = match inbound.data().first() {
            None => false,
            Some(b'\r') => true,
            Some(&first) if is_token(first) => true,
            Some(_) => return Err(BadRequest::NotHttp.into()),
        };
        if let Some(length) = scanner.scan(inbound.data())? {
            if length > settings.header_bytes {
                return Err(BadRequest::TooLarge.into());
            }
            return Ok(Arrived::Head(length));
        }
        if !line_is_good && let Some(line) = scanner.first_line(inbound.data()) {
            // At once, because what is no request may have no end either.
            RequestLine::parse(line)?;
            line_is_good = true;
        }
        if inbound.data().len() > settings.header_bytes {
            return Err(BadRequest::TooLarge.into());
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + settings.header_time);
        match timeout_at(deadline, inbound.fill(stream)).await {
            Ok(Ok(0)) if begun => return Err(BadRequest::RequestLine.into()),
            Ok(Ok(1..)) => {}
            Ok(Err(error)) if begun => return Err(Refusal::Client(error)),
            Ok(Ok(0) | Err(_)) => return Ok(Arrived::End),
            Err(_) => return Err(Refusal::HeaderTime),
        }
    }
}

/// The connection's only timer for silence, made when one is needed: most
/// clients of a proxy ask for a tunnel, which has its own.
fn idle_timer(idle: &mut Option<IdleTimer>, time: Duration) -> &mut IdleTimer {
    idle.get_or_insert_with(|| IdleTimer::new(time))
}

/// Serves the request whose head are the first `length` bytes of `inbound`.
async fn one_request(
    worker: &Arc<Worker>,
    client: &mut Client,
    inbound: &mut Buffer,
    length: usize,
) -> Next {
    let mut record = Record::new(worker, client.address);
    let head = inbound.data().get(..length).unwrap_or_default();
    let asked = ask(worker, head, client.address, &mut record);
    inbound.consume(length);
    if inbound.is_empty() {
        // It is not needed until the client goes on.
        inbound.release();
    }
    match asked {
        Ok(Asked::Tunnel { flow, persists }) => {
            open_tunnel(worker, client, inbound, flow, persists, record).await
        }
        Ok(Asked::Forward { flow, outbound }) => {
            forward(worker, client, inbound, &flow, &outbound, record).await
        }
        Ok(Asked::Options { persists }) => {
            record.answered(200);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            match client.stream.write_all(answer).await {
                Ok(()) if persists => Next::Request,
                Ok(()) => Next::Close,
                Err(error) => {
                    record.client_failed(&error);
                    Next::Close
                }
            }
        }
        Err(refusal) => {
            refuse(&mut client.stream, &refusal, false, false, &mut record).await;
            Next::Linger
        }
    }
}

/// Reads a head: what it asks for, and the head for the upstream.
fn ask(
    worker: &Worker,
    head: &[u8],
    client: SocketAddr,
    record: &mut Record,
) -> Result<Asked, Refusal> {
    let shared = &worker.shared;
    let mut room = Fields::new();
    let request = Request::parse(head, &mut room)?;
    let persists = request.persists();
    match request.form() {
        Form::Tunnel => {
            let target = Target::from_authority(request.target())?;
            let flow = record.asked(Kind::Connect, request.method_name(), target);
            // A chain of proxies sends Via with CONNECT as well.
            if shared.via.is_in(&request) {
                return Err(Refusal::Loop);
            }
            Ok(Asked::Tunnel { flow, persists })
        }
        Form::Forward => {
            let uri = AbsoluteForm::parse(request.target())?;
            let path = uri.path_and_query();
            let flow = record.asked(Kind::Forward, request.method_name(), uri.into_target());
            if shared.via.is_in(&request) {
                return Err(Refusal::Loop);
            }
            if request.ends_here() {
                return Ok(Asked::Options {
                    persists: persists && request.body().is_none(),
                });
            }
            let mut out = scratch();
            let with_slash;
            let origin_form = match (path.first(), request.method()) {
                (Some(b'/'), _) => path,
                // RFC 9112 section 3.2.4.
                (None, Method::Options) => b"*",
                (_, _) => {
                    with_slash = [b"/", path].concat();
                    &with_slash
                }
            };
            write_request(
                &request,
                &RequestRewrite {
                    host: &flow.target.host_field(),
                    origin_form,
                    via: &shared.via,
                    forwarded_for: shared.settings.forwarded_for.then(|| client.ip()),
                },
                &mut out,
            );
            let outbound = Outbound {
                method: request.method(),
                version: request.version(),
                body: request.body(),
                persists,
                upgrades: request.asks_to_upgrade(),
                expects_continue: request.expects_continue(),
                head: out,
                is_sent: AtomicBool::new(request.body().is_none()),
            };
            Ok(Asked::Forward { flow, outbound })
        }
    }
}

/// CONNECT.
async fn open_tunnel(
    worker: &Arc<Worker>,
    client: &mut Client,
    inbound: &mut Buffer,
    flow: Arc<Flow>,
    persists: bool,
    mut record: Record,
) -> Next {
    let dialled = async {
        let candidates = route(worker, &flow.target, &mut record).await?;
        dial(worker, &candidates, &mut record).await
    };
    let upstream = match dialled.await {
        Ok(upstream) => upstream,
        Err(refusal) => {
            let keeps_open = persists && inbound.is_empty();
            let answered =
                refuse(&mut client.stream, &refusal, keeps_open, false, &mut record).await;
            return match (answered, keeps_open) {
                (true, true) => Next::Request,
                _ => Next::Linger,
            };
        }
    };
    if let Err(error) = tunnel::accept(&mut client.stream).await {
        record.client_failed(&error);
        return Next::Close;
    }
    record.answered(200);
    let judged = tunnel::judge_server_name(
        &worker.shared,
        &flow,
        &mut client.stream,
        inbound,
        &mut record,
    )
    .await;
    if let Err(refusal) = judged {
        record.refused(&refusal);
        return Next::Close;
    }
    Next::Tunnel(Box::new(Tunnel {
        flow,
        record,
        counted: client.counted.take(),
        upstream: upstream.stream,
        early_up: inbound.take(),
        early_down: Vec::new(),
    }))
}

/// Any other method: the request goes to the upstream, the response comes back.
async fn forward(
    worker: &Arc<Worker>,
    client: &mut Client,
    inbound: &mut Buffer,
    flow: &Arc<Flow>,
    outbound: &Outbound,
    mut record: Record,
) -> Next {
    let mut progress = Progress::default();
    let mut response = Buffer::default();
    let sent = send(
        worker,
        client,
        inbound,
        flow,
        outbound,
        &mut response,
        &mut progress,
        &mut record,
    )
    .await;
    record.answered(progress.status);
    match sent {
        Ok((exchanged, upstream)) => {
            if exchanged.switched {
                return Next::Tunnel(Box::new(Tunnel {
                    flow: Arc::clone(flow),
                    record,
                    counted: client.counted.take(),
                    upstream: upstream.stream,
                    early_up: inbound.take(),
                    early_down: response.take(),
                }));
            }
            if exchanged.upstream_persists && !worker.shared.drain.is_draining() {
                worker
                    .pool
                    .put(upstream.address, upstream.stream, Instant::now());
            }
            match (exchanged.keeps_open, outbound.body.is_none()) {
                (true, _) => Next::Request,
                (false, true) => Next::Close,
                (false, false) => Next::Linger,
            }
        }
        Err(Broken::Client(error)) => {
            record.client_failed(&error);
            Next::Close
        }
        Err(broken) => {
            let refusal = match broken {
                Broken::Refused(refusal) => refusal,
                Broken::Stale | Broken::Client(_) => Refusal::Incomplete,
            };
            if progress.status != 0 {
                // Half an answer is out: it must not look like a whole one.
                record.refused(&refusal);
                client.stream.reset_on_close();
                return Next::Close;
            }
            let to_head = outbound.method == Method::Head;
            let keeps_open = outbound.persists && outbound.body.is_none();
            let stream = &mut client.stream;
            let answered = refuse(stream, &refusal, keeps_open, to_head, &mut record).await;
            match (answered, keeps_open) {
                (true, true) => Next::Request,
                _ => Next::Linger,
            }
        }
    }
}

/// Finds an upstream and makes the exchange; once more over a new connection
/// when one that had waited was closed meanwhile.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a part that its owner goes on using"
)]
async fn send(
    worker: &Worker,
    client: &mut Client,
    inbound: &mut Buffer,
    flow: &Flow,
    outbound: &Outbound,
    response: &mut Buffer,
    progress: &mut Progress,
    record: &mut Record,
) -> Result<(Exchanged, Upstream), Broken> {
    let candidates = route(worker, &flow.target, record).await?;
    let idle = idle_timer(&mut client.idle, worker.shared.settings.idle);
    let waiting = worker
        .pool
        .take(&candidates, outbound.may_repeat(), Instant::now());
    let mut upstream = match waiting {
        Some((stream, address)) => {
            record.connected(address, None);
            Upstream {
                stream,
                address,
                origin: Origin::Pool,
            }
        }
        None => dial(worker, &candidates, record).await?,
    };
    loop {
        let exchanged = exchange(
            &worker.shared,
            outbound,
            &mut client.stream,
            inbound,
            &mut upstream.stream,
            response,
            idle,
            &flow.transferred,
            progress,
        )
        .await;
        match exchanged {
            Err(Broken::Stale) if upstream.origin == Origin::Pool && outbound.may_repeat() => {
                upstream = dial(worker, &candidates, record).await?;
            }
            exchanged => return exchanged.map(|exchanged| (exchanged, upstream)),
        }
    }
}

/// Answers with a refusal; whether the client got it.
async fn refuse(
    stream: &mut Stream,
    refusal: &Refusal,
    keeps_open: bool,
    to_head: bool,
    record: &mut Record,
) -> bool {
    record.refused(refusal);
    if matches!(refusal, Refusal::Client(_)) {
        return false;
    }
    let mut out = scratch();
    refusal.write(keeps_open, to_head, &mut out);
    let written = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    match written.await {
        Ok(()) => {
            record.answered(refusal.status());
            true
        }
        Err(_) => false,
    }
}

/// Ends our side, and listens for a while to what the client still sends: a
/// reset would take the answer from it (RFC 9112 section 9.6).
async fn linger(stream: &mut Stream, inbound: &mut Buffer) {
    let listen = async {
        stream.shutdown().await?;
        let mut left = LINGER_BYTES;
        loop {
            inbound.consume(inbound.data().len());
            match inbound.fill(stream).await? {
                0 => return Ok::<(), std::io::Error>(()),
                read => left = left.saturating_sub(read),
            }
            if left == 0 {
                return Ok(());
            }
        }
    };
    // However it ends, the connection is closed now.
    let _ = timeout(LINGER, listen).await;
}
