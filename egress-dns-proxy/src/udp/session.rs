//! The datagrams of one client.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use egress_config::AddressFamily;
use egress_runtime::egress_address::EgressAddress;
use egress_runtime::relay::{RelayEnd, Transferred};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::port::{BATCH, PortWorker};
use super::scratch::with_scratch;
use super::socket::Peer;
use crate::record::{End, Record};

/// How long, while draining, a session may be quiet: long enough for what was
/// asked to be answered.
const DRAINING_IDLE: Duration = Duration::from_secs(1);

/// Why a backend cannot be sent datagrams.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    #[error(
        "we have no {family} egress address, nothing was sent to upstream {address}; give EGRESS_SOURCE an {family} address"
    )]
    NoFamily {
        family: AddressFamily,
        address: SocketAddr,
    },
    #[error(
        "we have lost egress address {egress}, nothing was sent to upstream {address}: {cause}; check the egress interface"
    )]
    NoSource {
        egress: IpAddr,
        address: SocketAddr,
        cause: io::Error,
    },
    #[error("we cannot open a socket, nothing was sent to upstream {address}: {cause}")]
    NoSocket {
        address: SocketAddr,
        cause: io::Error,
    },
    #[error("upstream {address} cannot be reached: {cause}")]
    Unreachable {
        address: SocketAddr,
        cause: io::Error,
    },
}

/// A client's socket towards a backend.
#[derive(Debug)]
pub(super) struct Session {
    socket: UdpSocket,
    address: SocketAddr,
    began: Instant,
    /// When the client last sent, in milliseconds since the beginning.
    asked: AtomicU64,
    transferred: Transferred,
    /// The backend refused what the client sent.
    refused: Notify,
}

impl Session {
    /// Connects to `address` from the egress address.
    ///
    /// # Errors
    /// When there is no socket, no egress address of that family, or no way.
    pub(super) fn connect(
        address: SocketAddr,
        source: &EgressAddress,
    ) -> Result<Self, SessionError> {
        let family = AddressFamily::of(address.ip());
        if !source.family_allowed(family) {
            return Err(SessionError::NoFamily { family, address });
        }
        let no_socket = |cause| SessionError::NoSocket { address, cause };
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )
        .map_err(no_socket)?;
        if let Some(egress) = source.source_for(family) {
            let lost = |cause: io::Error| match cause.kind() {
                io::ErrorKind::AddrNotAvailable => SessionError::NoSource {
                    egress,
                    address,
                    cause,
                },
                _ => no_socket(cause),
            };
            socket
                .bind(&SocketAddr::new(egress, 0).into())
                .map_err(lost)?;
        }
        socket
            .connect(&address.into())
            .map_err(|cause| SessionError::Unreachable { address, cause })?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()).map_err(no_socket)?,
            address,
            began: Instant::now(),
            asked: AtomicU64::new(0),
            transferred: Transferred::default(),
            refused: Notify::new(),
        })
    }

    /// The backend.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends what the client sent.
    ///
    /// # Errors
    /// When it could not be sent; after [`io::ErrorKind::ConnectionRefused`]
    /// the session ends.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.asked.store(self.elapsed(), Ordering::Relaxed);
        // Not by tokio, which would first want to hear that it may.
        match SockRef::from(&self.socket).send(bytes) {
            Ok(sent) => {
                self.transferred.up.add(sent as u64);
                Ok(())
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.refused.notify_one();
                }
                Err(error)
            }
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A session that runs, until it is dropped.
pub(super) struct Running {
    session: Arc<Session>,
    peer: Peer,
    port: Arc<PortWorker>,
    record: Record,
}

impl Running {
    pub(super) fn new(
        session: Arc<Session>,
        peer: Peer,
        port: Arc<PortWorker>,
        record: Record,
    ) -> Self {
        Self {
            session,
            peer,
            port,
            record,
        }
    }

    /// Relays what the backend sends until nothing comes any more.
    pub(super) async fn run(mut self) {
        let end = self.relay().await;
        if let End::Relayed(RelayEnd::Upstream(error)) = &end {
            let target = self.record.route().target();
            target.dialled(self.session.address, Err(error));
        }
        self.record.ended(end);
    }

    async fn relay(&self) -> End {
        let drain = &self.port.shared().drain;
        let mut idle = self.port.idle();
        let mut answered = self.session.elapsed();
        let mut draining = false;
        let mut tick = pin!(sleep(idle));
        loop {
            tokio::select! {
                ready = self.session.socket.readable() => {
                    match ready.and_then(|()| self.receive()) {
                        Ok(()) => answered = self.session.elapsed(),
                        Err(error) => return End::Relayed(RelayEnd::Upstream(error)),
                    }
                }
                () = self.session.refused.notified() => {
                    let refused = io::ErrorKind::ConnectionRefused.into();
                    return End::Relayed(RelayEnd::Upstream(refused));
                }
                () = &mut tick => {
                    let limit = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
                    let now = self.session.elapsed();
                    let asked = self.session.asked.load(Ordering::Relaxed);
                    let quiet = now.saturating_sub(asked.max(answered));
                    if quiet >= limit {
                        return End::Relayed(RelayEnd::Idle);
                    }
                    if now.saturating_sub(answered) >= limit && self.is_address_gone() {
                        return End::AddressGone;
                    }
                    let rest = Duration::from_millis(limit - quiet);
                    tick.as_mut().reset(tokio::time::Instant::now() + rest);
                }
                () = drain.draining(), if !draining => {
                    draining = true;
                    idle = idle.min(DRAINING_IDLE);
                    tick.as_mut().reset(tokio::time::Instant::now() + idle);
                }
            }
        }
    }

    /// A client that never pauses would else send into the void for ever.
    fn is_address_gone(&self) -> bool {
        let rotation = self.record.route().target().rotation();
        !rotation.contains(self.session.address)
    }

    /// Relays what has come.
    fn receive(&self) -> io::Result<()> {
        with_scratch(|scratch| {
            for _ in 0..BATCH {
                let received = match self.session.socket.try_recv(&mut scratch.bytes) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let bytes = scratch.bytes.get(..received).unwrap_or_default();
                match self.port.downstream().send(bytes, &self.peer) {
                    Ok(()) => self.session.transferred.down.add(received as u64),
                    // The client may have gone; that is no end of a session.
                    Err(_) => self.record.route().counts().dropped.add(1),
                }
            }
            Ok(())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.port.forget(&self.peer, &self.session);
        let (from, to) = (&self.session.transferred, self.record.transferred());
        to.up.add(from.up.get());
        to.down.add(from.down.get());
    }
}
