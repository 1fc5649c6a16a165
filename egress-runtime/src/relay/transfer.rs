//! A given number of bytes from one socket to another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::net::TcpStream;

use super::direction::{Direction, Failure};
use super::transferred::ByteCount;

/// Which socket of a transfer failed.
#[derive(Debug, Error)]
pub enum TransferError {
    /// Reading failed.
    #[error("cannot read: {0}")]
    From(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write: {0}")]
    To(#[source] io::Error),
}

/// The future of [`transfer`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Transfer<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    direction: Direction,
    moved: &'a ByteCount,
    before: u64,
}

/// Moves bytes from `from` to `to` until `limit` are written or `from` ends,
/// and returns how many; fewer than `limit` mean that `from` has ended.
/// Neither socket is shut down. What is written is counted in `moved` as it
/// happens, so that the caller can tell when nothing moves; nobody else may
/// count there meanwhile.
///
/// Bytes that were read and not yet written are lost when the future is
/// dropped, so both connections are unusable then.
pub fn transfer<'a>(
    from: &'a TcpStream,
    to: &'a TcpStream,
    limit: u64,
    moved: &'a ByteCount,
) -> Transfer<'a> {
    Transfer {
        from,
        to,
        direction: Direction::new(Vec::new(), limit),
        moved,
        before: moved.get(),
    }
}

impl Future for Transfer<'_> {
    type Output = Result<u64, TransferError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        ready!(this.direction.poll(cx, this.from, this.to, this.moved)).map_err(|failure| {
            match failure {
                Failure::From(error) => TransferError::From(error),
                Failure::To(error) => TransferError::To(error),
            }
        })?;
        Poll::Ready(Ok(this.moved.get().saturating_sub(this.before)))
    }
}
