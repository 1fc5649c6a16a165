//! Two byte streams of any kind made one: TLS, or a stream of HTTP/2.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::direction::Failure;
use super::end::{RelayEnd, Side};
use super::idle::IdleTimer;
use super::scratch::with_scratch;
use super::transferred::{ByteCount, Transferred};

/// Bytes after which a direction lets other tasks and new events come first.
const TURN_BYTES: usize = 1024 * 1024;

/// The future of [`relay_streams`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct StreamRelay<C, A, B> {
    downstream: A,
    upstream: B,
    counts: C,
    up: Half,
    down: Half,
    idle: IdleTimer,
    /// The side that broke first, and the end that this makes.
    broken: Option<RelayEnd>,
}

/// A direction and whether it goes on.
#[derive(Debug)]
enum Half {
    Open(Direction),
    /// The source has ended, and everything is written.
    Ending,
    Closed,
}

/// What has been read and not been written.
#[derive(Debug)]
struct Direction {
    bytes: Box<[u8]>,
    written: usize,
    source: Source,
    /// Something was written that the stream may keep until it is flushed.
    unflushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Open,
    Ended,
}

/// Relays between two streams of any kind as [`relay`](super::relay) does
/// between two TCP sockets, by copying. The streams are dropped at the end: the
/// side that is left when the other broke without having been shut down, so
/// that it can tell.
///
/// # Panics
/// Outside a tokio runtime with its time driver enabled.
pub fn relay_streams<C, A, B>(
    downstream: A,
    upstream: B,
    idle: Duration,
    counts: C,
) -> StreamRelay<C, A, B>
where
    C: AsRef<Transferred>,
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    StreamRelay {
        downstream,
        upstream,
        counts,
        up: Half::open(Vec::new()),
        down: Half::open(Vec::new()),
        idle: IdleTimer::new(idle),
        broken: None,
    }
}

impl<C, A, B> StreamRelay<C, A, B> {
    /// Where it counts.
    pub fn counts_mut(&mut self) -> &mut C {
        &mut self.counts
    }

    /// Sends first what was read from downstream (`up`) and from upstream
    /// (`down`) before the relay began.
    pub fn with_early(mut self, up: Vec<u8>, down: Vec<u8>) -> Self {
        self.up = Half::open(up);
        self.down = Half::open(down);
        self
    }

    /// Nothing more is written to `side`; what it has sent is still read.
    fn side_broke(&mut self, side: Side, error: io::Error, hung_up: bool) {
        match side {
            Side::Downstream => self.down = Half::Closed,
            Side::Upstream => self.up = Half::Closed,
        }
        self.broken
            .get_or_insert_with(|| RelayEnd::broken(side, error, hung_up));
    }
}

impl<C, A, B> Future for StreamRelay<C, A, B>
where
    C: AsRef<Transferred> + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    type Output = RelayEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let this = self.get_mut();
        let before = this.counts.as_ref().total();
        let (client, server) = (&mut this.downstream, &mut this.upstream);
        let is_broken = this.broken.is_some();
        let moved = &this.counts.as_ref().up;
        if let Poll::Ready(Err(failure)) = this.up.poll(cx, client, server, moved, is_broken) {
            let hung_up = this.down.is_closed();
            let (side, error) = failure.of(Side::Upstream);
            this.side_broke(side, error, hung_up);
        }
        let (client, server) = (&mut this.downstream, &mut this.upstream);
        let is_broken = this.broken.is_some();
        let moved = &this.counts.as_ref().down;
        if let Poll::Ready(Err(failure)) = this.down.poll(cx, server, client, moved, is_broken) {
            let hung_up = this.up.is_closed();
            let (side, error) = failure.of(Side::Downstream);
            this.side_broke(side, error, hung_up);
        }
        if this.up.is_closed() && this.down.is_closed() {
            return Poll::Ready(this.broken.take().unwrap_or(RelayEnd::Finished));
        }
        if before != this.counts.as_ref().total() {
            this.idle.touch();
        }
        ready!(this.idle.poll_expired(cx));
        Poll::Ready(this.broken.take().unwrap_or(RelayEnd::Idle))
    }
}

impl Half {
    fn open(early: Vec<u8>) -> Self {
        Self::Open(Direction {
            unflushed: !early.is_empty(),
            bytes: early.into(),
            written: 0,
            source: Source::Open,
        })
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Ready when it is closed. When a side `is_broken`, the other is flushed
    /// instead of being shut down.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &ByteCount,
        is_broken: bool,
    ) -> Poll<Result<(), Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if let Self::Open(direction) = self {
            let result = ready!(direction.poll(cx, from, to, moved));
            *self = match result {
                Ok(()) => Self::Ending,
                Err(_) => Self::Closed,
            };
            result?;
        }
        if let Self::Ending = self {
            // A peer that has gone has no use for it, and the other direction
            // finds out.
            let _ = if is_broken {
                ready!(Pin::new(to).poll_flush(cx))
            } else {
                ready!(Pin::new(to).poll_shutdown(cx))
            };
            *self = Self::Closed;
        }
        Poll::Ready(Ok(()))
    }
}

impl Direction {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Moves what can be moved now. Ready when the source has ended and
    /// everything is written.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &ByteCount,
    ) -> Poll<Result<(), Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut turn = TURN_BYTES;
        loop {
            while !self.rest().is_empty() {
                let written = ready!(write(to, cx, self.rest(), moved)).map_err(Failure::To)?;
                self.written += written;
            }
            self.bytes = Box::default();
            self.written = 0;
            if self.source == Source::Ended {
                return Poll::Ready(Ok(()));
            }
            if turn == 0 {
                // Polled once, it hands our waker to the scheduler, which
                // wakes us after it has looked for events.
                return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
            }
            match self.copy(cx, from, to, moved)? {
                Poll::Ready(read) => turn = turn.saturating_sub(read),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Failure::To)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads into the buffer of the thread and writes at once; keeps what the
    /// other side does not take. Returns the bytes read.
    fn copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &ByteCount,
    ) -> Result<Poll<usize>, Failure>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(result) => result.map_err(Failure::From)?,
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.source = Source::Ended;
                return Ok(Poll::Ready(0));
            }
            self.unflushed = true;
            let written = match write(to, cx, bytes, moved) {
                Poll::Pending => 0,
                Poll::Ready(result) => result.map_err(Failure::To)?,
            };
            self.bytes = bytes.get(written..).unwrap_or_default().into();
            Ok(Poll::Ready(bytes.len()))
        })
    }
}

/// Bytes written, at least one.
fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    cx: &mut Context<'_>,
    bytes: &[u8],
    moved: &ByteCount,
) -> Poll<io::Result<usize>> {
    let written = ready!(Pin::new(to).poll_write(cx, bytes))?;
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    moved.add(written as u64);
    Poll::Ready(Ok(written))
}
