//! Worker threads: how many, and their lives.

mod cgroup;
mod count;
mod threads;

pub use count::count;
pub use threads::{Ended, WorkerError, Workers};
