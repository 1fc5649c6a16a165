//! A setting that is on or off.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// `on`.
    On,
    /// `off`.
    Off,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// A text that is neither `on` nor `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("is neither on nor off; write on or off")]
pub struct SwitchError;

impl FromStr for Switch {
    type Err = SwitchError;

    fn from_str(text: &str) -> Result<Self, SwitchError> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(SwitchError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_and_off_only() {
        for switch in [Switch::On, Switch::Off] {
            assert_eq!(switch.to_string().parse(), Ok(switch));
        }
        for bad in ["", "ON", "true", "1", "yes"] {
            assert_eq!(bad.parse::<Switch>(), Err(SwitchError), "{bad:?}");
        }
    }
}
