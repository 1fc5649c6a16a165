//! The loop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use slab::Slab;

use super::direction::Direction;
use super::pipes::Pipes;
use crate::load::arguments::RelayArguments;
use crate::load::poller::{Interest, Poller, Ready, Token};
use crate::load::socket;

/// Kinds of tokens.
const LISTENER: u8 = 0;
const DOWNSTREAM: u8 = 1;
const UPSTREAM: u8 = 2;

/// Connections that are accepted at a time.
const ACCEPTED: usize = 64;

/// A socket, and what the poller was told of it.
#[derive(Debug)]
struct Side {
    kind: u8,
    socket: OwnedFd,
    interest: Option<Interest>,
}

impl Side {
    fn new(kind: u8, socket: OwnedFd) -> Self {
        Self {
            kind,
            socket,
            interest: None,
        }
    }

    /// Hears of what is wanted. A socket that wants nothing is taken out, or it
    /// would be told of its end all the time.
    fn want(
        &mut self,
        (read, write): (bool, bool),
        poller: &Poller,
        key: usize,
        generation: u32,
    ) -> io::Result<()> {
        let interest = match (read, write) {
            (true, true) => Some(Interest::Both),
            (true, false) => Some(Interest::Read),
            (false, true) => Some(Interest::Write),
            (false, false) => None,
        };
        if interest == self.interest {
            return Ok(());
        }
        let token = Token::new(self.kind, key, generation);
        match (self.interest, interest) {
            (None, Some(interest)) => poller.add(&self.socket, token, interest)?,
            (Some(_), Some(interest)) => poller.change(&self.socket, token, interest)?,
            (_, None) => poller.remove(&self.socket)?,
        }
        self.interest = interest;
        Ok(())
    }
}

/// Two sockets that are joined.
#[derive(Debug)]
struct Pair {
    generation: u32,
    downstream: Side,
    upstream: Side,
    up: Direction,
    down: Direction,
}

impl Pair {
    fn advance(&mut self, ready: Ready, poller: &Poller, pipes: &mut Pipes) -> io::Result<()> {
        let readable = |kind| ready.readable && ready.token.kind == kind;
        let (downstream, upstream) = (&self.downstream.socket, &self.upstream.socket);
        self.up
            .advance(downstream, readable(DOWNSTREAM), upstream, pipes)?;
        self.down
            .advance(upstream, readable(UPSTREAM), downstream, pipes)?;
        self.want(poller, ready.token.index())
    }

    fn want(&mut self, poller: &Poller, key: usize) -> io::Result<()> {
        let Self { up, down, .. } = self;
        let wanted = (up.wants_to_read(), down.wants_to_write());
        self.downstream.want(wanted, poller, key, self.generation)?;
        let wanted = (down.wants_to_read(), up.wants_to_write());
        self.upstream.want(wanted, poller, key, self.generation)
    }
}

/// Listens, and joins whoever connects with one address.
pub struct Relay {
    listener: OwnedFd,
    to: SocketAddr,
    poller: Poller,
    pairs: Slab<Pair>,
    accepted: u32,
    pipes: Pipes,
}

impl Relay {
    /// Listens.
    ///
    /// # Errors
    /// When the address is in use or is not ours.
    pub fn listen(arguments: &RelayArguments) -> Result<Self> {
        let poller = Poller::new().context("making an epoll instance")?;
        let listener = socket::listen(arguments.listen)?;
        poller.add(&listener, Token::new(LISTENER, 0, 0), Interest::Read)?;
        Ok(Self {
            listener,
            to: arguments.to,
            poller,
            pairs: Slab::new(),
            accepted: 0,
            pipes: Pipes::default(),
        })
    }

    /// Relays until something is wrong with it, not with a connection.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn run(mut self) -> Result<()> {
        loop {
            let told = self.poller.wait(None)?;
            for ready in 0..told {
                match self.poller.ready(ready) {
                    Some(ready) if ready.token.kind == LISTENER => self.accept()?,
                    Some(ready) => self.advance(ready),
                    None => {}
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPTED {
            let Some(downstream) = socket::accept(&self.listener)? else {
                return Ok(());
            };
            self.accepted = self.accepted.wrapping_add(1);
            // A connection that cannot be made ends the one that asked for it.
            let Ok(upstream) = socket::connect(self.to, |_| Ok(())) else {
                continue;
            };
            let mut pair = Pair {
                generation: self.accepted,
                downstream: Side::new(DOWNSTREAM, downstream),
                upstream: Side::new(UPSTREAM, upstream),
                up: Direction::default(),
                down: Direction::default(),
            };
            let entry = self.pairs.vacant_entry();
            pair.want(&self.poller, entry.key())?;
            entry.insert(pair);
        }
        Ok(())
    }

    fn advance(&mut self, ready: Ready) {
        let key = ready.token.index();
        let Some(pair) = self.pairs.get_mut(key) else {
            return;
        };
        if !ready.token.is_of(pair.generation) {
            return;
        }
        let advanced = pair.advance(ready, &self.poller, &mut self.pipes);
        if advanced.is_err() || (pair.up.is_closed() && pair.down.is_closed()) {
            pair.up.release(&mut self.pipes);
            pair.down.release(&mut self.pipes);
            self.pairs.remove(key);
        }
    }
}
