//! Names to addresses.
//!
//! | module | what it is |
//! |---|---|
//! | `caching` | [`Resolver`]: the cache in front, look-ups merged behind it |
//! | `cache` | what is known of each name, and until when; pure |
//! | `look_up` | one look-up: hosts file, A beside AAAA, the search list |
//! | `name_servers` | one question to several name servers |
//! | `name_server` | one question to one name server: UDP, TCP, EDNS |
//! | `answer` | what a DNS message answers; pure |
//! | `system` | resolv.conf(5) and hosts(5) |
//! | `addresses`, `finding`, `error`, `metrics` | what comes out |
//!
//! hickory gives messages, their validation and transport. Which server is
//! asked when, and what is kept, is decided here: hickory's own pool asks
//! either all servers at once, so that the fastest wins even where only the
//! first knows the cluster's names, or waits for a dead first server until
//! the whole time is over.

mod addresses;
mod answer;
mod cache;
mod caching;
mod error;
mod finding;
mod look_up;
mod metrics;
mod name_server;
mod name_servers;
#[cfg(test)]
mod scripted;
mod system;
#[cfg(test)]
mod tests;

pub use self::addresses::{Addresses, Looked};
pub use self::caching::Resolver;
pub use self::error::{LookupError, ResolverError};
pub use self::look_up::Names;
pub use self::metrics::ResolverMetrics;
