//! What a socket has not yet delivered.
#![expect(unsafe_code, reason = "no crate in use wraps the ioctl SIOCOUTQ")]

use std::os::fd::AsRawFd;

use nix::libc;
use tokio::net::TcpStream;

/// Whether the peer has acknowledged every byte that was written. A socket
/// that does not tell has nothing left to wait for.
pub(super) fn is_delivered(stream: &TcpStream) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while `stream` is borrowed, and the
    // request (SIOCOUTQ, tcp(7), the same number as TIOCOUTQ) writes one int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    result != 0 || bytes == 0
}
