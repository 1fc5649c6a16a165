//! What this machine must have, said before anything is tried.

use std::{env, fmt::Write, path::Path};

use nix::unistd::geteuid;

use crate::{image, kustomize};

/// Folders of programs that are not on every user's path.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where distributions put the CNI plugins.
pub(crate) const CNI_PLUGINS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];

const PROGRAMS: [&str; 8] = [
    "podman",
    "conmon",
    "runc",
    "catatonit",
    "nsenter",
    "curl",
    "tar",
    "ldd",
];

/// Everything that is missing, in one text.
pub(crate) fn check() -> Result<(), String> {
    let mut missing = String::new();
    if !geteuid().is_root() {
        missing += "run as root: podman creates network namespaces and containers for users\n";
    }
    for program in PROGRAMS {
        if !PATH
            .split(':')
            .any(|folder| Path::new(folder).join(program).exists())
        {
            let _ = writeln!(missing, "no {program}; run scripts/install-deps");
        }
    }
    for plugin in ["bridge", "host-local"] {
        if !CNI_PLUGINS
            .iter()
            .any(|folder| Path::new(folder).join(plugin).exists())
        {
            let _ = writeln!(missing, "no CNI plugin {plugin}; run scripts/install-deps");
        }
    }
    let on_path = |name| {
        env::var_os("PATH")
            .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(name).exists()))
    };
    if !kustomize::program().exists() && !on_path("kustomize") {
        missing += "no kustomize; run scripts/install-deps\n";
    }
    for archive in image::ARCHIVES.map(image::archive) {
        if !archive.exists() {
            let _ = writeln!(missing, "no {}; run make images", archive.display());
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing)
    }
}
