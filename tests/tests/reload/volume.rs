//! A mounted `ConfigMap`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A folder as the kubelet fills it for a volume of a `ConfigMap` with one
/// key: the file is a link into `..data`, which is a link to the folder of the
/// newest version.
pub(crate) struct Volume {
    folder: TempDir,
    version: u32,
}

impl Volume {
    pub(crate) fn new(content: &str) -> Self {
        let mut volume = Self {
            folder: tempfile::tempdir().unwrap(),
            version: 0,
        };
        volume.update(content);
        symlink("..data/destination", volume.file()).unwrap();
        volume
    }

    /// What `EGRESS_DESTINATION_FILE` names.
    pub(crate) fn file(&self) -> PathBuf {
        self.at("destination")
    }

    /// New folder, new link beside the old one, rename, old folder removed.
    pub(crate) fn update(&mut self, content: &str) {
        let old = self.at(&format!("..2024_{}", self.version));
        self.version += 1;
        let new = format!("..2024_{}", self.version);
        fs::create_dir(self.at(&new)).unwrap();
        fs::write(self.at(&new).join("destination"), content).unwrap();
        symlink(&new, self.at("..data_tmp")).unwrap();
        fs::rename(self.at("..data_tmp"), self.at("..data")).unwrap();
        if self.version > 1 {
            fs::remove_dir_all(old).unwrap();
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}
