//! Moves bytes between two connections until both sides have ended.
//!
//! The side that called us is downstream, the side that we called is
//! upstream; up is from downstream to upstream.
//!
//! - A side that ends its stream ends it towards the other side only: what the
//!   other sends is still relayed (half-close).
//! - A side that breaks ends the relay. The other gets all that arrived before,
//!   and then a reset, because a clean end would make a transfer that was cut
//!   off look complete.
//! - What cannot be written is not read: a slow reader slows its peer down
//!   instead of filling our memory.
//! - Nothing is held while nothing flows: bytes pass through a buffer that all
//!   relays of a thread share, and only what the reader does not take at once
//!   is kept. Once a direction carries bulk, splice(2) moves its bytes inside
//!   the kernel, through pipes that a thread lends to whoever needs one.

mod clock;
mod direction;
mod end;
mod idle;
mod pipe;
mod scratch;
mod send_queue;
mod streams;
mod transfer;
mod transferred;
mod tunnel;

pub use end::RelayEnd;
pub use idle::IdleTimer;
pub use pipe::MAX_PIPES;
pub use streams::{StreamRelay, relay_streams};
pub use transfer::{Transfer, TransferError, transfer};
pub use transferred::{ByteCount, Transferred};
pub use tunnel::{Relay, relay};
