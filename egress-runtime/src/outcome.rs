//! How a program ends: its exit code, and its last words.

use std::fmt;
use std::io::{self, Write};

use egress_config::{Diagnostics, Warning};

/// Exit codes: 0, and those of `sysexits.h` that have a meaning here.
pub mod exit {
    /// All was done.
    pub const DONE: u8 = 0;
    /// Something went wrong that is neither of the others.
    pub const FAILED: u8 = 1;
    /// The configuration or the command line is bad (`EX_USAGE`).
    pub const CONFIG: u8 = 64;
    /// A capability or a permission is missing (`EX_NOPERM`).
    pub const NO_PERMISSION: u8 = 77;
}

/// Why a program ends in failure.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is bad: every bad entry.
    Config(Box<Diagnostics>),
    /// A capability or a permission is missing: which, and the remedy.
    NoPermission(String),
    /// Anything else.
    Failed(String),
}

impl Failure {
    /// The failure that `error` tells of, which is none of configuration or
    /// permission.
    pub fn of(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Config(Box::new(diagnostics))
    }
}

/// A permission that the kernel refuses is [`Failure::Failed`] as well: only
/// the caller knows whether the user can grant it.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The exit code for what came of the work; a failure's text goes to standard
/// error, where it is the last the program says.
pub fn exit_code(result: Result<(), Failure>) -> u8 {
    let (text, code) = match result {
        Ok(()) => return exit::DONE,
        Err(Failure::Config(diagnostics)) => (diagnostics.to_string(), exit::CONFIG),
        Err(Failure::NoPermission(text)) => (text, exit::NO_PERMISSION),
        Err(Failure::Failed(text)) => (text, exit::FAILED),
    };
    complain(&format!("{text}\n"));
    code
}

/// Writes to standard error, past the log: scripts match the last line there,
/// so it is plain text also where the log is not. A reader that is gone misses
/// it.
pub fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Says warnings about the configuration, for a command that answers on
/// standard output and does not log.
pub fn complain_of(warnings: &[Warning]) {
    for warning in warnings {
        complain(&format!("warning: {warning}\n"));
    }
}

/// Writes an answer to standard output, whole.
///
/// # Errors
/// When the reader is gone, or the disk behind it full.
pub fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use egress_config::Diagnostic;

    use super::*;

    #[test]
    fn every_end_has_its_code() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.error(Diagnostic::new("EGRESS_LOG", "bad level; use info"));
        let failed = Failure::from(io::Error::other("no such thing"));
        assert!(matches!(&failed, Failure::Failed(text) if text == "no such thing"));
        let ends = [
            (Ok(()), 0),
            (Err(diagnostics.into()), 64),
            (Err(Failure::NoPermission("NET_RAW is missing".into())), 77),
            (Err(failed), 1),
        ];
        for (result, code) in ends {
            assert_eq!(exit_code(result), code);
        }
    }
}
