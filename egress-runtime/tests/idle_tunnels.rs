//! What an idle tunnel costs the process, in memory. A process of its own, or
//! other tests would be measured too.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use egress_runtime::limits::raise_open_files;
use egress_runtime::relay::{Transferred, relay};
use tokio::task::JoinSet;

const WANTED: usize = 9000;
/// With its peers in this process as well, a tunnel has four sockets.
const DESCRIPTORS: usize = 4;
const IDLE: Duration = Duration::from_secs(900);
/// Tokio's part is some 900 bytes, the sockets' and the timer's included.
const MOST_BYTES: usize = 2048;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

/// A peer, and the socket that the relay has.
fn pair(listener: &TcpListener) -> (TcpStream, tokio::net::TcpStream) {
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (peer, tokio::net::TcpStream::from_std(ours).unwrap())
}

#[tokio::test]
async fn an_idle_tunnel_costs_less_than_2_kib() {
    let descriptors = usize::try_from(raise_open_files()).unwrap();
    let count = WANTED.min((descriptors - 100) / DESCRIPTORS);
    assert!(count >= 200, "{descriptors} file descriptors are too few");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.2:0").unwrap();
    let mut peers = Vec::with_capacity(count);
    let mut tasks = JoinSet::new();
    let mut open = |count: usize| {
        for _ in 0..count {
            let (client, downstream) = pair(&listener);
            let (server, upstream) = pair(&other);
            peers.push((client, server));
            tasks.spawn(async move {
                let transferred = Arc::new(Transferred::default());
                relay(downstream, upstream, IDLE, &transferred).await
            });
        }
    };
    let talk = |peers: &mut [(TcpStream, TcpStream)]| {
        for (client, server) in peers {
            client.write_all(&[1; 5000]).unwrap();
            server.write_all(&[2; 5000]).unwrap();
        }
    };
    // What the first ones cost once for all is not counted.
    open(100);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = resident_bytes();
    open(count - 100);
    // They have carried something, so that a kept buffer would show.
    talk(&mut peers);
    let read = tokio::task::spawn_blocking(move || {
        for (client, server) in &mut peers {
            client.read_exact(&mut [0; 5000]).unwrap();
            server.read_exact(&mut [0; 5000]).unwrap();
        }
        peers
    });
    let peers = read.await.unwrap();
    let grown = resident_bytes().saturating_sub(before);
    let each = grown / (count - 100);
    println!("{each} bytes for each of {count} idle tunnels");
    assert!(each < MOST_BYTES, "{each} bytes");
    drop(peers);
    while let Some(end) = tasks.join_next().await {
        end.unwrap();
    }
}
