//! Finds rules on names: exact ones, and those on a domain with all below.

use super::PortRange;
use super::port_table::{PortTable, PortTableBuilder};
use super::rule::{RuleIndex, RuleStore, Subject};

/// The hash of a name, taken byte by byte from its end, so that one pass over
/// a name gives the hashes of all domains that it lies in.
#[derive(Clone, Copy)]
struct SuffixHash(u64);

impl SuffixHash {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// FNV-1a.
    const fn before(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
    }

    /// Spreads the hash over all bits, of which the table uses both ends.
    const fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }

    fn of(name: &str) -> u64 {
        name.bytes().rev().fold(Self::EMPTY, Self::before).finish()
    }
}

/// The rules on names, by hash.
#[derive(Clone, Default, Debug)]
pub(super) struct NameIndex {
    names: PortTable,
    domains: PortTable,
}

impl NameIndex {
    pub(super) fn new(store: &RuleStore) -> Self {
        let text = |rule| match store.at(rule).map(|rule| rule.subject) {
            Some(Subject::Name(text) | Subject::Domain(text)) => text,
            _ => "",
        };
        let hash = |rule| SuffixHash::of(text(rule));
        let mut names = PortTableBuilder::new(hash);
        let mut domains = PortTableBuilder::new(hash);
        for (index, rule) in store.iter() {
            let (table, name) = match rule.subject {
                Subject::Name(name) => (&mut names, name),
                Subject::Domain(name) => (&mut domains, name),
                _ => continue,
            };
            table.add(index, |other| text(other) == name, store);
        }
        Self {
            names: names.build(),
            domains: domains.build(),
        }
    }

    /// The first rule on `name` for `port`.
    pub(super) fn first(&self, name: &str, port: u16, store: &RuleStore) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        self.domains_of(name, store, |slot| {
            first.offer(self.domains.first(slot, port, store));
        });
        if let Some(slot) = self.name(name, store) {
            first.offer(self.names.first(slot, port, store));
        }
        first.rule()
    }

    /// The first rule that takes every one of `ports` of `name` alone.
    pub(super) fn covering_name(
        &self,
        name: &str,
        ports: PortRange,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        first.offer(self.covering_domain(name, ports, store));
        if let Some(slot) = self.name(name, store) {
            first.offer(self.names.covering(slot, ports, store));
        }
        first.rule()
    }

    /// The first rule that takes every one of `ports` of `domain` and all
    /// below.
    pub(super) fn covering_domain(
        &self,
        domain: &str,
        ports: PortRange,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        self.domains_of(domain, store, |slot| {
            first.offer(self.domains.covering(slot, ports, store));
        });
        first.rule()
    }

    fn name(&self, name: &str, store: &RuleStore) -> Option<&super::port_table::Slot> {
        if self.names.is_empty() {
            return None;
        }
        self.names.find(SuffixHash::of(name), |rule| {
            matches!(store.at(rule).map(|rule| rule.subject), Some(Subject::Name(text)) if text == name)
        })
    }

    /// Calls `each` with every domain that has a rule and holds `name`.
    fn domains_of(
        &self,
        name: &str,
        store: &RuleStore,
        mut each: impl FnMut(&super::port_table::Slot),
    ) {
        if self.domains.is_empty() {
            return;
        }
        let mut look_up = |hash: SuffixHash, domain: &str| {
            let slot = self.domains.find(hash.finish(), |rule| {
                matches!(store.at(rule).map(|rule| rule.subject), Some(Subject::Domain(text)) if text == domain)
            });
            if let Some(slot) = slot {
                each(slot);
            }
        };
        let mut hash = SuffixHash::EMPTY;
        for (position, byte) in name.bytes().enumerate().rev() {
            if byte == b'.' {
                look_up(hash, name.get(position + 1..).unwrap_or_default());
            }
            hash = hash.before(byte);
        }
        look_up(hash, name);
    }
}

/// The earliest of the rules that were offered.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Earliest(Option<RuleIndex>);

impl Earliest {
    pub(super) fn offer(&mut self, rule: Option<RuleIndex>) {
        self.0 = match (self.0, rule) {
            (Some(first), Some(rule)) => Some(first.min(rule)),
            (first, rule) => first.or(rule),
        };
    }

    pub(super) const fn rule(self) -> Option<RuleIndex> {
        self.0
    }
}
