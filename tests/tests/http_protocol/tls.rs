//! TLS between clients and the proxy.

use std::{io, net::TcpStream, sync::Arc};

use egress_lab::{
    Command, Family, Identity, Volume, Wire, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use http_body_util::Empty;
use hyper::{Method, Request, body::Bytes, client::conn::http2, upgrade};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName},
};

use crate::scene::{PATIENCE, Scene, connect, get, ok};

const PORT: u16 = 8443;
/// Names of the files in the Secret, as `kubernetes.io/tls` has them.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

const FAILURES: &str = "egress_config_reload_failures_total";

type TlsWire = Wire<StreamOwned<ClientConnection, TcpStream>>;

/// The certificate of the proxy, by its name or address.
fn identity() -> Result<Identity, Failed> {
    Ok(Identity::create(&["proxy.test", "10.128.0.10"])?)
}

fn files(identity: &Identity) -> [(&str, &str); 2] {
    [
        (CERTIFICATE, identity.certificate_pem()),
        (KEY, identity.key_pem()),
    ]
}

fn scene(volume: &Volume, change: impl FnOnce(Command) -> Command) -> Result<Scene, Failed> {
    let path = |name| volume.file(name).to_string_lossy().into_owned();
    Scene::start_with(|command| {
        change(
            command
                .env("EGRESS_HTTP_PROXY_TLS_LISTEN", format!(":{PORT}"))
                .env("EGRESS_HTTP_PROXY_TLS_CERTIFICATE", path(CERTIFICATE))
                .env("EGRESS_HTTP_PROXY_TLS_KEY", path(KEY)),
        )
    })
}

/// A connection after its handshake.
fn client(scene: &Scene, config: ClientConfig) -> io::Result<TlsWire> {
    let proxy = scene.lab.pod().socket(Family::Ipv4, PORT);
    let mut stream = scene
        .lab
        .client()
        .netns()
        .run(|| TcpStream::connect(proxy))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("proxy.test").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    session.complete_io(&mut stream)?;
    Ok(Wire::new(StreamOwned::new(session, stream)))
}

/// One request and its answer.
fn asks(scene: &Scene, client: &mut TlsWire, body: &str) {
    client.say(get("a.test"));
    let mut origin = scene.origin();
    origin.head();
    origin.say(ok(body).replace("Content-Length", "Connection: close\r\nContent-Length"));
    assert_eq!(client.reply("GET").text(), body);
}

pub(crate) fn requests_and_tunnels_over_tls() -> TestResult {
    let identity = identity()?;
    let volume = Volume::new(&files(&identity))?;
    let scene = scene(&volume, |command| {
        command.env("EGRESS_HTTP_PROXY_LISTEN", "off")
    })?;
    let mut wire = client(&scene, identity.client(&["http/1.1"]))?;
    asks(&scene, &mut wire, "first");
    asks(&scene, &mut wire, "second");
    // A body of either kind, and of a size that has to wait on the way.
    let body = vec![b'x'; 3_000_000];
    wire.say(format!(
        "PUT http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    let mut origin = scene.origin();
    origin.head();
    std::thread::scope(|scope| {
        scope.spawn(|| wire.say(&body));
        origin.hear(&body);
    });
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            origin.say(response);
            origin.say(&body);
        });
        assert!(wire.reply("PUT").body == body);
    });

    // The connection becomes a tunnel, in which either side may end first.
    wire.say(format!("{}early", connect("a.test:80")));
    let mut origin = scene.origin();
    assert_eq!(wire.reply("CONNECT").status, 200);
    origin.hear("early");
    origin.say("welcome");
    wire.hear("welcome");
    wire.say("last");
    origin.hear("last");
    origin.say(vec![b'y'; 300_000]);
    origin.end()?;
    assert_eq!(wire.rest().len(), 300_000);

    // In the clear there is nobody.
    let refused = Wire::connect(scene.lab.client().netns(), scene.address());
    assert!(refused.is_err());
    // And nothing but TLS on its port.
    let address = scene.lab.pod().socket(Family::Ipv4, PORT);
    let mut plain = Wire::connect(scene.lab.client().netns(), address)?;
    plain.say(get("a.test"));
    let (rest, _) = plain.try_rest();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    Ok(())
}

/// What the proxy shows a new client.
fn shown(scene: &Scene, trusts: &Identity) -> io::Result<Vec<u8>> {
    let proxy = scene.lab.pod().socket(Family::Ipv4, PORT);
    let mut stream = scene
        .lab
        .client()
        .netns()
        .run(|| TcpStream::connect(proxy))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("proxy.test").unwrap();
    let config = Arc::new(trusts.client(&["http/1.1"]));
    let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    session.complete_io(&mut stream)?;
    let certificates = session.peer_certificates().unwrap_or_default();
    Ok(certificates
        .first()
        .map_or(Vec::new(), |first| first.to_vec()))
}

pub(crate) fn a_new_certificate_is_for_new_handshakes() -> TestResult {
    let (old, new) = (identity()?, identity()?);
    let mut volume = Volume::new(&files(&old))?;
    let scene = scene(&volume, |command| command)?;
    assert_eq!(shown(&scene, &old)?, old.chain()[0].to_vec());
    let mut idle = client(&scene, old.client(&["http/1.1"]))?;
    asks(&scene, &mut idle, "before");
    let mut tunnel = client(&scene, old.client(&["http/1.1"]))?;
    tunnel.say(connect("a.test:80"));
    let mut origin = scene.origin();
    assert_eq!(tunnel.reply("CONNECT").status, 200);

    volume.update(&files(&new))?;
    eventually(PATIENCE, || shown(&scene, &new));
    assert_eq!(shown(&scene, &new)?, new.chain()[0].to_vec());
    assert!(shown(&scene, &old).is_err());
    asks(&scene, &mut idle, "after");
    tunnel.say("still open");
    origin.hear("still open");
    assert_eq!(scene.metric(FAILURES), 0.0);
    Ok(())
}

pub(crate) fn a_key_that_does_not_fit_changes_nothing() -> TestResult {
    let (old, new) = (identity()?, identity()?);
    let mut volume = Volume::new(&files(&old))?;
    let scene = scene(&volume, |command| command)?;
    let [certificate, _] = files(&new);
    let [_, wrong] = files(&old);
    volume.update(&[certificate, wrong])?;
    scene.await_metric(FAILURES, 1.0);
    let log = scene
        .proxy
        .process()
        .await_stderr("the TLS certificate was not reloaded", PATIENCE)?;
    assert!(
        log.contains("EGRESS_HTTP_PROXY_TLS_KEY is not its key"),
        "{log}"
    );
    assert_eq!(shown(&scene, &old)?, old.chain()[0].to_vec());
    // What is no certificate at all, and then a good one.
    volume.update(&[(CERTIFICATE, "no PEM"), wrong])?;
    scene.await_metric(FAILURES, 2.0);
    assert_eq!(shown(&scene, &old)?, old.chain()[0].to_vec());
    volume.update(&files(&new))?;
    eventually(PATIENCE, || shown(&scene, &new));
    assert_eq!(scene.page("/readyz").status, 200);
    Ok(())
}

pub(crate) fn clients_without_certificate_are_refused() -> TestResult {
    let (identity, known, unknown) = (identity()?, identity()?, identity()?);
    let [certificate, key] = files(&identity);
    let authority = ("ca.crt", known.authority_pem());
    let volume = Volume::new(&[certificate, key, authority])?;
    let path = volume.file("ca.crt").to_string_lossy().into_owned();
    let scene = scene(&volume, |command| {
        command.env("EGRESS_HTTP_PROXY_TLS_CLIENT_CA", path)
    })?;
    // A client of TLS 1.3 learns of it with the first answer.
    let refused = |config| {
        let Ok(mut wire) = client(&scene, config) else {
            return true;
        };
        wire.try_say(get("a.test")).is_err() || wire.try_reply("GET").is_err()
    };
    assert!(refused(identity.client(&["http/1.1"])));
    assert!(refused(identity.client_named(&unknown, &["http/1.1"])?));
    let mut wire = client(&scene, identity.client_named(&known, &["http/1.1"])?)?;
    asks(&scene, &mut wire, "welcome");
    assert!(scene.is_quiet());
    assert_eq!(
        scene.metric(
            "egress_http_proxy_failures_total{side=\"client\",error=\"tls_alert_received\"}"
        ),
        2.0
    );
    Ok(())
}

pub(crate) fn http2_is_for_tunnels() -> TestResult {
    let identity = identity()?;
    let volume = Volume::new(&files(&identity))?;
    let scene = scene(&volume, |command| {
        command
            .env("EGRESS_HTTP_PROXY_DESTINATION", "a.test")
            .env("EGRESS_MAX_CONNECTIONS", "3")
    })?;
    let proxy = scene.lab.pod().socket(Family::Ipv4, PORT);
    let connector = TlsConnector::from(Arc::new(identity.client(&["h2"])));
    let visit = async {
        let stream = tokio::net::TcpStream::connect(proxy).await?;
        let stream = connector
            .connect(ServerName::try_from("proxy.test")?, stream)
            .await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let ask = async |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri);
            let request = request.body(Empty::<Bytes>::new())?;
            Ok::<_, Failed>(sender.clone().send_request(request).await?)
        };
        let forward = ask(Method::GET, "http://a.test/").await?;
        assert_eq!(forward.status().as_u16(), 501);
        let denied = ask(Method::CONNECT, "b.test:80").await?;
        assert_eq!(denied.status().as_u16(), 403);
        assert!(denied.headers().contains_key("proxy-status"));

        let opened = ask(Method::CONNECT, "a.test:80").await?;
        assert_eq!(opened.status().as_u16(), 200);
        let mut origin = scene.origin();
        let mut tunnel = TokioIo::new(upgrade::on(opened).await?);
        // This side ends first; what the origin says then still arrives.
        tunnel.write_all(b"last words").await?;
        tunnel.shutdown().await?;
        let origin = tokio::task::spawn_blocking(move || {
            assert_eq!(origin.rest(), b"last words");
            let answer = vec![b'o'; 3_000_000];
            origin.say(&answer);
        });
        let mut answer = Vec::new();
        tunnel.read_to_end(&mut answer).await?;
        assert!(answer == vec![b'o'; 3_000_000], "{} bytes", answer.len());
        origin.await?;

        // A tunnel counts as a connection: the third is one too many.
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(ask(Method::CONNECT, "a.test:80").await?);
        }
        let full = ask(Method::CONNECT, "a.test:80").await?;
        assert_eq!(full.status().as_u16(), 503);
        assert!(open.iter().all(|response| response.status() == 200));
        drop((open, sender));
        connection.await??;
        Ok::<_, Failed>(())
    };
    scene.lab.client().netns().run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { tokio::time::timeout(2 * PATIENCE, visit).await? })
    })?;
    // With the connection its tunnels are gone, whatever the other side does.
    scene.await_metric("egress_http_proxy_open_tunnels", 0.0);
    scene.stop()?;
    Ok(())
}
