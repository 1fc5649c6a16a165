//! Statements to the expressions of the kernel's virtual machine.
//!
//! What `nft --debug=netlink` prints for the same rule. Single values go
//! through register 1; concatenations and NAT targets take consecutive 32-bit
//! registers from the same place (`NFT_REG32_00` is the start of
//! `NFT_REG_1`).

use egress_config::AddressFamily;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use super::attribute::{be32, byte};
use crate::firewall::table::{Comparison, Match, Reject, Selector, Statement, family_number};

/// One expression, as rules and sets hold them.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// The expressions of a rule.
pub(super) fn encode(statements: &[Statement]) -> Vec<Expression> {
    let mut expressions = Vec::new();
    for statement in statements {
        push(&mut expressions, statement);
    }
    expressions
}

/// A counter that starts at zero.
pub(super) fn counter() -> Expression {
    raw("counter", vec![])
}

fn push(out: &mut Vec<Expression>, statement: &Statement) {
    match statement {
        Statement::Match(comparison) => push_match(out, comparison),
        Statement::Lookup { key, set, absent } => {
            push_key(out, key);
            out.push(lookup(set, *absent));
        }
        Statement::CountIn { key, set, counts } => {
            push_key(out, key);
            out.push(lookup(set, false));
            out.push(update(counts));
        }
        Statement::Counter => out.push(counter()),
        Statement::ClampMss => push_clamp_mss(out),
        Statement::Accept => out.push(verdict(Verdict::Other(1), None)), // NF_ACCEPT
        Statement::Drop => out.push(verdict(Verdict::Other(0), None)),   // NF_DROP
        Statement::Return => out.push(verdict(Verdict::Return, None)),
        Statement::Jump(chain) => out.push(verdict(Verdict::Jump, Some(chain))),
        Statement::Goto(chain) => out.push(verdict(Verdict::Goto, Some(chain))),
        Statement::Reject(reject) => out.push(reject_expression(*reject)),
        Statement::Dnat { to, port } => {
            let family = AddressFamily::of(*to);
            push_immediate(out, Register::Reg1, address_bytes(*to));
            let port_register = port.map(|port| {
                push_immediate(out, port_register(family), port.to_be_bytes().to_vec());
                port_register(family)
            });
            out.push(nat(NFT_NAT_DNAT, family, port_register));
        }
        Statement::DnatMap { family, key, map } => {
            push_key(out, key);
            out.push(
                Expressions::Lookup(vec![
                    Lookup::Set(map.clone()),
                    Lookup::SourceRegister(Register::Reg1),
                    Lookup::DestinationRegister(Register::Reg1),
                ])
                .into(),
            );
            out.push(nat(NFT_NAT_DNAT, *family, Some(port_register(*family))));
        }
        Statement::Snat { to } => {
            push_immediate(out, Register::Reg1, address_bytes(*to));
            out.push(nat(NFT_NAT_SNAT, AddressFamily::of(*to), None));
        }
        Statement::Masquerade => out.push(raw("masq", vec![])),
    }
}

/// Whether the key in register 1 is in a set.
fn lookup(set: &str, absent: bool) -> Expression {
    let mut lookup = vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
    ];
    if absent {
        lookup.push(Lookup::Flags(1)); // NFT_LOOKUP_F_INV
    }
    Expressions::Lookup(lookup).into()
}

/// Counts under the key in register 1, which is put into the set if need be.
fn update(set: &str) -> Expression {
    const UPDATE: u32 = 1; // NFT_DYNSET_OP_UPDATE
    let mut name = set.as_bytes().to_vec();
    name.push(0);
    // NFTA_DYNSET_SET_NAME, _OP, _SREG_KEY
    raw(
        "dynset",
        vec![
            DefaultNla::new(1, name),
            be32(3, UPDATE),
            be32(4, Register::Reg1.into()),
        ],
    )
}

fn push_match(out: &mut Vec<Expression>, comparison: &Match) {
    push_load(out, comparison.selector, Register::Reg1);
    if let Some(mask) = &comparison.mask {
        out.push(
            Expressions::Bitwise(vec![
                Bitwise::SourceRegister(Register::Reg1),
                Bitwise::DestinationRegister(Register::Reg1),
                Bitwise::Length(super::len32(mask.len())),
                Bitwise::Mask(DataAttribute::Value(mask.clone())),
                Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
            ])
            .into(),
        );
    }
    out.push(
        Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(match comparison.comparison {
                Comparison::Equal => Operator::Equal,
                Comparison::NotEqual => Operator::NotEqual,
            }),
            Cmp::Data(DataAttribute::Value(comparison.value.clone())),
        ])
        .into(),
    );
}

/// Loads a concatenation into consecutive registers.
fn push_key(out: &mut Vec<Expression>, key: &[Selector]) {
    let mut register = u32::from(Register::Reg32_00);
    for selector in key {
        push_load(out, *selector, Register::from(register));
        register += registers(*selector);
    }
}

/// 32-bit registers that a selector fills.
fn registers(selector: Selector) -> u32 {
    match selector {
        Selector::Iifname
        | Selector::Oifname
        | Selector::Ip6Saddr
        | Selector::Ip6Daddr
        | Selector::CtReplySaddr6 => 4,
        _ => 1,
    }
}

fn push_load(out: &mut Vec<Expression>, selector: Selector, to: Register) {
    // Bases of `enum nft_payload_bases`.
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    // `enum nft_ct_keys` and `enum ip_conntrack_dir`.
    const CT_STATE: u32 = 0;
    const CT_STATUS: u32 = 2;
    const CT_PROTOCOL: u32 = 10;
    const CT_PROTO_SRC: u32 = 11;
    const CT_PROTO_DST: u32 = 12;
    const CT_SRC_IP: u32 = 19;
    const CT_SRC_IP6: u32 = 21;
    const ORIGINAL: u8 = 0;
    const REPLY: u8 = 1;

    let meta = |key| Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(to)]).into();
    let payload = |base, offset, length| {
        Expressions::Payload(vec![
            Payload::DestinationRegister(to),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ])
        .into()
    };
    let ct = |key, direction: Option<u8>| {
        // NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_DIRECTION
        let mut attributes = vec![be32(1, to.into()), be32(2, key)];
        attributes.extend(direction.map(|direction| byte(3, direction)));
        raw("ct", attributes)
    };
    out.push(match selector {
        Selector::Nfproto => meta(MetaKey::Nfproto),
        Selector::L4proto => meta(MetaKey::L4Proto),
        Selector::Iifname => meta(MetaKey::Iifname),
        Selector::Oifname => meta(MetaKey::Oifname),
        Selector::IpSaddr => payload(NETWORK, 12, 4),
        Selector::IpDaddr => payload(NETWORK, 16, 4),
        Selector::Ip6Saddr => payload(NETWORK, 8, 16),
        Selector::Ip6Daddr => payload(NETWORK, 24, 16),
        Selector::ThDport => payload(TRANSPORT, 2, 2),
        Selector::TcpFlags => payload(TRANSPORT, 13, 1),
        Selector::Icmpv6Type => payload(TRANSPORT, 0, 1),
        // NFTA_FIB_DREG, NFTA_FIB_RESULT = ADDRTYPE, NFTA_FIB_FLAGS = DADDR
        Selector::FibDaddrType => raw("fib", vec![be32(1, to.into()), be32(2, 3), be32(3, 1 << 1)]),
        Selector::CtState => ct(CT_STATE, None),
        Selector::CtStatus => ct(CT_STATUS, None),
        Selector::CtProtocol => ct(CT_PROTOCOL, Some(ORIGINAL)),
        Selector::CtOriginalDport => ct(CT_PROTO_DST, Some(ORIGINAL)),
        Selector::CtReplySaddr4 => ct(CT_SRC_IP, Some(REPLY)),
        Selector::CtReplySaddr6 => ct(CT_SRC_IP6, Some(REPLY)),
        Selector::CtReplySport => ct(CT_PROTO_SRC, Some(REPLY)),
    });
}

/// `tcp option maxseg size set rt mtu`
fn push_clamp_mss(out: &mut Vec<Expression>) {
    let register = u32::from(Register::Reg1);
    // NFTA_RT_DREG, NFTA_RT_KEY = NFT_RT_TCPMSS
    out.push(raw("rt", vec![be32(1, register), be32(2, 3)]));
    // NFTA_BYTEORDER_SREG, _DREG, _OP = HTON, _LEN, _SIZE
    out.push(raw(
        "byteorder",
        vec![
            be32(1, register),
            be32(2, register),
            be32(3, 1),
            be32(4, 2),
            be32(5, 2),
        ],
    ));
    // NFTA_EXTHDR_TYPE = TCPOPT_MSS, _OFFSET, _LEN, _OP = TCPOPT, _SREG
    out.push(raw(
        "exthdr",
        vec![
            byte(2, 2),
            be32(3, 2),
            be32(4, 2),
            be32(6, 1),
            be32(7, register),
        ],
    ));
}

fn push_immediate(out: &mut Vec<Expression>, to: Register, value: Vec<u8>) {
    out.push(
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(to),
            Immediate::Data(DataAttribute::Value(value)),
        ])
        .into(),
    );
}

fn verdict(code: Verdict, chain: Option<&String>) -> Expression {
    let mut attributes = vec![VerdictAttribute::Code(code)];
    attributes.extend(chain.map(|chain| VerdictAttribute::Chain(chain.clone())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
    .into()
}

fn reject_expression(reject: Reject) -> Expression {
    // NFTA_REJECT_TYPE, NFTA_REJECT_ICMP_CODE
    raw(
        "reject",
        match reject {
            Reject::TcpReset => vec![be32(1, 1)],
            // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED
            Reject::AdminProhibited => vec![be32(1, 2), byte(2, 3)],
        },
    )
}

const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;

/// The address is in register 1, the port behind it.
fn nat(kind: u32, family: AddressFamily, port: Option<Register>) -> Expression {
    // NFTA_NAT_TYPE, _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN
    let mut attributes = vec![
        be32(1, kind),
        be32(2, family_number(family).into()),
        be32(3, Register::Reg1.into()),
    ];
    attributes.extend(port.map(|register| be32(5, register.into())));
    raw("nat", attributes)
}

/// The register behind an address that starts at register 1.
fn port_register(family: AddressFamily) -> Register {
    match family {
        AddressFamily::Ipv4 => Register::Reg32_01,
        AddressFamily::Ipv6 => Register::Reg32_04,
    }
}

fn address_bytes(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(a) => a.octets().to_vec(),
        std::net::IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn raw(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
    .into()
}
