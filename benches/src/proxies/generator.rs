//! The load generator.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::load::Measured;

use super::ground::{Ground, ORIGIN_PORT, PROXY_PORT, TLS_NAME};
use super::scenario::{Role, Work};

/// Longer than any interval that is measured, and than it takes to open all
/// idle connections.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long is measured, after what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What is asked of the load generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    arguments: Vec<String>,
}

impl Order {
    /// `direct` is without a proxy.
    pub(crate) fn new(role: Role, direct: bool, load: &str, connections: usize) -> Self {
        let port = if direct { ORIGIN_PORT } else { PROXY_PORT };
        let role = match role {
            Role::Tcp => "tcp",
            Role::Http | Role::Tls => "http",
        };
        let mut order = Self {
            arguments: vec!["load".to_owned()],
        };
        order.add("--proxy", format!("127.0.0.1:{port}"));
        order.add("--role", role.to_owned());
        order.add("--scenario", load.to_owned());
        order.add("--connections", connections.to_string());
        order.add("--origin-port", ORIGIN_PORT.to_string());
        order
    }

    /// What [`Work::Requests`] and [`Work::Bulk`] ask; `None` of the others.
    /// `keeps` is whether the subject keeps the connections of clients.
    pub(crate) fn of_work(work: &Work, role: Role, direct: bool, keeps: bool) -> Option<Self> {
        let (load, connections, size, rate) = match work {
            Work::Requests {
                load,
                connections,
                answer,
                rate,
            } => (load, connections, answer, *rate),
            Work::Bulk {
                load,
                connections,
                piece,
            } => (load, connections, piece, None),
            Work::Idle { .. } | Work::Rules { .. } | Work::Start => return None,
        };
        let load = match *load {
            "forward" | "forward-get" if !keeps => "forward-new",
            other => other,
        };
        let mut order = Self::new(role, direct, load, *connections);
        order.add("--size", size.to_string());
        if let Some(rate) = rate {
            order.add("--rate", rate.to_string());
        }
        Some(order)
    }

    pub(crate) fn for_(mut self, interval: Interval) -> Self {
        self.add("--warm-up", interval.warm_up.as_secs_f64().to_string());
        self.add("--seconds", interval.measured.as_secs_f64().to_string());
        self
    }

    pub(crate) fn hosts(mut self, file: &Path) -> Self {
        self.add("--hosts", file.display().to_string());
        self
    }

    pub(crate) fn trusting(mut self, certificates: &Path) -> Self {
        self.add(
            "--tls-ca",
            certificates.join("ca.pem").display().to_string(),
        );
        self.add("--tls-name", TLS_NAME.to_owned());
        self
    }

    fn add(&mut self, name: &str, value: String) {
        self.arguments.push(name.to_owned());
        self.arguments.push(value);
    }
}

/// The running load generator, on its core. It is killed with the value.
#[derive(Debug)]
pub(crate) struct Generator {
    child: Child,
    /// Idle connections are held until this is closed.
    _stdin: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
}

/// A line that it writes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Stop {
        #[expect(dead_code, reason = "the mark of the line")]
        stop: bool,
        #[serde(flatten)]
        measured: Measured,
    },
    Start {
        #[expect(dead_code, reason = "the mark of the line")]
        start: bool,
    },
    Ready {
        ready: usize,
    },
}

impl Generator {
    pub(crate) fn start(ground: &Ground, program: &Path, order: &Order) -> Result<Self> {
        let mut command = Command::new(PathBuf::from(program));
        command
            .args(&order.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = ground.on_core(ground.cores().load, || {
            command.spawn().context("starting the load generator")
        })?;
        let stdout = child.stdout.take().context("it has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            _stdin: child.stdin.take(),
            child,
            lines,
        })
    }

    /// Waits for the measured interval and calls `sample` at both of its ends.
    pub(crate) fn measured<T>(
        &mut self,
        mut sample: impl FnMut() -> Result<T>,
    ) -> Result<(T, T, Measured)> {
        let Line::Start { .. } = self.next_line()? else {
            bail!("the load generator did not begin with a start");
        };
        let before = sample()?;
        let Line::Stop { measured, .. } = self.next_line()? else {
            bail!("the load generator said something else than its result");
        };
        let after = sample()?;
        let allowed = measured.operations / 1000;
        let first = measured.first_error.as_deref().unwrap_or_default();
        ensure!(
            measured.errors <= allowed,
            "{} of {} operations failed; the first: {first}",
            measured.errors,
            measured.operations + measured.errors,
        );
        Ok((before, after, measured))
    }

    /// Waits until all idle connections are open.
    pub(crate) fn ready(&mut self, connections: usize) -> Result<()> {
        let Line::Ready { ready } = self.next_line()? else {
            bail!("the load generator did not say that it is ready");
        };
        ensure!(ready == connections, "only {ready} connections are open");
        Ok(())
    }

    fn next_line(&self) -> Result<Line> {
        let line = match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => line.context("reading from the load generator")?,
            Err(RecvTimeoutError::Timeout) => {
                bail!("the load generator said nothing for {DEADLINE:?}")
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the load generator ended; its reason is on standard error")
            }
        };
        serde_json::from_str(&line).with_context(|| format!("the load generator said {line}"))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let line = |text| serde_json::from_str::<Line>(text).unwrap();
        assert!(matches!(line(r#"{"start":true}"#), Line::Start { .. }));
        assert!(matches!(line(r#"{"ready":9}"#), Line::Ready { ready: 9 }));
        let stop = r#"{"stop":true,"operations":3,"bytes":9,"seconds":1.0,"errors":0,
            "first_error":null,"p50_us":1.0,"p99_us":2.0,"max_us":3.0}"#;
        let Line::Stop { measured, .. } = line(stop) else {
            panic!("not a result");
        };
        assert_eq!((measured.operations, measured.bytes), (3, 9));
    }

    #[test]
    fn a_work_becomes_arguments() {
        let work = Work::Requests {
            load: "connect",
            connections: 3,
            answer: 7,
            rate: Some(5),
        };
        let order = Order::of_work(&work, Role::Tcp, true, true).unwrap();
        assert_eq!(
            order.arguments.join(" "),
            "load --proxy 127.0.0.1:8000 --role tcp --scenario connect --connections 3 \
             --origin-port 8000 --size 7 --rate 5"
        );
        assert_eq!(Order::of_work(&Work::Start, Role::Tcp, true, true), None);
    }
}
