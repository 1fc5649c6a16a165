//! Pipes that are not in use.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Bytes that a pipe has room for; what the kernel refuses stays at its
/// default.
pub(super) const SIZE: usize = 1 << 20;

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) from: OwnedFd,
    pub(super) to: OwnedFd,
    pub(super) held: usize,
}

/// Empty pipes for the next who need one.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    pub(super) fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&to, SIZE);
        Ok(Pipe { from, to, held: 0 })
    }

    /// A pipe that holds bytes of a connection that is gone is closed.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.0.push(pipe);
        }
    }
}
