//! The server behind the proxy. It is the end of a tunnel as well, and answers
//! CONNECT itself, so that clients can say the same with no proxy between.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::Result;
use rustix::net::getsockname;
use slab::Slab;

use super::head::{self, Asks};
use super::poller::{Interest, Poller, Ready, Token};
use super::scratch::Scratch;
use super::socket::{self, Received, discard, receive, send};

/// Connections that are accepted at a time.
const ACCEPTED: usize = 64;

const TUNNEL_OPEN: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// What a response is made of, kept for the next one of its kind.
#[derive(Debug)]
struct Response {
    size: u64,
    last: bool,
    /// The head and, of the body, as much as is sent in one piece.
    start: Vec<u8>,
    /// Bytes of head and body.
    length: u64,
}

impl Response {
    fn new(size: u64, last: bool, body: &[u8]) -> Self {
        let connection = if last { "Connection: close\r\n" } else { "" };
        // A proxy has to add the date where the origin does not.
        let mut start = format!(
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n\
             Content-Length: {size}\r\n{connection}\r\n"
        )
        .into_bytes();
        let length = start.len() as u64 + size;
        let piece = usize::try_from(size).unwrap_or(usize::MAX);
        start.extend_from_slice(body.get(..piece).unwrap_or(body));
        Self {
            size,
            last,
            start,
            length,
        }
    }

    /// What comes next when so many bytes are left.
    fn next<'a>(&'a self, left: u64, body: &'a [u8]) -> &'a [u8] {
        let sent = usize::try_from(self.length - left).unwrap_or(usize::MAX);
        match self.start.get(sent..) {
            Some(start @ [_, ..]) => start,
            _ => {
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                body.get(..left).unwrap_or(body)
            }
        }
    }
}

/// What a connection does.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Waits for a request.
    Request,
    /// Receives the body of one.
    Body { left: u64, last: bool },
    /// Sends a response: the index of its kind, and how much of it is left.
    Response { kind: usize, left: u64 },
}

/// An accepted connection.
#[derive(Debug)]
struct Accepted {
    socket: OwnedFd,
    generation: u32,
    step: Step,
    /// A request that is not all there, or that came too early; as a rule it
    /// is empty.
    early: Vec<u8>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Ends,
}

/// The listening socket and its connections.
#[derive(Debug)]
pub(super) struct Origin {
    listener: OwnedFd,
    address: SocketAddr,
    /// Kind of the events of its connections.
    kind: u8,
    connections: Slab<Accepted>,
    accepted: u32,
    responses: Vec<Response>,
}

impl Origin {
    /// Listens on the loopback address; port 0 is any that is free. Its events
    /// have the two kinds.
    pub(super) fn listen(port: u16, listener_kind: u8, kind: u8, poller: &Poller) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = socket::listen(address)?;
        let address = getsockname(&listener)?.try_into()?;
        poller.add(&listener, Token::new(listener_kind, 0, 0), Interest::Read)?;
        Ok(Self {
            listener,
            address,
            kind,
            connections: Slab::new(),
            accepted: 0,
            responses: Vec::new(),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts who waits.
    ///
    /// # Errors
    /// When there are no more file descriptors: the benchmark is not one then.
    pub(super) fn accept(&mut self, poller: &Poller) -> Result<()> {
        for _ in 0..ACCEPTED {
            let Some(socket) = socket::accept(&self.listener)? else {
                return Ok(());
            };
            self.accepted = self.accepted.wrapping_add(1);
            let entry = self.connections.vacant_entry();
            let token = Token::new(self.kind, entry.key(), self.accepted);
            poller.add(&socket, token, Interest::Read)?;
            entry.insert(Accepted {
                socket,
                generation: self.accepted,
                step: Step::Request,
                early: Vec::new(),
            });
        }
        Ok(())
    }

    /// Goes on after an event, and says how many bytes of bodies arrived. A
    /// connection that breaks is the affair of whoever is at its other end.
    pub(super) fn go_on(&mut self, ready: Ready, poller: &Poller, scratch: &mut Scratch) -> u64 {
        let token = ready.token;
        let Some(connection) = self.connections.get_mut(token.index()) else {
            return 0;
        };
        if !token.is_of(connection.generation) {
            return 0;
        }
        let mut turn = Turn {
            connection,
            responses: &mut self.responses,
            poller,
            token,
            received: 0,
        };
        let fate = match turn.connection.step {
            Step::Response { .. } => turn.respond(scratch, true),
            Step::Body { left, last } => turn.take_body(left, last, scratch),
            Step::Request => turn.listen(scratch),
        };
        let received = turn.received;
        if !matches!(fate, Ok(Fate::Stays)) {
            self.connections.remove(token.index());
        }
        received
    }
}

/// What is done for one event.
struct Turn<'a> {
    connection: &'a mut Accepted,
    responses: &'a mut Vec<Response>,
    poller: &'a Poller,
    token: Token,
    received: u64,
}

impl Turn<'_> {
    fn listen(&mut self, scratch: &mut Scratch) -> Result<Fate> {
        let bytes = match receive(&self.connection.socket, &mut scratch.wire)? {
            Received::Nothing => return Ok(Fate::Stays),
            Received::End => return Ok(Fate::Ends),
            Received::Bytes(bytes) => bytes,
        };
        let Scratch { wire, body, .. } = scratch;
        let wire = wire.get(..bytes).unwrap_or_default();
        if self.connection.early.is_empty() {
            return self.hear(wire, body);
        }
        let mut early = std::mem::take(&mut self.connection.early);
        early.extend_from_slice(wire);
        self.hear(&early, body)
    }

    /// Answers the requests in these bytes.
    fn hear(&mut self, mut bytes: &[u8], body: &[u8]) -> Result<Fate> {
        while !bytes.is_empty() {
            if !matches!(self.connection.step, Step::Request) {
                // It waits until the response before it is on its way.
                self.connection.early.extend_from_slice(bytes);
                return Ok(Fate::Stays);
            }
            let Some(request) = head::request(bytes)? else {
                self.connection.early.extend_from_slice(bytes);
                return Ok(Fate::Stays);
            };
            bytes = bytes.get(request.length..).unwrap_or_default();
            let fate = match request.asks {
                Asks::Connect => {
                    // Less than any send buffer has room for.
                    send(&self.connection.socket, TUNNEL_OPEN)?;
                    Fate::Stays
                }
                Asks::Get(size) => self.begin(size, request.last, body)?,
                Asks::Put(length) => {
                    let here = length.min(bytes.len() as u64);
                    self.received += here;
                    bytes = bytes
                        .get(usize::try_from(here).unwrap_or(usize::MAX)..)
                        .unwrap_or_default();
                    let left = length - here;
                    if left == 0 {
                        self.begin(0, request.last, body)?
                    } else {
                        let last = request.last;
                        self.connection.step = Step::Body { left, last };
                        Fate::Stays
                    }
                }
            };
            if fate == Fate::Ends {
                return Ok(fate);
            }
        }
        Ok(Fate::Stays)
    }

    fn take_body(&mut self, left: u64, last: bool, scratch: &mut Scratch) -> Result<Fate> {
        match discard(&self.connection.socket, left, scratch)? {
            Received::Nothing => Ok(Fate::Stays),
            Received::End => Ok(Fate::Ends),
            Received::Bytes(bytes) => {
                self.received += bytes as u64;
                let left = left.saturating_sub(bytes as u64);
                if left == 0 {
                    return self.begin(0, last, &scratch.body);
                }
                self.connection.step = Step::Body { left, last };
                Ok(Fate::Stays)
            }
        }
    }

    /// Begins a response of that size.
    fn begin(&mut self, size: u64, last: bool, body: &[u8]) -> Result<Fate> {
        let known = |response: &Response| response.size == size && response.last == last;
        let kind = self.responses.iter().position(known).unwrap_or_else(|| {
            self.responses.push(Response::new(size, last, body));
            self.responses.len() - 1
        });
        let left = self.responses.get(kind).map_or(0, |known| known.length);
        self.connection.step = Step::Response { kind, left };
        self.send(body, false)
    }

    /// Goes on with a response, and then with what came meanwhile.
    fn respond(&mut self, scratch: &Scratch, waited: bool) -> Result<Fate> {
        let fate = self.send(&scratch.body, waited)?;
        if fate == Fate::Ends || self.connection.early.is_empty() {
            return Ok(fate);
        }
        let early = std::mem::take(&mut self.connection.early);
        self.hear(&early, &scratch.body)
    }

    /// Sends a piece of the response. `waited` when the poller was told to say
    /// that there is room for it.
    fn send(&mut self, body: &[u8], waited: bool) -> Result<Fate> {
        let Step::Response { kind, mut left } = self.connection.step else {
            return Ok(Fate::Stays);
        };
        let Some(response) = self.responses.get(kind) else {
            return Ok(Fate::Ends);
        };
        let sent = send(&self.connection.socket, response.next(left, body))?;
        left = left.saturating_sub(sent.unwrap_or(0) as u64);
        let interest = if left > 0 {
            self.connection.step = Step::Response { kind, left };
            Interest::Write
        } else if response.last {
            return Ok(Fate::Ends);
        } else {
            self.connection.step = Step::Request;
            Interest::Read
        };
        if waited != (interest == Interest::Write) {
            self.poller
                .change(&self.connection.socket, self.token, interest)?;
        }
        Ok(Fate::Stays)
    }
}
