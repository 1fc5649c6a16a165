//! The admin endpoint: metrics, probes and the configuration over HTTP/1.1.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the registry as OpenMetrics text |
//! | `/healthz` | 200: the process is alive |
//! | `/readyz` | 200, or 503 with one reason a line |
//! | `/config` | the effective configuration as JSON |
//!
//! The endpoint listens on every interface it is given and does not judge who
//! asks: that nothing from the physical network reaches a socket of the pod is
//! the packet rules' work, which refuse every new connection that arrives on
//! the egress interface. Where there may be no packet rules, a [`LocalGuard`]
//! refuses connections that were addressed to the egress address.
//!
//! A connection carries one request. It may take 5 seconds to send its header
//! and 10 seconds in all, and of 64 open ones the oldest makes room for the
//! next, so that clients which only connect cannot keep a probe out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::listener::{self, LocalGuard};
use crate::readiness::Readiness;

const HEADER_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;
/// The least that hyper takes, and twice what a scrape sends.
const BUFFER_BYTES: usize = 8192;
const BACKLOG: i32 = 128;
/// After a failed accept, for instance without file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The bound, not yet serving endpoint.
#[derive(Debug)]
pub struct Admin {
    listener: StdTcpListener,
    address: SocketAddr,
    guard: Option<LocalGuard>,
}

/// What the endpoint shows.
#[derive(Clone)]
pub struct Pages {
    registry: Arc<Registry>,
    readiness: Readiness,
    config: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Why the endpoint cannot listen.
#[derive(Debug, Error)]
#[error("admin endpoint cannot listen on {address}: {cause}{}", remedy(.cause))]
pub struct AdminError {
    address: SocketAddr,
    cause: io::Error,
}

impl Admin {
    /// Binds `address` and listens; requests wait until [`serve`](Self::serve)
    /// runs. `[::]` takes IPv4 too, and stands for 0.0.0.0 where the kernel
    /// has no IPv6.
    ///
    /// # Errors
    /// When the kernel refuses the address; the text names the remedy.
    pub fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        listen(address)
            .and_then(|listener| {
                let address = listener.local_addr()?;
                Ok(Self {
                    listener,
                    address,
                    guard: None,
                })
            })
            .map_err(|cause| AdminError { address, cause })
    }

    /// Refuses the connections that `guard` refuses.
    #[must_use]
    pub fn guarded_by(mut self, guard: LocalGuard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Where the endpoint listens, with the port that the kernel chose for
    /// port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `pages` until the future is dropped, and with it every open
    /// connection: serve while draining, so that `/readyz` can tell.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O and time drivers enabled.
    pub async fn serve(self, pages: Pages) -> Result<Infallible, AdminError> {
        let address = self.address;
        let listener =
            TcpListener::from_std(self.listener).map_err(|cause| AdminError { address, cause })?;
        info!(%address, "admin endpoint listens");
        let mut connections = Connections::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let refused = self.guard.as_ref().is_some_and(|g| g.refuses(&stream));
                    if !refused {
                        connections.add(connection(stream, pages.clone()));
                    }
                }
                // The client gave up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(%address, "admin endpoint cannot accept a connection: {error}");
                    connections.end_oldest();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Pages {
    /// `config` returns the effective configuration as JSON, each time it is
    /// asked for.
    pub fn new(
        registry: Arc<Registry>,
        readiness: Readiness,
        config: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            registry,
            readiness,
            config: Arc::new(config),
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let page = match path {
            "/metrics" => Self::metrics,
            "/healthz" => Self::health,
            "/readyz" => Self::ready,
            "/config" => Self::configuration,
            _ => {
                let paths = "not found; ask for /metrics, /healthz, /readyz or /config\n";
                return response(StatusCode::NOT_FOUND, TEXT, paths);
            }
        };
        // To HEAD, hyper sends the header alone.
        if method == Method::GET || method == Method::HEAD {
            return page(self);
        }
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        refusal
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => response(StatusCode::OK, OPEN_METRICS, text),
            Err(fmt::Error) => response(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "a metric cannot be written\n",
            ),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        response(StatusCode::OK, TEXT, "ok\n")
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let reasons = self.readiness.reasons();
        if reasons.is_empty() {
            response(StatusCode::OK, TEXT, "ready\n")
        } else {
            let lines = reasons.join("\n") + "\n";
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines)
        }
    }

    fn configuration(&self) -> Response<Full<Bytes>> {
        response(StatusCode::OK, JSON, (self.config)())
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= CONNECTIONS {
            self.end_oldest();
        }
        self.handles.push_back(self.tasks.spawn(connection));
    }

    fn end_oldest(&mut self) {
        if let Some(oldest) = self.handles.pop_front() {
            oldest.abort();
        }
    }
}

async fn connection(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, serve).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("admin client: {error}"),
        Err(_) => debug!("admin client: not done after {CONNECTION_TIME:?}"),
    }
}

fn response(
    status: StatusCode,
    kind: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = listener::open(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn remedy(cause: &io::Error) -> &'static str {
    match Errno::from_raw(cause.raw_os_error().unwrap_or_default()) {
        Errno::EADDRINUSE => "; set EGRESS_ADMIN_LISTEN to a free port, or to off",
        Errno::EACCES => {
            "; set EGRESS_ADMIN_LISTEN to a port from 1024 on, or add CAP_NET_BIND_SERVICE"
        }
        Errno::EADDRNOTAVAIL => {
            "; set EGRESS_ADMIN_LISTEN to an address of the pod, or to a port alone"
        }
        Errno::EAFNOSUPPORT => "; set EGRESS_ADMIN_LISTEN to an address of the other family",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::SystemTime;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics;
    use crate::readiness::Hold;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// A serving endpoint that is not ready.
    struct Served {
        address: SocketAddr,
        readiness: Readiness,
        start: Hold,
        tasks: JoinSet<Result<Infallible, AdminError>>,
    }

    fn serve() -> Served {
        let admin = Admin::bind(LOOPBACK).unwrap();
        let address = admin.address();
        let (readiness, start) = Readiness::held_by("the start");
        let registry = metrics::registry("1.2.3", SystemTime::now());
        let config = || r#"{"mode":"legacy"}"#.to_owned();
        let pages = Pages::new(Arc::new(registry), readiness.clone(), config);
        let mut tasks = JoinSet::new();
        tasks.spawn(admin.serve(pages));
        Served {
            address,
            readiness,
            start,
            tasks,
        }
    }

    /// Sends `request` as it is and reads to the end.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Status, header and body of the answer.
    async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: pod\r\n\r\n");
        let answer = exchange(address, &request).await;
        let (header, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let status = header.split(' ').nth(1).unwrap().parse().unwrap();
        (status, header.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let served = serve();
        let (status, header, body) = ask(served.address, "GET", "/metrics").await;
        assert_eq!(status, 200);
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(header.contains(kind), "{header}");
        assert!(body.contains("egress_build_info{version=\"1.2.3\"} 1\n"));
        assert!(body.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn alive_before_ready_and_while_draining() {
        let Served {
            address,
            readiness,
            start,
            tasks: _tasks,
        } = serve();
        let ready = async || {
            let (status, _, body) = ask(address, "GET", "/readyz").await;
            (status, body)
        };
        let alive = async || ask(address, "GET", "/healthz").await.0 == 200;
        let rules = readiness.hold("the packet rules");
        assert!(alive().await);
        let waiting = "waiting for the start\nwaiting for the packet rules\n";
        assert_eq!(ready().await, (503, waiting.to_owned()));
        drop((start, rules));
        assert_eq!(ready().await, (200, "ready\n".to_owned()));
        readiness.drain();
        assert_eq!(ready().await, (503, "draining\n".to_owned()));
        assert!(alive().await);
    }

    #[tokio::test]
    async fn shows_the_configuration() {
        let served = serve();
        let (status, header, body) = ask(served.address, "GET", "/config?pretty").await;
        assert_eq!((status, body.as_str()), (200, r#"{"mode":"legacy"}"#));
        assert!(
            header.contains("content-type: application/json"),
            "{header}"
        );
    }

    #[tokio::test]
    async fn refuses_other_paths_and_methods() {
        let served = serve();
        let (status, _, body) = ask(served.address, "GET", "/").await;
        assert_eq!(status, 404);
        assert!(body.contains("/readyz"), "{body}");
        let (status, header, _) = ask(served.address, "DELETE", "/config").await;
        assert_eq!(status, 405);
        assert!(header.contains("allow: get, head"), "{header}");
    }

    #[tokio::test]
    async fn head_has_the_header_of_get_and_no_body() {
        let served = serve();
        let (status, header, body) = ask(served.address, "HEAD", "/healthz").await;
        assert_eq!((status, body.as_str()), (200, ""));
        assert!(header.contains("content-length: 3"), "{header}");
    }

    #[tokio::test]
    async fn answers_a_client_that_has_closed_its_side() {
        let served = serve();
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        assert!(rest(&mut stream).await.ends_with("\r\n\r\nok\n"));
    }

    #[tokio::test]
    async fn refuses_what_is_not_http_or_too_long() {
        let served = serve();
        let garbage = exchange(served.address, "\x16\x03\x01 hello\r\n\r\n").await;
        assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
        let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(BUFFER_BYTES));
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(long.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The unread rest of the request may turn the close into a reset.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
        assert_eq!(ask(served.address, "GET", "/healthz").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_end_is_not_awaited() {
        let served = serve();
        let began = tokio::time::Instant::now();
        let answer = exchange(served.address, "GET /healthz HTTP/1.1\r\n").await;
        assert!(!answer.contains("200"), "{answer}");
        assert!(began.elapsed() >= HEADER_TIME);
        assert!(began.elapsed() < CONNECTION_TIME);
    }

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room() {
        let served = serve();
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(served.address).await.unwrap());
        }
        assert_eq!(ask(served.address, "GET", "/healthz").await.0, 200);
        assert_eq!(rest(&mut idle[0]).await, "");
        let last = idle.last_mut().unwrap();
        last.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        assert!(rest(last).await.ends_with("ok\n"));
    }

    #[tokio::test]
    async fn ends_with_its_future() {
        let served = serve();
        let mut open = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(ask(served.address, "GET", "/healthz").await.0, 200);
        let Served { address, tasks, .. } = served;
        drop(tasks);
        assert_eq!(rest(&mut open).await, "");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4() {
        let admin = Admin::bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = admin.address().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_refused_local_address_gets_a_reset() {
        let refused = IpAddr::from([127, 0, 0, 2]);
        let guard = LocalGuard::new(move |local| local == refused);
        let admin = Admin::bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = admin.address().port();
        let (readiness, _start) = Readiness::held_by("the start");
        let registry = Arc::new(metrics::registry("1.2.3", SystemTime::now()));
        let pages = Pages::new(registry, readiness, String::new);
        let mut tasks = JoinSet::new();
        tasks.spawn(admin.guarded_by(guard).serve(pages));
        let mut stream = TcpStream::connect((refused, port)).await.unwrap();
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let other = ([127, 0, 0, 1], port).into();
        assert_eq!(ask(other, "GET", "/healthz").await.0, 200);
    }

    #[test]
    fn a_taken_port_names_address_cause_and_remedy() {
        let first = Admin::bind(LOOPBACK).unwrap();
        let error = Admin::bind(first.address()).unwrap_err().to_string();
        let expected = format!(
            "admin endpoint cannot listen on {}: Address already in use (os error 98); \
             set EGRESS_ADMIN_LISTEN to a free port, or to off",
            first.address()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn an_address_of_nobody_names_the_remedy() {
        let error = Admin::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().ends_with(
                "; set EGRESS_ADMIN_LISTEN to an address of the pod, or to a port alone"
            )
        );
    }

    #[test]
    fn a_refused_port_names_the_remedy() {
        let error = AdminError {
            address: ([0, 0, 0, 0], 80).into(),
            cause: io::Error::from_raw_os_error(nix::libc::EACCES),
        };
        assert_eq!(
            error.to_string(),
            "admin endpoint cannot listen on 0.0.0.0:80: Permission denied (os error 13); set \
             EGRESS_ADMIN_LISTEN to a port from 1024 on, or add CAP_NET_BIND_SERVICE"
        );
    }
}
