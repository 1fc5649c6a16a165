//! From what is configured and what is there to what is to be done.
//!
//! Pure: no socket, no clock, no environment. Three questions are answered
//! here, each from a [`State`](crate::state::State): what is missing to the
//! configured router ([`converge()`]), what takes the router away again
//! ([`undo()`]), and what brings a namespace back to how it was ([`restore()`]).

mod converge;
mod error;
mod forecast;
mod interfaces;
mod release;
mod restore;
mod routing;
mod step;
mod undo;

pub use self::{
    converge::{Plan, converge},
    error::PlanError,
    interfaces::{EgressInterface, egress_interface, pod_interface},
    restore::restore,
    step::{NodeLink, Parent, Step, sysctl_name},
    undo::undo,
};

#[cfg(test)]
mod tests;
