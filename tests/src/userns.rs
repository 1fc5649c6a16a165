//! A user namespace with a network namespace of its own.
#![expect(
    unsafe_code,
    reason = "a process with threads cannot unshare its user namespace, so a forked child does"
)]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{signal::Signal, wait::waitpid},
    unistd::{ForkResult, Pid, fork, pipe, read, write},
};

/// A user namespace that maps all of ours one to one, and a network namespace
/// that it owns.
pub(crate) fn create() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ready, tell_ready) = pipe()?;
    let (release, hold) = pipe()?;
    // SAFETY: the child of this threaded process calls only functions that are
    // async-signal-safe (prctl, close, unshare, write, read, _exit) and never
    // returns.
    match unsafe { fork()? } {
        ForkResult::Child => {
            let _ = capctl::prctl::set_pdeathsig(Some(Signal::SIGKILL as i32));
            drop(hold);
            let result = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET);
            let errno = result.err().map_or(0, |errno| errno as i32);
            let _ = write(&tell_ready, &errno.to_ne_bytes());
            // Until the parent has opened the namespaces.
            let _ = read(&release, &mut [0]);
            // SAFETY: ends this process and nothing else.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((tell_ready, release));
            let namespaces = adopt(child, File::from(ready));
            drop(hold);
            waitpid(child, None)?;
            namespaces
        }
    }
}

fn adopt(child: Pid, mut ready: File) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut errno = [0; 4];
    ready.read_exact(&mut errno)?;
    match i32::from_ne_bytes(errno) {
        0 => {}
        errno => return Err(Errno::from_raw(errno).into()),
    }
    for map in ["uid_map", "gid_map"] {
        // One write for the whole map; more are refused.
        let identity = identity_map(&fs::read_to_string(format!("/proc/self/{map}"))?);
        File::options()
            .write(true)
            .open(format!("/proc/{child}/{map}"))?
            .write_all(identity.as_bytes())?;
    }
    let open = |kind| File::open(format!("/proc/{child}/ns/{kind}")).map(OwnedFd::from);
    Ok((open("user")?, open("net")?))
}

/// Every id that we have, mapped to itself.
fn identity_map(ours: &str) -> String {
    ours.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (inside, count) = (fields.next()?, fields.nth(1)?);
            Some(format!("{inside} {inside} {count}\n"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::identity_map;

    #[test]
    fn maps_every_range_to_itself() {
        assert_eq!(
            identity_map("         0       1000          1\n"),
            "0 0 1\n"
        );
        assert_eq!(
            identity_map("0 100000 1000\n1000 1000 1\n"),
            "0 0 1000\n1000 1000 1\n"
        );
    }
}
