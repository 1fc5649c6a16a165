//! One line per request or connection, on stderr, off the data path.
//!
//! A worker writes its lines into a buffer of its own. A thread collects the
//! buffers ten times a second, or earlier when one holds 32 KiB, and writes
//! them with few calls. When the reader of stderr is so slow that a buffer
//! reaches 1 MiB, lines are dropped and counted: a stuck log never stops a
//! connection.
//!
//! The lines have the form of the [logs](crate::logging): the time, the level
//! `info`, a message, and the fields of the caller.

mod buffer;
mod entry;
mod stamp;
mod writer;

pub use entry::Entry;
pub use writer::{AccessLog, AccessLogError, WorkerLog};
