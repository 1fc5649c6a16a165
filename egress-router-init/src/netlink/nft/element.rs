//! Set elements, written as bytes: a list of 50 000 is on every start's path,
//! and a value per attribute would be a million allocations.

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{NfTablesMessage, SetElementList, SetElementMessage};

use super::dump::{Count, ElementCount};
use super::socket::Batch;
use crate::firewall::table::Elements;

/// An attribute's length is 16 bits; a list of elements is cut below that.
const MAX_LIST_BYTES: usize = 60_000;

// include/uapi/linux/netfilter/nf_tables.h
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

/// The expression's name with the NUL at its end: eight bytes, so that nothing
/// needs padding.
const COUNTER: &[u8] = b"counter\0";

/// `nft add element inet TABLE SET { ... }`
pub(super) fn add(batch: &mut Batch, table: &str, set: &str, elements: &Elements) {
    let elements = elements.iter().map(|(key, data)| Element {
        key,
        data,
        count: None,
    });
    add_lists(batch, table, set, elements);
}

/// `nft add element inet TABLE SET { KEY counter packets 2 bytes 120, ... }`
pub(super) fn add_counted(batch: &mut Batch, table: &str, set: &str, counts: &[&ElementCount]) {
    let elements = counts.iter().map(|element| Element {
        key: &element.key,
        data: &[],
        count: Some(element.count),
    });
    add_lists(batch, table, set, elements);
}

fn add_lists<'a>(
    batch: &mut Batch,
    table: &str,
    set: &str,
    elements: impl Iterator<Item = Element<'a>>,
) {
    for_each_list(elements, |list| {
        let message = NfTablesMessage::NewSetElement(message(table, set, list));
        batch.push("elements", NLM_F_CREATE, message);
    });
}

/// `nft delete element inet TABLE SET { ... }`
pub(super) fn delete(batch: &mut Batch, table: &str, set: &str, elements: &Elements) {
    let elements = elements.iter().map(|(key, _)| Element {
        key,
        data: &[],
        count: None,
    });
    for_each_list(elements, |list| {
        let message = NfTablesMessage::DeleteSetElement(message(table, set, list));
        batch.push("deleting elements", 0, message);
    });
}

fn message(table: &str, set: &str, list: Vec<u8>) -> SetElementMessage {
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(set.to_owned()),
            SetElementList::Other(DefaultNla::new(
                NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED,
                list,
            )),
        ],
    }
}

/// Lists of elements, each as long as one attribute may be.
fn for_each_list<'a>(elements: impl Iterator<Item = Element<'a>>, mut each: impl FnMut(Vec<u8>)) {
    let mut list = Vec::new();
    for element in elements {
        if list.len() + HEADER + element.len() > MAX_LIST_BYTES {
            each(std::mem::replace(
                &mut list,
                Vec::with_capacity(MAX_LIST_BYTES),
            ));
        }
        header(&mut list, NFTA_LIST_ELEM | NLA_F_NESTED, element.len());
        element.write(&mut list);
    }
    if !list.is_empty() {
        each(list);
    }
}

const HEADER: usize = 4;

/// An element on its way to the kernel.
struct Element<'a> {
    key: &'a [u8],
    /// Empty in a set, and where an element is deleted.
    data: &'a [u8],
    /// What its counter starts with.
    count: Option<Count>,
}

impl Element<'_> {
    /// Bytes of its attributes.
    fn len(&self) -> usize {
        let data = match self.data {
            [] => 0,
            data => 2 * HEADER + data.len(),
        };
        let count = self
            .count
            .map_or(0, |_| HEADER + COUNTER_NAME + COUNTER_DATA);
        2 * HEADER + self.key.len() + data + count
    }

    fn write(&self, list: &mut Vec<u8>) {
        value(list, NFTA_SET_ELEM_KEY, self.key);
        if !self.data.is_empty() {
            value(list, NFTA_SET_ELEM_DATA, self.data);
        }
        if let Some(count) = self.count {
            header(
                list,
                NFTA_SET_ELEM_EXPR | NLA_F_NESTED,
                COUNTER_NAME + COUNTER_DATA,
            );
            header(list, NFTA_EXPR_NAME, COUNTER.len());
            list.extend_from_slice(COUNTER);
            header(list, NFTA_EXPR_DATA | NLA_F_NESTED, COUNTER_DATA - HEADER);
            for (kind, number) in [
                (NFTA_COUNTER_BYTES, count.bytes),
                (NFTA_COUNTER_PACKETS, count.packets),
            ] {
                header(list, kind, size_of::<u64>());
                list.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
}

/// Bytes of `NFTA_EXPR_NAME`.
const COUNTER_NAME: usize = HEADER + COUNTER.len();

/// Bytes of `NFTA_EXPR_DATA` with two numbers.
const COUNTER_DATA: usize = HEADER + 2 * (HEADER + size_of::<u64>());

/// `{ NFTA_DATA_VALUE: bytes }` inside a key or data attribute. Values are
/// whole registers, so nothing needs padding.
fn value(list: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    header(list, kind | NLA_F_NESTED, HEADER + bytes.len());
    header(list, NFTA_DATA_VALUE, bytes.len());
    list.extend_from_slice(bytes);
}

fn header(list: &mut Vec<u8>, kind: u16, payload: usize) {
    let length = u16::try_from(HEADER + payload).unwrap_or(u16::MAX);
    list.extend_from_slice(&length.to_ne_bytes());
    list.extend_from_slice(&kind.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::dump::{first, walk};
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_nothing_is_lost() {
        let mut elements = Elements::new(8, 8);
        for number in 0..10_000u64 {
            elements.push_raw(&number.to_be_bytes(), &(number * 2).to_be_bytes());
        }
        let mut lists = Vec::new();
        let all = elements.iter().map(|(key, data)| Element {
            key,
            data,
            count: None,
        });
        for_each_list(all, |list| lists.push(list));
        assert!(lists.len() > 1);
        let mut seen = 0u64;
        for list in &lists {
            assert!(list.len() <= MAX_LIST_BYTES, "{}", list.len());
            walk(list, NFTA_LIST_ELEM, |element| {
                let value = |kind| first(first(element, kind)?, NFTA_DATA_VALUE);
                assert_eq!(value(NFTA_SET_ELEM_KEY)?, seen.to_be_bytes());
                assert_eq!(value(NFTA_SET_ELEM_DATA)?, (seen * 2).to_be_bytes());
                seen += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(seen, 10_000);
    }

    #[test]
    fn no_elements_make_no_list() {
        let none = Elements::new(4, 0);
        let all = none.iter().map(|(key, data)| Element {
            key,
            data,
            count: None,
        });
        for_each_list(all, |list| panic!("{list:?}"));
    }
}
