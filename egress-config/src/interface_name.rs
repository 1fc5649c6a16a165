//! The name of a network interface.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// The longest name in bytes: `IFNAMSIZ` less the NUL.
const MAX: usize = 15;

/// A name that the kernel accepts for a link (`dev_valid_name` in
/// net/core/dev.c), without the `%` that asks it to choose a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct InterfaceName(Box<str>);

impl InterfaceName {
    /// The name, 1 to 15 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no interface name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InterfaceNameError {
    /// Nothing.
    #[error("the interface name is empty")]
    Empty,
    /// More than 15 bytes.
    #[error("an interface name has at most 15 bytes")]
    TooLong,
    /// `.` or `..`, which would be folders in /sys/class/net.
    #[error("'.' and '..' are not interface names")]
    Dots,
    /// A character that the kernel refuses.
    #[error("an interface name cannot have the character {0:?}")]
    Character(char),
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let refused = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
        if text.is_empty() {
            Err(InterfaceNameError::Empty)
        } else if text.len() > MAX {
            Err(InterfaceNameError::TooLong)
        } else if matches!(text, "." | "..") {
            Err(InterfaceNameError::Dots)
        } else if let Some(character) = text.chars().find(|&c| refused(c)) {
            Err(InterfaceNameError::Character(character))
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// A text that is no name of a link that leads to another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LinkError {
    /// No interface name.
    #[error(transparent)]
    Name(#[from] InterfaceNameError),
    /// `lo`.
    #[error("the loopback interface leads nowhere; write the name of another one")]
    Loopback,
}

/// Reads the name of an interface that leads to other hosts.
///
/// # Errors
/// [`LinkError`] for a text that is no name, and for the loopback interface.
pub fn parse_link(text: &str) -> Result<InterfaceName, LinkError> {
    let name: InterfaceName = text.parse()?;
    if name.as_str() == "lo" {
        Err(LinkError::Loopback)
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_accepts() {
        for text in [
            "eth0",
            "macvlan0",
            "net1",
            "en0.100",
            "a",
            "...",
            "br-0123456789ab",
        ] {
            assert_eq!(text.parse::<InterfaceName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn each_refusal_says_why() {
        for (text, error) in [
            ("", InterfaceNameError::Empty),
            ("br-0123456789abc", InterfaceNameError::TooLong),
            ("ééééééééé", InterfaceNameError::TooLong),
            (".", InterfaceNameError::Dots),
            ("..", InterfaceNameError::Dots),
            ("a/b", InterfaceNameError::Character('/')),
            ("eth0:1", InterfaceNameError::Character(':')),
            ("eth%d", InterfaceNameError::Character('%')),
            ("a b", InterfaceNameError::Character(' ')),
            ("a\u{0}b", InterfaceNameError::Character('\u{0}')),
        ] {
            assert_eq!(text.parse::<InterfaceName>(), Err(error), "{text:?}");
        }
    }
}
