//! The environment of this process. Nothing else reads it.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use egress_config::{Environment, MAX_FILE_BYTES, NotUnicode};

/// The variables this process was started with and the files in its view.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Result<Option<String>, NotUnicode> {
        match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(NotUnicode),
        }
    }

    fn names(&self) -> Vec<String> {
        env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read(path, MAX_FILE_BYTES)
    }
}

/// The content of a file, cut off one byte after `limit`.
fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_variables_of_the_process() {
        // Cargo sets it for every test.
        let name = "CARGO_PKG_NAME";
        let value = ProcessEnvironment.var(name).unwrap();
        assert_eq!(value.as_deref(), Some("egress-runtime"));
        assert!(ProcessEnvironment.names().iter().any(|n| n == name));
        assert_eq!(ProcessEnvironment.var("EGRESS_NOT_SET"), Ok(None));
    }

    #[test]
    fn reads_files_up_to_the_limit_and_one_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "80 tcp 192.0.2.1\n").unwrap();
        let content = ProcessEnvironment.read(&path).unwrap();
        assert_eq!(content, b"80 tcp 192.0.2.1\n");
        assert_eq!(read(&path, 5).unwrap(), b"80 tcp".to_vec());
        let missing = ProcessEnvironment.read(&folder.path().join("none"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
