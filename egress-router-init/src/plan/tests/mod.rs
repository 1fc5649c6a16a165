//! Plans, against a kernel that is a value.

mod fixture;
mod golden;
mod kernel;
mod pod_networks;
mod properties;
mod run;
mod scenarios;
