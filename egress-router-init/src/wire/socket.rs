//! Packet sockets: whole Ethernet frames to and from one link.
#![expect(
    unsafe_code,
    reason = "no crate offers a safe constructor for the address of a packet socket (sockaddr_ll), \
              tokio leaves it to the caller that a registered file descriptor stays the same, and \
              nix offers a macro for the socket option it lacks"
)]

use std::io::{self, Read, Write};
use std::net::Ipv6Addr;
use std::task::{Context, Poll, ready};

use nix::libc;
use nix::sys::socket::SetSockOpt;
use nix::sys::socket::sockopt::SetBool;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::carrier;
use super::error::{Error, name};
use super::ethernet::EtherType;
use super::ndp::solicited_node;

/// A packet socket on one link, known to the runtime.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: AsyncSocket,
    link: u32,
}

impl PacketSocket {
    /// Collects the frames of one type that pass `filter` from now on. Our own
    /// outgoing frames are not among them: the socket is bound to one protocol.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub(super) fn open(
        link: u32,
        ether_type: EtherType,
        filter: &[SockFilter],
    ) -> Result<Self, Error> {
        let failed = |error| Error::io("open a packet socket", link, error);
        // Protocol 0 hears nothing, so no frame precedes the filter.
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, None).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Error::NotPermitted { source: error },
                _ => failed(error),
            })?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.attach_filter(filter).map_err(failed)?;
        QdiscBypass
            .set(&socket, &true)
            .map_err(|errno| failed(errno.into()))?;
        let index = i32::try_from(link).map_err(|_| Error::NoSuchLink { link })?;
        socket
            .bind(&link_layer(index, ether_type.number()))
            .map_err(failed)?;
        Ok(Self {
            socket: AsyncSocket::new(socket).map_err(failed)?,
            link,
        })
    }

    /// Hands a frame to the link. Nothing queues it, so there is nothing to
    /// wait for.
    pub(super) fn send(&self, action: &'static str, frame: &[u8]) -> Result<(), Error> {
        let mut socket = self.socket.get();
        match socket.write(frame) {
            Ok(_whole_frame) => Ok(()),
            // Dropped: without a carrier every frame is; one that a full
            // transmit queue lost may as well have been lost on the wire.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => carrier::check(self.link),
            Err(error) => Err(Error::io(action, self.link, error)),
        }
    }

    /// Waits for a frame that `judge` makes something of.
    pub(super) fn poll_frame<T>(
        &self,
        cx: &mut Context<'_>,
        judge: impl Fn(&[u8]) -> Option<T>,
    ) -> Poll<Result<T, Error>> {
        // The largest frame of a LAN without jumbo frames; a longer one cannot
        // be parsed and so says nothing.
        let mut buffer = [0; 1514];
        loop {
            let length = ready!(self.socket.poll_read(cx, &mut buffer))
                .map_err(|error| Error::io("listen", self.link, error))?;
            if let Some(judgement) = judge(buffer.get(..length).unwrap_or_default()) {
                return Poll::Ready(Ok(judgement));
            }
        }
    }
}

/// Sends without a queueing discipline. The one of a link whose carrier has
/// just come is attached up to a second later and drops frames until then,
/// without an error; without it only a missing carrier or a full driver does,
/// with one.
#[derive(Clone, Copy)]
struct QdiscBypass;

/// From linux/if_packet.h.
const PACKET_QDISC_BYPASS: libc::c_int = 20;

nix::setsockopt_impl!(
    QdiscBypass,
    libc::SOL_PACKET,
    PACKET_QDISC_BYPASS,
    bool,
    SetBool
);

/// A non-blocking socket of any family, known to the runtime.
#[derive(Debug)]
pub(super) struct AsyncSocket(AsyncFd<Socket>);

impl AsyncSocket {
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        // SAFETY: a Socket owns its file descriptor, which stays the same until
        // it is dropped, and nothing in here takes or replaces the Socket.
        let fd = unsafe { AsyncFd::register(socket) };
        Ok(Self(fd?))
    }

    fn get(&self) -> &Socket {
        self.0.get_ref()
    }

    /// Waits for one message; what exceeds the buffer is cut off.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(read) = guard.try_io(|socket| socket.get_ref().read(buffer)) {
                return Poll::Ready(read);
            }
        }
    }
}

/// Listens to the group in which hosts that probe for `address` ask (RFC 4862
/// section 5.4.2), until the socket is dropped: the link lets its frames in,
/// and switches that snoop MLD forward them.
pub(super) fn join_solicited_node(link: u32, address: Ipv6Addr) -> Result<Socket, Error> {
    let join = || {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        socket.join_multicast_v6(&solicited_node(address), link)?;
        Ok(socket)
    };
    join().map_err(|source| Error::Group {
        link: name(link),
        address,
        source,
    })
}

/// The frames of one type on one link.
fn link_layer(link: i32, ether_type: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is the platform's address type of AF_PACKET; it is no
    // larger than the storage, and all zeros are a valid value of it.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = link;
    let length = storage.size_of();
    // SAFETY: the storage holds a valid address of the family that it names,
    // and all of its `length` bytes are initialised; the kernel reads the first
    // of them that it needs.
    unsafe { SockAddr::new(storage, length) }
}
