//! What can go wrong while a lab is built or used.

use std::io;

/// Something the lab asked the kernel for and did not get.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct LabError {
    what: String,
    source: io::Error,
}

/// Result of a lab operation.
pub type Result<T> = std::result::Result<T, LabError>;

impl LabError {
    /// An error about `what` that has no cause in the kernel.
    pub(crate) fn new(what: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: io::Error::other(cause.into()),
        }
    }

    /// The kernel's error number, where there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Says what was being done when an I/O error came.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError {
            what: what(),
            source: source.into(),
        })
    }
}
