//! One of the two directions of a connection.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{SpliceFlags, splice};

use super::pipes::{Pipe, Pipes, SIZE};

/// Moves bytes one way. It has a pipe only while there are bytes in it.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pipe: Option<Pipe>,
    /// The source has ended.
    ended: bool,
    /// The sink was told so.
    closed: bool,
}

impl Direction {
    pub(super) fn wants_to_read(&self) -> bool {
        self.pipe.is_none() && !self.ended
    }

    pub(super) fn wants_to_write(&self) -> bool {
        self.pipe.is_some()
    }

    /// Whether all of it was passed on, its end too.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Gives the pipe away.
    pub(super) fn release(&mut self, pipes: &mut Pipes) {
        if let Some(pipe) = self.pipe.take() {
            pipes.give_back(pipe);
        }
    }

    /// Takes what the source has, when there is something, and passes on what
    /// the sink has room for.
    pub(super) fn advance(
        &mut self,
        source: &OwnedFd,
        readable: bool,
        sink: &OwnedFd,
        pipes: &mut Pipes,
    ) -> io::Result<()> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        if readable && self.wants_to_read() {
            let mut pipe = pipes.take()?;
            match splice(source, None, &pipe.to, None, SIZE, flags) {
                Ok(0) => self.ended = true,
                Ok(bytes) => pipe.held = bytes,
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.pipe = Some(pipe);
        }
        if let Some(pipe) = &mut self.pipe {
            if pipe.held > 0 {
                match splice(&pipe.from, None, sink, None, pipe.held, flags) {
                    Ok(bytes) => pipe.held = pipe.held.saturating_sub(bytes),
                    // The sink tells when there is room.
                    Err(Errno::AGAIN) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            if pipe.held == 0 {
                self.release(pipes);
            }
        }
        if self.ended && self.pipe.is_none() && !self.closed {
            self.closed = true;
            shutdown(sink, Shutdown::Write)?;
        }
        Ok(())
    }
}
