//! What is in the kernel already.

use std::collections::HashMap;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_DUMP, NLM_F_REQUEST, Nla, NlaBuffer, NlasIterator,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementList, SetElementMessage,
    SetFlags, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::socket::{NftError, NftSocket, serialize};
use crate::firewall::table::{Elements, Set, length};

/// Packets and bytes that an element or a rule has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// An element and its counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementCount {
    /// The key, as the kernel's registers hold it.
    pub key: Vec<u8>,
    /// What it counted.
    pub count: Count,
}

/// A set as the kernel describes it.
pub(super) struct KnownSet {
    pub(super) key_len: u32,
    pub(super) data_len: u32,
    pub(super) counter: bool,
    pub(super) dynamic: bool,
    /// 0 when it has none.
    pub(super) size: u32,
}

pub(super) fn table_exists(socket: &mut NftSocket, table: &str) -> Result<bool, NftError> {
    let mut found = false;
    // nft list tables inet
    let request = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
    socket.dump("listing tables", &request, |message| {
        if let NfTablesMessage::NewTable(TableMessage { attributes }) = message {
            found |= attributes
                .iter()
                .any(|a| matches!(a, TableAttribute::Name(n) if n == table));
        }
    })?;
    Ok(found)
}

/// Whether there is a table of the families that iptables over nf_tables
/// writes to.
pub(super) fn has_ip_tables(socket: &mut NftSocket) -> Result<bool, NftError> {
    const IP: [u8; 2] = [2, 10]; // NFPROTO_IPV4, NFPROTO_IPV6
    let mut found = false;
    // nft list tables
    let request = NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
        NfTablesMessage::GetTable(TableMessage { attributes: vec![] }),
    );
    let request = serialize(0, NLM_F_REQUEST | NLM_F_DUMP, request);
    socket.exchange("listing tables", &request, |_, payload| {
        found |= payload.first().is_some_and(|family| IP.contains(family));
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn known_chains(socket: &mut NftSocket, table: &str) -> Result<Vec<String>, NftError> {
    let mut chains = Vec::new();
    // nft list chains inet
    let request = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    socket.dump("listing chains", &request, |message| {
        let NfTablesMessage::NewChain(ChainMessage { attributes }) = message else {
            return;
        };
        let (mut ours, mut name) = (false, None);
        for attribute in attributes {
            match attribute {
                ChainAttribute::Table(t) => ours = t == table,
                ChainAttribute::Name(n) => name = Some(n.clone()),
                _ => {}
            }
        }
        chains.extend(name.filter(|_| ours));
    })?;
    Ok(chains)
}

pub(super) fn known_sets(
    socket: &mut NftSocket,
    table: &str,
) -> Result<HashMap<String, KnownSet>, NftError> {
    let mut sets = HashMap::new();
    // nft list sets table inet egress_router
    let request = NfTablesMessage::GetSet(SetMessage {
        attributes: vec![SetAttribute::Table(table.to_owned())],
    });
    socket.dump("listing sets", &request, |message| {
        let NfTablesMessage::NewSet(SetMessage { attributes }) = message else {
            return;
        };
        let mut set = KnownSet {
            key_len: 0,
            data_len: 0,
            counter: false,
            dynamic: false,
            size: 0,
        };
        let (mut ours, mut name) = (false, None);
        for attribute in attributes {
            match attribute {
                SetAttribute::Table(t) => ours = t == table,
                SetAttribute::Name(n) => name = Some(n.clone()),
                SetAttribute::KeyLen(length) => set.key_len = *length,
                SetAttribute::DataLen(length) => set.data_len = *length,
                SetAttribute::Expression(_) | SetAttribute::ListExpressions(_) => {
                    set.counter = true;
                }
                SetAttribute::Flags(flags) => set.dynamic = flags.contains(SetFlags::Eval),
                SetAttribute::Description(parts) => {
                    let size = parts.iter().find_map(|part| match part {
                        SetDescription::Size(size) => Some(*size),
                        _ => None,
                    });
                    set.size = size.unwrap_or(0);
                }
                _ => {}
            }
        }
        if let (true, Some(name)) = (ours, name) {
            sets.insert(name, set);
        }
    })?;
    Ok(sets)
}

/// The elements of a set that has keys and data like `set`.
pub(super) fn known_elements(
    socket: &mut NftSocket,
    table: &str,
    set: &Set,
) -> Result<Elements, NftError> {
    let (key_len, data_len) = (length(&set.key), length(&set.data));
    let mut elements = Elements::new(key_len, data_len);
    for_each_element(socket, table, &set.name, |element| {
        if (element.key.len(), element.data.len()) == (key_len, data_len) {
            elements.push_raw(element.key, element.data);
        }
    })?;
    Ok(elements)
}

pub(super) fn element_counts(
    socket: &mut NftSocket,
    table: &str,
    set: &str,
) -> Result<Vec<ElementCount>, NftError> {
    let mut counts = Vec::new();
    for_each_element(socket, table, set, |element| {
        counts.push(ElementCount {
            key: element.key.to_vec(),
            count: element.count,
        });
    })?;
    Ok(counts)
}

pub(super) fn rule_counts(
    socket: &mut NftSocket,
    table: &str,
    chain: &str,
) -> Result<Vec<Count>, NftError> {
    let mut counts = Vec::new();
    // nft list chain inet egress_router forward
    let request = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
        ],
    });
    socket.dump("listing rules", &request, |message| {
        let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else {
            return;
        };
        for attribute in attributes {
            if let RuleAttribute::Expressions(list) = attribute {
                counts.extend(list.iter().find_map(list_count));
            }
        }
    })?;
    Ok(counts)
}

/// An element in a dump's buffer.
#[derive(Default)]
struct Element<'a> {
    key: &'a [u8],
    data: &'a [u8],
    count: Count,
}

/// Walks the attributes in place: there may be 50 000 elements, and the
/// crate's parser loses the value of an element's only expression.
fn for_each_element(
    socket: &mut NftSocket,
    table: &str,
    set: &str,
    mut each: impl FnMut(Element<'_>),
) -> Result<(), NftError> {
    const STEP: &str = "listing elements";
    // struct nfgenmsg
    const HEADER: usize = 4;
    // nft list set inet egress_router flows4
    let request = NfTablesMessage::GetSetElement(SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(set.to_owned()),
        ],
    });
    socket.dump_raw(STEP, &request, |_, payload| {
        walk(
            payload.get(HEADER..).unwrap_or_default(),
            NFTA_SET_ELEM_LIST_ELEMENTS,
            |list| {
                walk(list, NFTA_LIST_ELEM, |element| {
                    each(parse_element(element)?);
                    Ok(())
                })
            },
        )
        .map_err(|error| NftError::Answer {
            step: STEP,
            reason: error.to_string(),
        })
    })
}

// include/uapi/linux/netfilter/nf_tables.h
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

/// Hands the value of each attribute of one kind to `each`.
pub(in crate::netlink) fn walk<'a>(
    attributes: &'a [u8],
    kind: u16,
    mut each: impl FnMut(&'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == kind {
            each(value_of(attribute))?;
        }
    }
    Ok(())
}

/// The value for as long as the dump's buffer lives; the crate's own accessor
/// lends it only for as long as the attribute.
pub(in crate::netlink) fn value_of(attribute: NlaBuffer<&[u8]>) -> &[u8] {
    const HEADER: usize = 4;
    let end = HEADER + attribute.value_length();
    attribute.into_inner().get(HEADER..end).unwrap_or_default()
}

pub(in crate::netlink) fn first(attributes: &[u8], kind: u16) -> Result<&[u8], DecodeError> {
    let mut found = &[][..];
    walk(attributes, kind, |value| {
        if found.is_empty() {
            found = value;
        }
        Ok(())
    })?;
    Ok(found)
}

fn parse_element(attributes: &[u8]) -> Result<Element<'_>, DecodeError> {
    let mut element = Element::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = value_of(attribute);
        match attribute.kind() {
            NFTA_SET_ELEM_KEY => element.key = first(value, NFTA_DATA_VALUE)?,
            NFTA_SET_ELEM_DATA => element.data = first(value, NFTA_DATA_VALUE)?,
            NFTA_SET_ELEM_EXPR => element.count = parse_counter(value)?,
            NFTA_SET_ELEM_EXPRESSIONS => {
                element.count = parse_counter(first(value, NFTA_LIST_ELEM)?)?;
            }
            _ => {}
        }
    }
    Ok(element)
}

/// Elements of ours have no other expression than a counter.
fn parse_counter(expression: &[u8]) -> Result<Count, DecodeError> {
    let data = first(expression, NFTA_EXPR_DATA)?;
    let number = |value: &[u8]| {
        value
            .first_chunk()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes))
    };
    Ok(Count {
        bytes: number(first(data, NFTA_COUNTER_BYTES)?),
        packets: number(first(data, NFTA_COUNTER_PACKETS)?),
    })
}

fn list_count(expression: &ListAttribute<ExpressionAttribute>) -> Option<Count> {
    match expression {
        ListAttribute::Element(attributes) => count_of(attributes),
        _ => None,
    }
}

/// The value of a rule's counter.
fn count_of(expression: &[ExpressionAttribute]) -> Option<Count> {
    let attributes = expression.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(Expressions::Other {
            expression_type,
            attributes,
        }) if expression_type == "counter" => Some(attributes),
        _ => None,
    })?;
    let number = |kind| {
        attributes
            .iter()
            .find(|a| a.kind() == kind)
            .and_then(big_endian)
    };
    Some(Count {
        bytes: number(NFTA_COUNTER_BYTES)?,
        packets: number(NFTA_COUNTER_PACKETS)?,
    })
}

fn big_endian(attribute: &DefaultNla) -> Option<u64> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
        .get(4..)?
        .first_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the kernel says, we do not fall over it.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_element(&bytes);
            let _ = parse_counter(&bytes);
            let _ = walk(&bytes, NFTA_LIST_ELEM, |_| Ok(()));
        }
    }

    /// `tcp . 80 counter packets 7 bytes 420`, as Linux 6.18 lists it.
    #[test]
    fn an_element_with_a_counter() {
        let bytes: Vec<u8> = [
            &[16, 0, 1, 128, 12, 0, 1, 0, 6, 0, 0, 0, 0, 80, 0, 0][..],
            &[44, 0, 7, 128, 12, 0, 1, 0],
            b"counter\0",
            &[28, 0, 2, 128],
            &[12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 164],
            &[12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 7],
        ]
        .concat();
        let element = parse_element(&bytes).unwrap();
        assert_eq!(element.key, [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(element.data, [0u8; 0]);
        assert_eq!(
            element.count,
            Count {
                packets: 7,
                bytes: 420
            }
        );
    }
}
