//! The load generator, the origin behind the proxies, and the bare relay that
//! they are held against.
//!
//! Client and origin are one process, one thread and one epoll loop, so that a
//! request costs it two sends and two receives and hardly anything else: what
//! is measured is the proxy on the other core. Nothing is allocated for a
//! request; bodies are discarded inside the kernel.
//!
//! | file | what |
//! |---|---|
//! | `arguments` | the command line of `egress-bench-load` |
//! | `scenario`, `script` | what is done, and the bytes that do it; pure |
//! | `generator` | the loop: warms up, measures, holds |
//! | `client`, `dialogue` | a client's connection, and what is said on it |
//! | `transport`, `tls`, `sources` | the socket of a client, plain or TLS, and its address |
//! | `origin` | the server behind the proxy |
//! | `head` | heads of requests and responses; pure |
//! | `pace` | when operations are due at a fixed rate; pure |
//! | `tally` | what is counted, and the result |
//! | `poller`, `socket`, `scratch` | epoll, non-blocking sockets, and the buffers that all of them share |
//! | `relay` | the bare relay |

mod arguments;
mod client;
mod dialogue;
mod generator;
mod head;
mod origin;
mod pace;
mod poller;
mod relay;
mod scenario;
mod scratch;
mod script;
mod socket;
mod sources;
mod tally;
mod tls;
mod transport;

pub use self::{
    arguments::{Command, LoadArguments, RelayArguments},
    generator::run,
    relay::Relay,
    scenario::{LoadRole, LoadScenario},
    tally::Measured,
};
