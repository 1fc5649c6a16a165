//! A hash table from what rules match to the rules, port by port.

use hashbrown::HashTable;

use super::PortRange;
use super::ports::PortMap;
use super::rule::{RuleIndex, RuleStore};

/// One key. The key itself is kept in the rules only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The first rule of the key, and the only one in most lists.
    first: RuleIndex,
    /// Where the map of all its rules is, when there are more.
    map: Option<u32>,
}

/// Finds the rules of a key by its hash. Eight bytes for a key and no copy of
/// it: 100 000 names cost one megabyte here.
#[derive(Clone, Default, Debug)]
pub(super) struct PortTable {
    slots: HashTable<Slot>,
    maps: Vec<PortMap>,
}

impl PortTable {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The key whose hash is `hash` and of which some rule `is` one.
    pub(super) fn find(&self, hash: u64, is: impl Fn(RuleIndex) -> bool) -> Option<&Slot> {
        self.slots.find(hash, |slot| is(slot.first))
    }

    /// The rule of a key that stands first for `port`.
    pub(super) fn first(&self, slot: &Slot, port: u16, store: &RuleStore) -> Option<RuleIndex> {
        match self.map(slot) {
            Some(map) => map.first(port),
            None => self.covering(slot, PortRange::new(port, port), store),
        }
    }

    /// The rule of a key that stands first for every one of `ports`.
    pub(super) fn covering(
        &self,
        slot: &Slot,
        ports: PortRange,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        match self.map(slot) {
            Some(map) => map.covering(ports),
            None => Some(slot.first).filter(|&rule| store.covers(rule, ports)),
        }
    }

    fn map(&self, slot: &Slot) -> Option<&PortMap> {
        let position = usize::try_from(slot.map?).ok()?;
        self.maps.get(position)
    }
}

/// Makes a [`PortTable`]. Rules are added in their order.
pub(super) struct PortTableBuilder<H> {
    slots: HashTable<Slot>,
    /// All rules of the keys that have more than one.
    many: Vec<Vec<(PortRange, RuleIndex)>>,
    /// The hash of a rule's key.
    hash: H,
}

impl<H: Fn(RuleIndex) -> u64> PortTableBuilder<H> {
    pub(super) fn new(hash: H) -> Self {
        Self {
            slots: HashTable::new(),
            many: Vec::new(),
            hash,
        }
    }

    /// Adds a rule; `same` says whether another one has the same key.
    pub(super) fn add(
        &mut self,
        rule: RuleIndex,
        same: impl Fn(RuleIndex) -> bool,
        store: &RuleStore,
    ) {
        let hash = (self.hash)(rule);
        let ports = |rule| store.at(rule).map_or(PortRange::ALL, |rule| rule.ports);
        let Some(slot) = self.slots.find_mut(hash, |slot| same(slot.first)) else {
            let slot = Slot {
                first: rule,
                map: None,
            };
            self.slots
                .insert_unique(hash, slot, |slot| (self.hash)(slot.first));
            return;
        };
        let position = match slot.map {
            Some(position) => usize::try_from(position).ok(),
            None => {
                slot.map = u32::try_from(self.many.len()).ok();
                self.many.push(vec![(ports(slot.first), slot.first)]);
                self.many.len().checked_sub(1)
            }
        };
        if let Some(rules) = position.and_then(|position| self.many.get_mut(position)) {
            rules.push((ports(rule), rule));
        }
    }

    pub(super) fn build(self) -> PortTable {
        let Self {
            mut slots,
            many,
            hash,
        } = self;
        slots.shrink_to_fit(|slot| hash(slot.first));
        PortTable {
            slots,
            maps: many.into_iter().map(PortMap::new).collect(),
        }
    }
}
