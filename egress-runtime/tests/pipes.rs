//! More bulk tunnels than pipes. A process of its own, whose pipes are counted.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::sync::Arc;
use std::time::Duration;

use egress_runtime::relay::{MAX_PIPES, RelayEnd, Transferred, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// Small enough to stand many times in memory, large enough for bulk reads.
const SOCKET_BUFFER: u32 = 200_000;
const SENT: usize = 3_000_000;
const LONG: Duration = Duration::from_secs(60);

async fn pair() -> (TcpStream, TcpStream) {
    let (listening, connecting) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    for socket in [&listening, &connecting] {
        socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
        socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
    }
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let connect = connecting.connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connect, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Ends of pipes in this process.
fn pipe_ends() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[tokio::test]
async fn without_a_pipe_left_bulk_is_copied() {
    let before = pipe_ends();
    // Its length divides no buffer, so what is out of place differs.
    let piece: Arc<Vec<u8>> = Arc::new((0..=250).collect());
    let sent = Arc::new(piece.repeat(SENT / piece.len()));
    let mut tunnels = Vec::new();
    for _ in 0..MAX_PIPES + 6 {
        let (mut client, downstream) = pair().await;
        let (upstream, server) = pair().await;
        let bytes = Arc::clone(&sent);
        let client = tokio::spawn(async move {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let relayed = tokio::spawn(async move {
            let transferred = Transferred::default();
            relay(downstream, upstream, LONG, &transferred).await
        });
        tunnels.push((client, relayed, server));
    }
    // Every tunnel gets stuck with what it has read.
    let (mut ends, mut seen) = (0, 1);
    while ends != seen || ends == 0 {
        seen = ends;
        sleep(Duration::from_millis(200)).await;
        ends = pipe_ends() - before;
    }
    assert!(ends <= 2 * MAX_PIPES, "{ends} ends");
    for (client, relayed, mut server) in tunnels {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert!(got == *sent, "{} bytes", got.len());
        drop((server, client.await.unwrap()));
        assert!(matches!(relayed.await.unwrap(), RelayEnd::Finished));
    }
    // Few are kept for the next.
    let kept = pipe_ends() - before;
    assert!(kept <= MAX_PIPES / 2, "{kept} ends are kept");
}
