//! The lab: a small cluster, its LAN and the world outside, made of network
//! namespaces inside the test process.
//!
//! ```text
//!   outside1 203.0.113.25   outside2 .26   outside3 .27
//!        └───────────────┬──────┴────────────┘
//!                     gateway            no NAT, no route to the pods
//!                        │ 192.168.12.1
//!   ═════════════════════╪═══════ lan ═══════════════╪══ a bridge
//!                        │ .11         │ .12         │ .50
//!                      node1         node2        lan-host
//!                    ┌───┴───┐      ┌──┴───┐
//!                 router  client1 client2  dns       pods, see [`Cni`]
//! ```
//!
//! Every box is a [`NetNs`] that only file descriptors of this process hold:
//! when the process ends, however it ends, the kernel takes all of it away.
//! Nothing is executed and nothing outside of these namespaces is touched, so
//! any number of labs with the same addresses run side by side, as root or,
//! through a user namespace, as anybody.
//!
//! Read [`Lab`] first, then [`Host`]; `tests/lab.rs` shows all of it at work.
//! From the outside in:
//!
//! | file | what |
//! |---|---|
//! | `harness` | `main` of a test file: builds the programs, enters the sandbox, runs the tests |
//! | `sandbox` | leaves the machine's namespaces before any thread starts |
//! | `lab`, `address`, `cni`, `service`, `resolver` | the topology: hosts, pod networks, node NAT, cluster DNS |
//! | `host`, `netns`, `link`, `route`, `netlink`, `userns` | one machine of it, and rtnetlink |
//! | `program`, `command`, `container`, `process`, `router` | running a real binary in it |
//! | `server`, `client`, `witness` | what talks through it, and who saw whom |
//! | `proxy`, `origin`, `reply`, `identity` | the network around one proxy, and HTTP on both sides of it |
//! | `wire`, `bulk` | either side of it, by hand; many bytes between them |
//! | `volume` | a mounted `ConfigMap` or `Secret` |
//! | `usage` | what a program uses of the machine |
//! | `snapshot` | all of a namespace's configuration as comparable text |

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a broken lab ends the test that uses it, with the place"
)]

pub mod address;
mod bulk;
pub mod client;
mod cni;
mod command;
mod container;
mod error;
mod eventually;
pub mod harness;
mod host;
mod http;
mod identity;
mod lab;
mod link;
mod netlink;
mod netns;
mod origin;
mod process;
mod program;
pub mod proxy;
mod reply;
mod resolver;
mod route;
mod router;
mod sandbox;
mod server;
mod service;
mod snapshot;
mod usage;
mod userns;
mod volume;
mod wire;
mod witness;

pub use egress_config::{AddressFamily as Family, Protocol};

pub use self::{
    bulk::move_bytes,
    client::{ClientError, Seen, TcpClient, UdpClient},
    cni::Cni,
    command::{Capability, Command},
    error::{LabError, Result},
    eventually::eventually,
    host::Host,
    http::Page,
    identity::Identity,
    lab::{Forwarding, Lab, LabBuilder, Node, Pod},
    link::MacvlanMode,
    netlink::Netlink,
    netns::NetNs,
    origin::{Arrival, Origin, Request},
    process::{Output, Process},
    program::program,
    proxy::{ProxyLab, RunningProxy},
    reply::Reply,
    resolver::{Answer, Query, Resolver},
    route::Route,
    router::RouterConfig,
    sandbox::enter as enter_sandbox,
    server::{Server, Worker},
    service::Service,
    snapshot::Snapshot,
    usage::allow_open_files,
    volume::Volume,
    wire::{Door, Wire},
    witness::{Arrivals, Witness},
};
