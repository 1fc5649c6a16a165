//! One direction between two TCP sockets.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::end::Side;
use super::pipe::Pipe;
use super::scratch::{SCRATCH_BYTES, with_scratch};
use super::transferred::ByteCount;

/// Reads that fill the buffer, one after the other, which make a direction
/// bulk.
const BULK_READS: u8 = 2;
/// A splice that moves less does not earn its keep over a copy.
const BULK_BYTES: usize = 16 * 1024;
/// Bytes after which a direction lets other tasks and new events come first:
/// a millisecond or two of splicing. With shorter turns many bulk tunnels wake
/// their peers so often that they cost half as much again.
const TURN_BYTES: usize = 4 * 1024 * 1024;

/// What has been read and not been written, and how to read on.
#[derive(Debug)]
pub(super) struct Direction {
    held: Held,
    /// Bytes still to read.
    left: u64,
    source: Source,
    full_reads: u8,
}

#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Remainder),
    Spliced(Pipe),
}

/// Bytes that the reader did not take at once.
#[derive(Debug)]
struct Remainder {
    bytes: Box<[u8]>,
    written: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Open,
    Ended,
}

/// Which socket of a direction failed.
#[derive(Debug)]
pub(super) enum Failure {
    From(io::Error),
    To(io::Error),
}

impl Failure {
    /// The side that failed, when bytes went to `to`.
    pub(super) fn of(self, to: Side) -> (Side, io::Error) {
        match self {
            Self::From(error) => (to.other(), error),
            Self::To(error) => (to, error),
        }
    }
}

impl Direction {
    /// Moves at most `limit` bytes, after `early` ones that were read before.
    pub(super) fn new(early: Vec<u8>, limit: u64) -> Self {
        Self {
            held: Held::bytes(early),
            left: limit,
            source: Source::Open,
            full_reads: 0,
        }
    }

    /// Whether bytes were read that are not written.
    pub(super) fn holds_bytes(&self) -> bool {
        !matches!(self.held, Held::Nothing)
    }

    /// Moves what can be moved now. Ready when the source has ended or the
    /// limit is reached, and everything is written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        moved: &ByteCount,
    ) -> Poll<Result<(), Failure>> {
        let mut turn = TURN_BYTES;
        loop {
            while self.holds_bytes() {
                ready!(to.poll_write_ready(cx)).map_err(Failure::To)?;
                self.write_held(to, moved)?;
            }
            if self.source == Source::Ended || self.left == 0 {
                return Poll::Ready(Ok(()));
            }
            if turn == 0 {
                // Polled once, it hands our waker to the scheduler, which
                // wakes us after it has looked for events.
                return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
            }
            ready!(from.poll_read_ready(cx)).map_err(Failure::From)?;
            let read = if self.full_reads >= BULK_READS {
                self.splice(from)
            } else {
                self.copy(from, to, moved)
            }?;
            turn = turn.saturating_sub(read);
        }
    }

    /// Reads into the buffer of the thread and writes at once. Returns the
    /// bytes read.
    fn copy(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        moved: &ByteCount,
    ) -> Result<usize, Failure> {
        with_scratch(|scratch| {
            let want = limited(self.left, scratch.len());
            let buffer = scratch.get_mut(..want).unwrap_or_default();
            let Some(read) = read(from, buffer).map_err(Failure::From)? else {
                return Ok(0);
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                self.source = Source::Ended;
                return Ok(0);
            }
            self.count_read(read);
            self.full_reads = if read == SCRATCH_BYTES {
                self.full_reads.saturating_add(1)
            } else {
                0
            };
            let written = write(to, bytes).map_err(Failure::To)?;
            moved.add(written as u64);
            self.held = Held::bytes(bytes.get(written..).unwrap_or_default());
            Ok(read)
        })
    }

    /// Reads into a pipe. Returns the bytes read.
    fn splice(&mut self, from: &TcpStream) -> Result<usize, Failure> {
        let Some(mut pipe) = Pipe::take() else {
            self.full_reads = 0;
            return Ok(0);
        };
        let limit = limited(self.left, usize::MAX);
        // The pipe is empty, so it is the socket that would block.
        match from.try_io(Interest::READABLE, || pipe.fill(from, limit)) {
            Ok(0) => {
                self.source = Source::Ended;
                Ok(0)
            }
            Ok(read) => {
                self.count_read(read);
                if read < BULK_BYTES {
                    self.full_reads = 0;
                }
                self.held = Held::Spliced(pipe);
                Ok(read)
            }
            Err(error) if is_passing(&error) => Ok(0),
            Err(error) => Err(Failure::From(error)),
        }
    }

    fn write_held(&mut self, to: &TcpStream, moved: &ByteCount) -> Result<(), Failure> {
        let written = match &mut self.held {
            Held::Nothing => return Ok(()),
            Held::Bytes(remainder) => {
                let written = write(to, remainder.rest()).map_err(Failure::To)?;
                remainder.written += written;
                if remainder.rest().is_empty() {
                    self.held = Held::Nothing;
                }
                written
            }
            Held::Spliced(pipe) => {
                let written = match to.try_io(Interest::WRITABLE, || pipe.empty(to)) {
                    Ok(written) => written,
                    Err(error) if is_passing(&error) => 0,
                    Err(error) => return Err(Failure::To(error)),
                };
                if pipe.held() == 0 {
                    self.held = Held::Nothing;
                }
                written
            }
        };
        moved.add(written as u64);
        Ok(())
    }

    fn count_read(&mut self, read: usize) {
        self.left = self.left.saturating_sub(read as u64);
    }
}

impl Held {
    fn bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Self::Nothing;
        }
        Self::Bytes(Remainder { bytes, written: 0 })
    }
}

impl Remainder {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }
}

/// Bytes read, 0 at the end, or none when there are none yet.
fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut read = None;
    let result = from.try_io(Interest::READABLE, || {
        let bytes = recv(from.as_raw_fd(), buffer, MsgFlags::empty())?;
        read = Some(bytes);
        emptied(0 < bytes && bytes < buffer.len())
    });
    match (read, result) {
        (Some(bytes), _) => Ok(Some(bytes)),
        (None, Err(error)) if !is_passing(&error) => Err(error),
        (None, _) => Ok(None),
    }
}

/// Bytes written, possibly none.
fn write(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    let result = to.try_io(Interest::WRITABLE, || {
        written = nix::sys::socket::send(to.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        emptied(written < bytes.len())
    });
    match result {
        Err(error) if !is_passing(&error) => Err(error),
        _ => Ok(written),
    }
}

/// After a short read or write the socket has no more to give or to take, and
/// the next event will tell when it has. `WouldBlock` makes tokio wait for that
/// event without a system call that fails.
fn emptied(short: bool) -> io::Result<()> {
    if short {
        Err(io::ErrorKind::WouldBlock.into())
    } else {
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// `most`, or `left` when that is less.
fn limited(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}
