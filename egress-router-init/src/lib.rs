//! Sets up the network namespace of an egress router pod.
//!
//! `text -> `[`config`]`; namespace -> `[`state`]`; both -> `[`plan`]` -> `[`router`]`,
//! which carries it out through [`netlink`], [`firewall`] and [`wire`].
//! [`program`] wires it all.

mod capabilities;
mod cli;
pub mod config;
pub mod firewall;
pub mod netlink;
pub mod originals;
pub mod plan;
pub mod program;
pub mod redirect;
mod report;
pub mod router;
pub mod state;
mod status;
mod stay;
pub mod wire;
