//! Connecting to an upstream: the first address that answers wins.

mod dialer;
mod error;
mod interleave;
mod socket;

pub use self::dialer::{Dialer, Dialled};
pub use self::error::{DialError, DialErrorKind};
