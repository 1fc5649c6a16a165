//! The guard: addresses that are refused whatever name led there.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::special_range::{Reach, SpecialRange};

/// `EGRESS_HTTP_PROXY_GUARD`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Refuses what reaches the pod itself, its link or its cloud instance.
    #[default]
    Local,
    /// Refuses private networks and every other special-purpose range as
    /// well.
    Private,
    /// Refuses nothing.
    Off,
}

impl Guard {
    /// Why `address` is refused, `None` when it is not. `own` are the pod's
    /// addresses.
    #[must_use]
    pub fn prohibits(self, address: IpAddr, own: &[IpAddr]) -> Option<Prohibited> {
        let private = match self {
            Self::Off => return None,
            Self::Local => false,
            Self::Private => true,
        };
        let special = SpecialRange::of(address).filter(|range| match range.reach() {
            Reach::Local => true,
            Reach::Private => private,
        });
        let what = match special {
            Some(range) => Prohibition::Range(range),
            None if own.contains(&address) => Prohibition::Own,
            None => return None,
        };
        Some(Prohibited { address, what })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Private => "private",
            Self::Off => "off",
        })
    }
}

/// A text that is no guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("is not a guard; write local, private or off")]
pub struct GuardError;

impl FromStr for Guard {
    type Err = GuardError;

    fn from_str(text: &str) -> Result<Self, GuardError> {
        match text {
            "local" => Ok(Self::Local),
            "private" => Ok(Self::Private),
            "off" => Ok(Self::Off),
            _ => Err(GuardError),
        }
    }
}

/// An address that the guard refuses, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prohibited {
    address: IpAddr,
    what: Prohibition,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Prohibition {
    Range(&'static SpecialRange),
    Own,
}

/// `127.0.0.1 is loopback (127.0.0.0/8, RFC 1122 section 3.2.1.3)`.
impl fmt::Display for Prohibited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is ", self.address)?;
        match self.what {
            Prohibition::Range(range) => range.fmt(f),
            Prohibition::Own => f.write_str("an address of this pod"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guard_refuses_more_than_the_one_before() {
        let own: IpAddr = "203.0.114.9".parse().unwrap();
        for (text, refused_by) in [
            ("8.8.8.8", &[][..]),
            ("10.0.0.1", &[Guard::Private][..]),
            ("127.0.0.1", &[Guard::Local, Guard::Private]),
            ("203.0.114.9", &[Guard::Local, Guard::Private]),
            ("fec0::1", &[Guard::Private]),
        ] {
            let address = text.parse().unwrap();
            for guard in [Guard::Local, Guard::Private, Guard::Off] {
                assert_eq!(
                    guard.prohibits(address, &[own]).is_some(),
                    refused_by.contains(&guard),
                    "{text} {guard}"
                );
            }
        }
        let shown = Guard::Local.prohibits(own, &[own]).unwrap();
        assert_eq!(shown.to_string(), "203.0.114.9 is an address of this pod");
    }

    #[test]
    fn three_words() {
        for guard in [Guard::Local, Guard::Private, Guard::Off] {
            assert_eq!(guard.to_string().parse(), Ok(guard));
        }
        assert_eq!("on".parse::<Guard>(), Err(GuardError));
    }
}
