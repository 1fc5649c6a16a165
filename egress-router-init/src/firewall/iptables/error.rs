//! Why the iptables driver cannot work.

use super::ruleset::MAX_MAPPINGS;

/// Why packet rules could not be read or written through iptables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IptablesError {
    /// The image has no such program.
    #[error(
        "EGRESS_FIREWALL=iptables needs the program {binary}, which is not in PATH; use an image \
         that contains it, or set EGRESS_FIREWALL=nftables, which needs none"
    )]
    Missing {
        /// `iptables` or `ip6tables`.
        binary: &'static str,
    },
    /// The program does not say which version it is.
    #[error(
        "the program {binary} cannot be used: {cause}; use an image with a working one, or set \
         EGRESS_FIREWALL=nftables, which needs none"
    )]
    Unusable {
        /// `iptables` or `ip6tables`.
        binary: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// The program, or the kernel behind it, refused a command.
    #[error(
        "'{command}' failed: {cause}; grant NET_ADMIN and NET_RAW, and load the kernel module that \
         it asks for, or set EGRESS_FIREWALL=nftables"
    )]
    Refused {
        /// The command, as one would type it.
        command: String,
        /// What the program said.
        cause: String,
    },
    /// Linear rules for such a list would make every packet slow.
    #[error(
        "EGRESS_FIREWALL=iptables takes at most {MAX_MAPPINGS} redirects, and there are {count}; \
         set EGRESS_FIREWALL=nftables, which takes any number"
    )]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// iptables would read the name of the interface as something else.
    #[error(
        "iptables rules cannot name the interface {name}: quotes, '!' and a '+' at the end have a \
         meaning there; rename it, or set EGRESS_FIREWALL=nftables"
    )]
    Interface {
        /// The name.
        name: String,
    },
    /// No chain of ours is in force.
    #[error("the router's iptables rules are not there; start the router first")]
    Absent,
}
