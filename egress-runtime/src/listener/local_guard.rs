//! Which local addresses are not for clients.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

/// Refuses connections that were addressed to an address of the physical
/// network: the ports of the pod are for the cluster.
#[derive(Clone)]
pub struct LocalGuard(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl LocalGuard {
    /// `is_refused` tells for a local address, IPv4 as such, whether it is not
    /// for clients. It is asked for every connection, so it may change its
    /// mind.
    pub fn new(is_refused: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_refused))
    }

    /// Whether `stream` was addressed to a refused address. If so, closing it
    /// is a reset, like that of a port nobody listens on.
    #[must_use]
    pub fn refuses(&self, stream: &TcpStream) -> bool {
        // Without an address it is a connection that has ended already.
        let refused = stream
            .local_addr()
            .is_ok_and(|local| (self.0)(local.ip().to_canonical()));
        if refused {
            // Closed in any case.
            let _ = stream.set_zero_linger();
        }
        refused
    }
}

impl fmt::Debug for LocalGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalGuard").finish_non_exhaustive()
    }
}
