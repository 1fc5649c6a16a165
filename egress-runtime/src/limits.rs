//! How many connections there may be: in all, and of one client.
//!
//! A connection takes two file descriptors, the client's and the outside
//! host's. What the process needs besides stays in reserve, so that at the
//! limit the admin endpoint, the resolver and splicing relays still work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::sync::Notify;

use crate::relay::MAX_PIPES;

/// More than this is never asked for.
const MOST_OPEN_FILES: u64 = 1 << 20;
/// Descriptors per connection.
const PER_CONNECTION: usize = 2;
/// Admin endpoint, resolver, file watch, signals, logs.
const RESERVE: usize = 160;
/// Event queues and the listening sockets of a few ports.
const RESERVE_PER_WORKER: usize = 16;
/// The last descriptors, which no connection gets, whatever the limit of
/// connections is; of few descriptors a quarter.
const LAST: u64 = 128;

/// The first of the last descriptors.
static FIRST_OF_LAST: AtomicI32 = AtomicI32::new(i32::MAX);

/// Admits connections up to the limits. Clones share counts.
#[derive(Clone, Debug)]
pub struct Limits {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections: usize,
    per_client: Option<PerClient>,
    open: AtomicUsize,
    freed: Notify,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct PerClient {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// Which limit refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There are as many connections as there may be.
    #[error("we have {0} connections open, the most that EGRESS_MAX_CONNECTIONS allows")]
    Total(usize),
    /// This client has as many connections as one may have.
    #[error(
        "the client has {0} connections open, the most that EGRESS_MAX_CONNECTIONS_PER_CLIENT allows"
    )]
    PerClient(usize),
}

/// Counts as one connection until it is dropped.
#[must_use = "a permit that is dropped at once counts nothing"]
pub struct Permit {
    shared: Arc<Shared>,
    client: Option<IpAddr>,
}

impl Limits {
    /// At most `connections` in all, and `per_client` of one address.
    #[must_use]
    pub fn new(connections: usize, per_client: Option<usize>) -> Self {
        let per_client = per_client.map(|most| PerClient {
            most,
            open: Mutex::default(),
        });
        Self {
            shared: Arc::new(Shared {
                connections,
                per_client,
                open: AtomicUsize::new(0),
                freed: Notify::new(),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// Most connections in all.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections
    }

    /// Connections that are admitted now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Counts a connection from `client`.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(&self, client: IpAddr) -> Result<Permit, Refusal> {
        let shared = &self.shared;
        if shared.open.fetch_add(1, Ordering::Relaxed) >= shared.connections {
            shared.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Total(shared.connections));
        }
        let mut permit = Permit {
            shared: Arc::clone(shared),
            client: None,
        };
        if let Some(per_client) = &shared.per_client {
            per_client.add(client)?;
            permit.client = Some(client);
        }
        Ok(permit)
    }

    /// Waits until a permit is dropped.
    pub async fn freed(&self) {
        let notified = self.shared.freed.notified();
        let _waiting = Waiting::new(&self.shared.waiting);
        notified.await;
    }
}

/// Connections that `open_files` file descriptors allow, at least one.
#[must_use]
pub fn connections_within(open_files: u64, workers: usize) -> usize {
    let reserve = RESERVE
        .saturating_add(2 * MAX_PIPES)
        .saturating_add(workers.saturating_mul(RESERVE_PER_WORKER));
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    (open_files.saturating_sub(reserve) / PER_CONNECTION).max(1)
}

/// Raises the limit of open file descriptors as far as the process may, and
/// returns what it is then. From now on the last of them are kept from
/// connections, accepted and dialled: the admin endpoint answers when there
/// are too many.
#[must_use]
pub fn raise_open_files() -> u64 {
    let open_files = raise();
    let first_of_last = open_files - LAST.min(open_files / 4);
    FIRST_OF_LAST.store(
        i32::try_from(first_of_last).unwrap_or(i32::MAX),
        Ordering::Relaxed,
    );
    open_files
}

fn raise() -> u64 {
    const POSIX_LEAST: u64 = 20;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return POSIX_LEAST;
    };
    let wanted = hard.min(MOST_OPEN_FILES);
    if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        return wanted;
    }
    soft
}

/// Whether a connection has one of the last descriptors. The kernel hands out
/// the lowest that is free, so all others are in use.
pub(crate) fn has_last(connection: &impl AsRawFd) -> bool {
    connection.as_raw_fd() >= FIRST_OF_LAST.load(Ordering::Relaxed)
}

impl PerClient {
    fn add(&self, client: IpAddr) -> Result<(), Refusal> {
        let mut open = self.lock();
        let count = open.entry(client).or_default();
        if *count >= self.most {
            return Err(Refusal::PerClient(self.most));
        }
        *count += 1;
        Ok(())
    }

    fn remove(&self, client: IpAddr) {
        if let Entry::Occupied(mut count) = self.lock().entry(client) {
            if *count.get() <= 1 {
                count.remove();
            } else {
                *count.get_mut() -= 1;
            }
        }
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let (Some(client), Some(per_client)) = (self.client, &self.shared.per_client) {
            per_client.remove(client);
        }
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        if self.shared.waiting.load(Ordering::Relaxed) > 0 {
            self.shared.freed.notify_waiters();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// One more who waits, so that a permit need not tell nobody.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn admits_up_to_the_total_and_again_after_a_drop() {
        let limits = Limits::new(2, None);
        let first = limits.admit(A).unwrap();
        let second = limits.admit(A).unwrap();
        assert_eq!(limits.admit(B).unwrap_err(), Refusal::Total(2));
        assert_eq!(limits.open(), 2);
        drop(first);
        let third = limits.admit(B).unwrap();
        assert_eq!(limits.open(), 2);
        drop((second, third));
        assert_eq!(limits.open(), 0);
    }

    #[test]
    fn counts_each_client_and_forgets_those_that_left() {
        let limits = Limits::new(10, Some(1));
        let first = limits.admit(A).unwrap();
        assert_eq!(limits.admit(A).unwrap_err(), Refusal::PerClient(1));
        assert_eq!(limits.open(), 1, "a refused connection counts nowhere");
        let other = limits.admit(B).unwrap();
        drop(first);
        let again = limits.admit(A).unwrap();
        drop((other, again));
        let clients = &limits.shared.per_client.as_ref().unwrap().open;
        assert!(clients.lock().unwrap().is_empty());
    }

    #[test]
    fn counts_are_right_over_threads() {
        let limits = Limits::new(3, Some(3));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let permit = limits.admit(A);
                        assert!(
                            limits.open() <= 3 + 4,
                            "at most one attempt per thread more"
                        );
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(limits.open(), 0);
        assert!(limits.admit(A).is_ok());
    }

    #[tokio::test]
    async fn tells_when_a_permit_is_dropped() {
        let limits = Limits::new(1, None);
        let permit = limits.admit(A).unwrap();
        let mut freed = std::pin::pin!(limits.freed());
        let pending =
            std::future::poll_fn(|cx| std::task::Poll::Ready(freed.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        drop(permit);
        freed.await;
        assert_eq!(limits.shared.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn keeps_a_reserve_of_descriptors() {
        assert_eq!(connections_within(1024, 1), (1024 - 160 - 128 - 16) / 2);
        assert_eq!(connections_within(20_000, 2), (20_000 - 160 - 128 - 32) / 2);
        assert_eq!(connections_within(64, 64), 1);
    }

    #[test]
    fn raises_the_soft_limit_to_the_hard_one() {
        let raised = raise_open_files();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raised, soft);
        assert!(soft >= hard.min(MOST_OPEN_FILES));
    }

    #[test]
    fn refusals_name_the_variable() {
        assert_eq!(
            Refusal::PerClient(8).to_string(),
            "the client has 8 connections open, the most that \
             EGRESS_MAX_CONNECTIONS_PER_CLIENT allows"
        );
    }
}
