//! Where variables and the files they name come from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The largest list file that is read, in bytes: some hundred thousand lines.
/// A bound, so that a wrong path (a device, an image) is an error and not an
/// out-of-memory kill.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// The variables of a process and the files they name.
///
/// Everything that parses configuration takes this trait, so that only its
/// one real implementation touches the process or a file system.
pub trait Environment {
    /// The value of `name`, `None` when it is not set.
    ///
    /// # Errors
    /// [`NotUnicode`] when the value is not valid UTF-8.
    fn var(&self, name: &str) -> Result<Option<String>, NotUnicode>;

    /// The names of all variables, in no particular order. A name that is not
    /// valid UTF-8 may be left out.
    fn names(&self) -> Vec<String>;

    /// The content of the file at `path`. An implementation may stop reading
    /// after [`MAX_FILE_BYTES`] + 1 bytes: callers refuse a file of that size.
    ///
    /// # Errors
    /// Whatever the file system answered.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The value of a variable is not valid UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("value is not valid UTF-8; write plain ASCII text")]
pub struct NotUnicode;

/// An environment held in memory, for tests and tools.
///
/// ```
/// use egress_config::{Environment, MapEnvironment};
///
/// let environment = MapEnvironment::new()
///     .with("EGRESS_SOURCE", "192.0.2.7/24")
///     .with_file("/etc/egress/destination", "80 tcp 203.0.113.25\n");
/// assert_eq!(environment.var("EGRESS_SOURCE"), Ok(Some("192.0.2.7/24".to_owned())));
/// ```
#[derive(Clone, Default, Debug)]
pub struct MapEnvironment {
    variables: BTreeMap<String, Result<String, NotUnicode>>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MapEnvironment {
    /// An environment without variables and files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable, replacing an earlier value.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), Ok(value.to_owned()));
        self
    }

    /// Sets a variable to bytes that are not UTF-8.
    #[must_use]
    pub fn with_not_unicode(mut self, name: &str) -> Self {
        self.variables.insert(name.to_owned(), Err(NotUnicode));
        self
    }

    /// Unsets a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Adds a file, replacing an earlier one at the same path.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }
}

impl Environment for MapEnvironment {
    fn var(&self, name: &str) -> Result<Option<String>, NotUnicode> {
        self.variables.get(name).cloned().transpose()
    }

    fn names(&self) -> Vec<String> {
        self.variables.keys().cloned().collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}
