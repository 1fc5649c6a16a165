//! The addresses of a name.

use std::net::IpAddr;
use std::time::Duration;

/// The addresses of a name, at least one: IPv4 first, each family in the
/// order of its answer. What a resolver said is not judged here; an
/// IPv4-mapped address is left as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    addresses: Box<[IpAddr]>,
    stale: bool,
}

impl Addresses {
    pub(super) fn fresh(addresses: Box<[IpAddr]>) -> Self {
        Self {
            addresses,
            stale: false,
        }
    }

    pub(super) fn to_stale(&self) -> Self {
        Self {
            addresses: self.addresses.clone(),
            stale: true,
        }
    }

    /// The addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether their time to live is over, and they are given because no name
    /// server answers (RFC 8767).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
}

/// What one look-up found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    addresses: Box<[IpAddr]>,
    ttl: Duration,
}

impl Looked {
    pub(super) fn new(addresses: Box<[IpAddr]>, ttl: Duration) -> Self {
        Self { addresses, ttl }
    }

    /// At least one address: IPv4 first, each family in the order of its
    /// answer.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The shortest time to live in the answers, aliases included. It can be
    /// 0; it is short where one family could not be asked.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn into_addresses(self) -> Addresses {
        Addresses::fresh(self.addresses)
    }
}
