//! What can go wrong between us and the wire.

use std::io;
use std::net::Ipv6Addr;

use nix::net::if_::if_indextoname;

use super::claim::Conflict;

/// Why an address could not be probed, announced or watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another host uses the address.
    #[error(transparent)]
    Conflict(#[from] Conflict),

    /// The link is gone, or lies in another network namespace.
    #[error("no link with index {link} in this network namespace")]
    NoSuchLink {
        /// Interface index.
        link: u32,
    },

    /// The link is administratively down.
    #[error("link {link} is down; set it up first (ip link set {link} up)")]
    LinkDown {
        /// Interface name.
        link: String,
    },

    /// The link is up, but nothing is at its other end.
    #[error(
        "link {link} has no carrier; set its parent or peer interface up, and check the cable and \
         the switch port behind it"
    )]
    NoCarrier {
        /// Interface name.
        link: String,
    },

    /// Packet sockets are refused.
    #[error(
        "cannot open a packet socket: {source}; add NET_RAW to the capabilities of the container"
    )]
    NotPermitted {
        /// The kernel's answer.
        source: io::Error,
    },

    /// The group in which IPv6 hosts look for the address cannot be joined.
    #[error(
        "cannot listen for {address} on link {link}: {source}; IPv6 must be enabled in the kernel \
         and the MTU of the link at least 1280"
    )]
    Group {
        /// Interface name.
        link: String,
        /// The address that was to be probed.
        address: Ipv6Addr,
        /// The kernel's answer.
        source: io::Error,
    },

    /// Another refusal by the kernel.
    #[error("cannot {action} on link {link}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Interface name.
        link: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// The refusal of `action` on the link with index `link`.
    pub(super) fn io(action: &'static str, link: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(nix::libc::ENODEV | nix::libc::ENXIO) => Self::NoSuchLink { link },
            Some(nix::libc::ENETDOWN) => Self::LinkDown { link: name(link) },
            _ => Self::Io {
                action,
                link: name(link),
                source,
            },
        }
    }
}

/// The name of a link, for a reader; its index when it has gone.
pub(super) fn name(link: u32) -> String {
    if_indextoname(link).map_or_else(
        |_| format!("#{link}"),
        |name| name.to_string_lossy().into_owned(),
    )
}
