//! Leaves the machine's namespaces, so that nothing a test does reaches them.

use std::fs;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use crate::{
    error::{Context, LabError, Result},
    link::LOOPBACK,
    netlink::Netlink,
};

/// Gives the process new network and mount namespaces and, when it may not
/// have these as it is, a user namespace in which it is root. Call it before
/// the first thread starts.
///
/// # Errors
/// When the process has threads already, or the machine forbids user
/// namespaces; the message says how to allow them.
pub fn enter() -> Result<()> {
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let (uid, gid) = (geteuid(), getegid());
    match unshare(namespaces) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            unshare(namespaces | CloneFlags::CLONE_NEWUSER).map_err(|errno| {
                LabError::new(
                    "entering a user namespace",
                    format!(
                        "{errno}; run as root, or allow it: sysctl user.max_user_namespaces, \
                         kernel.unprivileged_userns_clone, \
                         kernel.apparmor_restrict_unprivileged_userns"
                    ),
                )
            })?;
            // gid_map is refused to the unprivileged unless setgroups is gone.
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("0 {uid} 1")),
                ("gid_map", format!("0 {gid} 1")),
            ] {
                fs::write(format!("/proc/self/{file}"), text)
                    .context(|| format!("writing /proc/self/{file}"))?;
            }
        }
        Err(errno) => return Err(errno).context(|| "entering new namespaces".to_owned()),
    }
    // ip link set lo up
    Netlink::open()
        .and_then(|mut netlink| netlink.set_up(LOOPBACK))
        .context(|| "setting lo up".to_owned())?;
    // What is mounted in here stays in here.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context(|| "making mounts private".to_owned())
}

/// Whether the process is in the machine's first user namespace, which maps
/// every id to itself.
pub(crate) fn is_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
