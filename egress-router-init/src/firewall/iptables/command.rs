//! One change of one table.

use std::fmt::{self, Display, Formatter};

use egress_config::AddressFamily;

use super::ruleset::TableName;

/// A change, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    family: AddressFamily,
    table: TableName,
    change: Change,
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    NewChain { chain: String },
    Append { chain: String, rule: String },
    InsertFirst { chain: String, rule: String },
    Delete { chain: String, rule: String },
    Flush { chain: String },
    DeleteChain { chain: String },
}

impl Command {
    pub(super) fn new(family: AddressFamily, table: TableName, change: Change) -> Self {
        Self {
            family,
            table,
            change,
        }
    }

    pub(super) fn family(&self) -> AddressFamily {
        self.family
    }

    pub(super) fn table(&self) -> TableName {
        self.table
    }

    pub(super) fn change(&self) -> &Change {
        &self.change
    }

    /// What takes the change of a jump back. The others do not need that: no
    /// packet sees them.
    pub(super) fn inverse(&self) -> Option<Self> {
        let change = match self.change.clone() {
            Change::InsertFirst { chain, rule } => Change::Delete { chain, rule },
            Change::Delete { chain, rule } => Change::InsertFirst { chain, rule },
            Change::NewChain { .. }
            | Change::Append { .. }
            | Change::Flush { .. }
            | Change::DeleteChain { .. } => return None,
        };
        Some(Self { change, ..*self })
    }
}

/// The program for a family.
pub(super) fn binary_name(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "iptables",
        AddressFamily::Ipv6 => "ip6tables",
    }
}

/// The command as one would type it.
impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} -t {} ", binary_name(self.family), self.table)?;
        match &self.change {
            Change::NewChain { chain } => write!(f, "-N {chain}"),
            Change::Append { chain, rule } => write!(f, "-A {chain} {rule}"),
            Change::InsertFirst { chain, rule } => write!(f, "-I {chain} 1 {rule}"),
            Change::Delete { chain, rule } => write!(f, "-D {chain} {rule}"),
            Change::Flush { chain } => write!(f, "-F {chain}"),
            Change::DeleteChain { chain } => write!(f, "-X {chain}"),
        }
    }
}
