//! The source address on the wire: is it free, whose is it now, who else
//! claims it later.
//!
//! A [`Station`] stands for the address at its [`Place`], with one socket from
//! beginning to end:
//!
//! - [`Station::probe`] asks the LAN whether another host holds the address,
//!   before it is added to the link (RFC 5227 section 2.1, RFC 4862 section
//!   5.4). It waits for a carrier first.
//! - [`Station::announce`] tells the LAN where the address is now, so that a
//!   gateway with a warm neighbour cache follows at once ([`ANNOUNCEMENTS`] is
//!   the schedule).
//! - [`Station::ask_for_gateway`] asks for the gateway.
//! - As a stream it hears the gateway, watches the address and defends it (RFC
//!   5227 section 2.4).
//!
//! Everything that decides is pure: `mac`, `ethernet`, `arp`, `ndp`, `claim` and
//! `question` build and judge frames, `filter` tells the kernel which frames to
//! wake us for. Sockets live in `socket` and `carrier`.
//!
//! All of it needs a tokio runtime with I/O and time enabled, on a thread that
//! is in the network namespace of the link.

mod arp;
mod carrier;
mod claim;
mod defence;
mod error;
mod ethernet;
mod filter;
mod mac;
mod ndp;
mod probe;
mod question;
mod socket;
mod station;

pub use claim::Conflict;
pub use defence::{Defence, Sighting};
pub use error::Error;
pub use mac::{MacAddr, NotEthernet};
pub use station::{ANNOUNCEMENTS, Heard, Place, Station};
