//! Signals as requests to the program.
//!
//! As process 1 of a container a program has no default actions: the kernel
//! drops a SIGTERM that has no handler. Installing [`Signals`] first thing
//! gives it one. Children are not reaped, because none are started.

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP: read the configuration again.
    Reload,
    /// The first SIGTERM or SIGINT: finish what is in flight, then end.
    Drain,
    /// A further SIGTERM or SIGINT: end at once.
    Stop,
}

/// The handlers of SIGTERM, SIGINT and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    draining: bool,
}

/// Why signals cannot be handled.
#[derive(Debug, Error)]
#[error("cannot handle {name}: {cause}")]
pub struct SignalError {
    name: &'static str,
    cause: std::io::Error,
}

impl Signals {
    /// Installs the handlers; from here on the signals no longer end the
    /// process by themselves, and none is lost before [`next`](Self::next) is
    /// first called.
    ///
    /// # Errors
    /// When the kernel refuses a handler or the runtime's wake-up pipe.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O driver enabled.
    pub fn install() -> Result<Self, SignalError> {
        let listen = |kind, name| signal(kind).map_err(|cause| SignalError { name, cause });
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            hangup: listen(SignalKind::hangup(), "SIGHUP")?,
            draining: false,
        })
    }

    /// The next request. Cancel safe. The kernel merges signals of one kind
    /// that come faster than they are taken.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => self.end(),
            _ = self.interrupt.recv() => self.end(),
            _ = self.hangup.recv() => Request::Reload,
        }
    }

    fn end(&mut self) -> Request {
        if std::mem::replace(&mut self.draining, true) {
            Request::Stop
        } else {
            Request::Drain
        }
    }
}
