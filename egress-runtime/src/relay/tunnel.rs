//! Two TCP connections made one.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::direction::Direction;
use super::end::{RelayEnd, Side};
use super::idle::IdleTimer;
use super::send_queue::is_delivered;
use super::transferred::Transferred;

/// How often, and how many times, to look whether a side has all the bytes
/// that stand before the reset.
const DELIVERY_CHECK: Duration = Duration::from_millis(20);
const DELIVERY_CHECKS: u8 = 100;

/// The future of [`relay`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Relay<C> {
    downstream: TcpStream,
    upstream: TcpStream,
    counts: C,
    up: Half,
    down: Half,
    idle: IdleTimer,
    broken: Option<Box<Broken>>,
}

/// A direction and whether it goes on.
#[derive(Debug)]
enum Half {
    Open(Direction),
    Closed,
}

/// The side that broke first. The other gets what arrived before, and then a
/// reset.
#[derive(Debug)]
struct Broken {
    side: Side,
    end: RelayEnd,
    checks: u8,
}

/// Relays between `downstream` and `upstream` until both have ended, one
/// breaks, or no byte moved either way for `idle`. Bytes are counted in
/// `counts` when they are written. See the [module](super) for what each side
/// sees.
///
/// Dropping the future closes both connections, with a reset where bytes are
/// lost.
///
/// # Panics
/// Outside a tokio runtime with its I/O and time drivers enabled.
pub fn relay<C: AsRef<Transferred>>(
    downstream: TcpStream,
    upstream: TcpStream,
    idle: Duration,
    counts: C,
) -> Relay<C> {
    Relay {
        downstream,
        upstream,
        counts,
        up: Half::Open(Direction::new(Vec::new(), u64::MAX)),
        down: Half::Open(Direction::new(Vec::new(), u64::MAX)),
        idle: IdleTimer::new(idle),
        broken: None,
    }
}

impl<C: AsRef<Transferred>> Relay<C> {
    /// Where it counts.
    pub fn counts_mut(&mut self) -> &mut C {
        &mut self.counts
    }

    /// Sends first what was read from downstream (`up`) and from upstream
    /// (`down`) before the relay began.
    pub fn with_early(mut self, up: Vec<u8>, down: Vec<u8>) -> Self {
        self.up = Half::Open(Direction::new(up, u64::MAX));
        self.down = Half::Open(Direction::new(down, u64::MAX));
        self
    }

    fn poll_half(&mut self, cx: &mut Context<'_>, to: Side) {
        let (half, opposite, from, socket, moved) = match to {
            Side::Upstream => (
                &mut self.up,
                &self.down,
                &self.downstream,
                &self.upstream,
                &self.counts.as_ref().up,
            ),
            Side::Downstream => (
                &mut self.down,
                &self.up,
                &self.upstream,
                &self.downstream,
                &self.counts.as_ref().down,
            ),
        };
        let Half::Open(direction) = half else { return };
        let before = moved.get();
        let result = direction.poll(cx, from, socket, moved);
        if moved.get() != before {
            self.idle.touch();
        }
        let Poll::Ready(result) = result else { return };
        *half = Half::Closed;
        let hung_up = matches!(opposite, Half::Closed);
        match result {
            // Both are closed now, which says the same.
            Ok(()) if self.broken.is_some() || hung_up => {}
            // A peer that has gone has no use for it, and the other direction
            // finds out.
            Ok(()) => {
                let _ = SockRef::from(socket).shutdown(Shutdown::Write);
            }
            Err(failure) => {
                let (side, error) = failure.of(to);
                self.side_broke(side, error, hung_up);
            }
        }
    }

    /// Nothing more is written to `side`; what it has sent is still read.
    /// `hung_up` when at least one stream between it and us had ended.
    fn side_broke(&mut self, side: Side, error: io::Error, hung_up: bool) {
        match side {
            Side::Downstream => self.down = Half::Closed,
            Side::Upstream => self.up = Half::Closed,
        }
        if let Some(broken) = &mut self.broken {
            if broken.side != side {
                broken.checks = DELIVERY_CHECKS;
            }
            return;
        }
        let end = RelayEnd::broken(side, error, hung_up);
        let checks = 0;
        self.broken = Some(Box::new(Broken { side, end, checks }));
    }

    /// Resets the side that is left, when it has what came before.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let Some(broken) = &mut self.broken else {
            return Poll::Ready(RelayEnd::Finished);
        };
        let left = match broken.side {
            Side::Downstream => &self.upstream,
            Side::Upstream => &self.downstream,
        };
        while broken.checks < DELIVERY_CHECKS && !is_delivered(left) {
            if broken.checks > 0 {
                ready!(self.idle.poll_set(cx));
            }
            self.idle.set(DELIVERY_CHECK);
            broken.checks += 1;
        }
        reset(left);
        Poll::Ready(std::mem::replace(&mut broken.end, RelayEnd::Finished))
    }
}

impl<C: AsRef<Transferred> + Unpin> Future for Relay<C> {
    type Output = RelayEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let this = self.get_mut();
        this.poll_half(cx, Side::Upstream);
        this.poll_half(cx, Side::Downstream);
        if let (Half::Closed, Half::Closed) = (&this.up, &this.down) {
            return this.poll_reset(cx);
        }
        ready!(this.idle.poll_expired(cx));
        Poll::Ready(match this.broken.take() {
            Some(broken) => broken.end,
            None => RelayEnd::Idle,
        })
    }
}

impl<C> Drop for Relay<C> {
    fn drop(&mut self) {
        if self.up.holds_bytes() {
            reset(&self.upstream);
        }
        if self.down.holds_bytes() {
            reset(&self.downstream);
        }
    }
}

impl Half {
    fn holds_bytes(&self) -> bool {
        match self {
            Self::Open(direction) => direction.holds_bytes(),
            Self::Closed => false,
        }
    }
}

/// Makes the close of `stream` a reset.
fn reset(stream: &TcpStream) {
    // Only a socket that is gone already refuses.
    let _ = stream.set_zero_linger();
}
