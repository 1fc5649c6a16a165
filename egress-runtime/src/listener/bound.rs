//! A port, held and then opened.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};

use nix::errno::Errno;
use socket2::{SockRef, Socket};
use thiserror::Error;

use super::acceptor::{AcceptPauses, Acceptor};
use super::local_guard::LocalGuard;
use super::socket;
use crate::limits::Limits;
use crate::tcp_options;

/// Clients that may wait to be accepted; the kernel cuts it to
/// `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;
/// A port that is ours, on which nobody can connect yet.
#[derive(Debug)]
pub struct Bound {
    /// One per worker.
    sockets: Vec<Socket>,
    address: SocketAddr,
}

/// A port on which clients queue for one worker.
#[derive(Debug)]
pub struct Listener {
    listener: StdTcpListener,
    address: SocketAddr,
}

/// Why a port cannot be taken.
#[derive(Debug, Error)]
#[error("we cannot listen on {address}: {cause}{}", remedy(*.address, .cause))]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    cause: io::Error,
}

impl ListenError {
    /// Whether a permission is missing, and not the port taken.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.cause.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Bound {
    /// Takes `address` for `workers` listeners, at least one. `[::]` takes
    /// IPv4 too, and stands for 0.0.0.0 where the kernel has no IPv6.
    ///
    /// # Errors
    /// When the kernel refuses the address; the text names the remedy.
    pub fn bind(address: SocketAddr, workers: usize) -> Result<Self, ListenError> {
        Self::sockets(address, workers).map_err(|cause| ListenError { address, cause })
    }

    fn sockets(address: SocketAddr, workers: usize) -> io::Result<Self> {
        // The first is bound alone, so that a port which another process
        // shares with its own sockets counts as taken.
        let first = socket::open(address)?;
        let address = local_address(&first)?;
        let mut sockets = vec![first];
        if workers > 1 {
            for socket in &sockets {
                socket.set_reuse_port(true)?;
            }
            for _ in 1..workers {
                let socket = socket::new(address)?;
                socket.set_reuse_port(true)?;
                socket.bind(&address.into())?;
                sockets.push(socket);
            }
        }
        for socket in &sockets {
            tcp_options::set(socket)?;
        }
        Ok(Self { sockets, address })
    }

    /// Where it is, with the port that the kernel chose for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients connect and queue, one listener per worker.
    ///
    /// # Errors
    /// When somebody else has begun to listen there meanwhile.
    pub fn listen(self) -> Result<Vec<Listener>, ListenError> {
        let address = self.address;
        self.sockets
            .into_iter()
            .map(|socket| {
                socket
                    .listen(BACKLOG)
                    .map_err(|cause| ListenError { address, cause })?;
                let listener = socket.into();
                Ok(Listener { listener, address })
            })
            .collect()
    }
}

impl Listener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on the runtime of the calling worker. Without file descriptors
    /// it waits for `limits` to free some.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O and time drivers enabled.
    pub fn serve(
        self,
        limits: Limits,
        guard: Option<LocalGuard>,
        pauses: AcceptPauses,
    ) -> Result<Acceptor, ListenError> {
        let address = self.address;
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|cause| ListenError { address, cause })?;
        Ok(Acceptor::new(listener, address, limits, guard, pauses))
    }
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    SockRef::from(socket)
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn remedy(address: SocketAddr, cause: &io::Error) -> String {
    match Errno::from_raw(cause.raw_os_error().unwrap_or_default()) {
        Errno::EADDRINUSE => "; another program has the port: end it or choose a free port".into(),
        Errno::EACCES => format!(
            "; choose a port from 1024 on, set the sysctl net.ipv4.ip_unprivileged_port_start \
             of the pod to {} or less, or add the capability NET_BIND_SERVICE",
            address.port()
        ),
        Errno::EADDRNOTAVAIL => "; choose an address of the pod, or a port alone".into(),
        Errno::EAFNOSUPPORT => "; choose an address of the other family".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_port_names_the_remedies() {
        let error = ListenError {
            address: ([0, 0, 0, 0], 80).into(),
            cause: io::Error::from_raw_os_error(nix::libc::EACCES),
        };
        assert_eq!(
            error.to_string(),
            "we cannot listen on 0.0.0.0:80: Permission denied (os error 13); choose a port from \
             1024 on, set the sysctl net.ipv4.ip_unprivileged_port_start of the pod to 80 or less, \
             or add the capability NET_BIND_SERVICE"
        );
    }
}
