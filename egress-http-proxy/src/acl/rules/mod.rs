//! The rule list: its text, its rules in order, and the index that finds the
//! first one that matches.

mod action;
mod document;
mod glob;
mod glob_index;
mod index;
mod line;
mod list;
mod name_index;
mod network_index;
mod port_table;
mod ports;
mod rule;
mod shadow;
mod table;

pub use action::Action;
pub use list::Rules;
pub use table::Entry;

use ports::PortRange;
pub(crate) use rule::Found;
