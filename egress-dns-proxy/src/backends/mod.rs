//! The addresses of a destination: which to dial, when to ask for them again
//! and when to check a bad one.
//!
//! A pure state machine: answers, failures, health and the time go in, what to
//! do comes out. Sockets, clocks and tasks live elsewhere.

mod rotation;
mod schedule;
mod set;

pub use rotation::Rotation;
pub use schedule::Schedule;
pub use set::Backends;
