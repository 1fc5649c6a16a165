//! A client: one operation after another, on one connection or on many.

use std::time::Instant;

use anyhow::Result;

use super::dialogue::{Dialogue, Heard};
use super::poller::{Interest, Poller, Ready, Token};
use super::scratch::Scratch;
use super::script::Script;
use super::socket::Received;
use super::tally::Tally;
use super::transport::{Dialer, Transport};

/// What all clients share.
pub(super) struct Surroundings {
    pub(super) poller: Poller,
    pub(super) scratch: Scratch,
    pub(super) script: Script,
    pub(super) dialer: Dialer,
    pub(super) tally: Tally,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Under way.
    Going,
    /// Done; the connection is closed if it cannot be used again.
    Done,
    /// The other side closed a connection on which nothing was under way.
    Lost,
}

/// A client and, as a rule, its connection.
#[derive(Debug)]
pub(super) struct Client {
    kind: u8,
    index: usize,
    transport: Option<Transport>,
    generation: u32,
    /// What the poller was told; nothing of a connection that is new.
    interest: Option<Interest>,
    dialogue: Dialogue,
    /// Since when the operation counts.
    since: Instant,
    target: usize,
    /// Whether the operation began on a connection that had had one.
    reused: bool,
    /// Whether the proxy ever did what comes before a request.
    was_open: bool,
}

impl Client {
    /// One that has no connection yet. Its events have tokens of that kind and
    /// index.
    pub(super) fn new(kind: u8, index: usize) -> Self {
        Self {
            kind,
            index,
            transport: None,
            generation: 0,
            interest: None,
            dialogue: Dialogue::new(),
            since: Instant::now(),
            target: 0,
            reused: false,
            was_open: false,
        }
    }

    /// Since when the operation counts.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Whether it ever came as far as an answer, or an open tunnel.
    pub(super) fn was_open(&self) -> bool {
        self.was_open
    }

    /// Whether an event is of the connection that it has now.
    pub(super) fn is_meant(&self, token: Token) -> bool {
        self.transport.is_some() && token.is_of(self.generation)
    }

    /// Begins an operation that counts since then.
    pub(super) fn begin(
        &mut self,
        target: usize,
        since: Instant,
        around: &mut Surroundings,
    ) -> Result<()> {
        self.since = since;
        self.target = target;
        self.reused = self.transport.is_some();
        if !self.reused {
            return self.open(around);
        }
        self.dialogue.begin(&around.script, target, false);
        let spoken = self.speak(around);
        self.unless_stale(spoken, (), around)
    }

    /// Goes on after an event.
    pub(super) fn go_on(&mut self, ready: Ready, around: &mut Surroundings) -> Result<Progress> {
        let progress = self.advance(ready, around);
        self.unless_stale(progress, Progress::Going, around)
    }

    /// A proxy may close a connection at any time between two requests; a
    /// request that met that is sent once more (RFC 9112 section 9.3.1).
    fn unless_stale<T>(
        &mut self,
        result: Result<T>,
        otherwise: T,
        around: &mut Surroundings,
    ) -> Result<T> {
        let stale = self.reused && around.script.sends_again() && self.dialogue.is_unanswered();
        if result.is_ok() || !stale {
            return result;
        }
        self.reused = false;
        self.open(around)?;
        Ok(otherwise)
    }

    /// Begins the operation on a new connection.
    fn open(&mut self, around: &mut Surroundings) -> Result<()> {
        self.generation = self.generation.wrapping_add(1);
        self.interest = None;
        self.transport = Some(around.dialer.dial()?);
        self.dialogue.begin(&around.script, self.target, true);
        self.speak(around)
    }

    fn advance(&mut self, ready: Ready, around: &mut Surroundings) -> Result<Progress> {
        if ready.writable && self.interest == Some(Interest::Both) {
            self.speak(around)?;
        }
        if !ready.readable {
            return Ok(Progress::Going);
        }
        if self.dialogue.rests() {
            self.close();
            return Ok(Progress::Lost);
        }
        match self.listen(around)? {
            Heard::Part => Ok(Progress::Going),
            Heard::Tunnel => {
                self.was_open = true;
                self.speak(around)?;
                Ok(Progress::Going)
            }
            Heard::Response { last } => {
                self.was_open = true;
                if last || around.script.connects_each_time() {
                    self.close();
                }
                Ok(Progress::Done)
            }
        }
    }

    /// Closes the connection as a client does that has all it wanted.
    fn close(&mut self) {
        if let Some(transport) = self.transport.take() {
            transport.close();
        }
    }

    /// Drops the connection, whatever state it is in.
    pub(super) fn give_up(&mut self) {
        self.transport = None;
        self.dialogue = Dialogue::new();
    }

    /// Sends what there is to send, bodies piece by piece, so that the others
    /// get their turn.
    fn speak(&mut self, around: &mut Surroundings) -> Result<()> {
        let Some(transport) = &mut self.transport else {
            return Ok(());
        };
        let Surroundings {
            script, scratch, ..
        } = around;
        if transport.is_blocked() {
            transport.flush()?;
        }
        // A head and a piece of a body.
        for _ in 0..2 {
            let out = self.dialogue.outgoing(script, &scratch.body);
            if out.is_empty() {
                break;
            }
            let Some(sent) = transport.send(out)? else {
                break;
            };
            self.dialogue.sent(script, sent);
        }
        let left = !self.dialogue.outgoing(script, &scratch.body).is_empty();
        let interest = if left || transport.is_blocked() {
            Interest::Both
        } else {
            Interest::Read
        };
        if self.interest == Some(interest) {
            return Ok(());
        }
        let token = Token::new(self.kind, self.index, self.generation);
        match self.interest.replace(interest) {
            None => around.poller.add(&*transport, token, interest)?,
            Some(_) => around.poller.change(&*transport, token, interest)?,
        }
        Ok(())
    }

    fn listen(&mut self, around: &mut Surroundings) -> Result<Heard> {
        let Some(transport) = &mut self.transport else {
            return Ok(Heard::Part);
        };
        let Surroundings {
            script,
            scratch,
            tally,
            ..
        } = around;
        let skips = self.dialogue.body_left().filter(|_| !transport.is_tls());
        let received = match skips {
            Some(left) => transport.discard(left, scratch)?,
            None => transport.receive(scratch)?,
        };
        let bytes = match received {
            Received::Nothing => return Ok(Heard::Part),
            Received::End => return self.dialogue.hear_end(),
            Received::Bytes(bytes) => bytes,
        };
        if skips.is_some() {
            tally.received(bytes as u64);
            return self.dialogue.skip(bytes as u64);
        }
        let Scratch { wire, plain, .. } = scratch;
        let mut wire = wire.get(..bytes).unwrap_or_default();
        let mut heard = Heard::Part;
        let Some(tls) = transport.tls() else {
            let (heard, body) = self.dialogue.hear(script, wire)?;
            tally.received(body);
            return Ok(heard);
        };
        while !wire.is_empty() {
            tls.take(&mut wire)?;
            while let bytes @ 1.. = tls.read(plain)? {
                let plain = plain.get(..bytes).unwrap_or_default();
                let (more, body) = self.dialogue.hear(script, plain)?;
                tally.received(body);
                if more != Heard::Part {
                    heard = more;
                }
            }
        }
        transport.flush()?;
        Ok(heard)
    }
}
