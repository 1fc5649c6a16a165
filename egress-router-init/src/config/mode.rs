//! What the router does after it has set up the pod.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// `EGRESS_ROUTER_MODE`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Set up network and redirects, then exit.
    Init,
    /// Set up network and redirects, then stay until SIGTERM.
    Legacy,
    /// Set up the network for `egress-http-proxy`, then exit.
    HttpProxy,
    /// Set up the network for `egress-dns-proxy`, then exit.
    DnsProxy,
}

impl Mode {
    /// Whether `EGRESS_DESTINATION` is used.
    #[must_use]
    pub const fn redirects(self) -> bool {
        match self {
            Self::Init | Self::Legacy => true,
            Self::HttpProxy | Self::DnsProxy => false,
        }
    }

    /// Whether the program stays after it has set up the pod.
    #[must_use]
    pub const fn stays(self) -> bool {
        match self {
            Self::Legacy => true,
            Self::Init | Self::HttpProxy | Self::DnsProxy => false,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Legacy => "legacy",
            Self::HttpProxy => "http-proxy",
            Self::DnsProxy => "dns-proxy",
        })
    }
}

/// A text that is no mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unknown mode; write init, legacy, http-proxy or dns-proxy")]
pub struct ModeError;

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match text {
            "init" => Ok(Self::Init),
            "legacy" => Ok(Self::Legacy),
            "http-proxy" => Ok(Self::HttpProxy),
            "dns-proxy" => Ok(Self::DnsProxy),
            _ => Err(ModeError),
        }
    }
}
