//! Sockets that are bound but do not listen yet.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// A TCP socket bound to `address`, not listening. `[::]` takes IPv4 too, and
/// stands for 0.0.0.0 where the kernel has no IPv6.
pub(crate) fn open(address: SocketAddr) -> io::Result<Socket> {
    bind(address).or_else(|error| match without_ipv6(address, &error) {
        Some(ipv4) => bind(ipv4),
        None => Err(error),
    })
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = new(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket that can be bound to `address`.
pub(super) fn new(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted container must not wait for the connections of the last one.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// What to bind instead of `[::]` when the kernel has no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL if everywhere => {
            Some((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn stands_for_ipv4_where_the_kernel_has_no_ipv6() {
        let refused = io::Error::from_raw_os_error(nix::libc::EAFNOSUPPORT);
        let everywhere = (Ipv6Addr::UNSPECIFIED, 9090).into();
        assert_eq!(
            without_ipv6(everywhere, &refused),
            Some((Ipv4Addr::UNSPECIFIED, 9090).into())
        );
        let one = (Ipv6Addr::LOCALHOST, 9090).into();
        assert_eq!(without_ipv6(one, &refused), None);
        let in_use = io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
        assert_eq!(without_ipv6(everywhere, &in_use), None);
    }
}
