//! Rules that can never decide.

use super::index::Index;
use super::rule::{Destination, Rule, RuleStore};

/// How many such rules are named; lists that a program wrote may have
/// thousands.
const NAMED: usize = 20;

/// The rules behind an earlier one that takes all they match.
pub(super) struct Shadows<'a> {
    named: Vec<(Rule<'a>, Rule<'a>)>,
    more: usize,
}

impl<'a> Shadows<'a> {
    /// Finds the rules that repeat an earlier one, or that want the opposite
    /// of an earlier one which matches the same and more. A rule that only
    /// says again what a wider one before it says is harmless.
    pub(super) fn of(store: &'a RuleStore, index: &Index) -> Self {
        let mut shadows = Self {
            named: Vec::new(),
            more: 0,
        };
        for (position, rule) in store.iter() {
            let Some(first) = index
                .covering(rule.subject, rule.ports, store)
                .filter(|&first| first < position)
                .and_then(|first| store.at(first))
            else {
                continue;
            };
            let repeats = first.subject == rule.subject;
            if !repeats && first.action == rule.action {
                continue;
            }
            if shadows.named.len() < NAMED {
                shadows.named.push((rule, first));
            } else {
                shadows.more += 1;
            }
        }
        shadows
    }

    /// Tells each of them: line, text and message; without a line how many
    /// more there are.
    pub(super) fn report(&self, mut warn: impl FnMut(Option<u32>, &str, String)) {
        for (rule, first) in &self.named {
            let remedy = if first.action == rule.action {
                "remove one of them"
            } else {
                "move it up, or remove it"
            };
            warn(
                Some(rule.line),
                &Destination(*rule).to_string(),
                format!(
                    "never decides, since rule {} ({} {}) stands before it; {remedy}",
                    first.line,
                    first.action,
                    Destination(*first)
                ),
            );
        }
        if self.more > 0 {
            warn(
                None,
                "",
                format!(
                    "{} more lines never decide; see the table of rules",
                    self.more
                ),
            );
        }
    }
}
