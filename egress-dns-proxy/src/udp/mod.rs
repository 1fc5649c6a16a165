//! Relays datagrams. Each client of a port has a session, which is a socket
//! of its own towards one backend, so that what the backend sends back finds
//! the client.

mod port;
mod scratch;
mod session;
mod socket;

pub(crate) use port::{UdpWorker, serve};
pub(crate) use session::SessionError;
pub(crate) use socket::{UdpBound, UdpListenError};
