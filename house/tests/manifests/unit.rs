//! Objects that are applied together.

use std::path::{Path, PathBuf};

use egress_house_rules::manifest::{self, Container, Object};
use serde_json::Value;

use crate::given::{Given, given};

/// An overlay rendered, or a folder of examples.
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) objects: Vec<Object>,
}

/// A pod, or what makes one, in a unit.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    pub(crate) unit: &'a Unit,
    pub(crate) object: &'a Object,
    pub(crate) value: &'a Value,
}

impl<'a> Pod<'a> {
    /// Its containers, each with what its program makes of what it is given.
    pub(crate) fn containers(&self) -> Vec<(Container<'a>, Given)> {
        let containers = self.object.containers().into_iter();
        containers
            .map(|container| (container, given(self, &container)))
            .collect()
    }

    /// Whether it runs a program of ours, and is no client.
    pub(crate) fn is_router(&self) -> bool {
        self.containers()
            .iter()
            .any(|(_, given)| *given != Given::Stranger)
    }

    pub(crate) fn at(&self, pointer: &str) -> Option<&'a Value> {
        self.value.pointer(pointer)
    }

    /// For messages.
    pub(crate) fn place(&self) -> String {
        format!("{}: {}", self.unit.name, self.object.file().display())
    }
}

impl Unit {
    pub(crate) fn pods(&self) -> impl Iterator<Item = Pod<'_>> {
        self.objects.iter().filter_map(|object| {
            object.pod().map(|value| Pod {
                unit: self,
                object,
                value,
            })
        })
    }

    pub(crate) fn has(&self, kind: &str, name: &str) -> bool {
        self.objects
            .iter()
            .any(|object| object.kind() == kind && object.name() == name)
    }
}

/// What a folder below `manifests` holds.
pub(crate) fn entries(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests")
        .join(folder);
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

/// Every overlay, a folder per platform and mode, and every folder of examples.
pub(crate) fn units() -> Vec<Unit> {
    let overlays = entries("overlays")
        .into_iter()
        .flat_map(entries)
        .map(|folder| Unit {
            name: folder.display().to_string(),
            objects: manifest::render(&folder).unwrap(),
        });
    let examples = entries("examples").into_iter().map(|folder| Unit {
        name: folder.display().to_string(),
        objects: entries(folder)
            .iter()
            .flat_map(|file| manifest::read(file).unwrap())
            .collect(),
    });
    overlays.chain(examples).collect()
}

/// Calls `check` with every pod.
pub(crate) fn each_pod(mut check: impl FnMut(Pod<'_>)) {
    let mut seen = 0;
    for unit in units() {
        for pod in unit.pods() {
            check(pod);
            seen += 1;
        }
    }
    // Three modes: four overlays and five examples of each, one more of
    // redirect, and a client.
    assert_eq!(seen, 29, "pods");
}

/// Calls `check` with every pod that is no client.
pub(crate) fn each_router(mut check: impl FnMut(Pod<'_>)) {
    each_pod(|pod| {
        if pod.is_router() {
            check(pod);
        }
    });
}
