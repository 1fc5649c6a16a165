//! Listening sockets, and the connections they accept.
//!
//! A port is taken in three steps: [`Bound`] holds it, [`Listener`] lets
//! clients queue, [`Acceptor`] serves them on one worker. A program binds all
//! its ports before it listens on any, so that one which is taken fails the
//! start before a client was served.

mod acceptor;
mod bound;
mod local_guard;
mod socket;

pub use acceptor::{AcceptPauses, Accepted, Acceptor};
pub use bound::{Bound, ListenError, Listener};
pub use local_guard::LocalGuard;
pub(crate) use socket::open;
