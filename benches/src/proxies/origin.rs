//! An origin that is there while the load generator is not.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use egress_lab::NetNs;
use socket2::SockRef;

/// Answers whatever it reads with a short page, on a thread for each
/// connection: nothing is measured by it but the first answer. Dropped, it
/// closes all of its connections.
#[derive(Debug)]
pub(crate) struct Origin {
    listener: Arc<TcpListener>,
    connections: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

/// The open ones, by a number of their own.
type Connections = Mutex<BTreeMap<u64, TcpStream>>;

/// What it says, to CONNECT as well.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Origin {
    pub(crate) fn start(netns: &NetNs, port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = netns
            .run(|| TcpListener::bind(address))
            .with_context(|| format!("listening on {address}"))?;
        let listener = Arc::new(listener);
        let connections = Arc::<Connections>::default();
        let acceptor = {
            let (listener, connections) = (listener.clone(), connections.clone());
            thread::spawn(move || accept(&listener, &connections))
        };
        Ok(Self {
            listener,
            connections,
            acceptor: Some(acceptor),
        })
    }
}

fn accept(listener: &TcpListener, connections: &Arc<Connections>) {
    for number in 0.. {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        let Ok(other) = stream.try_clone() else {
            return;
        };
        lock(connections).insert(number, other);
        let connections = connections.clone();
        thread::spawn(move || {
            answer(stream);
            lock(&connections).remove(&number);
        });
    }
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 4096];
    while let Ok(1..) = stream.read(&mut request) {
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

fn lock(connections: &Connections) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Wakes accept(2), which fails from then on.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in lock(&self.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
