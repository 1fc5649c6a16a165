//! The proxies' binaries as they are shipped.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use egress_lab::program;

/// A binary and how it was built.
#[derive(Debug, Clone)]
pub struct Shipped {
    /// Where it is.
    pub path: PathBuf,
    /// For the report.
    pub build: &'static str,
}

/// Builds a package's binary as `images/build` does, static against musl in
/// the release profile; where the toolchain has no such target, as `cargo`
/// builds it. `EGRESS_BIN_DIR` names a folder to take it from as it is.
///
/// # Errors
/// When it does not build.
pub fn shipped(name: &str) -> Result<Shipped> {
    if env::var_os("EGRESS_BIN_DIR").is_some() {
        return Ok(Shipped {
            path: program(name)?,
            build: "taken from EGRESS_BIN_DIR",
        });
    }
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    if !has_target(&target) {
        return Ok(Shipped {
            path: program(name)?,
            build: "release profile for this machine; what is shipped is static against musl, \
                    which the toolchain here lacks",
        });
    }
    let folder = target_folder()?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            &target,
        ])
        .args(["--package", name, "--bin", name, "--target-dir"])
        .arg(&folder)
        .current_dir(workspace())
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("building {name} for {target} failed, see above");
    }
    Ok(Shipped {
        path: folder.join(target).join("release").join(name),
        build: "static against musl in the release profile, as they are shipped",
    })
}

fn has_target(target: &str) -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// The folder that this program was built into: it is
/// `TARGET/PROFILE/deps/NAME`.
fn target_folder() -> Result<PathBuf> {
    let this = env::current_exe().context("finding this program")?;
    let folder = this
        .ancestors()
        .nth(3)
        .context("it is in no target folder")?;
    Ok(folder.to_owned())
}

fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
