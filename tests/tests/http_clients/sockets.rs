//! What no program of the machine can be told to do, by hand.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use egress_lab::{
    Family, Reply,
    harness::{TestResult, libtest_mimic::Failed},
};
use http_body_util::Empty;
use hyper::{Method, Request, body::Bytes, client::conn::http2, upgrade};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConnection, StreamOwned, pki_types::ServerName},
};

use crate::{
    site::{WEBSOCKET_ACCEPT, WEBSOCKET_KEY, pattern},
    visit::{ALLOWED, DENIED, Setup},
};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(15);

fn connect(setup: &Setup) -> Result<TcpStream, Failed> {
    let proxy = setup.lab.pod().socket(Family::Ipv4, 8080);
    let stream = setup
        .lab
        .client()
        .netns()
        .run(|| TcpStream::connect(proxy))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// A tunnel to a port of the site.
fn tunnel(setup: &Setup, port: u16) -> Result<TcpStream, Failed> {
    let mut stream = connect(setup)?;
    let target = format!("{ALLOWED}:{port}");
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
    // Nothing comes behind the answer before something is sent.
    let reply = Reply::read(&mut BufReader::new(&stream), "CONNECT")?;
    assert_eq!(reply.map(|reply| reply.status), Some(200));
    Ok(stream)
}

/// RFC 6455 by hand: the handshake, three messages, and the end.
fn websocket(stream: impl Read + Write, target: &str) -> TestResult {
    let mut stream = BufReader::new(stream);
    let handshake = format!(
        "GET {target} HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    );
    stream.get_mut().write_all(handshake.as_bytes())?;
    let reply = Reply::read(&mut stream, "GET")?.ok_or("no answer to the handshake")?;
    assert_eq!(reply.status, 101, "{reply:?}");
    let field = |name| {
        reply
            .fields(name)
            .collect::<Vec<_>>()
            .join(",")
            .to_lowercase()
    };
    assert_eq!(field("upgrade"), "websocket", "{reply:?}");
    assert_eq!(field("connection"), "upgrade", "{reply:?}");
    assert!(
        reply.fields("sec-websocket-accept").eq([WEBSOCKET_ACCEPT]),
        "{reply:?}"
    );
    for text in [
        "hello",
        "",
        "and a longer one, which is still short enough for one byte",
    ] {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let length = u8::try_from(text.len())?;
        let masked = text
            .bytes()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask);
        let mut message = vec![0x81, 0x80 | length];
        message.extend(mask);
        message.extend(masked);
        stream.get_mut().write_all(&message)?;
        let mut answer = vec![0; 2 + text.len()];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [&[0x81, length], text.as_bytes()].concat());
    }
    // A close message, masked and empty: the site ends the connection, and the
    // end comes through.
    stream.get_mut().write_all(&[0x88, 0x80, 0, 0, 0, 0])?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    assert_eq!(rest, b"");
    Ok(())
}

pub(crate) fn websocket_by_forward() -> TestResult {
    let setup = Setup::start()?;
    websocket(connect(&setup)?, &format!("http://{ALLOWED}/websocket"))
}

pub(crate) fn websocket_in_a_tunnel() -> TestResult {
    let setup = Setup::start()?;
    websocket(tunnel(&setup, 80)?, "/websocket")
}

pub(crate) fn websocket_over_tls() -> TestResult {
    let setup = Setup::start()?;
    let config = Arc::new(setup.identity.client(&["http/1.1"]));
    let session = ClientConnection::new(config, ServerName::try_from(ALLOWED)?)?;
    websocket(
        StreamOwned::new(session, tunnel(&setup, 443)?),
        "/websocket",
    )
}

/// Two tunnels at a time and a refusal, all in one TLS connection (RFC 9113
/// section 8.5).
pub(crate) fn http2_connect_over_tls_to_the_proxy() -> TestResult {
    let setup = Setup::start_with(|command, folder| {
        let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
        command
            .env("EGRESS_HTTP_PROXY_TLS_LISTEN", ":8443")
            .env("EGRESS_HTTP_PROXY_TLS_CERTIFICATE", path("cert.pem"))
            .env("EGRESS_HTTP_PROXY_TLS_KEY", path("key.pem"))
    })?;
    let proxy = setup.lab.pod().socket(Family::Ipv4, 8443);
    let connector = TlsConnector::from(Arc::new(setup.identity.client(&["h2"])));
    let visit = async {
        let stream = tokio::net::TcpStream::connect(proxy).await?;
        let stream = connector
            .connect(ServerName::from(proxy.ip()), stream)
            .await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let connect = async |target: String| {
            let request = Request::builder().method(Method::CONNECT).uri(target);
            let response = sender
                .clone()
                .send_request(request.body(Empty::<Bytes>::new())?)
                .await?;
            Ok::<_, Failed>(response)
        };
        let first = connect(format!("{ALLOWED}:80")).await?;
        let second = connect(format!("{ALLOWED}:80")).await?;
        let denied = connect(format!("{DENIED}:80")).await?;
        assert_eq!(
            [first.status(), second.status(), denied.status()].map(|status| status.as_u16()),
            [200, 200, 403]
        );
        let mut tunnels = Vec::new();
        for response in [first, second] {
            tunnels.push(TokioIo::new(upgrade::on(response).await?));
        }
        for (number, tunnel) in tunnels.iter_mut().enumerate() {
            let request = format!("GET /bytes/{} HTTP/1.0\r\n\r\n", 200_000 + number);
            tunnel.write_all(request.as_bytes()).await?;
        }
        // The second is not kept waiting by the first, which nobody reads.
        for (number, tunnel) in tunnels.iter_mut().enumerate().rev() {
            let mut answer = Vec::new();
            tunnel.read_to_end(&mut answer).await?;
            let body = pattern(0, 200_000 + number);
            assert!(answer.starts_with(b"HTTP/1.0 200") && answer.ends_with(&body));
        }
        Ok::<_, Failed>(())
    };
    setup.lab.client().netns().run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { tokio::time::timeout(DEADLINE, visit).await? })
    })
}
