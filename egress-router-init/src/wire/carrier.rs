//! Whether a link can carry frames.
//!
//! A link that was set up a moment ago may not yet: a macvlan takes its carrier
//! from its parent, a veth from its peer, and a NIC negotiates. Until then a
//! probe would find every address free.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};

use super::error::{Error, name};
use super::socket::AsyncSocket;

/// Waits until the link with index `link` is up and has a carrier, for at most
/// `limit`.
///
/// # Errors
///
/// [`Error::NoSuchLink`] at once, [`Error::LinkDown`] or [`Error::NoCarrier`]
/// when `limit` has passed.
pub(super) async fn wait_for_carrier(link: u32, limit: Duration) -> Result<(), Error> {
    if check(link).is_ok() {
        return Ok(());
    }
    // Open before looking again: what changes in between is not missed.
    let changes = LinkChanges::open().map_err(|e| Error::io("watch for a carrier", link, e))?;
    let ready = async {
        loop {
            match check(link) {
                Err(Error::LinkDown { .. } | Error::NoCarrier { .. }) => {}
                answer => return answer,
            }
            changes
                .next()
                .await
                .map_err(|e| Error::io("watch for a carrier", link, e))?;
        }
    };
    match tokio::time::timeout(limit, ready).await {
        Ok(answer) => answer,
        // The kernel's word may come up to a second after the carrier.
        Err(_elapsed) => check(link),
    }
}

/// Whether the link can carry frames now. The carrier alone tells: the
/// operational state (`IFF_RUNNING`) lags behind it by up to a second, and our
/// sockets do not depend on what waits for that.
pub(super) fn check(link: u32) -> Result<(), Error> {
    let flags = flags(link)?;
    if flags.contains(InterfaceFlags::IFF_LOWER_UP) {
        Ok(())
    } else if flags.contains(InterfaceFlags::IFF_UP) {
        Err(Error::NoCarrier { link: name(link) })
    } else {
        Err(Error::LinkDown { link: name(link) })
    }
}

fn flags(link: u32) -> Result<InterfaceFlags, Error> {
    let mut links =
        getifaddrs().map_err(|errno| Error::io("read the link state", link, errno.into()))?;
    links
        .find(|entry| {
            let address = entry.address.as_ref().and_then(|a| a.as_link_addr());
            address.is_some_and(|a| u32::try_from(a.ifindex()) == Ok(link))
        })
        .map(|entry| entry.flags)
        .ok_or(Error::NoSuchLink { link })
}

/// The kernel's word that some link has changed; which and how is asked anew.
struct LinkChanges(AsyncSocket);

impl LinkChanges {
    fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        let groups = u32::try_from(libc::RTMGRP_LINK).unwrap_or_default();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        AsyncSocket::new(socket.into()).map(Self)
    }

    async fn next(&self) -> io::Result<()> {
        // What does not fit is cut off; only that it came matters.
        let mut start = [0; 16];
        match poll_fn(|cx| self.0.poll_read(cx, &mut start)).await {
            // More changed than the socket could hold.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            received => received.map(drop),
        }
    }
}
