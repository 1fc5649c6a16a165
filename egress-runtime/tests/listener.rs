//! Ports, and the clients that are accepted on them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use egress_runtime::limits::Limits;
use egress_runtime::listener::{AcceptPauses, Acceptor, Bound, LocalGuard};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn everywhere() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, 0).into()
}

fn serve(address: SocketAddr, guard: Option<LocalGuard>) -> Acceptor {
    let bound = Bound::bind(address, 1).unwrap();
    let listener = bound.listen().unwrap().pop().unwrap();
    listener
        .serve(Limits::new(100, None), guard, AcceptPauses::default())
        .unwrap()
}

#[tokio::test]
async fn nobody_connects_to_a_port_that_is_only_bound() {
    let bound = Bound::bind(LOOPBACK, 2).unwrap();
    let address = bound.address();
    assert_ne!(address.port(), 0);
    let error = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let listeners = bound.listen().unwrap();
    assert_eq!(listeners.len(), 2);
    TcpStream::connect(address).await.unwrap();
}

#[tokio::test]
async fn both_families_on_one_port_and_ipv4_clients_as_such() {
    let acceptor = serve(everywhere(), None);
    let port = acceptor.address().port();
    for ip in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let client = TcpStream::connect((ip, port)).await.unwrap();
        let accepted = acceptor.accept().await;
        assert_eq!(accepted.peer, client.local_addr().unwrap());
    }
}

#[tokio::test]
async fn accepted_sockets_inherit_the_options() {
    for address in [LOOPBACK, everywhere()] {
        let acceptor = serve(address, None);
        let to = (Ipv4Addr::LOCALHOST, acceptor.address().port());
        let _client = TcpStream::connect(to).await.unwrap();
        let accepted = acceptor.accept().await;
        let socket = SockRef::from(&accepted.stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(15)
        );
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(300))
        );
    }
}

#[tokio::test]
async fn every_worker_gets_clients() {
    let bound = Bound::bind(LOOPBACK, 3).unwrap();
    let address = bound.address();
    let limits = Limits::new(1000, None);
    let acceptors: Vec<_> = bound
        .listen()
        .unwrap()
        .into_iter()
        .map(|l| {
            l.serve(limits.clone(), None, AcceptPauses::default())
                .unwrap()
        })
        .collect();
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    let mut total = 0;
    for acceptor in &acceptors {
        let mut accepted = 0;
        while timeout(Duration::from_millis(100), acceptor.accept())
            .await
            .is_ok()
        {
            accepted += 1;
        }
        assert!(accepted > 0);
        total += accepted;
    }
    assert_eq!(total, clients.len());
}

#[tokio::test]
async fn a_port_that_another_program_shares_is_taken() {
    for workers in [1, 2] {
        let first = Bound::bind(LOOPBACK, workers).unwrap();
        let address = first.address();
        let listeners = first.listen().unwrap();
        for others in [1, 2] {
            let error = Bound::bind(address, others).unwrap_err().to_string();
            let expected = format!(
                "we cannot listen on {address}: Address already in use (os error 98); another \
                 program has the port: end it or choose a free port"
            );
            assert_eq!(error, expected, "{workers} workers, then {others}");
        }
        drop(listeners);
        Bound::bind(address, workers).unwrap();
    }
}

#[test]
fn an_address_of_nobody_names_the_remedy() {
    let error = Bound::bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("we cannot listen on 192.0.2.1:0: "),
        "{text}"
    );
    assert!(
        text.ends_with("; choose an address of the pod, or a port alone"),
        "{text}"
    );
}

#[tokio::test]
async fn a_refused_local_address_gets_a_reset() {
    let refused = IpAddr::from([127, 0, 0, 2]);
    let guard = LocalGuard::new(move |local| local == refused);
    let acceptor = serve(everywhere(), Some(guard));
    let port = acceptor.address().port();
    let mut stranger = TcpStream::connect((refused, port)).await.unwrap();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let accepted = acceptor.accept().await;
    assert_eq!(accepted.peer, client.local_addr().unwrap());
    let error = stranger.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_gives_up_in_the_queue_stops_nothing() {
    let acceptor = serve(LOOPBACK, None);
    let gone = TcpStream::connect(acceptor.address()).await.unwrap();
    gone.set_zero_linger().unwrap();
    drop(gone);
    let mut client = TcpStream::connect(acceptor.address()).await.unwrap();
    client.write_all(b"here").await.unwrap();
    loop {
        let mut accepted = acceptor.accept().await;
        if accepted.peer == client.local_addr().unwrap() {
            let mut got = [0; 4];
            accepted.stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"here");
            break;
        }
    }
}
