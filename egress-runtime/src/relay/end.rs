//! How a relay ended.

use std::io;

/// How a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides ended their streams, or one broke when at least one stream
    /// between it and us had ended: how programs hang up that do not wait.
    Finished,
    /// No byte moved either way for the idle time.
    Idle,
    /// The connection to the client broke.
    Downstream(io::Error),
    /// The connection to the outside host broke.
    Upstream(io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Downstream,
    Upstream,
}

impl RelayEnd {
    /// The end when `side` broke. `hung_up` when at least one stream between it
    /// and us had ended before.
    pub(super) fn broken(side: Side, error: io::Error, hung_up: bool) -> Self {
        if hung_up && is_disconnect(&error) {
            return Self::Finished;
        }
        match side {
            Side::Downstream => Self::Downstream(error),
            Side::Upstream => Self::Upstream(error),
        }
    }
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// Whether `error` says no more than that the peer has gone.
fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}
