//! What a file held when it was looked at.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::Path;

use egress_config::MAX_FILE_BYTES;

/// What a file held when it was looked at. The content counts and not its
/// inode or time: another key of the same `ConfigMap` replaces every inode, and
/// two writes within one tick of the clock have one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fingerprint {
    Content { bytes: u64, hash: u64 },
    Unreadable(io::ErrorKind),
}

impl Fingerprint {
    /// Looks at `path`, following links, in constant memory.
    pub(super) fn of(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|error| Self::Unreadable(error.kind()))
    }

    fn read(path: &Path) -> io::Result<Self> {
        // Opening a FIFO would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut hasher = HashWriter(DefaultHasher::new());
        // What lies behind is never read as configuration either.
        let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        let mut file = File::open(path)?.take(limit.saturating_add(1));
        let bytes = io::copy(&mut file, &mut hasher)?;
        let hash = hasher.0.finish();
        Ok(Self::Content { bytes, hash })
    }
}

struct HashWriter(DefaultHasher);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_the_content_counts() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "link"].map(|name| folder.path().join(name));
        fs::write(&one, "80 tcp 192.0.2.1").unwrap();
        fs::write(&two, "80 tcp 192.0.2.2").unwrap();
        symlink("one", &link).unwrap();
        assert_ne!(Fingerprint::of(&one), Fingerprint::of(&two));
        assert_eq!(Fingerprint::of(&one), Fingerprint::of(&link));
        fs::write(&two, "80 tcp 192.0.2.1").unwrap();
        assert_eq!(Fingerprint::of(&one), Fingerprint::of(&two));
    }

    #[test]
    fn what_cannot_be_read_has_a_fingerprint_too() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            Fingerprint::of(&folder.path().join("none")),
            Fingerprint::Unreadable(io::ErrorKind::NotFound)
        );
        assert_eq!(
            Fingerprint::of(folder.path()),
            Fingerprint::Unreadable(io::ErrorKind::InvalidInput)
        );
    }
}
