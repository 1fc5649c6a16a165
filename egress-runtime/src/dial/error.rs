//! Why no address answered.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use egress_config::AddressFamily;

/// What a dial failed with, as far as a caller acts on it; from the least to
/// the most telling where several addresses failed in different ways.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DialErrorKind {
    /// There is no egress address of that family; nothing was sent.
    NoFamily,
    /// No route, or a router on the way said that it cannot be reached.
    Unreachable,
    /// Anything else.
    Other,
    /// The upstream answered that nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// We are out of sockets, ports or memory; nothing was sent.
    NoResources,
    /// The egress address is gone from the pod; nothing was sent.
    NoSource,
}

impl DialErrorKind {
    /// Tells what `connect(2)` failed with.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        use io::ErrorKind as E;
        match error.kind() {
            E::ConnectionRefused => Self::Refused,
            // The routes `unreachable` and `prohibit`, and ICMP of those names.
            E::HostUnreachable | E::NetworkUnreachable | E::PermissionDenied => Self::Unreachable,
            E::TimedOut => Self::TimedOut,
            // All ports towards this destination are in use.
            E::AddrNotAvailable | E::OutOfMemory => Self::NoResources,
            _ => Self::Other,
        }
    }
}

/// No connection could be made. Its text names the address.
#[derive(Debug)]
pub struct DialError {
    kind: DialErrorKind,
    address: Option<SocketAddr>,
    source: Option<IpAddr>,
    cause: io::Error,
    tried: usize,
}

impl DialError {
    pub(super) fn new(kind: DialErrorKind, address: SocketAddr, cause: io::Error) -> Self {
        Self {
            kind,
            address: Some(address),
            source: None,
            cause,
            tried: 1,
        }
    }

    pub(super) fn no_source(address: SocketAddr, source: IpAddr, cause: io::Error) -> Self {
        Self {
            source: Some(source),
            ..Self::new(DialErrorKind::NoSource, address, cause)
        }
    }

    pub(super) fn no_family(address: SocketAddr) -> Self {
        let cause = io::Error::from(io::ErrorKind::AddrNotAvailable);
        Self::new(DialErrorKind::NoFamily, address, cause)
    }

    pub(super) fn no_candidates() -> Self {
        Self {
            kind: DialErrorKind::Other,
            address: None,
            source: None,
            cause: io::Error::from(io::ErrorKind::InvalidInput),
            tried: 0,
        }
    }

    /// The same after `tried` addresses.
    pub(super) fn after(self, tried: usize) -> Self {
        Self { tried, ..self }
    }

    /// What kind of failure.
    #[must_use]
    pub fn kind(&self) -> DialErrorKind {
        self.kind
    }

    /// The address that failed so; `None` when there was none to dial.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What the kernel said.
    pub(super) fn cause(&self) -> &io::Error {
        &self.cause
    }

    /// The error type of RFC 9209 section 2.3.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.kind {
            DialErrorKind::Refused => "connection_refused",
            DialErrorKind::TimedOut => "connection_timeout",
            DialErrorKind::Unreachable | DialErrorKind::NoFamily => "destination_ip_unroutable",
            DialErrorKind::NoSource | DialErrorKind::NoResources => "proxy_internal_error",
            DialErrorKind::Other => "destination_unavailable",
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(address) = self.address else {
            return f.write_str("upstream has no address to dial");
        };
        if self.tried > 1 {
            write!(f, "none of {} upstream addresses answered: ", self.tried)?;
        }
        let cause = &self.cause;
        match self.kind {
            DialErrorKind::NoFamily => {
                let family = AddressFamily::of(address.ip());
                write!(
                    f,
                    "we have no {family} egress address, nothing was sent to upstream {address}; give EGRESS_SOURCE an {family} address"
                )
            }
            DialErrorKind::NoSource => {
                write!(f, "we have lost egress address ")?;
                if let Some(source) = self.source {
                    write!(f, "{source}, ")?;
                }
                write!(
                    f,
                    "nothing was sent to upstream {address}: {cause}; check the egress interface"
                )
            }
            DialErrorKind::NoResources => write!(
                f,
                "we cannot open a connection, nothing was sent to upstream {address}: {cause}"
            ),
            DialErrorKind::Refused => {
                write!(f, "upstream {address} refused the connection: {cause}")
            }
            DialErrorKind::TimedOut => {
                write!(f, "upstream {address} did not answer: {cause}")
            }
            DialErrorKind::Unreachable => {
                write!(f, "upstream {address} cannot be reached: {cause}")
            }
            DialErrorKind::Other => {
                write!(f, "upstream {address} cannot be connected to: {cause}")
            }
        }
    }
}

impl Error for DialError {
    // The text ends with the cause, so it is not listed again.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        None
    }
}
