//! nftables over netlink: a [`Table`] becomes one atomic batch.
//!
//! Equivalent of `nft -f` (and of `nft list`, for what we read back), without
//! the binary. Kernel side: `net/netfilter/nf_tables_api.c`,
//! `include/uapi/linux/netfilter/nf_tables.h`.

mod attribute;
pub(super) mod dump;
mod element;
mod expression;
mod shape;
pub(super) mod socket;

use std::collections::HashMap;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetFlags,
    SetMessage, TableAttribute, TableMessage,
};

pub use self::{
    dump::{Count, ElementCount},
    shape::Shape,
    socket::{NftError, NftSocket},
};
use self::{
    dump::{KnownSet, known_chains, known_elements, known_sets, table_exists},
    socket::Batch,
};
use crate::firewall::table::{
    Chain, Datatype, Elements, FilledBy, Hook, Policy, Rule, Set, Table, length,
};

/// What a replacement did to one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetChange {
    /// The set.
    pub set: String,
    /// Elements that were not there before.
    pub added: Elements,
    /// Elements that are gone.
    pub removed: Elements,
    /// How many elements stayed, with their counters.
    pub kept: usize,
}

impl NftSocket {
    /// Makes the kernel's table equal to `table` in one atomic batch, whatever
    /// was there before.
    ///
    /// Packets see either all of the old table or all of the new one. Elements
    /// that stay keep their counters; base chains are never deleted, because
    /// that would refuse connections for an instant. Chains that belong to the
    /// operator are created when absent and otherwise left alone, as are
    /// chains and sets that `table` does not name: the operator's rules may
    /// use them.
    ///
    /// # Errors
    /// When the kernel refuses; nothing has changed then.
    pub fn replace(&mut self, table: &Table) -> Result<Vec<SetChange>, NftError> {
        self.replace_without(table, &[])
    }

    /// As [`Self::replace`]; the chains and sets of these names go.
    ///
    /// # Errors
    /// When the kernel refuses; nothing has changed then.
    pub fn replace_without(
        &mut self,
        table: &Table,
        retired: &[&str],
    ) -> Result<Vec<SetChange>, NftError> {
        let exists = table_exists(self, &table.name)?;
        let (sets, chains) = if exists {
            (
                known_sets(self, &table.name)?,
                known_chains(self, &table.name)?,
            )
        } else {
            (HashMap::new(), Vec::new())
        };

        let mut changes = Vec::new();
        let mut batch = Batch::new();
        // nft add table inet egress_router
        batch.push(
            "the table",
            NLM_F_CREATE,
            NfTablesMessage::NewTable(TableMessage {
                attributes: vec![TableAttribute::Name(table.name.clone())],
            }),
        );
        for chain in &table.chains {
            // nft add chain inet egress_router forward { ... }
            batch.push("a chain", NLM_F_CREATE, new_chain(&table.name, chain));
        }
        let is_operators = |name: &str| {
            table
                .chains
                .iter()
                .any(|chain| chain.name == name && chain.operator_owned)
        };
        let is_ours = |name: &str| table.chains.iter().any(|chain| chain.name == name);
        for name in chains.iter().filter(|name| !is_operators(name)) {
            if is_ours(name) || retired.contains(&name.as_str()) {
                // nft flush chain inet egress_router forward
                batch.push("flushing a chain", 0, flush_chain(&table.name, name));
            }
        }
        for name in chains.iter().filter(|name| !is_ours(name)) {
            if retired.contains(&name.as_str()) {
                // nft delete chain inet egress_router old
                batch.push("deleting a chain", 0, delete_chain(&table.name, name));
            }
        }
        for (name, known) in &sets {
            let is_other = table
                .sets
                .iter()
                .any(|set| set.name == *name && !known.is_like(set));
            if is_other || retired.contains(&name.as_str()) {
                // nft delete set inet egress_router old
                batch.push("deleting a set", 0, delete_set(&table.name, name));
            }
        }
        for (id, set) in (1u32..).zip(&table.sets) {
            let known = sets
                .get(&set.name)
                .filter(|known| known.has_elements_like(set));
            let stays = known.is_some_and(|known| known.is_like(set));
            if !stays {
                batch.push("a set", NLM_F_CREATE, new_set(&table.name, set, id));
            }
            match set.filled_by {
                FilledBy::Packets if known.is_some() => {
                    let counts = dump::element_counts(self, &table.name, &set.name)?;
                    let (kept, gone) = counted(set, &counts);
                    if stays {
                        element::delete(&mut batch, &table.name, &set.name, &gone);
                    } else {
                        element::add_counted(&mut batch, &table.name, &set.name, &kept);
                    }
                }
                FilledBy::Packets => {}
                FilledBy::Us => {
                    let old = match known {
                        Some(_) => known_elements(self, &table.name, set)?,
                        None => Elements::new(length(&set.key), length(&set.data)),
                    };
                    let change = SetChange::between(set, &old);
                    if stays {
                        element::delete(&mut batch, &table.name, &set.name, &change.removed);
                        element::add(&mut batch, &table.name, &set.name, &change.added);
                    } else {
                        element::add(&mut batch, &table.name, &set.name, &set.elements);
                    }
                    changes.push(change);
                }
            }
        }
        for chain in table.chains.iter().filter(|chain| !chain.operator_owned) {
            for rule in &chain.rules {
                // nft add rule inet egress_router forward ...
                batch.push(
                    "a rule",
                    NLM_F_CREATE | NLM_F_APPEND,
                    new_rule(&table.name, &chain.name, rule),
                );
            }
        }
        self.commit(batch)?;
        Ok(changes)
    }

    /// Deletes a table with all that is in it; absent is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_table(&mut self, name: &str) -> Result<bool, NftError> {
        if !table_exists(self, name)? {
            return Ok(false);
        }
        let mut batch = Batch::new();
        // nft delete table inet egress_router
        batch.push(
            "deleting the table",
            0,
            NfTablesMessage::DeleteTable(TableMessage {
                attributes: vec![TableAttribute::Name(name.to_owned())],
            }),
        );
        self.commit(batch)?;
        Ok(true)
    }

    /// Whether a table of the `inet` family is there.
    ///
    /// # Errors
    /// When the kernel refuses to say, mostly for want of `CAP_NET_ADMIN`.
    pub fn has_table(&mut self, name: &str) -> Result<bool, NftError> {
        table_exists(self, name)
    }

    /// Whether there can be rules that iptables over nf_tables made.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn has_iptables_rules(&mut self) -> Result<bool, NftError> {
        dump::has_ip_tables(self)
    }

    /// Whether a set of a table of the `inet` family is there.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn has_set(&mut self, table: &str, set: &str) -> Result<bool, NftError> {
        Ok(table_exists(self, table)? && known_sets(self, table)?.contains_key(set))
    }

    /// The counters of a set's elements.
    ///
    /// # Errors
    /// When the kernel refuses, or the table or set is not there.
    pub fn element_counts(
        &mut self,
        table: &str,
        set: &str,
    ) -> Result<Vec<ElementCount>, NftError> {
        dump::element_counts(self, table, set)
    }

    /// The counters of a chain's rules, in order; rules without one are left
    /// out.
    ///
    /// # Errors
    /// When the kernel refuses, or the table or chain is not there.
    pub fn rule_counts(&mut self, table: &str, chain: &str) -> Result<Vec<Count>, NftError> {
        dump::rule_counts(self, table, chain)
    }
}

/// What packets put into `set`, parted into what may stay and what may not.
fn counted<'a>(set: &Set, counts: &'a [ElementCount]) -> (Vec<&'a ElementCount>, Elements) {
    let mut left: HashMap<&[u8], &ElementCount> = counts
        .iter()
        .map(|element| (element.key.as_slice(), element))
        .collect();
    let keys = set.elements.iter().map(|(key, _)| key);
    let kept = keys.filter_map(|key| left.remove(key)).collect();
    let mut gone = Elements::new(set.elements.key_len(), set.elements.data_len());
    for key in left.into_keys() {
        gone.push_raw(key, &[]);
    }
    (kept, gone)
}

impl SetChange {
    /// What makes `old` the elements of `set`.
    fn between(set: &Set, old: &Elements) -> Self {
        let new = &set.elements;
        let empty = || Elements::new(new.key_len(), new.data_len());
        let name = set.name.clone();
        if old.is_empty() {
            return Self {
                set: name,
                added: new.clone(),
                removed: empty(),
                kept: 0,
            };
        }
        let mut left: HashMap<&[u8], &[u8]> = old.iter().collect();
        let (mut added, mut removed, mut kept) = (empty(), empty(), 0);
        for (key, data) in new.iter() {
            match left.remove(key) {
                Some(same) if same == data => kept += 1,
                Some(other) => {
                    removed.push_raw(key, other);
                    added.push_raw(key, data);
                }
                None => added.push_raw(key, data),
            }
        }
        for (key, data) in left {
            removed.push_raw(key, data);
        }
        Self {
            set: name,
            added,
            removed,
            kept,
        }
    }
}

fn new_chain(table: &str, chain: &Chain) -> NfTablesMessage {
    let mut attributes = vec![
        ChainAttribute::Table(table.to_owned()),
        ChainAttribute::Name(chain.name.clone()),
    ];
    if let Some(hook) = chain.hook {
        let (number, priority, kind, policy) = hook_parts(hook);
        attributes.push(ChainAttribute::Hook(vec![
            HookAttribute::Number(HookNumber::Inet(number)),
            HookAttribute::Priority(priority.cast_unsigned()),
        ]));
        attributes.push(ChainAttribute::Policy(match policy {
            Policy::Drop => 0,   // NF_DROP
            Policy::Accept => 1, // NF_ACCEPT
        }));
        attributes.push(ChainAttribute::Type(kind.to_owned()));
    }
    NfTablesMessage::NewChain(ChainMessage { attributes })
}

/// Hook number, priority (`NF_IP_PRI_*`), chain type and policy.
fn hook_parts(hook: Hook) -> (InetHookNumber, i32, &'static str, Policy) {
    match hook {
        Hook::NatPrerouting => (InetHookNumber::PreRouting, -100, "nat", Policy::Accept),
        Hook::NatOutput => (InetHookNumber::LocalOut, -100, "nat", Policy::Accept),
        Hook::NatPostrouting => (InetHookNumber::PostRouting, 100, "nat", Policy::Accept),
        Hook::FilterInput => (InetHookNumber::LocalIn, 0, "filter", Policy::Accept),
        Hook::FilterForward(policy) => (InetHookNumber::Forward, 0, "filter", policy),
        Hook::FilterOutput => (InetHookNumber::LocalOut, 0, "filter", Policy::Accept),
    }
}

fn delete_chain(table: &str, chain: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(chain.to_owned()),
        ],
    })
}

/// A rule deletion that names no rule deletes all of the chain's.
fn flush_chain(table: &str, chain: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
        ],
    })
}

fn new_rule(table: &str, chain: &str, rule: &Rule) -> NfTablesMessage {
    let mut attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(expression::encode(&rule.statements)),
    ];
    if let Some(comment) = rule.comment {
        attributes.push(RuleAttribute::UserData(attribute::comment(comment)));
    }
    NfTablesMessage::NewRule(RuleMessage { attributes })
}

fn delete_set(table: &str, set: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(table.to_owned()),
            SetAttribute::Name(set.to_owned()),
        ],
    })
}

fn new_set(table: &str, set: &Set, id: u32) -> NfTablesMessage {
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.clone()),
        SetAttribute::Flags(set_flags(set)),
        SetAttribute::KeyType(concatenated_type(&set.key)),
        SetAttribute::KeyLen(len32(length(&set.key))),
        SetAttribute::Description(vec![SetDescription::Size(len32(set.size()))]),
    ];
    if !set.data.is_empty() {
        attributes.push(SetAttribute::DataType(concatenated_type(&set.data)));
        attributes.push(SetAttribute::DataLen(len32(length(&set.data))));
    }
    attributes.push(SetAttribute::Id(id));
    if set.counter {
        attributes.push(SetAttribute::ListExpressions(vec![expression::counter()]));
    }
    NfTablesMessage::NewSet(SetMessage { attributes })
}

/// The concatenation flag is for sets of intervals only, so it is not here.
fn set_flags(set: &Set) -> SetFlags {
    let mut flags = SetFlags::default();
    if !set.data.is_empty() {
        flags |= SetFlags::Map;
    }
    if set.counter {
        flags |= SetFlags::Expression;
    }
    if set.filled_by == FilledBy::Packets {
        flags |= SetFlags::Eval;
    }
    flags
}

impl KnownSet {
    /// Whether an element of the kernel's set can be compared with one of
    /// `set`.
    fn has_elements_like(&self, set: &Set) -> bool {
        self.key_len == len32(length(&set.key)) && self.data_len == len32(length(&set.data))
    }

    /// Whether the kernel's set can be kept for `set`.
    fn is_like(&self, set: &Set) -> bool {
        self.has_elements_like(set)
            && self.counter == set.counter
            && self.dynamic == (set.filled_by == FilledBy::Packets)
            && self.size == len32(set.size())
    }
}

/// nft's number for a type: six bits for each part of a concatenation
/// (`TYPE_BITS`, `enum datatypes` in nftables' `include/datatype.h`). The
/// kernel only hands it back to whoever lists the set.
fn concatenated_type(types: &[Datatype]) -> u32 {
    types.iter().fold(0, |number, datatype| {
        (number << 6)
            | match datatype {
                Datatype::Ipv4Addr => 7,
                Datatype::Ipv6Addr => 8,
                Datatype::InetProto => 12,
                Datatype::InetService => 13,
            }
    })
}

/// Lengths here are of a few fields; they fit.
fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
