//! Addresses that clients speak from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::net;

/// As many as there are: a client that closes first keeps its port for a
/// minute, and 28 000 ports an address would be gone in a few seconds.
const ADDRESSES: u8 = 250;

/// Takes addresses of the loopback network in turn.
#[derive(Debug)]
pub(super) struct Sources {
    /// Whether the destination can be reached from all of them.
    many: bool,
    next: u8,
}

impl Sources {
    pub(super) fn new(destination: SocketAddr) -> Self {
        let many = matches!(destination.ip(), IpAddr::V4(address) if address.is_loopback());
        Self { many, next: 1 }
    }

    /// Gives a socket its address; its port is chosen when it connects, among
    /// those that are free towards the destination.
    pub(super) fn bind(&mut self, socket: impl AsFd) -> Result<()> {
        if !self.many {
            return Ok(());
        }
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        let address = Ipv4Addr::new(127, 0, 0, self.next);
        self.next = self.next % ADDRESSES + 1;
        Ok(net::bind(&socket, &SocketAddr::from((address, 0)))?)
    }
}
