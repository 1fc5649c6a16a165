//! The options of every TCP socket, to clients and to outside hosts alike.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// After this many seconds of silence the kernel asks whether the peer is
/// still there, which also keeps the entry of a NAT on the way alive.
const KEEPALIVE_IDLE: u32 = 60;
/// Seconds between such questions.
const KEEPALIVE_INTERVAL: u32 = 15;
/// Milliseconds until an unanswered peer is given up: unacknowledged data,
/// unanswered keepalives (so no count of them is set), and a window that
/// stays shut. Because of the last it is minutes: a reader that pauses is no
/// dead peer. The kernel alone would resend for a quarter of an hour.
const USER_TIMEOUT: u32 = 5 * 60 * 1000;

/// Sets `TCP_NODELAY`, keepalive and `TCP_USER_TIMEOUT` (tcp(7)). Sockets that
/// a listening one accepts inherit them, which saves four calls for each.
pub(crate) fn set(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &USER_TIMEOUT)?;
    Ok(())
}
