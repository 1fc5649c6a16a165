//! What the long-running programs share: the process around the work.
//!
//! | module | what it is |
//! |---|---|
//! | [`environment`] | the process environment, read in this one place |
//! | [`logging`] | tracing to stderr, as text or as JSON lines |
//! | [`command_line`] | arguments, help and answers |
//! | [`outcome`] | exit codes and last words |
//! | [`admin`] | the HTTP endpoint for metrics, probes and the configuration |
//! | [`workers`] | a thread with a runtime of its own for each processor |
//! | [`listener`] | listening sockets, and the clients they accept |
//! | [`limits`] | how many connections there may be |
//! | [`drain`] | finish what is in flight, cut off the rest |
//! | [`access_log`] | one line per request, off the data path |
//! | [`relay`] | bytes between two connections, with half-close and splice |
//! | [`readiness`] | ready when every named hold has been released |
//! | [`signals`] | SIGTERM, SIGINT and SIGHUP as requests |
//! | [`watch`] | tells when a mounted file has other content |
//! | [`metrics`] | the registry every program starts with |
//! | [`egress_address`] | the addresses of the pod, and the one that connections leave with |
//! | [`dial`] | connects to the first address that answers |
//! | [`resolver`] | names to addresses |
//!
//! Everything runs on one tokio runtime, which may be `current_thread`, with
//! its I/O and time drivers enabled.

pub mod access_log;
pub mod admin;
pub mod command_line;
pub mod dial;
pub mod drain;
pub mod egress_address;
pub mod environment;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod outcome;
pub mod readiness;
pub mod relay;
pub mod resolver;
pub mod signals;
pub mod watch;
pub mod workers;

#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod memory;
mod tcp_options;
