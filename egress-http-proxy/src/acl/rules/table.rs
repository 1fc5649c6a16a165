//! The effective rules as an operator sees them.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::rule::{Destination, Rule, Subject};
use super::{Action, PortRange};

/// One row of the table of rules: `allow *.example.com:443`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    line: Option<u32>,
    rule: Rule<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn of(rule: Rule<'a>) -> Self {
        Self {
            line: Some(rule.line),
            rule,
        }
    }

    pub(super) const fn default_of(action: Action) -> Self {
        Self {
            line: None,
            rule: Rule {
                line: 0,
                action,
                ports: PortRange::ALL,
                subject: Subject::Any,
            },
        }
    }

    /// The number of its line, or of its entry in an `EgressNetworkPolicy`.
    /// `None` for what holds when no rule matches.
    #[must_use]
    pub const fn line(&self) -> Option<u32> {
        self.line
    }

    /// What it does.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.rule.action
    }

    /// What it matches, as a line says it without the `!`.
    pub fn destination(&self) -> impl fmt::Display + use<'a> {
        Destination(self.rule)
    }
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rule.action, self.destination())
    }
}

/// `{"line": 3, "action": "allow", "destination": "*.example.com:443"}`; the
/// line is null for what holds when no rule matches.
impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("Entry", 3)?;
        row.serialize_field("line", &self.line)?;
        row.serialize_field("action", &self.rule.action)?;
        row.serialize_field("destination", &self.destination().to_string())?;
        row.end()
    }
}
