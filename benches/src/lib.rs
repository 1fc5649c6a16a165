//! Side by side with peers: how the router scales, against linear rules loaded
//! by `nft -f` and by `iptables-restore`; and the two proxies, against other
//! proxies, against none, and against a bare relay.
//!
//! `make bench` measures; README.md says how to measure a part of it, and how to
//! add a peer.
//!
//! Everything happens in network namespaces of this process's own. All that is
//! compared is measured in turn, several rounds long, so that what else the
//! machine does meets all alike; figures are medians.
//!
//! | file | what |
//! |---|---|
//! | [`proxies`] | the proxies' benchmark |
//! | [`load`] | its load generator, its origin and the bare relay |
//! | `scale` | the router's measurements in their order, [`run`] |
//! | `settings` | how much of them |
//! | `mappings` | the lists: 10 to 50 000 mappings |
//! | `peer` | nft and iptables-restore, and their rule sets |
//! | `bed` | the lab and its router pods |
//! | `apply`, `connect` | a measurement each |
//! | `cost`, `samples` | what one run took, and what many did |
//! | `machine`, `report`, `table` | what is shown of the router |
//! | `shipped` | the proxies' binaries as they are shipped |
//! | `results` | the file that keeps the latest figures |

mod apply;
mod bed;
mod connect;
mod cost;
pub mod load;
mod machine;
mod mappings;
mod peer;
pub mod proxies;
mod report;
mod results;
mod samples;
mod scale;
mod settings;
mod shipped;
mod table;

pub use self::{
    report::Report,
    results::Part,
    scale::run,
    settings::Settings,
    shipped::{Shipped, shipped},
};
