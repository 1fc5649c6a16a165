//! HTTP/2 within TLS: CONNECT (RFC 9113 section 8.5), many tunnels over one
//! connection. Requests to forward belong on HTTP/1.1.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use egress_runtime::relay::relay_streams;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::acl::Target;
use crate::buffer::Buffer;
use crate::http1::BadRequest;
use crate::metrics::Kind;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::route::{dial, route};
use crate::shared::{Flow, Live, Worker};
use crate::tunnel::{Counted, OpenTunnel, judge_server_name};

/// Tunnels of one connection at a time.
const MAX_STREAMS: u32 = 256;
/// How long, when a client's connection is gone, its tunnels may go on sending
/// what it had said before.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Answer = Response<Full<Bytes>>;

/// Serves a client until it or we close.
pub(crate) async fn serve(
    worker: &Arc<Worker>,
    stream: TlsStream<TcpStream>,
    client: SocketAddr,
    counted: Counted,
) {
    let settings = &worker.shared.settings;
    let header_bytes = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(settings.idle / 4)
        .enable_connect_protocol();
    let (here, gone) = watch::channel(());
    let service = service_fn(|request| {
        let (worker, gone) = (Arc::clone(worker), gone.clone());
        answer(worker, client, gone, request)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = pin!(worker.shared.drain.draining());
    let mut is_draining = false;
    let result = loop {
        tokio::select! {
            result = &mut connection => break result,
            () = &mut draining, if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        debug!(%client, "HTTP/2 connection ended: {error}");
    }
    drop((here, counted));
}

async fn answer(
    worker: Arc<Worker>,
    client: SocketAddr,
    gone: watch::Receiver<()>,
    mut request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let mut record = Record::new(&worker, client);
    let upgrade = hyper::upgrade::on(&mut request);
    let opened = Box::pin(open(&worker, client, &request, &mut record)).await;
    Ok(match opened {
        Ok((flow, upstream, counted)) => {
            record.answered(200);
            let open = OpenTunnel::new(&worker);
            let live = Live::Tunnel(Arc::clone(&flow));
            let for_task = Arc::clone(&worker);
            worker
                .connections
                .spawn(live, move |registered| async move {
                    let worker = for_task;
                    record.begin_relay();
                    match upgrade.await {
                        Ok(client) => {
                            let client = TokioIo::new(client);
                            let is_over = tokio::select! {
                                () = relay_one(&worker, client, upstream, &flow, &mut record) => true,
                                () = is_gone(gone) => false,
                            };
                            if !is_over {
                                record.client_failed(&io::ErrorKind::ConnectionReset.into());
                            }
                        }
                        Err(error) => record.client_failed(&io::Error::other(error)),
                    }
                    drop((record, counted, registered, open));
                });
            Response::new(Full::default())
        }
        Err(refusal) => {
            record.refused(&refusal);
            record.answered(refusal.status());
            refuse(&refusal)
        }
    })
}

/// Waits until the connection is gone, and a while longer. Its tunnels cannot
/// tell: one that the client gave up looks as if it had ended one way only.
async fn is_gone(mut connection: watch::Receiver<()>) {
    while connection.changed().await.is_ok() {}
    sleep(LAST_WORDS).await;
}

async fn relay_one(
    worker: &Worker,
    mut client: TokioIo<hyper::upgrade::Upgraded>,
    upstream: TcpStream,
    flow: &Flow,
    record: &mut Record,
) {
    let mut early = Buffer::default();
    let judged = judge_server_name(&worker.shared, flow, &mut client, &mut early, record).await;
    if let Err(refusal) = judged {
        record.refused(&refusal);
        return;
    }
    let idle = worker.shared.settings.idle;
    let end = relay_streams(client, upstream, idle, &flow.transferred)
        .with_early(early.take(), Vec::new())
        .await;
    record.relayed(&end);
}

/// Judges and dials the target of a request.
async fn open(
    worker: &Arc<Worker>,
    client: SocketAddr,
    request: &Request<Incoming>,
    record: &mut Record,
) -> Result<(Arc<Flow>, TcpStream, Counted), Refusal> {
    let is_extended = request.extensions().get::<hyper::ext::Protocol>().is_some();
    if request.method() != Method::CONNECT || is_extended {
        return Err(Refusal::Http2Forward);
    }
    let authority = request.uri().authority().ok_or(BadRequest::RequestLine)?;
    let target = Target::from_authority(authority.as_str().as_bytes())?;
    let flow = record.asked(Kind::Connect, "CONNECT", target);
    // Each tunnel takes a file descriptor, as one of its own connection would.
    let permit = worker
        .shared
        .limits
        .admit(client.ip())
        .map_err(|limited| match limited {
            egress_runtime::limits::Refusal::Total(_) => Refusal::TooMany,
            egress_runtime::limits::Refusal::PerClient(_) => Refusal::TooManyOfClient,
        })?;
    let candidates = route(worker, &flow.target, record).await?;
    let upstream = dial(worker, &candidates, record).await?;
    let counted = (permit, worker.shared.drain.guard());
    Ok((flow, upstream.stream, counted))
}

fn refuse(refusal: &Refusal) -> Answer {
    let mut answer = Response::new(Full::from(format!("{refusal}\n")));
    *answer.status_mut() =
        StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Ok(status) = HeaderValue::from_str(&refusal.proxy_status()) {
        headers.insert("proxy-status", status);
    }
    answer
}
