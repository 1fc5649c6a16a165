//! The two proxies side by side with peers, with no proxy at all, and with a
//! bare relay.
//!
//! Everything runs in one network namespace of this process's own: the proxy
//! on one core, the load generator and the origin, which are one process, on
//! another. In each round every scenario meets every subject in turn, each
//! time a fresh process of it.
//!
//! From the outside in:
//!
//! | file | what |
//! |---|---|
//! | `options` | what is measured, and for how long |
//! | `side_by_side` | the rounds, [`run`] |
//! | `measure` | one subject in one scenario, once |
//! | `scenario` | what is done to a subject |
//! | `subject` | what is measured: no proxy, the relay, our proxies, the peers |
//! | `definition`, `placeholders` | a peer as a file describes it; pure |
//! | `ground` | the namespace, the cores, the files |
//! | `running` | a started subject and its first answer |
//! | `generator` | the load generator |
//! | `origin` | an origin that is there while the load generator is not |
//! | `process_tree` | processor time and memory of a program and its children |
//! | `rule_list` | the lists of rules, and who is asked for |
//! | `figures` | all that was measured, by scenario, subject and metric |
//! | `metric_text` | how metrics are named and written |
//! | `goals` | what was asked for; pure |
//! | `report`, `plot` | what is shown |

mod definition;
mod figures;
mod generator;
mod goals;
mod ground;
mod measure;
mod metric_text;
mod options;
mod origin;
mod placeholders;
mod plot;
mod process_tree;
mod report;
mod rule_list;
mod running;
mod scenario;
mod side_by_side;
mod subject;

pub use self::{
    options::{Options, USAGE},
    plot::Plot,
    report::ProxyReport,
    side_by_side::run,
    subject::Programs,
};
