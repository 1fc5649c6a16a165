//! Finds the project's binaries, and builds them first so that a test never
//! runs yesterday's.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::error::{Context, LabError, Result};

/// Path of one of the project's binaries; package and binary have the same
/// name. `EGRESS_BIN_DIR` names a folder to take it from as it is; otherwise
/// `cargo build` runs once per process, into the target folder and profile
/// that the calling program itself was built with.
///
/// # Errors
/// When it is not there or does not build.
pub fn program(name: &str) -> Result<PathBuf> {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(name) {
        return Ok(path.clone());
    }
    let path = match env::var_os("EGRESS_BIN_DIR") {
        Some(folder) => PathBuf::from(folder).join(name),
        None => build(name)?,
    };
    let path = path
        .canonicalize()
        .context(|| format!("looking for {}", path.display()))?;
    built.insert(name.to_owned(), path.clone());
    Ok(path)
}

fn build(name: &str) -> Result<PathBuf> {
    // .../target/debug/deps/lab-0123456789abcdef, or .../target/debug/demo
    let this = env::current_exe().context(|| "finding this program".to_owned())?;
    let profile = this
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps") && !folder.ends_with("examples"))
        .ok_or_else(|| LabError::new("finding the target folder", "this program has none"))?;
    let target = profile.parent().unwrap_or(profile);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--quiet",
            "--package",
            name,
            "--bin",
            name,
            "--target-dir",
        ])
        .arg(target)
        .current_dir(workspace());
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command
        .status()
        .context(|| format!("running cargo to build {name}"))?;
    if !status.success() {
        return Err(LabError::new(
            format!("building {name}"),
            "cargo failed, see above",
        ));
    }
    Ok(profile.join(name))
}

fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
