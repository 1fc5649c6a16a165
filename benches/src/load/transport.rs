//! A client's socket.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::scratch::Scratch;
use super::socket::{Received, connect, discard, receive, send};
use super::sources::Sources;
use super::tls::{Tls, TlsSettings};

/// Makes non-blocking connections to one address.
#[derive(Debug)]
pub(super) struct Dialer {
    destination: SocketAddr,
    sources: Sources,
    tls: Option<TlsSettings>,
}

impl Dialer {
    pub(super) fn new(destination: SocketAddr, tls: Option<TlsSettings>) -> Self {
        Self {
            destination,
            sources: Sources::new(destination),
            tls,
        }
    }

    /// The connection may be still under way.
    pub(super) fn dial(&mut self) -> Result<Transport> {
        let socket = connect(self.destination, |socket| self.sources.bind(socket))?;
        let tls = match &self.tls {
            Some(settings) => Some(settings.client()?),
            None => None,
        };
        Ok(Transport { socket, tls })
    }
}

/// A connection, with TLS on it or without.
#[derive(Debug)]
pub(super) struct Transport {
    socket: OwnedFd,
    tls: Option<Box<Tls>>,
}

impl Transport {
    /// Sends as much as the socket takes now; `None` when it takes nothing.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        match &mut self.tls {
            None => send(&self.socket, bytes),
            Some(tls) => tls.send(&self.socket, bytes),
        }
    }

    /// Whether something is left that only the socket keeps from being sent.
    pub(super) fn is_blocked(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_blocked())
    }

    /// Goes on with what [`Self::is_blocked`] tells of.
    pub(super) fn flush(&mut self) -> Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&self.socket),
        }
    }

    /// Receives what is there, as it is on the wire.
    pub(super) fn receive(&self, scratch: &mut Scratch) -> Result<Received> {
        receive(&self.socket, &mut scratch.wire)
    }

    /// The session that decrypts what was received.
    pub(super) fn tls(&mut self) -> Option<&mut Tls> {
        self.tls.as_deref_mut()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Closes it in order.
    pub(super) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            // The other side may be gone already.
            let _ = tls.end(&self.socket);
        }
    }

    /// Receives up to so many bytes and keeps none; not for TLS.
    pub(super) fn discard(&self, most: u64, scratch: &mut Scratch) -> Result<Received> {
        discard(&self.socket, most, scratch)
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
