//! TCP and UDP proxy to named hosts of an egress router pod.
//!
//! [`config`] says which ports there are and where they lead. Clients go
//! `accept -> pick a backend -> dial -> relay`, each on the worker that
//! accepted it; the control runtime follows names, checks unhealthy addresses,
//! and reloads. What the addresses of a destination mean at a time is decided
//! in [`backends`], which is pure. [`program`] wires it all.

pub mod backends;
mod cli;
pub mod config;
mod destinations;
mod health;
pub mod mapping;
mod metrics;
mod names;
mod ports;
pub mod program;
mod record;
mod report;
mod route;
mod server;
mod service;
mod target;
mod udp;
