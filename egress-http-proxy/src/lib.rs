//! HTTP forward and CONNECT proxy of an egress router pod.
//!
//! Data flows one way: accept, read a head, decide, resolve, decide, dial,
//! relay.
//!
//! | module | what it is |
//! |---|---|
//! | `program` | wires it: command, environment, exit code |
//! | `control`, `renewal` | what changes while it runs: rules, certificate |
//! | `report` | the effective configuration, shown |
//! | [`config`] | what the user wants; pure |
//! | [`acl`] | rules, targets, guard and the decision; pure |
//! | [`http1`] | HTTP/1.1 messages; pure |
//! | `server` | a worker: accepts clients |
//! | `tls`, `http2` | clients that speak TLS, and HTTP/2 within |
//! | `connection` | a client: one request after the other |
//! | `route` | from a target to a connection |
//! | `exchange`, `pool` | a forwarded request, and upstream connections that wait |
//! | `tunnel` | CONNECT |
//! | `refusal` | every way in which a request is not served, and its answer |
//! | `record`, `metrics` | what is told of it |

mod buffer;
mod check_url;
mod cli;
mod connection;
mod control;
mod enforced;
mod exchange;
mod http2;
mod metrics;
mod pool;
mod record;
mod refusal;
mod renewal;
mod report;
mod route;
mod server;
mod shared;
mod stream;
mod tls;
mod tunnel;

pub mod acl;
pub mod config;
pub mod http1;
pub mod program;
