//! The laws of this repository and the means to check them.
//!
//! A law is data: where it holds, what it forbids, why, and a line of code
//! that would break it. The tests apply every law to the tree and to its own
//! breach, so that a law that cannot fail does not pass either.

pub mod dependencies;
pub mod kustomize;
pub mod law;
pub mod laws;
pub mod manifest;
pub mod mention;
pub mod tree;
pub mod validator;
