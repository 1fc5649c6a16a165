//! A test binary that starts itself again, in a role that an environment
//! variable names, and what both sides say to each other.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "part of tests, whose children speak on stderr"
)]

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use egress_runtime::signals::{Request, Signals};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, alarm};

const ROLE: &str = "EGRESS_TEST_ROLE";

/// The role of this process; `None` in the test itself.
pub(crate) fn role() -> Option<String> {
    let role = env::var(ROLE).ok()?;
    // A child outlives neither the test that started it nor a reasonable time.
    set_pdeathsig(Signal::SIGKILL).unwrap();
    alarm::set(30);
    Some(role)
}

/// This binary in a role, to run `test` alone.
pub(crate) fn myself(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    command
}

/// The process number of a child.
pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// A child and what it says on stderr.
pub(crate) struct Actor {
    pub(crate) child: Child,
    pub(crate) stderr: BufReader<ChildStderr>,
}

impl Actor {
    pub(crate) fn start(test: &str, role: &str) -> Self {
        let mut child = myself(test, role).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// The next line it says; empty when it has ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it says from here on, and that it ends well.
    pub(crate) fn end(mut self) -> String {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {rest}");
        rest
    }

    /// Sends signals to `pid` and hears what they became.
    pub(crate) fn signal_until_stop(&mut self, pid: Pid) {
        assert_eq!(self.line(), "ready");
        for (signal, request) in [
            (Signal::SIGHUP, "Reload"),
            (Signal::SIGHUP, "Reload"),
            (Signal::SIGTERM, "Drain"),
            (Signal::SIGHUP, "Reload"),
            (Signal::SIGINT, "Stop"),
        ] {
            kill(pid, signal).unwrap();
            assert_eq!(self.line(), request, "{signal}");
        }
    }
}

/// Says each request until it is told to stop.
pub(crate) fn say_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut signals = Signals::install().unwrap();
        eprintln!("ready");
        loop {
            let request = signals.next().await;
            eprintln!("{request:?}");
            if request == Request::Stop {
                break;
            }
        }
    });
}
