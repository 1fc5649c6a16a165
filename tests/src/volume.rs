//! A mounted `ConfigMap` or `Secret`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::error::{Context, Result};

/// A folder as the kubelet fills it for the volume of a `ConfigMap` or
/// `Secret`: each file is a link into `..data`, which is a link to the folder
/// of the newest version.
#[derive(Debug)]
pub struct Volume {
    folder: TempDir,
    version: u32,
}

impl Volume {
    /// A volume with these files: name and content.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir().context(|| "making a folder".to_owned())?;
        let mut volume = Self { folder, version: 0 };
        volume.update(files)?;
        for (name, _) in files {
            let link = volume.file(name);
            symlink(Path::new("..data").join(name), &link)
                .context(|| format!("linking {}", link.display()))?;
        }
        Ok(volume)
    }

    /// Path of a file, as a container names it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// New folder, new link beside the old one, rename, old folder removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn update(&mut self, files: &[(&str, &str)]) -> Result<()> {
        let old = self.file(&format!("..2024_{}", self.version));
        self.version += 1;
        let new = format!("..2024_{}", self.version);
        let swap = || {
            fs::create_dir(self.file(&new))?;
            for (name, content) in files {
                fs::write(self.file(&new).join(name), content)?;
            }
            symlink(&new, self.file("..data_tmp"))?;
            fs::rename(self.file("..data_tmp"), self.file("..data"))?;
            if self.version > 1 {
                fs::remove_dir_all(&old)?;
            }
            Ok::<_, std::io::Error>(())
        };
        swap().context(|| format!("updating {}", self.folder.path().display()))
    }
}
