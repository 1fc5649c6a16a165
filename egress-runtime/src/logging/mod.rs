//! Logs to stderr: text for people, JSON lines for machines.
//!
//! A JSON line has `time` (UTC, RFC 3339, milliseconds), `level` (as
//! `EGRESS_LOG` spells it), `message` when there is one, and the event's own
//! fields beside them. An own field named `time` or `level` is written as
//! `field_time` or `field_level`, so that no key stands twice. Spans are not
//! written.
//!
//! Each event is one write(2) to stderr, made by the thread that logs. A
//! reader that has gone away is not an error.

mod json;
mod subscriber;
mod timestamp;

pub(crate) use subscriber::Form;
pub use subscriber::{AlreadyInstalled, init};
pub(crate) use timestamp::Timestamp;
