//! Ports that are ours, before anybody is served there.

use std::error::Error;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use egress_config::{Port, Protocol};
use egress_runtime::listener::{Bound, ListenError, Listener};
use socket2::Socket;
use thiserror::Error;

use crate::mapping::Mapping;
use crate::udp::{UdpBound, UdpListenError};

/// What tells listeners apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PortKey {
    pub(crate) protocol: Protocol,
    pub(crate) port: Port,
}

impl PortKey {
    pub(crate) fn of(mapping: &Mapping) -> Self {
        Self {
            protocol: mapping.protocol(),
            port: mapping.port(),
        }
    }
}

/// Ports that were taken, and are given back on drop.
#[derive(Debug, Default)]
pub(crate) struct Ports(Vec<(PortKey, Taken)>);

#[derive(Debug)]
enum Taken {
    Tcp(Bound),
    Udp(UdpBound),
}

/// The sockets of one port, one per worker.
#[derive(Debug)]
pub(crate) enum Sockets {
    /// Clients queue there.
    Tcp(Vec<Listener>),
    /// Datagrams queue there.
    Udp(Vec<Socket>),
}

impl Ports {
    /// Takes every one of `keys` for `workers`, or none.
    ///
    /// # Errors
    /// Every port that cannot be taken.
    pub(crate) fn take(
        keys: impl IntoIterator<Item = PortKey>,
        workers: usize,
    ) -> Result<Self, PortsError> {
        let mut taken = Vec::new();
        let mut failures = Vec::new();
        for key in keys {
            let bound = match key.protocol {
                Protocol::Tcp => {
                    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, key.port.get()));
                    Bound::bind(everywhere, workers)
                        .map(Taken::Tcp)
                        .map_err(PortError::Tcp)
                }
                Protocol::Udp => UdpBound::bind(key.port, workers)
                    .map(Taken::Udp)
                    .map_err(PortError::Udp),
            };
            match bound {
                Ok(bound) => taken.push((key, bound)),
                Err(error) => failures.push(error),
            }
        }
        if failures.is_empty() {
            Ok(Self(taken))
        } else {
            Err(PortsError(failures))
        }
    }

    /// Lets clients queue at all of them, or at none.
    ///
    /// # Errors
    /// When somebody else has begun to listen there meanwhile.
    pub(crate) fn listen(self) -> Result<Vec<(PortKey, Sockets)>, PortsError> {
        let listening = self.0.into_iter().map(|(key, taken)| {
            let sockets = match taken {
                Taken::Tcp(bound) => bound
                    .listen()
                    .map(Sockets::Tcp)
                    .map_err(|error| PortsError(vec![PortError::Tcp(error)]))?,
                Taken::Udp(bound) => Sockets::Udp(bound.into_sockets()),
            };
            Ok((key, sockets))
        });
        listening.collect()
    }
}

/// Every port that cannot be taken.
#[derive(Debug, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct PortsError(Vec<PortError>);

#[derive(Debug, Error)]
enum PortError {
    #[error(transparent)]
    Tcp(ListenError),
    #[error(transparent)]
    Udp(UdpListenError),
}

impl PortsError {
    /// Whether a capability is missing.
    pub(crate) fn is_permission(&self) -> bool {
        self.0.iter().any(|error| {
            let cause = error
                .source()
                .and_then(<dyn Error>::downcast_ref::<io::Error>);
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn key(protocol: Protocol, port: u16) -> PortKey {
        let port = Port::new(port).unwrap();
        PortKey { protocol, port }
    }

    #[tokio::test]
    async fn all_are_taken_or_none() {
        let taken = TcpListener::bind("[::]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let free = TcpListener::bind("[::]:0").unwrap();
        let other = free.local_addr().unwrap().port();
        drop(free);
        let keys = [
            key(Protocol::Tcp, other),
            key(Protocol::Udp, other),
            key(Protocol::Tcp, port),
        ];
        let error = Ports::take(keys, 2).unwrap_err();
        assert!(!error.is_permission());
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("we cannot listen on [::]:{port}: ")),
            "{text}"
        );
        assert!(
            TcpListener::bind(("::", other)).is_ok(),
            "it was given back"
        );
        drop(taken);
        let ports = Ports::take(keys, 2).unwrap();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        let listening = ports.listen().unwrap();
        assert_eq!(listening.len(), 3);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }
}
