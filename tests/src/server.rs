//! Servers that tell every client whom they saw, and remember it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use egress_config::Protocol;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime, select,
    sync::oneshot,
};

use crate::{
    client::Seen,
    error::{Context, Result},
    netns::NetNs,
};

/// A server on some ports of one host. It answers each line (TCP) or datagram
/// (UDP) with [`Seen`] as text, and ends when dropped.
#[derive(Debug)]
pub struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    worker: Worker,
}

impl Server {
    /// Serves all `ports` on all `addresses`; all are bound on return.
    ///
    /// # Errors
    /// When one of them cannot be bound.
    pub fn start(netns: &NetNs, addresses: &[IpAddr], ports: &[(Protocol, u16)]) -> Result<Self> {
        let endpoints: Vec<_> = addresses
            .iter()
            .flat_map(|ip| {
                ports
                    .iter()
                    .map(|(proto, port)| (*proto, SocketAddr::new(*ip, *port)))
            })
            .collect();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = seen.clone();
        let worker = Worker::start(netns, async move || {
            for (protocol, address) in endpoints {
                match protocol {
                    Protocol::Tcp => {
                        let listener = TcpListener::bind(address).await?;
                        tokio::spawn(serve_tcp(listener, log.clone()));
                    }
                    Protocol::Udp => {
                        let socket = UdpSocket::bind(address).await?;
                        tokio::spawn(serve_udp(socket, log.clone()));
                    }
                }
            }
            Ok(())
        })
        .context(|| format!("starting a server in {}", netns.name()))?;
        Ok(Self { seen, worker })
    }

    /// All that was answered so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the server and closes its connections.
    pub fn stop(self) {
        drop(self.worker);
    }
}

async fn serve_tcp(listener: TcpListener, log: Arc<Mutex<Vec<Seen>>>) {
    while let Ok((stream, client)) = listener.accept().await {
        let log = log.clone();
        // A client that goes away ends its own task and nothing else.
        tokio::spawn(async move { answer_lines(stream, client, &log).await });
    }
}

async fn answer_lines(
    mut stream: TcpStream,
    client: SocketAddr,
    log: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let server = stream.local_addr()?;
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(payload) = lines.next_line().await? {
        let seen = Seen {
            server,
            client,
            payload,
        };
        let answer = format!("{seen}\n");
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn serve_udp(socket: UdpSocket, log: Arc<Mutex<Vec<Seen>>>) {
    let mut buffer = vec![0; 65536];
    let Ok(server) = socket.local_addr() else {
        return;
    };
    loop {
        // An ICMP error of an earlier answer may come out here: not ours to mind.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let payload =
            String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        let seen = Seen {
            server,
            client,
            payload,
        };
        let answer = seen.to_string();
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
        let _ = socket.send_to(answer.as_bytes(), client).await;
    }
}

/// A thread in a namespace that runs tasks until it is dropped.
#[derive(Debug)]
pub struct Worker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread and returns when `setup`, which spawns the tasks, is
    /// done.
    ///
    /// # Errors
    /// When the thread cannot be started, and what `setup` fails with.
    pub fn start(
        netns: &NetNs,
        setup: impl AsyncFnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, readiness) = mpsc::channel();
        let inside = netns.clone();
        let thread = thread::Builder::new()
            .name(netns.name().to_owned())
            .spawn(move || {
                let result = inside
                    .enter()
                    .map_err(io::Error::other)
                    .and_then(|()| runtime::Builder::new_current_thread().enable_all().build());
                match result {
                    Ok(runtime) => runtime.block_on(async {
                        let outcome = setup().await;
                        let usable = outcome.is_ok();
                        let _ = ready.send(outcome);
                        if usable {
                            select! { _ = stopped => {} }
                        }
                    }),
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let worker = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        readiness
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the server's thread panicked")))?;
        Ok(worker)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
