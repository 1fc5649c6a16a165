//! The socket towards clients. It is bound to every address of the pod, so it
//! hears which of them a client spoke to, and answers from that one: left to
//! itself, the kernel would answer from the address of the default route,
//! which is the egress address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use egress_config::Port;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::scratch::Scratch;

/// A port that is ours. Datagrams queue from now on, one queue per worker.
#[derive(Debug)]
pub(crate) struct UdpBound {
    sockets: Vec<Socket>,
}

/// Why a port cannot be taken.
#[derive(Debug, Error)]
#[error("we cannot receive datagrams on port {port}: {cause}{}", remedy(*.port, .cause))]
pub(crate) struct UdpListenError {
    port: Port,
    #[source]
    cause: io::Error,
}

impl UdpBound {
    /// Takes `port` on every address, for `workers` sockets among which the
    /// kernel spreads the clients.
    ///
    /// # Errors
    /// When the kernel refuses the port; the text names the remedy.
    pub(crate) fn bind(port: Port, workers: usize) -> Result<Self, UdpListenError> {
        Self::sockets(port.get(), workers).map_err(|cause| UdpListenError { port, cause })
    }

    fn sockets(port: u16, workers: usize) -> io::Result<Self> {
        // The first is bound alone, so that a port which another process
        // shares with its own sockets counts as taken.
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (address, first) = match socket(everywhere, false) {
            Ok(socket) => (everywhere, socket),
            Err(error) if no_ipv6(&error) => {
                let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                (ipv4, socket(ipv4, false)?)
            }
            Err(error) => return Err(error),
        };
        let mut sockets = vec![first];
        if workers > 1 {
            for socket in &sockets {
                socket.set_reuse_port(true)?;
            }
            for _ in 1..workers {
                sockets.push(socket(address, true)?);
            }
        }
        Ok(Self { sockets })
    }

    /// One per worker.
    pub(crate) fn into_sockets(self) -> Vec<Socket> {
        self.sockets
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(errno(error), Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
}

fn remedy(port: Port, cause: &io::Error) -> String {
    match errno(cause) {
        Errno::EADDRINUSE => "; another program has the port: end it or choose a free port".into(),
        Errno::EACCES => format!(
            "; choose a port from 1024 on, set the sysctl net.ipv4.ip_unprivileged_port_start \
             of the pod to {port} or less, or add the capability NET_BIND_SERVICE"
        ),
        _ => String::new(),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// One socket towards clients, on one worker.
#[derive(Debug)]
pub(super) struct Downstream {
    socket: UdpSocket,
    /// An IPv6 socket, to which IPv4 addresses are mapped ones.
    mapped: bool,
}

/// Who sent a datagram, and to which address of ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Peer {
    /// The client, as the socket sees it.
    client: SocketAddr,
    local: IpAddr,
    /// Where to answer a link-local address.
    interface: u32,
}

impl Peer {
    /// The client, an IPv4 one as such.
    pub(super) fn client(&self) -> SocketAddr {
        SocketAddr::new(self.client.ip().to_canonical(), self.client.port())
    }

    /// The address that the client spoke to, an IPv4 one as such.
    pub(super) fn local(&self) -> IpAddr {
        self.local.to_canonical()
    }
}

impl Downstream {
    /// Serves on the runtime of the calling worker.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        let mapped = socket.domain()? == Domain::IPV6;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, mapped })
    }

    /// Waits for datagrams.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram, which is in `scratch` then: its length and its
    /// sender. The sender is none where the kernel does not name it.
    pub(super) fn receive(&self, scratch: &mut Scratch) -> io::Result<(usize, Option<Peer>)> {
        self.socket.try_io(Interest::READABLE, || {
            let mut buffers = [IoSliceMut::new(&mut scratch.bytes)];
            let received = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut buffers,
                Some(&mut scratch.control),
                MsgFlags::empty(),
            )?;
            let client = received.address.and_then(std_address);
            let local = received
                .cmsgs()?
                .find_map(|message| local_address(&message));
            let peer = client.zip(local).map(|(client, (local, interface))| Peer {
                client,
                local,
                interface,
            });
            Ok((received.bytes, peer))
        })
    }

    /// Sends to a client from the address that it spoke to; never waits.
    ///
    /// # Errors
    /// When the kernel does not take it, also because its queue is full.
    pub(super) fn send(&self, bytes: &[u8], peer: &Peer) -> io::Result<()> {
        let ipv4;
        let ipv6;
        let source = match peer.local {
            IpAddr::V4(local) if !self.mapped => {
                ipv4 = in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr {
                        s_addr: u32::from_ne_bytes(local.octets()),
                    },
                    ipi_addr: in_addr { s_addr: 0 },
                };
                ControlMessage::Ipv4PacketInfo(&ipv4)
            }
            local => {
                let local = match local {
                    IpAddr::V4(local) => local.to_ipv6_mapped(),
                    IpAddr::V6(local) => local,
                };
                let link_local = local.is_unicast_link_local();
                ipv6 = in6_pktinfo {
                    ipi6_addr: in6_addr {
                        s6_addr: local.octets(),
                    },
                    ipi6_ifindex: if link_local { peer.interface } else { 0 },
                };
                ControlMessage::Ipv6PacketInfo(&ipv6)
            }
        };
        // Not by tokio, which would first want to hear that it may.
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[source],
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrStorage::from(peer.client)),
        )?;
        Ok(())
    }
}

fn std_address(address: SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address
        .as_sockaddr_in()
        .map(|&ipv4| SocketAddr::V4(ipv4.into()));
    ipv4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|&ipv6| SocketAddr::V6(ipv6.into()))
    })
}

/// The local address of a datagram, and the interface it came in by.
fn local_address(message: &ControlMessageOwned) -> Option<(IpAddr, u32)> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
            Some((address.into(), 0))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            Some((address.into(), info.ipi6_ifindex))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::scratch::with_scratch;

    fn free_port() -> Port {
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        Port::new(socket.local_addr().unwrap().port()).unwrap()
    }

    #[tokio::test]
    async fn answers_come_from_the_address_that_was_spoken_to() {
        let port = free_port();
        let bound = UdpBound::bind(port, 1).unwrap();
        let downstream = Downstream::new(bound.into_sockets().remove(0)).unwrap();
        for local in ["127.0.0.1", "127.0.0.9", "::1"] {
            let local: IpAddr = local.parse().unwrap();
            let any = if local.is_ipv4() {
                "127.0.0.2:0"
            } else {
                "[::1]:0"
            };
            let client = std::net::UdpSocket::bind(any).unwrap();
            client.connect((local, port.get())).unwrap();
            client.send(b"question").unwrap();
            downstream.readable().await.unwrap();
            with_scratch(|scratch| {
                let (length, peer) = downstream.receive(scratch).unwrap();
                assert_eq!(&scratch.bytes[..length], b"question");
                let peer = peer.unwrap();
                assert_eq!(peer.client(), client.local_addr().unwrap());
                assert_eq!(peer.local(), local);
                downstream.send(b"answer", &peer).unwrap();
            });
            // A connected socket hears only the address it is connected to.
            let mut answer = [0; 16];
            client
                .set_read_timeout(Some(std::time::Duration::from_secs(10)))
                .unwrap();
            let length = client.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], b"answer");
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_taken() {
        let taken = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        taken.set_reuse_port(true).unwrap();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        taken.bind(&any.into()).unwrap();
        let address = taken.local_addr().unwrap().as_socket().unwrap();
        let port = Port::new(address.port()).unwrap();
        for workers in [1, 3] {
            let error = UdpBound::bind(port, workers).unwrap_err();
            assert!(error.to_string().contains("another program has the port"));
        }
        drop(taken);
        assert_eq!(UdpBound::bind(port, 3).unwrap().into_sockets().len(), 3);
    }
}
