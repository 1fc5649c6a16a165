//! A socket to connect with.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};

use super::error::{DialError, DialErrorKind};
use crate::limits::has_last;
use crate::tcp_options;

/// Connects to `address` from `source`.
pub(super) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, DialError> {
    let failed = |error| DialError::new(DialErrorKind::of_connect(&error), address, error);
    let ours = |error| DialError::new(DialErrorKind::NoResources, address, error);
    let socket = open(address).map_err(ours)?;
    if let Some(source) = source {
        bind(&socket, source).map_err(|error| DialError::no_source(address, source, error))?;
    }
    socket.connect(address).await.map_err(failed)
}

fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if has_last(&socket) {
        return Err(Errno::EMFILE.into());
    }
    tcp_options::set(&socket)?;
    Ok(socket)
}

/// Leaves the choice of the port to `connect`, which needs only the four-tuple
/// to be unique: else one source had 28 000 connections, to all destinations
/// together (`IP_BIND_ADDRESS_NO_PORT` of ip(7)).
fn bind(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(source, 0))
}
