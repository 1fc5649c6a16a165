//! A physical network whose packets are smaller than the pod network's.

use std::{
    io::{self, Read, Write},
    net::TcpListener,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use egress_lab::{Family, Lab, Node, RouterConfig, TcpClient, harness::TestResult};
use socket2::SockRef;

/// Of the node's interface to the LAN, in bytes; all others have 1500.
const MTU: u32 = 1400;

/// Sent both ways.
const BULK: usize = 64 * 1024;

const DEADLINE: Duration = Duration::from_secs(5);

/// What the outside server saw of the connection: its largest segment.
fn echo(listener: &TcpListener) -> io::Result<u32> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mss = SockRef::from(&stream).tcp_mss()?;
    let mut bulk = vec![0; BULK];
    stream.read_exact(&mut bulk)?;
    stream.write_all(&bulk)?;
    Ok(mss)
}

/// 64 KiB pass both ways, and the server was told in the SYN what segments
/// the egress interface carries.
pub(crate) fn bulk_passes_a_smaller_mtu(family: Family) -> TestResult {
    let lab = Lab::builder().families(&[family]).build()?;
    lab.node(Node::One).netns().set_mtu("eth0", MTU)?;
    let outside = lab.outside(0).socket(family, 80);
    let _ = RouterConfig::new(&[family])
        .command(lab.router_pod())?
        .env("EGRESS_DESTINATION", format!("80 tcp {}", outside.ip()))
        .run()?
        .expect(0);
    // IP header, TCP header, and the time stamps that every segment has.
    let most = MTU - if family == Family::Ipv4 { 20 } else { 40 } - 20 - 12;

    for node in Node::ALL {
        let listener = lab.outside(0).netns().run(|| TcpListener::bind(outside))?;
        let (told, server) = channel();
        let server_thread = thread::spawn(move || told.send(echo(&listener)));
        let to = lab.router_pod().socket(family, 80);
        let client = lab
            .client(node)
            .netns()
            .run(|| TcpClient::connect(to, DEADLINE))?;
        let mut stream = client.stream();
        let bulk: Vec<u8> = (0..BULK).map(|number| number.to_le_bytes()[0]).collect();
        stream.write_all(&bulk)?;
        let mut back = vec![0; BULK];
        stream.read_exact(&mut back)?;
        assert!(back == bulk, "what came back is what was sent");
        let mss = server.recv_timeout(DEADLINE)??;
        assert_eq!(
            mss, most,
            "largest segment that the server sends to {node:?}"
        );
        let _ = server_thread.join();
    }
    Ok(())
}
