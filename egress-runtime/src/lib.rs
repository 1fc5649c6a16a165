//! What the long-running programs share: the process around the work.
//!
//! | module | what it is |
//! |---|---|
//! | [`environment`] | the process environment, read in this one place |
//! | [`logging`] | tracing to stderr, as text or as JSON lines |
//! | [`admin`] | the HTTP endpoint for metrics, probes and the configuration |
//! | [`readiness`] | ready when every named hold has been released |
//! | [`signals`] | SIGTERM, SIGINT and SIGHUP as requests |
//! | [`watch`] | tells when a mounted file has other content |
//! | [`metrics`] | the registry every program starts with |
//!
//! Everything runs on one tokio runtime, which may be `current_thread`, with
//! its I/O and time drivers enabled.

pub mod admin;
pub mod environment;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod signals;
pub mod watch;
