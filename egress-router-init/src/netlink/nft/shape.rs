//! Whether a table is still as it was made, without reading all of it.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_netfilter::nftables::{GenMessage, NfTablesMessage, RuleAttribute, RuleMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::dump::{self, first, known_chains, known_sets};
use super::socket::{NftError, NftSocket, serialize};
use crate::firewall::table::{FilledBy, Table};

/// How much there is of a table: enough to see that somebody flushed or
/// deleted a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// Rules of each chain.
    chains: BTreeMap<String, usize>,
    /// Elements of each set.
    sets: BTreeMap<String, usize>,
}

impl Shape {
    /// The shape that a table will have; the operator's chains are the
    /// operator's business.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let chains = table.chains.iter().filter(|chain| !chain.operator_owned);
        Self {
            chains: chains
                .map(|chain| (chain.name.clone(), chain.rules.len()))
                .collect(),
            // What packets fill has any number.
            sets: table
                .sets
                .iter()
                .filter(|set| set.filled_by == FilledBy::Us)
                .map(|set| (set.name.clone(), set.elements.len()))
                .collect(),
        }
    }

    /// Whether all of `wanted` is here. What else there may be is not looked
    /// at: somebody may hook a chain of their own into the table.
    #[must_use]
    pub fn holds(&self, wanted: &Self) -> bool {
        let holds = |have: &BTreeMap<String, usize>, want: &BTreeMap<String, usize>| {
            want.iter()
                .all(|(name, count)| have.get(name) == Some(count))
        };
        holds(&self.chains, &wanted.chains) && holds(&self.sets, &wanted.sets)
    }
}

impl NftSocket {
    /// A number that changes whenever anybody changes packet rules in this
    /// network namespace. Asking for it costs next to nothing; being told of
    /// changes instead would make the kernel write a notification for every
    /// element that a reload touches.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        const STEP: &str = "asking for the generation";
        // include/uapi/linux/netfilter/nf_tables.h
        const NFTA_GEN_ID: u16 = 1;
        let request = NetfilterMessage::new(
            NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
            NfTablesMessage::GetGen(GenMessage { attributes: vec![] }),
        );
        let request = serialize(0, NLM_F_REQUEST | NLM_F_ACK, request);
        let mut generation = None;
        self.exchange(STEP, &request, |_, payload| {
            // After struct nfgenmsg.
            let attributes = payload.get(4..).unwrap_or_default();
            let id = first(attributes, NFTA_GEN_ID).map_err(|error| NftError::Answer {
                step: STEP,
                reason: error.to_string(),
            })?;
            generation = id.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            Ok(())
        })?;
        generation.ok_or_else(|| NftError::Answer {
            step: STEP,
            reason: "no number".to_owned(),
        })
    }

    /// The shape of a table of the `inet` family; of an absent one, empty.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn shape(&mut self, table: &str) -> Result<Shape, NftError> {
        let mut shape = Shape::default();
        for chain in known_chains(self, table)? {
            shape.chains.insert(chain, 0);
        }
        if shape.chains.is_empty() {
            return Ok(shape);
        }
        // nft list table inet egress_router
        let request = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![RuleAttribute::Table(table.to_owned())],
        });
        self.dump("listing rules", &request, |message| {
            let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else {
                return;
            };
            let chain = attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Chain(name) => Some(name.as_str()),
                _ => None,
            });
            if let Some(count) = chain.and_then(|name| shape.chains.get_mut(name)) {
                *count += 1;
            }
        })?;
        for set in known_sets(self, table)?.into_keys() {
            let count = dump::element_counts(self, table, &set)?.len();
            shape.sets.insert(set, count);
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(chains: &[(&str, usize)], sets: &[(&str, usize)]) -> Shape {
        let owned = |counts: &[(&str, usize)]| {
            counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        Shape {
            chains: owned(chains),
            sets: owned(sets),
        }
    }

    #[test]
    fn what_is_less_or_more_or_missing_is_not_held() {
        let wanted = shape(&[("forward", 3)], &[("flows4", 2)]);
        assert!(wanted.holds(&wanted));
        assert!(shape(&[("forward", 3), ("other", 1)], &[("flows4", 2)]).holds(&wanted));
        for damaged in [
            shape(&[("forward", 0)], &[("flows4", 2)]),
            shape(&[("forward", 4)], &[("flows4", 2)]),
            shape(&[("forward", 3)], &[("flows4", 1)]),
            shape(&[], &[("flows4", 2)]),
            shape(&[("forward", 3)], &[]),
            Shape::default(),
        ] {
            assert!(!damaged.holds(&wanted), "{damaged:?}");
        }
    }
}
