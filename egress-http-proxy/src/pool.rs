//! Upstream connections that wait for another request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

/// Most connections that wait on a worker, and most for one address. More cost
/// more than they save.
pub(crate) const MAX_WAITING: usize = 512;
const MAX_PER_ADDRESS: usize = 64;
/// How long a connection waits. Most servers wait longer.
pub(crate) const MAX_IDLE: Duration = Duration::from_secs(30);
/// How long ago a connection may have been used to carry a request that cannot
/// be sent twice: no server closes so soon, so it is not lost.
const SAFE_IDLE: Duration = Duration::from_secs(2);

/// The waiting connections of one worker, by the address that was judged and
/// dialled: a name that comes to mean another address gets another connection.
#[derive(Debug)]
pub(crate) struct Pool {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The newest last.
    by_address: HashMap<SocketAddr, Vec<Waiting>>,
    count: usize,
}

#[derive(Debug)]
struct Waiting {
    stream: TcpStream,
    since: Instant,
}

impl Pool {
    /// A pool for at most `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            inner: Mutex::default(),
        }
    }

    /// A connection to one of `addresses`, and its address; the one that was
    /// used last is the least likely to be closed.
    pub(crate) fn take(
        &self,
        addresses: &[SocketAddr],
        may_repeat: bool,
        now: Instant,
    ) -> Option<(TcpStream, SocketAddr)> {
        let max_idle = if may_repeat { MAX_IDLE } else { SAFE_IDLE };
        let mut inner = self.lock();
        for address in addresses {
            while let Some(waiting) = inner.pop(address) {
                if now.saturating_duration_since(waiting.since) > max_idle {
                    // Those below it are older still.
                    inner.forget(address);
                    break;
                }
                if is_open(&waiting.stream) {
                    return Some((waiting.stream, *address));
                }
            }
        }
        None
    }

    /// Keeps `stream` for another request.
    pub(crate) fn put(&self, address: SocketAddr, stream: TcpStream, now: Instant) {
        let mut inner = self.lock();
        if inner.count >= self.most {
            return;
        }
        let waiting = inner.by_address.entry(address).or_default();
        if waiting.len() < MAX_PER_ADDRESS {
            waiting.push(Waiting { stream, since: now });
            inner.count += 1;
        }
    }

    /// Closes what waited too long or was closed by the other side.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut inner = self.lock();
        inner.by_address.retain(|_, waiting| {
            waiting.retain(|waiting| {
                now.saturating_duration_since(waiting.since) <= MAX_IDLE && is_open(&waiting.stream)
            });
            !waiting.is_empty()
        });
        inner.count = inner.by_address.values().map(Vec::len).sum();
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn pop(&mut self, address: &SocketAddr) -> Option<Waiting> {
        let popped = self.by_address.get_mut(address)?.pop()?;
        self.count -= 1;
        Some(popped)
    }

    fn forget(&mut self, address: &SocketAddr) {
        if let Some(waiting) = self.by_address.remove(address) {
            self.count -= waiting.len();
        }
    }
}

/// A server that says something unasked is closing, or broken.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        (client, listener.accept().await.unwrap().0, address)
    }

    #[tokio::test]
    async fn a_connection_is_used_again_for_its_address_only() {
        let (client, _server, address) = pair().await;
        let (pool, now) = (Pool::new(MAX_WAITING), Instant::now());
        pool.put(address, client, now);
        let other = SocketAddr::new(address.ip(), 1);
        assert!(pool.take(&[other], true, now).is_none());
        assert!(pool.take(&[other, address], true, now).is_some());
        assert!(pool.take(&[address], true, now).is_none());
    }

    #[tokio::test]
    async fn what_was_closed_or_waited_too_long_is_not_used() {
        let (pool, now) = (Pool::new(MAX_WAITING), Instant::now());
        let (client, mut server, address) = pair().await;
        server
            .write_all(b"HTTP/1.1 408 Request Timeout\r\n")
            .await
            .unwrap();
        client.readable().await.unwrap();
        pool.put(address, client, now);
        assert!(pool.take(&[address], true, now).is_none());

        let (client, _server, address) = pair().await;
        pool.put(address, client, now);
        assert!(pool.take(&[address], false, now + SAFE_IDLE * 2).is_none());

        let (client, _server, address) = pair().await;
        pool.put(address, client, now);
        pool.sweep(now + MAX_IDLE * 2);
        assert_eq!(pool.lock().count, 0);
        assert!(pool.take(&[address], true, now).is_none());
    }
}
