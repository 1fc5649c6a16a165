//! The loop in which clients and origin take turns.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::arguments::LoadArguments;
use super::client::{Client, Progress, Surroundings};
use super::origin::Origin;
use super::pace::Pace;
use super::poller::{Interest, Poller, Ready, Token};
use super::scenario::LoadScenario;
use super::scratch::Scratch;
use super::script::Script;
use super::tally::Tally;
use super::tls::TlsSettings;
use super::transport::Dialer;

/// Kinds of tokens.
const LISTENER: u8 = 0;
const ACCEPTED: u8 = 1;
const CLIENT: u8 = 2;
const INPUT: u8 = 3;

/// Failures in a row after which there is nothing to be measured.
const HOPELESS: u32 = 1_000;

/// How long connections may take to be there.
const OPENING: Duration = Duration::from_secs(60);

/// Idle connections that are being opened at a time.
const OPENED_AT_A_TIME: usize = 64;

/// Warms up and measures, or holds idle connections until `input` ends; says
/// on `output` when what begins.
///
/// # Errors
/// When the origin cannot listen, nothing succeeds, connections are not opened
/// in a minute, or idle ones are lost.
pub fn run(
    arguments: &LoadArguments,
    input: impl Read + AsFd,
    output: &mut impl Write,
) -> Result<()> {
    raise_file_limit()?;
    let mut generator = Generator::new(arguments)?;
    if arguments.scenario == LoadScenario::Idle {
        generator.hold(input, output)
    } else {
        generator.measure(arguments, output)
    }
}

fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// The origin's names with its port.
fn targets(arguments: &LoadArguments, origin: SocketAddr) -> Vec<String> {
    let with_port = |host: &String| match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{}", origin.port()),
        Err(_) if host.contains(':') => host.clone(),
        Err(_) => format!("{host}:{}", origin.port()),
    };
    arguments.hosts.iter().map(with_port).collect()
}

struct Generator {
    around: Surroundings,
    origin: Origin,
    clients: Vec<Client>,
    /// Clients that have nothing to do.
    free: VecDeque<usize>,
    /// Clients whose operation failed; they try again after the others.
    failed: Vec<usize>,
    /// Clients that are left alone after one operation.
    done: usize,
    rests: bool,
    /// Idle connections that were closed by the other side.
    lost: usize,
    pace: Option<Pace>,
    next_target: usize,
    input: bool,
}

impl Generator {
    fn new(arguments: &LoadArguments) -> Result<Self> {
        let poller = Poller::new().context("making an epoll instance")?;
        let origin = Origin::listen(arguments.origin_port, LISTENER, ACCEPTED, &poller)?;
        let tls = arguments
            .tls
            .as_ref()
            .map(|(authority, name)| TlsSettings::new(authority, name))
            .transpose()?;
        let script = Script::new(
            arguments.role,
            arguments.scenario,
            &targets(arguments, origin.address()),
            arguments.size,
        );
        let rests = arguments.scenario == LoadScenario::Idle;
        let clients = arguments.connections;
        Ok(Self {
            around: Surroundings {
                poller,
                scratch: Scratch::new(),
                script,
                dialer: Dialer::new(arguments.proxy, tls),
                tally: Tally::new()?,
            },
            origin,
            clients: (0..clients)
                .map(|index| Client::new(CLIENT, index))
                .collect(),
            free: (0..clients).collect(),
            failed: Vec::new(),
            done: 0,
            rests,
            lost: 0,
            pace: None,
            next_target: 0,
            input: false,
        })
    }

    fn measure(&mut self, arguments: &LoadArguments, output: &mut impl Write) -> Result<()> {
        let began = Instant::now();
        if let Some(rate) = arguments.rate {
            self.pace = Some(Pace::new(began, rate));
        }
        self.work_until(began + arguments.warm_up)?;
        // At a fixed rate, or with a connection each, they are not all needed.
        if arguments.rate.is_none() && !self.around.script.connects_each_time() {
            self.work_until_open(began + arguments.warm_up + OPENING)?;
        }

        say(output, &json!({ "start": true }))?;
        self.around.tally.clear();
        let start = Instant::now();
        self.work_until(start + arguments.measured)?;
        let measured = self.around.tally.measured(start.elapsed());

        let mut result = serde_json::to_value(measured)?;
        if let Some(result) = result.as_object_mut() {
            result.insert("stop".to_owned(), true.into());
        }
        say(output, &result)
    }

    /// Opens all connections, says so, and waits for the end of `input`.
    fn hold(&mut self, mut input: impl Read + AsFd, output: &mut impl Write) -> Result<()> {
        let deadline = Instant::now() + OPENING;
        let all = self.clients.len();
        while self.done < all {
            if Instant::now() > deadline {
                bail!(
                    "only {} of {all} connections {}",
                    self.done,
                    self.what_failed()
                );
            }
            self.turn(deadline)?;
        }
        say(output, &json!({ "ready": all }))?;

        let token = Token::new(INPUT, 0, 0);
        // What epoll does not take, a file or nothing at all, has ended.
        if self
            .around
            .poller
            .add(&input, token, Interest::Read)
            .is_ok()
        {
            let mut buffer = [0; 64];
            loop {
                self.turn(Instant::now() + OPENING)?;
                if std::mem::take(&mut self.input) && input.read(&mut buffer)? == 0 {
                    break;
                }
            }
        }
        if self.lost > 0 {
            bail!("{} of {all} idle connections were closed", self.lost);
        }
        Ok(())
    }

    fn work_until(&mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    fn work_until_open(&mut self, end: Instant) -> Result<()> {
        let mut opened = 0;
        while let Some(client) = self.clients.get(opened) {
            if client.was_open() {
                opened += 1;
            } else if Instant::now() < end {
                self.turn(end)?;
            } else {
                let all = self.clients.len();
                bail!("only {opened} of {all} connections {}", self.what_failed());
            }
        }
        Ok(())
    }

    fn what_failed(&self) -> String {
        let error = self.around.tally.first_error().unwrap_or("no error");
        format!("came to an answer: {error}")
    }

    /// Begins what can begin, waits for events, not longer than until then, and
    /// handles them.
    fn turn(&mut self, end: Instant) -> Result<()> {
        self.free.extend(self.failed.drain(..));
        self.begin_all();
        if self.around.tally.in_a_row() > HOPELESS {
            let error = self.around.tally.first_error().unwrap_or_default();
            bail!("{HOPELESS} operations failed in a row, the first: {error}");
        }
        let timeout = self.patience(end);
        let told = self.around.poller.wait(Some(timeout))?;
        for ready in 0..told {
            if let Some(ready) = self.around.poller.ready(ready) {
                self.handle(ready)?;
            }
        }
        Ok(())
    }

    /// How long to sleep when nothing happens. While it measures it looks again
    /// at once: whoever sends to a core that sleeps pays for its waking, several
    /// microseconds of a virtual machine, and a proxy would be charged for how
    /// often the generator happens to be idle.
    fn patience(&self, end: Instant) -> Duration {
        if self.rests && self.failed.is_empty() {
            end.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        }
    }

    fn handle(&mut self, ready: Ready) -> Result<()> {
        let around = &mut self.around;
        match ready.token.kind {
            LISTENER => self.origin.accept(&around.poller),
            ACCEPTED => {
                let received = self
                    .origin
                    .go_on(ready, &around.poller, &mut around.scratch);
                around.tally.received(received);
                Ok(())
            }
            CLIENT => {
                self.client(ready);
                Ok(())
            }
            _ => {
                self.input = true;
                Ok(())
            }
        }
    }

    fn client(&mut self, ready: Ready) {
        let index = ready.token.index();
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if !client.is_meant(ready.token) {
            return;
        }
        match client.go_on(ready, &mut self.around) {
            Ok(Progress::Going) => {}
            Ok(Progress::Done) => {
                let now = Instant::now();
                let since = client.since();
                self.around.tally.completed(now.duration_since(since));
                if self.rests {
                    self.done += 1;
                } else {
                    self.free.push_back(index);
                }
                self.begin_all_at(now);
            }
            // One that has nothing to do finds out when it is needed again.
            Ok(Progress::Lost) => self.lost += 1,
            Err(error) => self.fail(index, &error),
        }
    }

    fn begin_all(&mut self) {
        if !self.free.is_empty() {
            self.begin_all_at(Instant::now());
        }
    }

    /// Begins an operation on every client that is free, as far as any are due.
    fn begin_all_at(&mut self, now: Instant) {
        while !self.free.is_empty() {
            if self.rests && self.opening() >= OPENED_AT_A_TIME {
                return;
            }
            let since = match &mut self.pace {
                None => now,
                Some(pace) => match pace.take(now) {
                    Some(due) => due,
                    None => return,
                },
            };
            let Some(index) = self.free.pop_front() else {
                return;
            };
            self.begin(index, since);
        }
    }

    /// Connections that are being opened and will then be left alone.
    fn opening(&self) -> usize {
        self.clients.len() - self.free.len() - self.failed.len() - self.done
    }

    fn begin(&mut self, index: usize, since: Instant) {
        let target = self.next_target;
        self.next_target += 1;
        if self.next_target >= self.around.script.targets() {
            self.next_target = 0;
        }
        if let Some(client) = self.clients.get_mut(index)
            && let Err(error) = client.begin(target, since, &mut self.around)
        {
            self.fail(index, &error);
        }
    }

    fn fail(&mut self, index: usize, error: &anyhow::Error) {
        self.around.tally.failed(error);
        if let Some(client) = self.clients.get_mut(index) {
            client.give_up();
        }
        self.failed.push(index);
    }
}

fn say(output: &mut impl Write, line: &serde_json::Value) -> Result<()> {
    writeln!(output, "{line}").context("writing to stdout")?;
    output.flush().context("writing to stdout")
}
