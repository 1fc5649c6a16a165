//! Pipes, lent to directions that splice.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// Most pipes of the process, two file descriptors each. Only a direction
/// whose reader is slower than its writer keeps one while it waits; when all
/// are kept, further directions copy.
pub const MAX_PIPES: usize = 64;

/// What a pipe is asked to hold, the best first: the larger, the fewer calls.
/// An unprivileged user gets no single pipe over 1 MiB (`fs.pipe-max-size`) and
/// 64 MiB in all (`fs.pipe-user-pages-soft`).
const PIPE_BYTES: [i32; 2] = [1024 * 1024, 256 * 1024];
/// A pipe of which the kernel allows less is no better than copying.
const LEAST_BYTES: usize = 64 * 1024;
/// Empty pipes that a thread keeps for the next who needs one.
const SPARE: usize = 8;

static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SPARES: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

/// A pipe on loan. An empty one goes back to the thread when it is dropped.
pub(super) struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pipe {
    /// An empty pipe, or none when all are kept, no file descriptor is left,
    /// or the kernel gives this user only tiny ones.
    pub(super) fn take() -> Option<Self> {
        let spare = SPARES
            .try_with(|spares| spares.borrow_mut().pop())
            .ok()
            .flatten();
        spare.or_else(Ends::open).map(|ends| Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Bytes in the pipe.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `limit` bytes from `from`: 0 at its end. While the pipe
    /// is empty, `WouldBlock` means that `from` has nothing; otherwise it may
    /// also mean that the pipe is full, whatever the sizes say.
    pub(super) fn fill(&mut self, from: impl AsFd, limit: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(
            from,
            None,
            &ends.write,
            None,
            limit.min(ends.capacity),
            flags(),
        )?;
        self.held += moved;
        Ok(moved)
    }

    /// Gives bytes to `to`, as many as it takes.
    pub(super) fn empty(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(&ends.read, None, to, None, self.held, flags())?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held > 0 {
            return;
        }
        // A thread that is ending keeps none; then the pipe is closed here.
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARE {
                spares.push(ends);
            }
        });
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Ends {
    fn open() -> Option<Self> {
        if PIPES.fetch_add(1, Ordering::Relaxed) >= MAX_PIPES {
            PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Ok((read, write)) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC) else {
            PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        // Where the user's share is used up, what the pipe has may do.
        let capacity = PIPE_BYTES
            .into_iter()
            .map(FcntlArg::F_SETPIPE_SZ)
            .chain([FcntlArg::F_GETPIPE_SZ])
            .find_map(|size| usize::try_from(fcntl(&write, size).ok()?).ok())
            .unwrap_or_default();
        let ends = Self {
            read,
            write,
            capacity,
        };
        (capacity >= LEAST_BYTES).then_some(ends)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
