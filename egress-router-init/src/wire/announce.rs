//! Where the address is now.

use std::net::IpAddr;
use std::time::Duration;

use super::claim::Claim;
use super::error::Error;
use super::mac::MacAddr;
use super::socket::PacketSocket;

/// When to announce, counted from the moment the address is on the link: at
/// once, and twice more in case a frame is lost or a switch port is still
/// learning.
pub const ANNOUNCEMENTS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Tells every host behind the link with index `link`, once, that `address` is
/// at `mac`: an ARP announcement (RFC 5227 section 2.3) or an unsolicited
/// Neighbour Advertisement (RFC 4861 section 7.2.6). Switches learn the port
/// from it, and a gateway that knows the address replaces the `mac` it had.
///
/// Does not wait.
///
/// # Errors
///
/// [`Error::LinkDown`], [`Error::NoCarrier`], [`Error::NoSuchLink`],
/// [`Error::NotPermitted`], and what else the kernel refuses.
pub fn announce(link: u32, mac: MacAddr, address: IpAddr) -> Result<(), Error> {
    PacketSocket::open(link, Claim::new(mac, address))?.announce()
}
