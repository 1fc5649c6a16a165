//! Relays between real sockets on the loopback interface.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail like tests"
)]

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use egress_runtime::relay::{RelayEnd, TransferError, Transferred, relay, relay_streams, transfer};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_secs(60);

/// Both ends of a connection; `buffers` bounds what the kernel keeps for each.
async fn pair_with(buffers: Option<u32>) -> (TcpStream, TcpStream) {
    let (listening, connecting) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    if let Some(bytes) = buffers {
        for socket in [&listening, &connecting] {
            socket.set_recv_buffer_size(bytes).unwrap();
            socket.set_send_buffer_size(bytes).unwrap();
        }
    }
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listening.listen(1).unwrap();
    let connect = connecting.connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connect, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A relay between a client and a server.
struct Tunnel {
    client: TcpStream,
    server: TcpStream,
    transferred: Arc<Transferred>,
    task: JoinHandle<RelayEnd>,
}

impl Tunnel {
    async fn open() -> Self {
        Self::with(LONG, None, [b"", b""]).await
    }

    async fn with(idle: Duration, buffers: Option<u32>, early: [&[u8]; 2]) -> Self {
        let (client, downstream) = pair_with(buffers).await;
        let (upstream, server) = pair_with(buffers).await;
        let transferred = Arc::new(Transferred::default());
        let counts = Arc::clone(&transferred);
        let [up, down] = early.map(<[u8]>::to_vec);
        let task = tokio::spawn(async move {
            relay(downstream, upstream, idle, &counts)
                .with_early(up, down)
                .await
        });
        Self {
            client,
            server,
            transferred,
            task,
        }
    }

    fn counts(&self) -> (u64, u64) {
        (self.transferred.up.get(), self.transferred.down.get())
    }

    async fn end(self) -> RelayEnd {
        drop((self.client, self.server));
        self.task.await.unwrap()
    }
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn exactly<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// A sequence in which every stretch differs from those around it.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn an_idle_relay_is_small() {
    let size = |future: &dyn Future<Output = RelayEnd>| size_of_val(future);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ((downstream, _client), (upstream, _server)) =
            (pair_with(None).await, pair_with(None).await);
        let transferred = Transferred::default();
        let future = relay(downstream, upstream, LONG, &transferred);
        assert!(size(&future) < 256, "{} bytes", size(&future));
    });
}

#[tokio::test]
async fn both_halves_close_on_their_own() {
    for client_first in [true, false] {
        let mut tunnel = Tunnel::open().await;
        let (first, second) = if client_first {
            (&mut tunnel.client, &mut tunnel.server)
        } else {
            (&mut tunnel.server, &mut tunnel.client)
        };
        first.write_all(b"question").await.unwrap();
        assert_eq!(&exactly::<8>(second).await, b"question");
        first.write_all(b", that is all").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(rest(second).await, b", that is all");
        second.write_all(b"answer after your end").await.unwrap();
        assert_eq!(&exactly::<6>(first).await, b"answer");
        second.write_all(&pattern(3_000_000, 7)).await.unwrap();
        second.shutdown().await.unwrap();
        let answer = rest(first).await;
        assert!(answer.ends_with(&pattern(3_000_000, 7)));
        let (up, down) = tunnel.counts();
        let expected = (21, 21 + 3_000_000);
        let counted = if client_first { (up, down) } else { (down, up) };
        assert_eq!(counted, expected);
        assert!(matches!(tunnel.end().await, RelayEnd::Finished));
    }
}

#[tokio::test]
async fn what_was_read_before_goes_first() {
    let early = [b"GET /".as_slice(), b"HTTP/1.1 101".as_slice()];
    let mut tunnel = Tunnel::with(LONG, None, early).await;
    tunnel.client.write_all(b" HTTP/1.1").await.unwrap();
    tunnel.server.write_all(b" Switching").await.unwrap();
    assert_eq!(&exactly::<14>(&mut tunnel.server).await, b"GET / HTTP/1.1");
    let answer = exactly::<22>(&mut tunnel.client).await;
    assert_eq!(&answer, b"HTTP/1.1 101 Switching");
    assert_eq!(tunnel.counts(), (14, 22));
    assert!(matches!(tunnel.end().await, RelayEnd::Finished));
}

/// Writes `bytes` in pieces, pausing in between.
async fn write_pieces(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], pieces: &[usize]) {
    let mut sizes = pieces.iter().cycle();
    let mut left = bytes;
    while !left.is_empty() {
        let size = (*sizes.next().unwrap()).min(left.len());
        let (piece, further) = left.split_at(size);
        stream.write_all(piece).await.unwrap();
        left = further;
        if size.is_multiple_of(3) {
            yield_now().await;
        }
        if size.is_multiple_of(11) {
            sleep(Duration::from_millis(1)).await;
        }
    }
    stream.shutdown().await.unwrap();
}

async fn read_pieces(stream: &mut (impl AsyncRead + Unpin), pieces: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in pieces.iter().cycle() {
        let mut piece = vec![0; *size];
        let read = stream.read(&mut piece).await.unwrap();
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..read]);
        if size.is_multiple_of(5) {
            yield_now().await;
        }
    }
    bytes
}

async fn exchange<S>(client: S, server: S, up: &[u8], down: &[u8], pieces: &[usize])
where
    S: AsyncRead + AsyncWrite,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    let ((), (), got_up, got_down) = tokio::join!(
        write_pieces(&mut client_write, up, pieces),
        write_pieces(&mut server_write, down, pieces),
        read_pieces(&mut server_read, pieces),
        read_pieces(&mut client_read, pieces),
    );
    assert!(got_up == up, "{} of {} bytes up", got_up.len(), up.len());
    assert!(
        got_down == down,
        "{} of {} down",
        got_down.len(),
        down.len()
    );
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { timeout(LONG, future).await.expect("it hangs") })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_arrive_as_sent(
        lengths in prop::array::uniform2(prop_oneof![0_usize..5000, 60_000_usize..2_000_000]),
        pieces in prop::collection::vec(
            prop_oneof![1_usize..100, 1000_usize..9000, 60_000_usize..300_000], 1..8),
        buffers in prop::option::of(2000_u32..400_000),
    ) {
        // One byte at a time is tried with less.
        let smallest = *pieces.iter().max().unwrap();
        let [up, down] = lengths.map(|length| pattern(length.min(smallest * 400), 3));
        block_on(async {
            let tunnel = Tunnel::with(LONG, buffers, [b"", b""]).await;
            let Tunnel { client, server, transferred, task } = tunnel;
            exchange(client, server, &up, &down, &pieces).await;
            assert!(matches!(task.await.unwrap(), RelayEnd::Finished));
            assert_eq!(transferred.up.get(), up.len() as u64);
            assert_eq!(transferred.down.get(), down.len() as u64);
        });
    }

    #[test]
    fn any_pieces_arrive_as_sent_through_other_streams(
        lengths in prop::array::uniform2(0_usize..200_000),
        pieces in prop::collection::vec(prop_oneof![1_usize..100, 1000_usize..90_000], 1..8),
        buffers in prop::array::uniform2(1_usize..100_000),
    ) {
        let smallest = *pieces.iter().chain(&buffers).min().unwrap();
        let [up, down] = lengths.map(|length| pattern(length.min(smallest * 4000), 3));
        block_on(async {
            let (client, downstream) = duplex(buffers[0]);
            let (upstream, server) = duplex(buffers[1]);
            let transferred = Transferred::default();
            let (end, ()) = tokio::join!(
                relay_streams(downstream, upstream, LONG, &transferred),
                exchange(client, server, &up, &down, &pieces),
            );
            assert!(matches!(end, RelayEnd::Finished));
            assert_eq!(transferred.up.get(), up.len() as u64);
            assert_eq!(transferred.down.get(), down.len() as u64);
        });
    }
}

/// Sends `block` `times` over.
async fn send_blocks(stream: &mut (impl AsyncWrite + Unpin), block: &[u8], times: usize) {
    for _ in 0..times {
        stream.write_all(block).await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

/// Reads to the end and compares; returns the bytes read.
async fn expect_blocks(stream: &mut (impl AsyncRead + Unpin), block: &[u8]) -> usize {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            return total;
        }
        let mut got = &buffer[..read];
        while !got.is_empty() {
            let expected = &block[total % block.len()..];
            let length = got.len().min(expected.len());
            assert!(got[..length] == expected[..length], "differs after {total}");
            total += length;
            got = &got[length..];
        }
    }
}

#[tokio::test]
async fn bulk_both_ways_at_once() {
    const TIMES: usize = 200;
    // A length that is a multiple of no buffer.
    let block = pattern(1_000_003, 5);
    let Tunnel {
        mut client,
        mut server,
        task,
        transferred,
    } = Tunnel::open().await;
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let ((), (), up, down) = tokio::join!(
        send_blocks(&mut client_write, &block, TIMES),
        send_blocks(&mut server_write, &block, TIMES),
        expect_blocks(&mut server_read, &block),
        expect_blocks(&mut client_read, &block),
    );
    assert_eq!((up, down), (TIMES * block.len(), TIMES * block.len()));
    assert!(matches!(task.await.unwrap(), RelayEnd::Finished));
    assert_eq!(transferred.up.get(), up as u64);
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other() {
    let Tunnel {
        client,
        mut server,
        task,
        ..
    } = Tunnel::open().await;
    reset(client);
    let error = server.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let end = task.await.unwrap();
    let RelayEnd::Downstream(error) = end else {
        panic!("{end:?}")
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let tunnel = Tunnel::open().await;
    let (mut client, task) = (tunnel.client, tunnel.task);
    reset(tunnel.server);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(task.await.unwrap(), RelayEnd::Upstream(_)));
}

#[tokio::test]
async fn what_came_before_a_reset_is_delivered_first() {
    // More than the kernel holds for the client, who is slow.
    for length in [10, 100_000, 700_000] {
        let tunnel = Tunnel::with(LONG, Some(100_000), [b"", b""]).await;
        let Tunnel {
            mut client,
            mut server,
            task,
            transferred,
        } = tunnel;
        let sent = pattern(length, 9);
        let send = async {
            server.write_all(&sent).await.unwrap();
            while transferred.down.get() < length as u64 {
                sleep(Duration::from_millis(1)).await;
            }
            reset(server);
        };
        let receive = async {
            sleep(Duration::from_millis(30)).await;
            let mut got = Vec::new();
            let error = client.read_to_end(&mut got).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            got
        };
        let ((), got) = tokio::join!(send, receive);
        assert!(got == sent, "{} of {length} bytes", got.len());
        assert!(matches!(task.await.unwrap(), RelayEnd::Upstream(_)));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_a_reset_only_for_a_while() {
    let tunnel = Tunnel::with(LONG, Some(100_000), [b"", b""]).await;
    let Tunnel {
        client,
        mut server,
        task,
        transferred,
    } = tunnel;
    // More than the client's side of the kernel takes without being read, and
    // less than with ours.
    server.write_all(&[1; 250_000]).await.unwrap();
    while transferred.down.get() < 250_000 {
        sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    reset(server);
    let end = timeout(LONG / 2, task).await.unwrap().unwrap();
    assert!(matches!(end, RelayEnd::Upstream(_)), "{end:?}");
    assert!(began.elapsed() > Duration::from_secs(1), "it did not wait");
    drop(client);
}

#[tokio::test]
async fn an_answer_given_before_the_request_was_read_arrives() {
    let Tunnel {
        mut client,
        mut server,
        task,
        transferred,
    } = Tunnel::open().await;
    let (mut read, mut write) = client.split();
    let upload = async {
        let piece = pattern(100_000, 1);
        while write.write_all(&piece).await.is_ok() {}
    };
    let answer = async {
        exactly::<1000>(&mut server).await;
        server.write_all(b"413 too large").await.unwrap();
        while transferred.down.get() < 13 {
            sleep(Duration::from_millis(1)).await;
        }
        // With the rest of the request unread this is a reset.
        drop(server);
    };
    let receive = async { exactly::<13>(&mut read).await };
    let ((), (), got) = tokio::join!(upload, answer, receive);
    assert_eq!(&got, b"413 too large");
    drop(client);
    assert!(matches!(task.await.unwrap(), RelayEnd::Upstream(_)));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_no_error() {
    let mut tunnel = Tunnel::open().await;
    tunnel.client.write_all(b"bye").await.unwrap();
    drop(tunnel.client);
    assert_eq!(rest(&mut tunnel.server).await, b"bye");
    // Nobody reads it; the kernel answers with a reset.
    while !tunnel.task.is_finished() && tunnel.server.write_all(b"bye").await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    let end = timeout(LONG, tunnel.task).await.unwrap().unwrap();
    assert!(matches!(end, RelayEnd::Finished), "{end:?}");
}

#[tokio::test]
async fn ends_when_nothing_moves_either_way() {
    let idle = Duration::from_millis(600);
    let mut tunnel = Tunnel::with(idle, None, [b"", b""]).await;
    let began = Instant::now();
    for _ in 0..6 {
        // One direction alone keeps it open.
        sleep(idle / 4).await;
        tunnel.server.write_all(b"tick").await.unwrap();
        exactly::<4>(&mut tunnel.client).await;
    }
    assert!(!tunnel.task.is_finished());
    assert_eq!(rest(&mut tunnel.client).await, b"");
    assert!(began.elapsed() >= idle * 9 / 4);
    assert!(matches!(tunnel.task.await.unwrap(), RelayEnd::Idle));
}

#[tokio::test]
async fn a_slow_reader_slows_its_peer_down() {
    const BUFFERS: u32 = 100_000;
    let Tunnel {
        mut client,
        mut server,
        transferred,
        task,
    } = Tunnel::with(LONG, Some(BUFFERS), [b"", b""]).await;
    let piece = pattern(10_007, 3);
    let mut sent = 0;
    loop {
        match timeout(Duration::from_millis(300), client.writable()).await {
            Err(_) => break,
            Ok(ready) => ready.unwrap(),
        }
        let at = sent % piece.len();
        match client.try_write(&piece[at..]) {
            Ok(written) => sent += written,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    // Four socket buffers, which the kernel doubles, and what the relay holds.
    let most = 8 * BUFFERS as usize + 1_000_000;
    assert!(sent < most, "{sent} bytes sent that nobody has read");
    assert!(transferred.up.get() < sent as u64);
    client.shutdown().await.unwrap();
    assert_eq!(expect_blocks(&mut server, &piece).await, sent);
    drop((client, server));
    assert!(matches!(task.await.unwrap(), RelayEnd::Finished));
}

#[tokio::test]
async fn a_relay_that_is_cut_off_with_bytes_in_hand_resets() {
    let mut tunnel = Tunnel::with(LONG, Some(50_000), [b"", b""]).await;
    let full = async {
        loop {
            tunnel.client.write_all(&[7; 10_000]).await.unwrap();
        }
    };
    timeout(Duration::from_millis(300), full).await.unwrap_err();
    tunnel.task.abort();
    let mut got = Vec::new();
    let error = tunnel.server.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bulk_does_not_starve_others() {
    let bulk = Tunnel::open().await;
    let (mut source, mut sink) = (bulk.client, bulk.server);
    let flood = std::thread::spawn(move || {
        block_on(async {
            let source = async {
                let piece = vec![1; 1_000_000];
                while source.write_all(&piece).await.is_ok() {}
            };
            let sink = async {
                let mut piece = vec![0; 1_000_000];
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    assert_ne!(sink.read(&mut piece).await.unwrap(), 0);
                }
                drop(sink);
            };
            // The sockets belong to the other runtime, which drives them.
            tokio::join!(source, sink);
        });
    });
    let mut calm = Tunnel::open().await;
    let mut round_trips = 0;
    while !flood.is_finished() {
        calm.client.write_all(b"ping").await.unwrap();
        exactly::<4>(&mut calm.server).await;
        round_trips += 1;
    }
    flood.join().unwrap();
    assert!(round_trips > 20, "{round_trips} in a second");
}

#[tokio::test]
async fn transfers_a_given_number_of_bytes() {
    for (limit, sent) in [(0, 5), (5, 9), (70_000, 70_001), (5_000_000, 5_000_010)] {
        let (mut source, from) = pair_with(None).await;
        let (to, mut sink) = pair_with(None).await;
        let bytes = pattern(sent, 11);
        let counts = Transferred::default();
        counts.up.add(100);
        let moved = async {
            let moved = transfer(&from, &to, limit as u64, &counts.up)
                .await
                .unwrap();
            drop(to);
            moved
        };
        let (written, moved, got) = tokio::join!(source.write_all(&bytes), moved, rest(&mut sink));
        written.unwrap();
        assert_eq!(moved, limit as u64);
        assert_eq!(counts.up.get(), 100 + limit as u64);
        assert!(got == bytes[..limit]);
        // What follows is left where it was.
        source.shutdown().await.unwrap();
        let mut from = from;
        assert!(rest(&mut from).await == bytes[limit..]);
    }
}

#[tokio::test]
async fn a_transfer_tells_of_an_early_end_and_of_the_side_that_failed() {
    let (mut source, from) = pair_with(None).await;
    let (to, sink) = pair_with(None).await;
    let counts = Transferred::default();
    source.write_all(b"half").await.unwrap();
    source.shutdown().await.unwrap();
    assert_eq!(transfer(&from, &to, 8, &counts.up).await.unwrap(), 4);

    let (source, from) = pair_with(None).await;
    reset(source);
    let error = transfer(&from, &to, 8, &counts.up).await.unwrap_err();
    assert!(matches!(error, TransferError::From(_)), "{error}");

    let (mut source, from) = pair_with(None).await;
    reset(sink);
    source.write_all(b"more").await.unwrap();
    let error = transfer(&from, &to, 8, &counts.up).await.unwrap_err();
    assert!(matches!(error, TransferError::To(_)), "{error}");
}

#[tokio::test]
async fn other_streams_halve_idle_and_fail() {
    let transferred = Transferred::default();
    let (mut client, downstream) = duplex(64);
    let (upstream, mut server) = duplex(64);
    let talk = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await, b"question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, b"answer");
    };
    let (end, ()) = tokio::join!(
        relay_streams(downstream, upstream, LONG, &transferred),
        talk
    );
    assert!(matches!(end, RelayEnd::Finished));
    assert_eq!((transferred.up.get(), transferred.down.get()), (8, 6));

    let (_client, downstream) = duplex(64);
    let (upstream, _server) = duplex(64);
    let idle = Duration::from_millis(50);
    let end = relay_streams(downstream, upstream, idle, &transferred).await;
    assert!(matches!(end, RelayEnd::Idle));

    let (mut client, downstream) = duplex(64);
    let (upstream, server) = duplex(64);
    drop(server);
    client.write_all(b"question").await.unwrap();
    let end = relay_streams(downstream, upstream, LONG, &transferred)
        .with_early(Vec::new(), b"early".to_vec())
        .await;
    assert!(matches!(end, RelayEnd::Upstream(_)), "{end:?}");
    assert_eq!(rest(&mut client).await, b"early");
}
