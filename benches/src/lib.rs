//! How the router scales, side by side with peers: linear rules loaded by
//! `nft -f` and by `iptables-restore`; and what the proxies take at rest.
//!
//! `cargo bench --package egress-benches` measures; with `-- --write` it also
//! rewrites `RESULTS.md`, with `-- --quick` it only shows that all of it works.
//!
//! Everything happens in network namespaces of this process's own. All that is
//! compared is measured in turn, several rounds long, so that what else the
//! machine does meets all alike; figures are medians.
//!
//! | file | what |
//! |---|---|
//! | `scale` | the measurements in their order, [`run`] |
//! | `settings` | how much is measured |
//! | `mappings` | the lists: 10 to 50 000 mappings |
//! | `peer` | nft and iptables-restore, and their rule sets |
//! | `bed` | the lab and its router pods |
//! | `apply`, `connect`, `rest` | a measurement each |
//! | `cost`, `samples` | what one run took, and what many did |
//! | `machine`, `report`, `table` | what is shown |

mod apply;
mod bed;
mod connect;
mod cost;
mod machine;
mod mappings;
mod peer;
mod report;
mod rest;
mod samples;
mod scale;
mod settings;
mod table;

pub use self::{report::Report, rest::PROGRAMS as PROXIES, scale::run, settings::Settings};
