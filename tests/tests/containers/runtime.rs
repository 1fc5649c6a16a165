//! What podman takes for its OCI runtime: runc, with what this machine refuses
//! taken out of its way.
//!
//! The test program starts itself as the runtime, so that what a container is
//! asked for can be read as it was asked, and its log kept when it is gone.

use std::{
    env,
    error::Error,
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

/// First argument by which the test program becomes the runtime.
pub(crate) const COMMAND: &str = "oci-runtime";

/// Where the node keeps what containers were asked for: `ID.json`, and what they
/// wrote: `ID.log`.
pub(crate) const RECORDS: &str = "/run/node/containers";

/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Becomes runc.
pub(crate) fn main(arguments: env::Args) -> ExitCode {
    let Err(error) = run(&arguments.collect::<Vec<_>>());
    // Podman shows what its runtime writes there.
    let _ = writeln!(io::stderr(), "{COMMAND}: {error}");
    ExitCode::FAILURE
}

fn run(arguments: &[String]) -> Result<std::convert::Infallible, Box<dyn Error>> {
    hide_cgroups()?;
    if let (Some(bundle), Some(id)) = (bundle(arguments), arguments.last())
        && arguments.iter().any(|argument| argument == "create")
    {
        let record = Path::new(RECORDS).join(id);
        // The log goes away with its container, and an init container's does at
        // its end.
        fs::hard_link(bundle.join("ctr.log"), record.with_extension("log"))?;
        let file = bundle.join("config.json");
        fs::copy(&file, record.with_extension("json"))?;
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        adapt(&mut config);
        fs::write(&file, serde_json::to_vec(&config)?)?;
    }
    // Cgroups are then a help and not a condition: runc's tests say "create (no
    // limits + no cgrouppath + no permission) succeeds".
    let mut runc = Command::new("runc");
    runc.arg("--rootless=true").args(arguments);
    Err(runc.exec().into())
}

fn bundle(arguments: &[String]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    arguments.find(|argument| *argument == "--bundle")?;
    arguments.next().map(PathBuf::from)
}

/// Shows runc the one hierarchy that it can do without, and that read-only: the
/// machine's cgroups stay as they are.
fn hide_cgroups() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(
        Some("cgroup2"),
        CGROUPS,
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, CGROUPS, none, read_only, none)
}

/// Takes out limits: of cgroups, and of the kind that only `CAP_SYS_RESOURCE`
/// may raise.
fn adapt(config: &mut Value) {
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.insert("resources".to_owned(), json!({}));
        linux.remove("cgroupsPath");
    }
    if let Some(process) = config["process"].as_object_mut() {
        process.remove("rlimits");
        process.remove("oomScoreAdj");
    }
}
