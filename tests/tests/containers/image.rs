//! The images: those that were built, and stand-ins for what is not ours.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use egress_lab::harness::libtest_mimic::Failed;
use tempfile::TempDir;

use crate::{kustomize::repository, requirements::PATH};

/// What `make images` leaves.
pub(crate) const ARCHIVES: [&str; 3] = [
    "egress-router-init",
    "egress-http-proxy",
    "egress-dns-proxy",
];

/// Path of the archive of an image.
pub(crate) fn archive(name: &str) -> PathBuf {
    let folder =
        env::var_os("EGRESS_IMAGE_DIR").map_or_else(|| repository("images/out"), PathBuf::from);
    folder.join(format!("{name}.oci.tar"))
}

/// An image to be made of a few files of this machine.
pub(crate) struct StandIn {
    /// Changes of its configuration, as `podman import --change` has them.
    pub(crate) changes: &'static [&'static str],
    /// A tar of its root.
    pub(crate) root: PathBuf,
    _folder: TempDir,
}

impl StandIn {
    /// The client: curl, and something that waits.
    pub(crate) fn client(authority: &str) -> Result<Self, Failed> {
        static CURL: LazyLock<Vec<PathBuf>> = LazyLock::new(|| with_libraries("/usr/bin/curl"));
        let folder = tempfile::tempdir()?;
        let authority_file = folder.path().join("ca.pem");
        fs::write(&authority_file, authority)?;
        let root = folder.path().join("root.tar");
        let mut tar = Command::new("tar");
        tar.env("PATH", PATH)
            .args(["--create", "--dereference", "--absolute-names", "--file"])
            .arg(&root)
            .arg(format!(
                "--transform=s|^{}|/ca.pem|",
                authority_file.display()
            ))
            .arg("--transform=s|^/usr/bin/catatonit|/pause|")
            .arg("--transform=s|^/||")
            .args(CURL.iter())
            .arg("/usr/bin/catatonit")
            .arg(&authority_file);
        run(tar)?;
        Ok(Self {
            changes: &[
                "ENTRYPOINT [\"/pause\", \"-P\"]",
                "ENV PATH=/usr/bin",
                "USER 65532:65532",
            ],
            root,
            _folder: folder,
        })
    }

    /// What the documentation calls a pod: it waits.
    pub(crate) fn pause() -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("root.tar");
        let mut tar = Command::new("tar");
        tar.env("PATH", PATH)
            .args(["--create", "--dereference", "--absolute-names", "--file"])
            .arg(&root)
            .arg("--transform=s|^/usr/bin/catatonit|pause|")
            .arg("/usr/bin/catatonit");
        run(tar)?;
        Ok(Self {
            changes: &["ENTRYPOINT [\"/pause\", \"-P\"]"],
            root,
            _folder: folder,
        })
    }
}

fn run(mut command: Command) -> Result<(), Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// A program and all that its dynamic loader looks for.
fn with_libraries(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd")
        .env("PATH", PATH)
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries: BTreeSet<PathBuf> = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    assert!(
        !libraries.is_empty(),
        "ldd {program} names no library: {text}"
    );
    libraries
        .into_iter()
        .chain([Path::new(program).to_owned()])
        .collect()
}
