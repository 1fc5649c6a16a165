//! Accepting without file descriptors left. A process of its own, or other
//! tests would have none either.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

use egress_runtime::limits::Limits;
use egress_runtime::listener::{AcceptPauses, Bound};
use egress_runtime::relay::{Transferred, relay};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

fn pauses(registry: &Registry) -> u32 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("egress_accept_pauses_total "));
    line.unwrap().parse().unwrap()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    Duration::from_nanos(u64::try_from(time.num_nanoseconds()).unwrap())
}

/// Opens files until none can be opened.
fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test]
async fn accepting_pauses_and_goes_on_by_itself() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
    let mut registry = Registry::default();
    let limits = Limits::new(10, None);
    let bound = Bound::bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
    let listener = bound.listen().unwrap().pop().unwrap();
    let counted = AcceptPauses::register(&mut registry);
    let acceptor = listener.serve(limits.clone(), None, counted).unwrap();
    let address = acceptor.address();

    let client = TcpStream::connect(address).await.unwrap();
    let accepted = acceptor.accept().await;
    let permit = limits.admit(accepted.peer.ip()).unwrap();
    let mut open = (client, accepted.stream, permit);
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let files = exhaust();

    // It waits, without spinning.
    let used = cpu_time();
    timeout(Duration::from_millis(400), acceptor.accept())
        .await
        .unwrap_err();
    assert!(cpu_time() - used < Duration::from_millis(200));
    let paused = pauses(&registry);
    assert!((2..=10).contains(&paused), "{paused} pauses");
    drop(files);

    // A connection that ends makes room at once.
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let files = exhaust();
        let next = async {
            let next = acceptor.accept().await;
            (next, Instant::now())
        };
        let end = async {
            // When the other waits.
            yield_now().await;
            yield_now().await;
            let (client, stream, permit) = open;
            drop((client, stream));
            drop(permit);
            Instant::now()
        };
        let ((next, at), freed) = tokio::join!(next, end);
        assert_eq!(next.peer, waiting.local_addr().unwrap());
        fastest = fastest.min(at.saturating_duration_since(freed));
        drop(files);
        let permit = limits.admit(next.peer.ip()).unwrap();
        open = (waiting, next.stream, permit);
        waiting = TcpStream::connect(address).await.unwrap();
    }
    assert!(fastest < Duration::from_millis(20), "{fastest:?}");
    drop(waiting);
    acceptor.accept().await;

    // Bulk needs no pipe: it is copied.
    let (client, downstream, _permit) = open;
    let mut server = TcpStream::connect(address).await.unwrap();
    let upstream = acceptor.accept().await.stream;
    let files = exhaust();
    let transferred = Transferred::default();
    let send = async {
        let mut client = client;
        for _ in 0..20 {
            client.write_all(&[5; 1_000_000]).await.unwrap();
        }
    };
    let receive = async {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        server.shutdown().await.unwrap();
        got.len()
    };
    let long = Duration::from_secs(60);
    let relayed = relay(downstream, upstream, long, &transferred);
    let (_, (), got) = tokio::join!(relayed, send, receive);
    assert_eq!(got, 20_000_000);
    drop(files);
}
