//! The web site that the clients visit, over HTTP/1.1 and, with TLS, HTTP/2.

use std::{
    convert::Infallible,
    fmt::Write,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use egress_lab::{Identity, NetNs, Worker, harness::libtest_mimic::Failed};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header,
    service::service_fn,
    upgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// RFC 6455 section 1.3: a key of a client, and what the server makes of it.
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A running site. It ends when dropped.
///
/// | path | answer |
/// |---|---|
/// | `/bytes/N` | N bytes of [`pattern`], with their length |
/// | `/stream/N` | the same, without |
/// | `/echo` | what was sent |
/// | `/seen` | the request as it came |
/// | `/websocket` | a WebSocket that echoes short text messages |
/// | else | a file |
pub(crate) struct Site {
    _worker: Worker,
}

impl Site {
    /// Serves HTTP on all of `plain`, HTTPS on all of `tls`.
    pub(crate) fn start(
        netns: &NetNs,
        plain: &[SocketAddr],
        tls: &[SocketAddr],
        identity: &Identity,
        files: &Path,
    ) -> Result<Self, Failed> {
        let (plain, tls) = (plain.to_vec(), tls.to_vec());
        let acceptor = TlsAcceptor::from(Arc::new(identity.server(&["h2", "http/1.1"])?));
        let files: Arc<Path> = Arc::from(files);
        let worker = Worker::start(netns, async move || {
            for address in plain {
                let listener = TcpListener::bind(address).await?;
                tokio::spawn(serve_plain(listener, files.clone()));
            }
            for address in tls {
                let listener = TcpListener::bind(address).await?;
                tokio::spawn(serve_tls(listener, acceptor.clone(), files.clone()));
            }
            Ok(())
        })?;
        Ok(Self { _worker: worker })
    }
}

/// What the site sends: the bytes from `start` on.
pub(crate) fn pattern(start: usize, length: usize) -> Vec<u8> {
    // A prime, so that no block of any protocol begins as the last one did.
    let period: Vec<u8> = (0..251).collect();
    let phase = start % period.len();
    let mut bytes = period.repeat((phase + length) / period.len() + 1);
    bytes.drain(..phase);
    bytes.truncate(length);
    bytes
}

async fn serve_plain(listener: TcpListener, files: Arc<Path>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_http1(stream, files.clone()));
    }
}

async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor, files: Arc<Path>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, files) = (acceptor.clone(), files.clone());
        tokio::spawn(async move {
            // Whoever does not like our certificate leaves.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let service = service_fn(move |request| answer(request, files.clone()));
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            } else {
                serve_http1(stream, files).await;
            }
        });
    }
}

async fn serve_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    files: Arc<Path>,
) {
    let service = service_fn(move |request| answer(request, files.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

type Content = Either<Full<Bytes>, Pattern>;

async fn answer(
    request: Request<Incoming>,
    files: Arc<Path>,
) -> Result<Response<Content>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let full = |bytes: Vec<u8>| Response::new(Either::Left(Full::from(bytes)));
    if let Some((kind, length)) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .and_then(|(kind, length)| Some((kind, length.parse().ok()?)))
    {
        match kind {
            "bytes" => return Ok(Response::new(Either::Right(Pattern::new(length, true)))),
            "stream" => return Ok(Response::new(Either::Right(Pattern::new(length, false)))),
            _ => {}
        }
    }
    match path.as_str() {
        "/echo" => Ok(full(
            request.into_body().collect().await?.to_bytes().to_vec(),
        )),
        "/seen" => {
            let mut text = format!("{} {path} {:?}\n", request.method(), request.version());
            for (name, value) in request.headers() {
                let _ = writeln!(
                    text,
                    "{name}: {}",
                    String::from_utf8_lossy(value.as_bytes())
                );
            }
            Ok(full(text.into_bytes()))
        }
        "/websocket" => Ok(websocket(request)),
        _ => Ok(match file(&files, &path) {
            Some(bytes) if request.method() == Method::GET => full(bytes),
            _ => {
                let mut response = full(b"no such thing\n".to_vec());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }),
    }
}

fn file(files: &Path, path: &str) -> Option<Vec<u8>> {
    let relative = PathBuf::from(path.trim_start_matches('/'));
    let inside = !relative.components().any(|part| part.as_os_str() == "..");
    inside.then(|| fs::read(files.join(relative)).ok())?
}

fn websocket(request: Request<Incoming>) -> Response<Content> {
    let field = |name| {
        request
            .headers()
            .get(name)
            .map(|value| value.as_bytes().to_ascii_lowercase())
    };
    let asked = field(header::UPGRADE) == Some(b"websocket".to_vec())
        && field(header::CONNECTION) == Some(b"upgrade".to_vec())
        && request
            .headers()
            .get(header::SEC_WEBSOCKET_KEY)
            .is_some_and(|key| key == WEBSOCKET_KEY);
    let mut response = Response::new(Either::Left(Full::default()));
    if !asked {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, WEBSOCKET_ACCEPT),
    ] {
        response
            .headers_mut()
            .insert(name, header::HeaderValue::from_static(value));
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade::on(request).await {
            let _ = echo_messages(&mut TokioIo::new(upgraded)).await;
        }
    });
    response
}

/// RFC 6455 section 5.2: text messages of less than 126 bytes, which clients
/// mask and servers do not. Another message ends it.
async fn echo_messages(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    loop {
        let [0x81, length @ 0x80..0xfe] = [stream.read_u8().await?, stream.read_u8().await?] else {
            return stream.shutdown().await;
        };
        let length = length & 0x7f;
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await?;
        for (byte, mask) in message.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        stream
            .write_all(&[&[0x81, length], &message[..]].concat())
            .await?;
    }
}

/// Content made as it is sent.
pub(crate) struct Pattern {
    at: usize,
    length: usize,
    is_known: bool,
}

impl Pattern {
    fn new(length: usize, is_known: bool) -> Self {
        Self {
            at: 0,
            length,
            is_known,
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = (self.length - self.at).min(64 * 1024);
        if length == 0 {
            return Poll::Ready(None);
        }
        let frame = Frame::data(pattern(self.at, length).into());
        self.at += length;
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        match (self.is_known, u64::try_from(self.length - self.at)) {
            (true, Ok(left)) => SizeHint::with_exact(left),
            _ => SizeHint::new(),
        }
    }
}
