//! A started subject.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use egress_lab::{Command, Process};
use tempfile::TempDir;

use super::definition::Definition;
use super::ground::{CHECK_PORT, Ground, ORIGIN_HOST, ORIGIN_PORT, PROXY_PORT};
use super::origin::Origin;
use super::placeholders::Placeholders;
use super::process_tree::ProcessTree;
use super::rule_list::RuleList;
use super::scenario::Role;

/// A program that takes longer to its first answer has failed. squid needs 20 s
/// for 100 000 rules.
const START: Duration = Duration::from_secs(90);
/// A program that accepts but does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A started program on the proxy's core. It and all of its children are
/// killed with the value.
#[derive(Debug)]
pub(crate) struct Running {
    process: Process,
    first_answer: Duration,
    /// Its files; gone after it.
    _folder: TempDir,
}

impl Running {
    /// Starts it and waits for its first answer, which comes from an origin
    /// that is gone afterwards.
    pub(crate) fn start(
        ground: &Ground,
        definition: &Definition,
        program: &Path,
        rules: &RuleList,
    ) -> Result<Self> {
        let folder = ground.new_folder()?;
        let placeholders = write_files(ground, definition, rules, folder.path())?;
        // In a PID namespace of its own, nothing of it outlives it.
        let command = Command::new(ground.netns(), program)
            .own_pid_namespace()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .envs(
                definition
                    .environment
                    .iter()
                    .map(|(name, value)| (name.as_str(), placeholders.fill(value))),
            );
        let command = definition
            .arguments
            .iter()
            .fold(command, |command, argument| {
                command.arg(placeholders.fill(argument))
            });
        let host = rules.hits().into_iter().next().unwrap_or_default();
        let origin = Origin::start(ground.netns(), ORIGIN_PORT)?;
        let (process, started) = ground.on_core(ground.cores().proxy, || {
            let started = Instant::now();
            Ok((command.spawn()?, started))
        })?;
        ground
            .on_core(ground.cores().load, || {
                await_answer(&process, definition.role, &host)
            })
            .with_context(|| format!("starting {}", definition.name))?;
        let first_answer = started.elapsed();
        drop(origin);
        Ok(Self {
            process,
            first_answer,
            _folder: folder,
        })
    }

    /// From before fork to the first byte of the first answer.
    pub(crate) fn first_answer(&self) -> Duration {
        self.first_answer
    }

    pub(crate) fn tree(&self) -> ProcessTree {
        ProcessTree::of(self.process.pid())
    }
}

fn write_files(
    ground: &Ground,
    definition: &Definition,
    rules: &RuleList,
    folder: &Path,
) -> Result<Placeholders> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let mut placeholders = Placeholders::default();
    let dir = folder.display().to_string();
    placeholders.set("port", PROXY_PORT.to_string());
    placeholders.set("origin", format!("{ORIGIN_HOST}:{ORIGIN_PORT}"));
    placeholders.set("origin_port", ORIGIN_PORT.to_string());
    placeholders.set("check_port", CHECK_PORT.to_string());
    placeholders.set("certificates", ground.certificates().display().to_string());
    placeholders.set("rules", format!("{dir}/rules"));
    placeholders.set("rule_lines", definition.rule_lines(rules));
    placeholders.set("dir", dir);
    write("rules", &rules.lines())?;
    for (name, text) in &definition.files {
        write(name, &placeholders.fill(text))?;
    }
    Ok(placeholders)
}

/// Asks until there is an answer, on a connection of its own each time.
fn await_answer(process: &Process, role: Role, host: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let last = match ask(role, host) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !process.is_running() {
            bail!("it ended before its first answer ({last:#})");
        }
        if begun.elapsed() > START {
            bail!("no answer within {START:?} ({last:#})");
        }
        thread::yield_now();
    }
}

fn ask(role: Role, host: &str) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PROXY_PORT));
    let mut stream = TcpStream::connect(address).context("connecting to it")?;
    let path = match role {
        Role::Http => format!("http://{host}:{ORIGIN_PORT}/2"),
        Role::Tcp => "/2".to_owned(),
        // That it accepts has to do.
        Role::Tls => return Ok(()),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}:{ORIGIN_PORT}\r\n\r\n"
    )
    .context("asking it")?;
    let mut status = [0; 12];
    stream
        .read_exact(&mut status)
        .context("reading its answer")?;
    anyhow::ensure!(
        status.ends_with(b" 200"),
        "its answer is {:?}",
        String::from_utf8_lossy(&status)
    );
    Ok(())
}
