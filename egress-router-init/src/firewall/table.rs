//! A typed model of one nftables table of the `inet` family.
//!
//! Pure data: [`super::text`] writes it as an nft script and
//! [`crate::netlink::nft`] sends it to the kernel, both from the same value, so
//! that what is shown is what is loaded. The vocabulary is that of nft(8);
//! only the statements that the project uses exist.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_config::AddressFamily;

/// A table, its named sets and maps, and its chains in the order of loading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Name, unique within the network namespace.
    pub name: String,
    /// Sets and maps; chains refer to them by name.
    pub sets: Vec<Set>,
    /// Chains; a chain that is jumped to stands before the one that jumps.
    pub chains: Vec<Chain>,
}

/// A named set, or a map when it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name, unique within the table.
    pub name: String,
    /// Types of the (concatenated) key.
    pub key: Vec<Datatype>,
    /// Types of the (concatenated) data; empty for a set.
    pub data: Vec<Datatype>,
    /// Whether every element counts packets.
    pub counter: bool,
    /// Who puts elements in.
    pub filled_by: FilledBy,
    /// The elements; of a set that packets fill, those that they may put in.
    pub elements: Elements,
}

/// Who puts elements into a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilledBy {
    /// Whoever makes the set.
    Us,
    /// Packets that pass a [`Statement::CountIn`]; there is nothing in the set
    /// that no packet needed.
    Packets,
}

impl Set {
    /// An empty set, or a map when `data` is not empty.
    #[must_use]
    pub fn new(name: &str, key: &[Datatype], data: &[Datatype]) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_vec(),
            data: data.to_vec(),
            counter: false,
            filled_by: FilledBy::Us,
            elements: Elements::new(length(key), length(data)),
        }
    }

    /// The same set with a counter in each element.
    #[must_use]
    pub fn with_counter(mut self) -> Self {
        self.counter = true;
        self
    }

    /// How many elements the kernel is to make room for: a power of two, so
    /// that few changes of the list change it. A set of a known size is a plain
    /// hash table, which takes half the time to fill that one takes which
    /// grows.
    #[must_use]
    pub fn size(&self) -> usize {
        const MIN_SIZE: usize = 256;
        self.elements.len().next_power_of_two().max(MIN_SIZE)
    }

    /// Adds an element; `key` and `data` are values of the set's types, in
    /// order.
    pub fn push(&mut self, key: &[Value], data: &[Value]) {
        for value in key.iter().chain(data) {
            self.elements.push_value(*value);
        }
    }
}

/// Type of a field of a set's key or data, as in nft(8) "DATA TYPES".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// `ipv4_addr`
    Ipv4Addr,
    /// `ipv6_addr`
    Ipv6Addr,
    /// `inet_proto`
    InetProto,
    /// `inet_service`, a port
    InetService,
}

impl Datatype {
    /// Bytes a field takes in a concatenation: whole 32-bit registers.
    #[must_use]
    pub fn padded_len(self) -> usize {
        match self {
            Self::Ipv6Addr => 16,
            Self::Ipv4Addr | Self::InetProto | Self::InetService => 4,
        }
    }
}

/// Bytes of a concatenation of `types`.
#[must_use]
pub fn length(types: &[Datatype]) -> usize {
    types.iter().map(|t| t.padded_len()).sum()
}

/// A value of one of the [`Datatype`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// An IP protocol number.
    Proto(u8),
    /// A port.
    Port(u16),
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

/// Elements of a set as the kernel's registers hold them: every field padded
/// to 32 bits, key and data side by side, one stride per element. A list of
/// 50 000 mappings is one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    key_len: usize,
    data_len: usize,
    bytes: Vec<u8>,
}

impl Elements {
    /// No elements yet; lengths in bytes.
    #[must_use]
    pub fn new(key_len: usize, data_len: usize) -> Self {
        Self {
            key_len,
            data_len,
            bytes: Vec::new(),
        }
    }

    /// Makes room for `count` more elements.
    pub fn reserve(&mut self, count: usize) {
        self.bytes.reserve(count * self.stride());
    }

    /// Adds one element from its register bytes.
    pub fn push_raw(&mut self, key: &[u8], data: &[u8]) {
        debug_assert_eq!((key.len(), data.len()), (self.key_len, self.data_len));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(data);
    }

    fn push_value(&mut self, value: Value) {
        match value {
            Value::Ipv4(a) => self.bytes.extend_from_slice(&a.octets()),
            Value::Ipv6(a) => self.bytes.extend_from_slice(&a.octets()),
            Value::Proto(p) => self.bytes.extend_from_slice(&[p, 0, 0, 0]),
            Value::Port(p) => {
                let [high, low] = p.to_be_bytes();
                self.bytes.extend_from_slice(&[high, low, 0, 0]);
            }
        }
    }

    /// Bytes of a key.
    #[must_use]
    pub fn key_len(&self) -> usize {
        self.key_len
    }

    /// Bytes of an element's data; 0 in a set.
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.data_len
    }

    fn stride(&self) -> usize {
        self.key_len + self.data_len
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().checked_div(self.stride()).unwrap_or(0)
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Key and data of every element, in order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.bytes
            .chunks_exact(self.stride().max(1))
            .map(|element| element.split_at(self.key_len))
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name, unique within the table.
    pub name: String,
    /// Where the kernel calls it; `None` for a chain that is only jumped to.
    pub hook: Option<Hook>,
    /// Whether the chain belongs to the operator: created when absent, never
    /// flushed.
    pub operator_owned: bool,
    /// The rules, first to last.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that is only jumped to.
    #[must_use]
    pub fn regular(name: &str, rules: Vec<Rule>) -> Self {
        Self {
            name: name.to_owned(),
            hook: None,
            operator_owned: false,
            rules,
        }
    }

    /// A base chain.
    #[must_use]
    pub fn base(name: &str, hook: Hook, rules: Vec<Rule>) -> Self {
        Self {
            name: name.to_owned(),
            hook: Some(hook),
            operator_owned: false,
            rules,
        }
    }

    /// An empty chain for the operator's own rules.
    #[must_use]
    pub fn operator(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hook: None,
            operator_owned: true,
            rules: Vec::new(),
        }
    }
}

/// Type, hook, priority and policy of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `type nat hook prerouting priority dstnat; policy accept;`
    NatPrerouting,
    /// `type nat hook output priority -100; policy accept;`
    NatOutput,
    /// `type nat hook postrouting priority srcnat; policy accept;`
    NatPostrouting,
    /// `type filter hook input priority filter; policy accept;`
    FilterInput,
    /// `type filter hook forward priority filter;` with this policy
    FilterForward(Policy),
    /// `type filter hook output priority filter; policy accept;`
    FilterOutput,
}

/// What becomes of a packet that no rule of a base chain decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It passes.
    Accept,
    /// It is dropped.
    Drop,
}

/// One rule: statements evaluated in order until one does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The statements.
    pub statements: Vec<Statement>,
    /// Shown by nft beside the rule, at most 127 bytes.
    pub comment: Option<&'static str>,
}

impl Rule {
    /// A rule without a comment.
    #[must_use]
    pub fn new(statements: Vec<Statement>) -> Self {
        Self {
            statements,
            comment: None,
        }
    }

    /// The same rule with a comment.
    #[must_use]
    pub fn comment(mut self, text: &'static str) -> Self {
        self.comment = Some(text);
        self
    }
}

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on only when the (masked) selector compares to the value.
    Match(Match),
    /// Goes on only when the concatenated selectors are in the set (or, when
    /// `absent`, are not).
    Lookup {
        /// What to look up.
        key: Vec<Selector>,
        /// The set's or map's name.
        set: String,
        /// Match when the key is *not* there.
        absent: bool,
    },
    /// As [`Statement::Lookup`], and counts the packet in another set under
    /// the same key. When that set has no room the rule ends.
    CountIn {
        /// What to look up.
        key: Vec<Selector>,
        /// The name of the set to look into.
        set: String,
        /// The name of the set that counts.
        counts: String,
    },
    /// Counts packets and bytes that came this far.
    Counter,
    /// `tcp option maxseg size set rt mtu`: lowers the MSS of a SYN to what
    /// the route carries, never raises it.
    ClampMss,
    /// `accept`
    Accept,
    /// `drop`
    Drop,
    /// `return`
    Return,
    /// `jump` to a chain of this table.
    Jump(String),
    /// `goto` a chain of this table.
    Goto(String),
    /// Answers with an error.
    Reject(Reject),
    /// `dnat` to an address, the port kept or replaced.
    Dnat {
        /// New destination address.
        to: IpAddr,
        /// New destination port.
        port: Option<u16>,
    },
    /// `dnat ip to <key> map @map`, the map's data being address and port; a
    /// key that is absent ends the rule.
    DnatMap {
        /// Family of the addresses in the map.
        family: AddressFamily,
        /// What to look up.
        key: Vec<Selector>,
        /// The map's name.
        map: String,
    },
    /// `snat` to an address, the port kept where it is free.
    Snat {
        /// New source address.
        to: IpAddr,
    },
    /// `masquerade`: `snat` to the address of the outgoing interface.
    Masquerade,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// What is compared.
    pub selector: Selector,
    /// Bits that count; all when `None`. Of the selector's length.
    pub mask: Option<Vec<u8>>,
    /// Equal or not equal.
    pub comparison: Comparison,
    /// The value, of the selector's length.
    pub value: Vec<u8>,
}

/// How a [`Match`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// `NFPROTO_*` and `AF_*` number of a family, which agree for these two.
#[must_use]
pub fn family_number(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::Ipv4 => 2,
        AddressFamily::Ipv6 => 10,
    }
}

/// A property of a packet or of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// `meta nfproto`
    Nfproto,
    /// `meta l4proto`
    L4proto,
    /// `iifname`
    Iifname,
    /// `oifname`
    Oifname,
    /// `ip saddr`
    IpSaddr,
    /// `ip daddr`
    IpDaddr,
    /// `ip6 saddr`
    Ip6Saddr,
    /// `ip6 daddr`
    Ip6Daddr,
    /// `th dport`
    ThDport,
    /// `tcp flags`
    TcpFlags,
    /// `icmpv6 type`
    Icmpv6Type,
    /// `fib daddr type`
    FibDaddrType,
    /// `ct state`
    CtState,
    /// `ct status`
    CtStatus,
    /// `ct original protocol`
    CtProtocol,
    /// `ct original proto-dst`: the port the client spoke to
    CtOriginalDport,
    /// `ct reply ip saddr`: the address the connection was translated to
    CtReplySaddr4,
    /// `ct reply ip6 saddr`
    CtReplySaddr6,
    /// `ct reply proto-src`: the port the connection was translated to
    CtReplySport,
}

/// How a [`Statement::Reject`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// TCP reset; only for TCP.
    TcpReset,
    /// ICMP or ICMPv6 destination unreachable, administratively prohibited.
    AdminProhibited,
}

/// Connection states of `ct state`, `NF_CT_STATE_*` of the kernel.
pub mod ct_state {
    /// The packet fits no connection.
    pub const INVALID: u32 = 1;
    /// The connection has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// The packet belongs to another connection, such as an ICMP error.
    pub const RELATED: u32 = 4;
    /// The packet is the first of a connection.
    pub const NEW: u32 = 8;
}

/// `IPS_DST_NAT` of `ct status`: the destination was translated.
pub const CT_STATUS_DNAT: u32 = 0x20;

/// `RTN_LOCAL` of `fib ... type`: an address of this host.
pub const FIB_TYPE_LOCAL: u32 = 2;

/// Shorthands that read like nft.
pub mod dsl {
    use std::net::IpAddr;

    use egress_config::AddressFamily;
    use ipnet::IpNet;

    use super::{Comparison, FIB_TYPE_LOCAL, Match, Selector, Statement, family_number};

    fn equal(selector: Selector, value: Vec<u8>) -> Statement {
        Statement::Match(Match {
            selector,
            mask: None,
            comparison: Comparison::Equal,
            value,
        })
    }

    fn bits(selector: Selector, mask: u32, comparison: Comparison) -> Statement {
        Statement::Match(Match {
            selector,
            mask: Some(mask.to_ne_bytes().to_vec()),
            comparison,
            value: 0u32.to_ne_bytes().to_vec(),
        })
    }

    /// Interface names are compared over the kernel's whole `IFNAMSIZ` bytes,
    /// so that `net1` does not match `net10`.
    fn ifname(name: &str) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes
    }

    /// `iifname "name"`
    #[must_use]
    pub fn iifname(name: &str) -> Statement {
        equal(Selector::Iifname, ifname(name))
    }

    /// `oifname "name"`
    #[must_use]
    pub fn oifname(name: &str) -> Statement {
        equal(Selector::Oifname, ifname(name))
    }

    /// `meta nfproto ipv4|ipv6`
    #[must_use]
    pub fn nfproto(family: AddressFamily) -> Statement {
        equal(Selector::Nfproto, vec![family_number(family)])
    }

    /// `meta l4proto`
    #[must_use]
    pub fn l4proto(number: u8) -> Statement {
        equal(Selector::L4proto, vec![number])
    }

    /// `th dport`; needs an [`l4proto`] before it.
    #[must_use]
    pub fn dport(port: u16) -> Statement {
        equal(Selector::ThDport, port.to_be_bytes().to_vec())
    }

    /// `ip daddr` or `ip6 daddr`; needs an [`nfproto`] before it.
    #[must_use]
    pub fn daddr(address: IpAddr) -> Statement {
        match address {
            IpAddr::V4(a) => equal(Selector::IpDaddr, a.octets().to_vec()),
            IpAddr::V6(a) => equal(Selector::Ip6Daddr, a.octets().to_vec()),
        }
    }

    /// `ip saddr network` or `ip6 saddr network`, or that it is not in there;
    /// needs an [`nfproto`] before it.
    #[must_use]
    pub fn saddr_in(network: IpNet, inside: bool) -> Statement {
        in_network([Selector::IpSaddr, Selector::Ip6Saddr], network, inside)
    }

    /// `ip daddr network` or `ip6 daddr network`, as [`saddr_in`].
    #[must_use]
    pub fn daddr_in(network: IpNet, inside: bool) -> Statement {
        in_network([Selector::IpDaddr, Selector::Ip6Daddr], network, inside)
    }

    fn in_network([v4, v6]: [Selector; 2], network: IpNet, inside: bool) -> Statement {
        let (selector, mask, value) = match network {
            IpNet::V4(n) => (
                v4,
                n.netmask().octets().to_vec(),
                n.network().octets().to_vec(),
            ),
            IpNet::V6(n) => (
                v6,
                n.netmask().octets().to_vec(),
                n.network().octets().to_vec(),
            ),
        };
        let comparison = if inside {
            Comparison::Equal
        } else {
            Comparison::NotEqual
        };
        Statement::Match(Match {
            selector,
            mask: Some(mask),
            comparison,
            value,
        })
    }

    /// `fib daddr type local`
    #[must_use]
    pub fn to_local_address() -> Statement {
        equal(
            Selector::FibDaddrType,
            FIB_TYPE_LOCAL.to_ne_bytes().to_vec(),
        )
    }

    /// `ct state` is one of the given states.
    #[must_use]
    pub fn ct_state(states: u32) -> Statement {
        bits(Selector::CtState, states, Comparison::NotEqual)
    }

    /// `ct status` has none of the given bits.
    #[must_use]
    pub fn ct_status_without(status: u32) -> Statement {
        bits(Selector::CtStatus, status, Comparison::Equal)
    }

    /// `icmpv6 type`; needs an [`l4proto`] of 58 before it.
    #[must_use]
    pub fn icmpv6_type(number: u8) -> Statement {
        equal(Selector::Icmpv6Type, vec![number])
    }

    /// `tcp flags & (syn | rst) == syn`; needs an [`l4proto`] of 6 before it.
    #[must_use]
    pub fn tcp_syn() -> Statement {
        Statement::Match(Match {
            selector: Selector::TcpFlags,
            mask: Some(vec![0x06]),
            comparison: Comparison::Equal,
            value: vec![0x02],
        })
    }

    /// `<key> @set`
    #[must_use]
    pub fn is_in(key: &[Selector], set: &str) -> Statement {
        Statement::Lookup {
            key: key.to_vec(),
            set: set.to_owned(),
            absent: false,
        }
    }

    /// `<key> @set update @counts { <key> }`
    #[must_use]
    pub fn count_in(key: &[Selector], set: &str, counts: &str) -> Statement {
        Statement::CountIn {
            key: key.to_vec(),
            set: set.to_owned(),
            counts: counts.to_owned(),
        }
    }

    /// `jump chain`
    #[must_use]
    pub fn jump(chain: &str) -> Statement {
        Statement::Jump(chain.to_owned())
    }

    /// `goto chain`
    #[must_use]
    pub fn goto(chain: &str) -> Statement {
        Statement::Goto(chain.to_owned())
    }
}
