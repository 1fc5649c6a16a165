//! Non-blocking TCP sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::scratch::Scratch;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// What a receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Nothing,
    End,
    Bytes(usize),
}

/// A socket that does not wait for full segments.
fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // What a listening socket accepts inherits it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// A socket that listens.
pub(super) fn listen(address: SocketAddr) -> Result<OwnedFd> {
    let listening = || format!("listening on {address}");
    let listener = socket(address).with_context(listening)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    net::bind(&listener, &address).with_context(listening)?;
    net::listen(&listener, BACKLOG).with_context(listening)?;
    Ok(listener)
}

/// Accepts one connection; `None` when nobody waits.
pub(super) fn accept(listener: &OwnedFd) -> Result<Option<OwnedFd>> {
    match net::accept_with(listener, FLAGS) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno).context("accepting"),
    }
}

/// Begins a connection, from an address that `bind` may choose.
pub(super) fn connect(
    to: SocketAddr,
    bind: impl FnOnce(&OwnedFd) -> Result<()>,
) -> Result<OwnedFd> {
    let socket = socket(to)?;
    bind(&socket).context("binding")?;
    match net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno).with_context(|| format!("connecting to {to}")),
    }
}

/// Sends as much as the socket takes now; `None` when it takes nothing.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<Option<usize>> {
    match net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(Some(sent)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno).context("sending"),
    }
}

/// Receives what is there.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Received> {
    received(net::recv(socket, buffer, RecvFlags::empty()))
}

/// Receives up to so many bytes and keeps none: with `MSG_TRUNC` the kernel
/// frees the bytes of a stream without copying them (tcp(7)).
pub(super) fn discard(socket: &OwnedFd, most: u64, scratch: &mut Scratch) -> Result<Received> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let length = most.min(scratch.wire.len());
    let buffer = scratch.wire.get_mut(..length).unwrap_or_default();
    received(net::recv(socket, buffer, RecvFlags::TRUNC))
}

fn received(result: rustix::io::Result<(usize, usize)>) -> Result<Received> {
    match result {
        Ok((_, 0)) => Ok(Received::End),
        Ok((_, bytes)) => Ok(Received::Bytes(bytes)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
        Err(errno) => Err(errno).context("receiving"),
    }
}
