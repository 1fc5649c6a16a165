//! Bytes that were received and not yet used.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::stream::End;

/// What one read asks for, in bytes: whole requests fit, and the bodies that
/// do not fit move by splice(2).
const READ_BYTES: usize = 16 * 1024;
/// Idle memory that a worker keeps for the next messages.
const MAX_FREE: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer whose memory comes from its worker's stock and returns there, so
/// that a connection which waits holds none.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// An empty vector with room for a message.
pub(crate) fn scratch() -> Scratch {
    let stock = FREE.with_borrow_mut(Vec::pop);
    Scratch(stock.unwrap_or_else(|| Vec::with_capacity(READ_BYTES)))
}

/// A vector from the worker's stock.
#[derive(Debug)]
pub(crate) struct Scratch(Vec<u8>);

impl std::ops::Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        recycle(mem::take(&mut self.0));
    }
}

fn recycle(mut bytes: Vec<u8>) {
    // What grew for one long header would keep its size for ever.
    if bytes.capacity() == 0 || bytes.capacity() > 2 * READ_BYTES {
        return;
    }
    bytes.clear();
    FREE.with_borrow_mut(|free| {
        if free.len() < MAX_FREE {
            free.push(bytes);
        }
    });
}

impl Buffer {
    /// What is there.
    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    /// Drops the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.bytes.clear();
        }
    }

    /// Takes everything out, for somebody who goes on by other means.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let rest = self.data().to_vec();
        self.release();
        rest
    }

    /// Gives the memory back when nothing is in it.
    pub(crate) fn release(&mut self) {
        self.start = 0;
        recycle(mem::take(&mut self.bytes));
    }

    /// Reads once and appends. 0 bytes mean that `from` has ended. Takes memory
    /// only when there is something to read.
    pub(crate) async fn fill<R>(&mut self, from: &mut R) -> io::Result<usize>
    where
        R: AsyncRead + End + Unpin,
    {
        if self.bytes.capacity() == 0 {
            if let Some(socket) = from.socket() {
                poll_fn(|cx| socket.poll_read_ready(cx)).await?;
            }
            self.bytes = mem::take(&mut scratch().0);
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 4 {
            self.bytes.reserve(READ_BYTES);
        }
        from.read_buf(&mut self.bytes).await
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl End for &[u8] {
        fn socket(&self) -> Option<&tokio::net::TcpStream> {
            None
        }
    }

    #[tokio::test]
    async fn bytes_are_used_from_the_front() {
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty());
        let mut from: &[u8] = b"abcdef";
        assert_eq!(buffer.fill(&mut from).await.unwrap(), 6);
        buffer.consume(2);
        let mut more: &[u8] = b"gh";
        assert_eq!(buffer.fill(&mut more).await.unwrap(), 2);
        assert_eq!(buffer.data(), b"cdefgh");
        buffer.consume(6);
        assert!(buffer.is_empty());
        assert_eq!(buffer.fill(&mut more).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_long_header_fits() {
        let long = vec![b'a'; 100_000];
        let (mut buffer, mut from) = (Buffer::default(), &long[..]);
        while buffer.fill(&mut from).await.unwrap() > 0 {}
        assert_eq!(buffer.data(), long);
        assert_eq!(buffer.take(), long);
        assert!(buffer.is_empty());
    }
}
