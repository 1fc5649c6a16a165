//! The bare relay: what two sockets joined in the kernel cost, and nothing
//! else. One thread, epoll, splice(2); no rules, no names, no HTTP, no limits.

mod direction;
mod pipes;
mod server;

pub use self::server::Relay;
