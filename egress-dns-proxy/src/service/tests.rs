//! What a reload does to real connections, on workers of their own.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use egress_config::{Diagnostics, List};
use egress_runtime::access_log::AccessLog;
use egress_runtime::dial::Dialer;
use egress_runtime::drain::{Connections, Drain};
use egress_runtime::egress_address::EgressAddress;
use egress_runtime::limits::Limits;
use egress_runtime::resolver::ResolverMetrics;
use egress_runtime::workers::Workers;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::server::{Shared, Worker};

const SOON: Duration = Duration::from_secs(10);
const WORKERS: usize = 2;

/// A service on workers of its own.
struct Lab {
    service: Service,
    drain: Drain,
    registry: Registry,
    workers: Option<Workers>,
    alive: Option<watch::Sender<()>>,
}

impl Lab {
    fn new(existing: ReloadExisting) -> Self {
        let (alive, ended) = watch::channel(());
        let workers = Workers::start(WORKERS, move |_| {
            let mut ended = ended.clone();
            async move { while ended.changed().await.is_ok() {} }
        });
        let workers = workers.unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let drain = Drain::new();
        let source = EgressAddress::none();
        let dialer = Dialer::new(source, SOON);
        let shared = Arc::new(Shared {
            dialer,
            idle: Duration::from_secs(3600),
            limits: Limits::new(100, Some(90)),
            drain: drain.clone(),
            metrics: metrics.clone(),
        });
        let sessions = Limits::new(2, None);
        let worker = |handle: &Handle| {
            let worker = Worker {
                shared: Arc::clone(&shared),
                connections: Connections::new(),
                log: AccessLog::off().worker(),
            };
            let worker = UdpWorker {
                worker,
                source,
                idle: Duration::from_secs(60),
                sessions: sessions.clone(),
            };
            (handle.clone(), worker)
        };
        let service = Service {
            workers: workers.handles().iter().map(worker).collect(),
            guard: LocalGuard::new(|_| false),
            pauses: AcceptPauses::register(&mut registry),
            metrics,
            existing,
            destinations: Destinations::new(
                ResolverMetrics::register(&mut registry),
                dialer,
                Duration::from_millis(100),
            ),
            listeners: HashMap::new(),
        };
        Self {
            service,
            drain,
            registry,
            workers: Some(workers),
            alive: Some(alive),
        }
    }

    async fn apply(&mut self, list: &str) -> Result<Applied, ServiceError> {
        let mut diagnostics = Diagnostics::new();
        let mappings = Mappings::parse(&List::new("X", list), &mut diagnostics);
        assert_eq!(diagnostics, Diagnostics::new());
        let ports = self.service.take_ports(&mappings)?;
        self.service.apply(&mappings, ports, None).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }
}

/// A server that answers every read with `name`.
async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {
                    stream.write_all(name.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

/// A port of nobody, and below those that the kernel gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let tcp = std::net::TcpListener::bind(("::", port));
        if tcp.and_then(|_| UdpSocket::bind(("::", port))).is_ok() {
            return port;
        }
    }
}

async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"?").await?;
    let mut buffer = [0; 64];
    let read = timeout(SOON, stream.read(&mut buffer)).await??;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

#[tokio::test]
async fn a_reload_changes_what_is_new_and_lets_connections_live() {
    let (a, b) = (backend("a").await, backend("b").await);
    let [changed, removed, added] = [free_port(), free_port(), free_port()];
    let mut lab = Lab::new(ReloadExisting::Keep);
    let both = format!("{changed} 127.0.0.1 {0}\n{removed} 127.0.0.1 {0}", a.port());
    let first = lab.apply(&both).await.unwrap();
    assert_eq!((first.added, first.kept), (2, 0));
    let mut on_changed = connect(changed).await;
    let mut on_removed = connect(removed).await;
    assert_eq!(ask(&mut on_changed).await.unwrap(), "a");
    assert_eq!(ask(&mut on_removed).await.unwrap(), "a");

    let next = format!(
        "# moved\n{added} 127.0.0.1 {}\n{changed} 127.0.0.1 {}",
        a.port(),
        b.port()
    );
    let expected = Applied {
        added: 1,
        changed: 1,
        removed: 1,
        ..Applied::default()
    };
    assert_eq!(lab.apply(&next).await.unwrap(), expected);
    assert_eq!(ask(&mut connect(changed).await).await.unwrap(), "b");
    assert_eq!(ask(&mut connect(added).await).await.unwrap(), "a");
    assert!(TcpStream::connect(("127.0.0.1", removed)).await.is_err());
    assert_eq!(ask(&mut on_changed).await.unwrap(), "a");
    assert_eq!(ask(&mut on_removed).await.unwrap(), "a");

    // A port that was given back can be taken again.
    lab.apply(&both).await.unwrap();
    assert_eq!(ask(&mut connect(removed).await).await.unwrap(), "a");
}

#[tokio::test]
async fn a_reload_can_close_what_it_forbids_and_nothing_else() {
    let (a, b) = (backend("a").await, backend("b").await);
    let [changed, kept] = [free_port(), free_port()];
    let mut lab = Lab::new(ReloadExisting::Close);
    let list = |to: SocketAddr| {
        format!(
            "{kept} 127.0.0.1 {}\n{changed} 127.0.0.1 {}",
            a.port(),
            to.port()
        )
    };
    lab.apply(&list(a)).await.unwrap();
    let mut on_changed = connect(changed).await;
    let mut on_kept = connect(kept).await;
    assert_eq!(ask(&mut on_changed).await.unwrap(), "a");
    assert_eq!(ask(&mut on_kept).await.unwrap(), "a");
    let applied = lab.apply(&list(b)).await.unwrap();
    assert_eq!((applied.changed, applied.kept, applied.closed), (1, 1, 1));
    let end = timeout(SOON, on_changed.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(ask(&mut on_kept).await.unwrap(), "a");
}

#[tokio::test]
async fn a_port_that_cannot_be_taken_changes_nothing() {
    let a = backend("a").await;
    let [port, free] = [free_port(), free_port()];
    let mut lab = Lab::new(ReloadExisting::Keep);
    lab.apply(&format!("{port} 127.0.0.1 {}", a.port()))
        .await
        .unwrap();
    let taken = UdpSocket::bind("[::]:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let list = format!("{free} 127.0.0.1 1\n{number}/udp 127.0.0.1 1");
    let error = lab.apply(&list).await.unwrap_err().to_string();
    let expected = format!("we cannot receive datagrams on port {number}: ");
    assert!(error.starts_with(&expected), "{error}");
    assert!(TcpStream::connect(("127.0.0.1", free)).await.is_err());
    assert_eq!(ask(&mut connect(port).await).await.unwrap(), "a");
}

#[tokio::test]
async fn a_dead_backend_is_known_and_comes_back() {
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let port = free_port();
    let mut lab = Lab::new(ReloadExisting::Keep);
    lab.apply(&format!("{port} 127.0.0.1 {}", address.port()))
        .await
        .unwrap();
    // It may be reset before it is known to be open.
    let refused = async { ask(&mut TcpStream::connect(("127.0.0.1", port)).await?).await };
    assert!(refused.await.is_err());
    let state = |state: &str, number: u8| {
        format!(
            "egress_dns_proxy_backend_addresses{{port=\"{port}\",protocol=\"tcp\",host=\"127.0.0.1\",state=\"{state}\"}} {number}\n"
        )
    };
    assert!(
        lab.metrics().contains(&state("unhealthy", 1)),
        "{}",
        lab.metrics()
    );
    assert!(lab.metrics().contains(&format!(
        "egress_dns_proxy_connection_failures_total{{port=\"{port}\",protocol=\"tcp\",host=\"127.0.0.1\",reason=\"connect\"}} 1\n"
    )));
    let _back = TcpListener::bind(address).await.unwrap();
    let healthy = async {
        while !lab.metrics().contains(&state("healthy", 1)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, healthy).await.unwrap();
}

#[tokio::test]
async fn draining_waits_for_connections_and_then_cuts_them_off() {
    let a = backend("a").await;
    let port = free_port();
    let mut lab = Lab::new(ReloadExisting::Keep);
    lab.apply(&format!("{port} 127.0.0.1 {}", a.port()))
        .await
        .unwrap();
    let mut one = connect(port).await;
    let mut two = connect(port).await;
    assert_eq!(ask(&mut one).await.unwrap(), "a");
    assert_eq!(ask(&mut two).await.unwrap(), "a");
    lab.drain.begin();
    lab.service.stop_accepting().await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert_eq!(ask(&mut one).await.unwrap(), "a");
    drop(one);
    let one_left = async {
        while lab.drain.in_flight() > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, one_left).await.unwrap();
    assert_eq!(lab.service.cut_off(), 1);
    timeout(SOON, lab.drain.finished()).await.unwrap();
    let end = timeout(SOON, two.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

/// A server of datagrams that answers each with `name`.
async fn datagram_backend(name: &'static str) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            socket.send_to(name.as_bytes(), client).await.unwrap();
        }
    });
    address
}

async fn client_of(port: u16) -> tokio::net::UdpSocket {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Hears only what comes from the address that it speaks to.
    socket.connect(("127.0.0.9", port)).await.unwrap();
    socket
}

async fn answer(socket: &tokio::net::UdpSocket) -> String {
    socket.send(b"?").await.unwrap();
    let mut buffer = [0; 64];
    let read = timeout(SOON, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn datagrams_are_relayed_and_follow_a_reload() {
    let (a, b) = (datagram_backend("a").await, datagram_backend("b").await);
    let port = free_port();
    let mut lab = Lab::new(ReloadExisting::Keep);
    let list = |to: SocketAddr| format!("{port}/udp 127.0.0.1 {}", to.port());
    lab.apply(&list(a)).await.unwrap();
    let (one, two, third) = (
        client_of(port).await,
        client_of(port).await,
        client_of(port).await,
    );
    assert_eq!(answer(&one).await, "a");
    assert_eq!(answer(&two).await, "a");
    assert_eq!(lab.drain.in_flight(), 2);
    // Two sessions are the most; who has one goes on.
    third.send(b"?").await.unwrap();
    assert_eq!(answer(&one).await, "a");
    let limited = format!(
        "egress_dns_proxy_connection_failures_total{{port=\"{port}\",protocol=\"udp\",host=\"127.0.0.1\",reason=\"limit\"}} 1\n"
    );
    let refused = async {
        while !lab.metrics().contains(&limited) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.unwrap();
    let applied = lab.apply(&list(b)).await.unwrap();
    assert_eq!((applied.changed, applied.closed), (1, 2));
    let ended = async {
        while lab.drain.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, ended).await.unwrap();
    assert_eq!(answer(&one).await, "b");
    lab.apply("# nothing").await.unwrap();
    let gone = async {
        while UdpSocket::bind(("::", port)).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}
