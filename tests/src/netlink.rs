//! A blocking netlink socket; messages come from `rtnetlink`'s builders.

use std::{io, os::fd::AsFd, time::Duration};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// `RTNLGRP_LINK`: changes of links.
const GROUP_LINK: u32 = 1;

/// `RTNLGRP_IPV6_ROUTE`: changes of IPv6 routes.
const GROUP_IPV6_ROUTE: u32 = 11;

/// An rtnetlink socket. It speaks for the network namespace it was opened in,
/// whatever thread uses it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> io::Result<Self> {
        Self::open_protocol(NETLINK_ROUTE)
    }

    /// Opens a socket for [`Netlink::dump_netfilter`].
    pub(crate) fn open_netfilter() -> io::Result<Self> {
        Self::open_protocol(NETLINK_NETFILTER)
    }

    fn open_protocol(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors come without a copy of the request.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Opens a socket that also hears of every change of a link or of an IPv6
    /// route.
    pub(crate) fn open_monitor() -> io::Result<Self> {
        let netlink = Self::open()?;
        netlink.socket.add_membership(GROUP_LINK)?;
        netlink.socket.add_membership(GROUP_IPV6_ROUTE)?;
        Ok(netlink)
    }

    /// Sends a change and waits for the kernel's answer; `flags` are
    /// `NLM_F_CREATE` and its like.
    ///
    /// # Errors
    /// The kernel's error number.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, flags | NLM_F_ACK).map(drop)
    }

    /// Asks for a whole table.
    ///
    /// # Errors
    /// The kernel's error number.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_DUMP)
    }

    /// Asks for a whole table of nftables.
    pub(crate) fn dump_netfilter(
        &mut self,
        message: NetfilterMessage,
    ) -> io::Result<Vec<NetfilterMessage>> {
        self.exchange(message, NLM_F_DUMP)
    }

    /// Waits until something was heard. A lost notification counts as heard:
    /// the caller looks again either way.
    pub(crate) fn wait(&self, deadline: Duration) -> io::Result<()> {
        let timeout = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
        if poll(
            &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
            timeout,
        )? == 0
        {
            return Err(Errno::ETIMEDOUT.into());
        }
        match self.socket.recv_from_full() {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn exchange<M>(&mut self, message: M, flags: u16) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
    {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer: NetlinkMessage<M> =
                    NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            Some(code) => Err(io::Error::from_raw_os_error(-code.get())),
                            None => Ok(answers),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
            }
        }
    }
}
