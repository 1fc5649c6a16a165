//! The end of a program that has connections: they learn that it has come,
//! finish, and are waited for; what remains is cut off.

mod connections;
mod in_flight;

pub use connections::{Connections, Registered};
pub use in_flight::{Drain, Guard};
