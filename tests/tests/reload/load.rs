//! Clients that never stop, and take every disturbance for an error.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use egress_lab::{ClientError, Family, Host, TcpClient, address};

/// No answer may take as long as a packet takes to be sent again.
const DEADLINE: Duration = Duration::from_millis(900);

/// Datagrams on the way at once, far fewer than a socket's buffer holds.
const WINDOW: u64 = 8;

/// Pause between two datagrams of a flow, so that they leave the processor to
/// the connections.
const PACE: Duration = Duration::from_micros(500);

/// Clients in one host, each on a thread of its own.
pub(crate) struct Load {
    host: Host,
    stop: Arc<AtomicBool>,
    clients: Vec<(String, JoinHandle<Result<u64, String>>)>,
}

impl Load {
    pub(crate) fn from(host: &Host) -> Self {
        Self {
            host: host.clone(),
            stop: Arc::default(),
            clients: Vec::new(),
        }
    }

    /// Connects, asks and closes, to one target after the other, as fast as
    /// it can.
    pub(crate) fn connections(self, targets: &[Target]) -> Self {
        let targets = targets.to_vec();
        self.client("connections".to_owned(), move |stop| {
            let mut count = 0;
            for target in targets.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut connection = TcpClient::connect(target.through, DEADLINE)
                    .map_err(|error| format!("connection {count} to {target}: {error}"))?;
                target.ask(&mut connection, count)?;
                count += 1;
            }
            Ok(count)
        })
    }

    /// Asks over and over on one connection.
    pub(crate) fn conversation(self, target: Target) -> Self {
        self.client(format!("conversation with {target}"), move |stop| {
            let mut connection = TcpClient::connect(target.through, DEADLINE)
                .map_err(|error| format!("connection to {target}: {error}"))?;
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                target.ask(&mut connection, count)?;
                count += 1;
                thread::sleep(PACE);
            }
            Ok(count)
        })
    }

    /// Sends numbered datagrams of one flow and misses every one that is not
    /// answered.
    pub(crate) fn datagrams(self, target: Target) -> Self {
        self.client(format!("datagrams to {target}"), move |stop| {
            let failed = |what, error| format!("{what} {target}: {error}");
            let any = match target.through {
                SocketAddr::V4(_) => "0.0.0.0:0",
                SocketAddr::V6(_) => "[::]:0",
            };
            let socket = UdpSocket::bind(any).map_err(|error| failed("a socket for", error))?;
            socket
                .connect(target.through)
                .map_err(|error| failed("connecting to", error))?;
            socket
                .set_read_timeout(Some(DEADLINE))
                .map_err(|error| failed("a deadline for", error))?;
            let (mut sent, mut received) = (0, 0);
            let mut buffer = [0; 512];
            while !stop.load(Ordering::Relaxed) || received < sent {
                if sent - received < WINDOW && !stop.load(Ordering::Relaxed) {
                    socket
                        .send(sent.to_string().as_bytes())
                        .map_err(|error| failed("sending to", error))?;
                    sent += 1;
                    thread::sleep(PACE);
                    if sent - received < WINDOW {
                        continue;
                    }
                }
                let length = socket.recv(&mut buffer).map_err(|error| {
                    format!("datagram {received} of {sent} to {target}: {error}")
                })?;
                let answer = String::from_utf8_lossy(&buffer[..length]);
                target.check(&answer, received)?;
                received += 1;
            }
            Ok(received)
        })
    }

    fn client(
        mut self,
        name: String,
        work: impl FnOnce(&AtomicBool) -> Result<u64, String> + Send + 'static,
    ) -> Self {
        let (host, stop) = (self.host.clone(), Arc::clone(&self.stop));
        let client = thread::spawn(move || {
            host.netns().enter().map_err(|error| error.to_string())?;
            work(&stop)
        });
        self.clients.push((name, client));
        self
    }

    /// Checks that nobody was disturbed so far.
    ///
    /// # Panics
    /// With what disturbed whom.
    #[track_caller]
    pub(crate) fn check(&mut self, round: u16) {
        let ended = self
            .clients
            .iter()
            .position(|(_, client)| client.is_finished());
        if let Some(ended) = ended {
            let (name, client) = self.clients.swap_remove(ended);
            panic!("round {round}: {name}: {:?}", client.join().unwrap());
        }
    }

    /// Stops all clients; answers how often each was served.
    ///
    /// # Panics
    /// When one of them was disturbed.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<(String, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let results: Vec<_> = self
            .clients
            .into_iter()
            .map(|(name, client)| (name, client.join().unwrap()))
            .collect();
        let counts = results.into_iter().map(|(name, result)| match result {
            Ok(count) => (name, count),
            Err(error) => panic!("{name}: {error}"),
        });
        counts.collect()
    }
}

/// A port of the router, and the outside server behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) through: SocketAddr,
    pub(crate) server: SocketAddr,
}

impl Target {
    pub(crate) fn ask(&self, connection: &mut TcpClient, number: u64) -> Result<(), String> {
        let answer = connection.ask(&number.to_string());
        let seen =
            answer.map_err(|error: ClientError| format!("turn {number}, {self}: {error}"))?;
        self.check(&seen.to_string(), number)
    }

    fn check(&self, answer: &str, number: u64) -> Result<(), String> {
        let (server, source) = (self.server, address::source(Family::of(self.server.ip())));
        let fits = answer.starts_with(&match source {
            std::net::IpAddr::V4(source) => format!("{server} saw {source}:"),
            std::net::IpAddr::V6(source) => format!("{server} saw [{source}]:"),
        }) && answer.ends_with(&format!(" payload={number}"));
        if fits {
            Ok(())
        } else {
            Err(format!("turn {number}, {self}: {answer}"))
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.server, self.through)
    }
}
