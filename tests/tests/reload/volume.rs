//! A mounted `ConfigMap` with the list.

use std::path::PathBuf;

/// The volume of a `ConfigMap` with one key.
pub(crate) struct Volume(egress_lab::Volume);

const KEY: &str = "destination";

impl Volume {
    pub(crate) fn new(content: &str) -> Self {
        Self(egress_lab::Volume::new(&[(KEY, content)]).unwrap())
    }

    /// What `EGRESS_DESTINATION_FILE` names.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.file(KEY)
    }

    pub(crate) fn update(&mut self, content: &str) {
        self.0.update(&[(KEY, content)]).unwrap();
    }
}
