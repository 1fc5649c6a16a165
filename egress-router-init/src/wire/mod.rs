//! The source address on the wire: is it free, whose is it now, who else
//! claims it later.
//!
//! - [`probe()`] asks the LAN whether another host holds an address, before it
//!   is added to the link (RFC 5227 section 2.1, RFC 4862 section 5.4).
//!   It waits for a carrier first, as [`wait_for_carrier`] does.
//! - [`announce()`] tells the LAN where the address is now, so that a gateway
//!   with a warm neighbour cache follows at once ([`ANNOUNCEMENTS`] is the
//!   schedule).
//! - [`Conflicts`] watches the address afterwards and defends it (RFC 5227
//!   section 2.4).
//!
//! Everything that decides is pure: `mac`, `ethernet`, `arp`, `ndp` and `claim`
//! build and judge frames, `filter` tells the kernel which frames to wake us
//! for. Sockets live in `socket` and `carrier`.
//!
//! [`probe()`] and [`Conflicts`] need a tokio runtime with I/O and time enabled,
//! on a thread that is in the network namespace of the link.

mod announce;
mod arp;
mod carrier;
mod claim;
mod error;
mod ethernet;
mod filter;
mod mac;
mod ndp;
mod probe;
mod socket;
mod watch;

pub use announce::{ANNOUNCEMENTS, announce};
pub use carrier::wait_for_carrier;
pub use claim::Conflict;
pub use error::Error;
pub use mac::{MacAddr, NotEthernet};
pub use probe::probe;
pub use watch::{Conflicts, Defence, Sighting};
