//! A TCP or UDP port.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// A port, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port of that number, `None` for 0.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The port's number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PortError {
    /// Something other than ASCII digits.
    #[error("is not a port number; write 1 to 65535 in decimal")]
    NotANumber,
    /// `080`.
    #[error("a port has no leading zeros; write it in plain decimal")]
    LeadingZero,
    /// 0, or more than 65535.
    #[error("port is out of range; write 1 to 65535")]
    OutOfRange,
}

impl FromStr for Port {
    type Err = PortError;

    /// Reads a decimal number without leading zeros.
    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PortError::NotANumber);
        }
        if text.len() > 1 && text.starts_with('0') {
            return Err(PortError::LeadingZero);
        }
        text.parse().map(Self).map_err(|_| PortError::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_are_ports() {
        assert_eq!("1".parse(), Ok(Port::new(1).unwrap()));
        assert_eq!("65535".parse(), Ok(Port::new(65535).unwrap()));
    }

    #[test]
    fn each_refusal_says_why() {
        for (text, error) in [
            ("", PortError::NotANumber),
            ("http", PortError::NotANumber),
            ("1-5", PortError::NotANumber),
            ("+80", PortError::NotANumber),
            ("080", PortError::LeadingZero),
            ("00", PortError::LeadingZero),
            ("0", PortError::OutOfRange),
            ("65536", PortError::OutOfRange),
            ("99999999999999999999999", PortError::OutOfRange),
        ] {
            assert_eq!(text.parse::<Port>(), Err(error), "{text:?}");
        }
    }
}
