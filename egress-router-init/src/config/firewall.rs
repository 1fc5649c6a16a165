//! What applies the packet rules.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// `EGRESS_FIREWALL`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallDriver {
    /// A table of our own, over netlink.
    Nftables,
    /// The iptables binary, for nodes whose tools read its rules.
    Iptables,
}

impl fmt::Display for FirewallDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// A text that is no firewall driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unknown firewall; write nftables or iptables")]
pub struct FirewallDriverError;

impl FromStr for FirewallDriver {
    type Err = FirewallDriverError;

    fn from_str(text: &str) -> Result<Self, FirewallDriverError> {
        match text {
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            _ => Err(FirewallDriverError),
        }
    }
}
