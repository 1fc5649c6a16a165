//! What is logged, and how.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use crate::reader::Reader;
use crate::variables::{self, VariableSpec};

/// The least severe messages that are logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything, every message to and from the kernel included.
    Debug,
    /// What was done.
    Info,
    /// What may be wrong.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// Reads `EGRESS_LOG`, or where it is not set the variable that meant
    /// `debug` in the image that the program replaces. `None` when it is bad,
    /// which has been reported.
    pub fn read(reader: &mut Reader<'_>, old_debug: Option<&VariableSpec>) -> Option<Self> {
        let old_debug = old_debug.is_some_and(|variable| reader.text(variable).is_some());
        if old_debug && reader.text(variables::LOG).is_none() {
            Some(Self::Debug)
        } else {
            reader.value(variables::LOG, str::parse)
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// A text that is no log level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unknown log level; write debug, info, warn or error")]
pub struct LogLevelError;

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        match text {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(LogLevelError),
        }
    }
}

/// The form of a log message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text when stderr is a terminal, else JSON lines.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A text that is no log format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unknown log format; write auto, text or json")]
pub struct LogFormatError;

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(text: &str) -> Result<Self, LogFormatError> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogFormatError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_read_back() {
        let levels = [
            LogLevel::Debug,
            LogLevel::Info,
            LogLevel::Warn,
            LogLevel::Error,
        ];
        assert!(levels.is_sorted());
        for level in levels {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("trace".parse::<LogLevel>(), Err(LogLevelError));
        assert_eq!("INFO".parse::<LogLevel>(), Err(LogLevelError));
    }

    #[test]
    fn formats_are_read_back() {
        for format in [LogFormat::Auto, LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("".parse::<LogFormat>(), Err(LogFormatError));
    }
}
