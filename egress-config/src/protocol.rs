//! A transport protocol.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// A transport protocol that has ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A text that is neither `tcp` nor `udp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unknown protocol; write tcp or udp in lower case")]
pub struct ProtocolError;

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(ProtocolError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_lower_case_words() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        for bad in ["", "TCP", "sctp", "6", "tcp "] {
            assert_eq!(bad.parse::<Protocol>(), Err(ProtocolError), "{bad:?}");
        }
    }
}
