//! A policy in force, and how often each of its rules decided.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::acl::{Decision, Judgement, Policy};
use crate::shared::Flow;

/// A policy in force. A reload makes a new one, whose counts begin at zero,
/// because its lines are others.
#[derive(Debug)]
pub(crate) struct Enforced {
    policy: Policy,
    /// Decisions by the number of the rule's line.
    by_line: Box<[AtomicU64]>,
}

impl Enforced {
    pub(crate) fn new(policy: Policy) -> Self {
        let last = policy
            .rules()
            .entries()
            .filter_map(|entry| entry.line())
            .max();
        let lines = last.map_or(0, |last| usize::try_from(last).unwrap_or_default() + 1);
        Self {
            policy,
            by_line: (0..lines).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Counts a decision, if a rule made it.
    pub(crate) fn count(&self, decision: Decision) {
        let line = decision.line().and_then(|line| usize::try_from(line).ok());
        if let Some(count) = line.and_then(|line| self.by_line.get(line)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a tunnel that is open would be refused now, at the address that
    /// it goes to.
    pub(crate) fn forbids(&self, flow: &Flow) -> bool {
        let early = match self.policy.judge(&flow.target) {
            Judgement::Decided(decision) => !decision.passes(),
            Judgement::NeedsAddresses => false,
        };
        let address = flow.upstream.get().map(|upstream| upstream.ip());
        early || {
            let admission = self
                .policy
                .judge_addresses(&flow.target, address.as_slice());
            !admission.decision().passes()
        }
    }

    /// The lines that decided something, and how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        self.by_line
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .enumerate()
            .filter(|&(_, count)| count > 0)
    }
}
