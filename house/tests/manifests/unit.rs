//! Objects that are applied together.

use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use egress_house_rules::{
    kustomize,
    manifest::{self, Container, Object},
};
use serde_json::Value;

use crate::given::{Given, given};

/// An overlay rendered, by itself or with components, or a folder of examples.
pub(crate) struct Unit {
    pub(crate) name: String,
    /// As kustomize prints it, or as it stands in the files.
    pub(crate) text: String,
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
        format!("{}: {}", self.unit.name, self.object.name())
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

fn manifests() -> PathBuf {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    house.parent().unwrap().join("manifests")
}

/// What a folder below `manifests` holds.
pub(crate) fn entries(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(manifests().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

/// What users apply: every overlay, a folder per platform and mode; every
/// folder of examples; and with every platform a redirect router that stays,
/// with IPv6, guarded and watched.
pub(crate) static UNITS: LazyLock<Vec<Unit>> = LazyLock::new(|| {
    let examples = entries("examples").into_iter().map(|folder| {
        let text: String = entries(&folder)
            .iter()
            .map(|file| format!("---\n{}", std::fs::read_to_string(file).unwrap()))
            .collect();
        Unit {
            name: folder.display().to_string(),
            objects: entries(&folder)
                .iter()
                .flat_map(|file| manifest::read(file).unwrap())
                .collect(),
            text,
        }
    });
    let staying = overlays().into_iter().filter_map(|(overlay, mode)| {
        let components = [
            "live-reload",
            "ipv6",
            "networkpolicy/live-reload",
            "monitoring",
        ];
        (mode == "redirect").then(|| composed(&overlay, &components))
    });
    overlays()
        .iter()
        .map(|(overlay, _)| rendered(overlay.display().to_string(), overlay))
        .chain(examples)
        .chain(staying)
        .collect()
});

/// Every mode with the components that it may have. They touch nothing that
/// platforms change, so one platform speaks for all.
pub(crate) static WATCHED: LazyLock<Vec<Unit>> = LazyLock::new(|| {
    overlays()
        .iter()
        .filter(|(overlay, _)| overlay.parent().unwrap().ends_with("kubernetes"))
        .map(|(overlay, mode)| {
            let policy = format!("networkpolicy/{mode}");
            composed(overlay, &[&policy, "monitoring"])
        })
        .collect()
});

/// Every overlay and its mode.
fn overlays() -> Vec<(PathBuf, String)> {
    entries("overlays")
        .into_iter()
        .flat_map(entries)
        .map(|folder| {
            let mode = folder.file_name().unwrap().to_str().unwrap().to_owned();
            (folder, mode)
        })
        .collect()
}

fn rendered(name: String, folder: &Path) -> Unit {
    let text = kustomize::build(folder).unwrap();
    let objects = manifest::parse(folder, &text).unwrap();
    Unit {
        name,
        text,
        objects,
    }
}

/// An overlay with components, as a user writes it.
fn composed(overlay: &Path, components: &[&str]) -> Unit {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let lines: String = components
        .iter()
        .map(|component| {
            let component = manifests().join("components").join(component);
            format!("  - {}\n", relative(&root, &component).display())
        })
        .collect();
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         namespace: egress-router\nresources:\n  - {}\ncomponents:\n{lines}",
        relative(&root, overlay).display()
    );
    std::fs::write(root.join("kustomization.yaml"), text).unwrap();
    let name = format!("{} with {}", overlay.display(), components.join(", "));
    rendered(name, &root)
}

/// The way from one folder to another: kustomize takes no absolute path.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let to = to.canonicalize().unwrap();
    let up = from
        .components()
        .filter(|component| matches!(component, Component::Normal(_)))
        .map(|_| Component::ParentDir);
    let down = to
        .components()
        .filter(|component| matches!(component, Component::Normal(_)));
    up.chain(down).collect()
}

/// Calls `check` with every pod.
pub(crate) fn each_pod(mut check: impl FnMut(Pod<'_>)) {
    let mut seen = 0;
    for unit in UNITS.iter() {
        for pod in unit.pods() {
            check(pod);
            seen += 1;
        }
    }
    // Three modes: four overlays and five examples of each; of redirect one
    // more example, and four overlays of routers that stay; and a client.
    assert_eq!(seen, 33, "pods");
}

/// Calls `check` with every pod that is no client.
pub(crate) fn each_router(mut check: impl FnMut(Pod<'_>)) {
    each_pod(|pod| {
        if pod.is_router() {
            check(pod);
        }
    });
}
