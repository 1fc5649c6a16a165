//! A destination that connections are made to, shared by everything that
//! makes, counts, checks and resolves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use egress_config::{Port, Protocol};
use tokio::sync::Notify;

use crate::backends::{Backends, Rotation};
use crate::mapping::{Host, Mapping};

/// What makes two mappings lead to the same place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TargetKey {
    pub(crate) protocol: Protocol,
    pub(crate) host: Host,
    pub(crate) port: Port,
}

impl TargetKey {
    pub(crate) fn of(mapping: &Mapping) -> Self {
        Self {
            protocol: mapping.protocol(),
            host: mapping.host().clone(),
            port: mapping.remote_port(),
        }
    }
}

/// One port of one host, with its addresses as they stand.
#[derive(Debug)]
pub(crate) struct Target {
    key: TargetKey,
    backends: Mutex<Backends>,
    /// Counts connections, so that each begins with another address.
    turn: AtomicUsize,
    /// An address became unhealthy.
    unhealthy: Notify,
}

impl Target {
    /// A literal address is known at once, a name when it is resolved.
    pub(crate) fn new(key: TargetKey, health_check: Duration) -> Self {
        let mut backends = Backends::new(key.port.get(), health_check);
        if let Host::Address(address) = key.host {
            backends.answered([address]);
        }
        Self {
            key,
            backends: Mutex::new(backends),
            turn: AtomicUsize::new(0),
            unhealthy: Notify::new(),
        }
    }

    pub(crate) fn key(&self) -> &TargetKey {
        &self.key
    }

    /// The addresses as they stand.
    pub(crate) fn rotation(&self) -> Arc<Rotation> {
        Arc::clone(self.lock().rotation())
    }

    /// The number of the next connection.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A fresh answer: these addresses and no others.
    pub(crate) fn answered(&self, addresses: &[IpAddr]) {
        self.lock().answered(addresses.iter().copied());
    }

    /// What came of connecting to an address. What went wrong on our side
    /// says nothing about it.
    pub(crate) fn dialled(&self, address: SocketAddr, outcome: Result<(), &io::Error>) {
        use io::ErrorKind as E;
        let mut backends = self.lock();
        match outcome.map_err(io::Error::kind) {
            Ok(()) => backends.dial_succeeded(address),
            Err(E::TimedOut) => backends.dial_slow(address, Instant::now()),
            Err(
                E::ConnectionRefused
                | E::ConnectionReset
                | E::HostUnreachable
                | E::NetworkUnreachable
                | E::PermissionDenied,
            ) => backends.dial_failed(address, Instant::now()),
            Err(_) => {}
        }
        if backends.next_check().is_some() {
            self.unhealthy.notify_one();
        }
    }

    /// The next address to check when one is due.
    ///
    /// # Errors
    /// With when that will be, if ever.
    pub(crate) fn begin_check(&self) -> Result<SocketAddr, Option<Instant>> {
        let mut backends = self.lock();
        backends
            .begin_check(Instant::now())
            .ok_or_else(|| backends.next_check())
    }

    /// What came of a check.
    pub(crate) fn checked(&self, address: SocketAddr, alive: bool) {
        let now = Instant::now();
        if alive {
            self.lock().check_succeeded(address, now);
        } else {
            self.lock().check_failed(address, now);
        }
    }

    /// Waits until an address becomes unhealthy. Cancel safe.
    pub(crate) async fn became_unhealthy(&self) {
        self.unhealthy.notified().await;
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Backends> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: Host) -> Target {
        let key = TargetKey {
            protocol: Protocol::Tcp,
            host,
            port: Port::new(80).unwrap(),
        };
        Target::new(key, Duration::from_secs(10))
    }

    #[test]
    fn an_address_is_known_at_once() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let rotation = target(Host::Address(address)).rotation();
        assert_eq!(rotation.pick(0).next(), Some(SocketAddr::new(address, 80)));
    }

    #[test]
    fn what_went_wrong_on_our_side_says_nothing_about_an_address() {
        let target = target(Host::Address("192.0.2.1".parse().unwrap()));
        let address = "192.0.2.1:80".parse().unwrap();
        for kind in [
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::OutOfMemory,
            io::ErrorKind::Other,
        ] {
            target.dialled(address, Err(&kind.into()));
            assert_eq!(target.rotation().healthy(), 1, "{kind}");
        }
        assert_eq!(target.begin_check(), Err(None));
        target.dialled(address, Err(&io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(target.rotation().healthy(), 0);
        assert!(matches!(target.begin_check(), Err(Some(_))));
        target.dialled(address, Ok(()));
        assert_eq!(target.rotation().healthy(), 1);
        target.dialled(address, Err(&io::ErrorKind::TimedOut.into()));
        assert_eq!(target.begin_check(), Ok(address));
        target.checked(address, true);
        assert_eq!(target.rotation().healthy(), 1);
    }
}
