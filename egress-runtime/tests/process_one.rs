//! Process 1 of a PID namespace hears its signals; the kernel drops those that
//! it has no handler for.
//!
//! Without the test harness, because only a process of one thread may enter a
//! user namespace, which is how an unprivileged user gets a PID namespace.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test, whose children speak on stderr"
)]

mod actor;

use std::io::{self, Write};

use actor::{Actor, myself, pid, role, say_requests};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, getpid};

const TEST: &str = "process_one";

fn main() {
    match role().as_deref() {
        None => {
            let mut actor = Actor::start(TEST, "outside");
            let pid = Pid::from_raw(actor.line().parse().unwrap());
            actor.signal_until_stop(pid);
            assert_eq!(actor.end(), "");
        }
        Some("outside") => start_process_one(),
        Some(_) => {
            // Its number is said first.
            io::stdin().read_line(&mut String::new()).unwrap();
            assert_eq!(getpid(), Pid::from_raw(1));
            say_requests();
        }
    }
}

fn start_process_one() {
    match unshare(CloneFlags::CLONE_NEWPID) {
        Err(Errno::EPERM) => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).unwrap();
        }
        done => done.unwrap(),
    }
    let mut child = myself(TEST, "inside").spawn().unwrap();
    eprintln!("{}", pid(&child));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}
