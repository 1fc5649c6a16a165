//! A table as an nft(8) script: what `plan --output nft` prints, and what an
//! operator would load by hand for the same rules.

use std::fmt::{self, Display, Formatter, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use egress_config::AddressFamily;

use super::table::{
    CT_STATUS_DNAT, Chain, Comparison, Datatype, FIB_TYPE_LOCAL, FilledBy, Hook, Match, Policy,
    Reject, Rule, Selector, Set, Statement, Table, ct_state,
};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for set in &self.sets {
            write_set(f, set)?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write_chain(f, chain)?;
        }
        writeln!(f, "}}")
    }
}

fn write_set(f: &mut Formatter<'_>, set: &Set) -> fmt::Result {
    let kind = if set.data.is_empty() { "set" } else { "map" };
    writeln!(f, "\t{kind} {} {{", set.name)?;
    write!(f, "\t\ttype {}", Types(&set.key))?;
    if !set.data.is_empty() {
        write!(f, " : {}", Types(&set.data))?;
    }
    writeln!(f)?;
    writeln!(f, "\t\tsize {}", set.size())?;
    if set.filled_by == FilledBy::Packets {
        writeln!(f, "\t\tflags dynamic")?;
    }
    if set.counter {
        writeln!(f, "\t\tcounter")?;
    }
    if set.filled_by == FilledBy::Us && !set.elements.is_empty() {
        writeln!(f, "\t\telements = {{")?;
        for (key, data) in set.elements.iter() {
            write!(f, "\t\t\t{}", Fields(&set.key, key))?;
            if !data.is_empty() {
                write!(f, " : {}", Fields(&set.data, data))?;
            }
            writeln!(f, ",")?;
        }
        writeln!(f, "\t\t}}")?;
    }
    writeln!(f, "\t}}\n")
}

fn write_chain(f: &mut Formatter<'_>, chain: &Chain) -> fmt::Result {
    writeln!(f, "\tchain {} {{", chain.name)?;
    if let Some(hook) = chain.hook {
        let (kind, name, priority, policy) = match hook {
            Hook::NatPrerouting => ("nat", "prerouting", "dstnat", Policy::Accept),
            Hook::NatOutput => ("nat", "output", "-100", Policy::Accept),
            Hook::NatPostrouting => ("nat", "postrouting", "srcnat", Policy::Accept),
            Hook::FilterInput => ("filter", "input", "filter", Policy::Accept),
            Hook::FilterForward(policy) => ("filter", "forward", "filter", policy),
            Hook::FilterOutput => ("filter", "output", "filter", Policy::Accept),
        };
        let policy = match policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        writeln!(
            f,
            "\t\ttype {kind} hook {name} priority {priority}; policy {policy};"
        )?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t\t{rule}")?;
    }
    writeln!(f, "\t}}")
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, statement) in self.statements.iter().enumerate() {
            if index > 0 {
                f.write_char(' ')?;
            }
            statement.fmt(f)?;
        }
        match self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(comparison) => comparison.fmt(f),
            Self::Lookup { key, set, absent } => {
                let not = if *absent { "!= " } else { "" };
                write!(f, "{} {not}@{set}", Selectors(key))
            }
            Self::CountIn { key, set, counts } => {
                let key = Selectors(key);
                write!(f, "{key} @{set} update @{counts} {{ {key} }}")
            }
            Self::Counter => f.write_str("counter"),
            Self::ClampMss => f.write_str("tcp option maxseg size set rt mtu"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Self::Reject(Reject::AdminProhibited) => {
                f.write_str("reject with icmpx admin-prohibited")
            }
            Self::Dnat { to, port } => {
                write!(f, "dnat {} to ", family_word(AddressFamily::of(*to)))?;
                match (to, port) {
                    (std::net::IpAddr::V6(to), Some(port)) => write!(f, "[{to}]:{port}"),
                    (to, Some(port)) => write!(f, "{to}:{port}"),
                    (to, None) => write!(f, "{to}"),
                }
            }
            Self::DnatMap { family, key, map } => {
                write!(
                    f,
                    "dnat {} to {} map @{map}",
                    family_word(*family),
                    Selectors(key)
                )
            }
            Self::Snat { to } => write!(f, "snat {} to {to}", family_word(AddressFamily::of(*to))),
            Self::Masquerade => f.write_str("masquerade"),
        }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operator = match self.comparison {
            Comparison::Equal => "",
            Comparison::NotEqual => "!= ",
        };
        match (self.selector, &self.mask) {
            // Both are compared to none of the bits at all.
            (Selector::CtState, Some(mask)) => {
                f.write_str("ct state ")?;
                match self.comparison {
                    Comparison::NotEqual => f.write_str(&state_names(mask, ",")),
                    Comparison::Equal => write!(f, "& ({}) == 0", state_names(mask, " | ")),
                }
            }
            (Selector::CtStatus, Some(mask)) => {
                let bits = native(mask);
                let name = if bits == CT_STATUS_DNAT {
                    "dnat".into()
                } else {
                    bits.to_string()
                };
                let operator = match self.comparison {
                    Comparison::Equal => "==",
                    Comparison::NotEqual => "!=",
                };
                write!(f, "ct status & {name} {operator} 0")
            }
            (Selector::TcpFlags, Some(_)) => f.write_str("tcp flags & (syn | rst) == syn"),
            (selector, Some(mask)) => {
                let prefix: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                write!(
                    f,
                    "{} {operator}{}/{prefix}",
                    name(selector),
                    value(selector, &self.value)
                )
            }
            (selector, None) => {
                write!(
                    f,
                    "{} {operator}{}",
                    name(selector),
                    value(selector, &self.value)
                )
            }
        }
    }
}

fn name(selector: Selector) -> &'static str {
    match selector {
        Selector::Nfproto => "meta nfproto",
        Selector::L4proto => "meta l4proto",
        Selector::Iifname => "iifname",
        Selector::Oifname => "oifname",
        Selector::IpSaddr => "ip saddr",
        Selector::IpDaddr => "ip daddr",
        Selector::Ip6Saddr => "ip6 saddr",
        Selector::Ip6Daddr => "ip6 daddr",
        Selector::ThDport => "th dport",
        Selector::TcpFlags => "tcp flags",
        Selector::Icmpv6Type => "icmpv6 type",
        Selector::FibDaddrType => "fib daddr type",
        Selector::CtState => "ct state",
        Selector::CtStatus => "ct status",
        Selector::CtProtocol => "ct original protocol",
        Selector::CtOriginalDport => "ct original proto-dst",
        Selector::CtReplySaddr4 => "ct reply ip saddr",
        Selector::CtReplySaddr6 => "ct reply ip6 saddr",
        Selector::CtReplySport => "ct reply proto-src",
    }
}

fn value(selector: Selector, bytes: &[u8]) -> String {
    match selector {
        Selector::Nfproto => match bytes {
            [2] => "ipv4".into(),
            _ => "ipv6".into(),
        },
        Selector::L4proto => protocol_name(bytes.first().copied().unwrap_or(0)),
        Selector::Iifname | Selector::Oifname => {
            let name: Vec<u8> = bytes
                .iter()
                .copied()
                .take_while(|byte| *byte != 0)
                .collect();
            format!("\"{}\"", String::from_utf8_lossy(&name))
        }
        Selector::IpSaddr | Selector::IpDaddr | Selector::CtReplySaddr4 => {
            field(Datatype::Ipv4Addr, bytes)
        }
        Selector::Ip6Saddr | Selector::Ip6Daddr | Selector::CtReplySaddr6 => {
            field(Datatype::Ipv6Addr, bytes)
        }
        Selector::ThDport | Selector::CtOriginalDport | Selector::CtReplySport => {
            field(Datatype::InetService, bytes)
        }
        Selector::Icmpv6Type => bytes.first().map_or_else(String::new, u8::to_string),
        Selector::FibDaddrType if native(bytes) == FIB_TYPE_LOCAL => "local".into(),
        Selector::FibDaddrType
        | Selector::CtState
        | Selector::CtStatus
        | Selector::CtProtocol
        | Selector::TcpFlags => native(bytes).to_string(),
    }
}

fn state_names(mask: &[u8], separator: &str) -> String {
    let bits = native(mask);
    [
        (ct_state::INVALID, "invalid"),
        (ct_state::ESTABLISHED, "established"),
        (ct_state::RELATED, "related"),
        (ct_state::NEW, "new"),
    ]
    .iter()
    .filter(|(bit, _)| bits & bit != 0)
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join(separator)
}

fn native(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn family_word(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "ip",
        AddressFamily::Ipv6 => "ip6",
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "ipv6-icmp".into(),
        other => other.to_string(),
    }
}

/// The types of a concatenation: `inet_proto . inet_service`.
struct Types<'a>(&'a [Datatype]);

impl Display for Types<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, datatype) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" . ")?;
            }
            f.write_str(match datatype {
                Datatype::Ipv4Addr => "ipv4_addr",
                Datatype::Ipv6Addr => "ipv6_addr",
                Datatype::InetProto => "inet_proto",
                Datatype::InetService => "inet_service",
            })?;
        }
        Ok(())
    }
}

/// The values of a concatenation: `tcp . 80`.
struct Fields<'a>(&'a [Datatype], &'a [u8]);

impl Display for Fields<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.1;
        for (index, datatype) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" . ")?;
            }
            let (bytes, tail) = rest
                .split_at_checked(datatype.padded_len())
                .unwrap_or((rest, &[]));
            f.write_str(&field(*datatype, bytes))?;
            rest = tail;
        }
        Ok(())
    }
}

fn field(datatype: Datatype, bytes: &[u8]) -> String {
    let text = match datatype {
        Datatype::Ipv4Addr => bytes
            .first_chunk::<4>()
            .map(|b| Ipv4Addr::from(*b).to_string()),
        Datatype::Ipv6Addr => bytes
            .first_chunk::<16>()
            .map(|b| Ipv6Addr::from(*b).to_string()),
        Datatype::InetProto => bytes.first().map(|b| protocol_name(*b)),
        Datatype::InetService => bytes
            .first_chunk::<2>()
            .map(|b| u16::from_be_bytes(*b).to_string()),
    };
    text.unwrap_or_default()
}

/// Selectors of a concatenation: `meta l4proto . th dport`.
struct Selectors<'a>(&'a [Selector]);

impl Display for Selectors<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, selector) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" . ")?;
            }
            f.write_str(name(*selector))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::dsl::{
        ct_state as in_state, daddr, daddr_in, dport, iifname, l4proto, nfproto, saddr_in,
    };
    use super::super::table::{Rule, Value};
    use super::*;

    fn rule(statements: Vec<Statement>) -> String {
        Rule::new(statements).to_string()
    }

    #[test]
    fn comparisons() {
        let network = "10.244.0.0/16".parse().unwrap();
        let ipv6 = "fd00:10::/32".parse().unwrap();
        for (statement, text) in [
            (nfproto(AddressFamily::Ipv6), "meta nfproto ipv6"),
            (l4proto(132), "meta l4proto 132"),
            (iifname("eth0"), "iifname \"eth0\""),
            (dport(443), "th dport 443"),
            (
                daddr("203.0.113.25".parse().unwrap()),
                "ip daddr 203.0.113.25",
            ),
            (
                daddr("2001:db8::1".parse().unwrap()),
                "ip6 daddr 2001:db8::1",
            ),
            (saddr_in(network, true), "ip saddr 10.244.0.0/16"),
            (daddr_in(network, false), "ip daddr != 10.244.0.0/16"),
            (daddr_in(ipv6, true), "ip6 daddr fd00:10::/32"),
            (
                in_state(ct_state::ESTABLISHED | ct_state::RELATED),
                "ct state established,related",
            ),
        ] {
            assert_eq!(statement.to_string(), text);
        }
        let status = |comparison| {
            Statement::Match(Match {
                selector: Selector::CtStatus,
                mask: Some(CT_STATUS_DNAT.to_ne_bytes().to_vec()),
                comparison,
                value: vec![0; 4],
            })
        };
        assert_eq!(
            status(Comparison::Equal).to_string(),
            "ct status & dnat == 0"
        );
        assert_eq!(
            status(Comparison::NotEqual).to_string(),
            "ct status & dnat != 0"
        );
    }

    #[test]
    fn statements() {
        let to = |text: &str, port| Statement::Dnat {
            to: text.parse().unwrap(),
            port,
        };
        assert_eq!(
            rule(vec![to("203.0.113.25", None)]),
            "dnat ip to 203.0.113.25"
        );
        assert_eq!(
            rule(vec![to("203.0.113.25", Some(80))]),
            "dnat ip to 203.0.113.25:80"
        );
        assert_eq!(
            rule(vec![to("2001:db8::1", Some(80))]),
            "dnat ip6 to [2001:db8::1]:80"
        );
        let lookup = |absent| Statement::Lookup {
            key: vec![Selector::L4proto, Selector::ThDport],
            set: "open".to_owned(),
            absent,
        };
        assert_eq!(
            rule(vec![lookup(false), Statement::Accept]),
            "meta l4proto . th dport @open accept"
        );
        assert_eq!(
            rule(vec![lookup(true), Statement::Drop]),
            "meta l4proto . th dport != @open drop"
        );
        let commented = Rule::new(vec![Statement::Counter]).comment("seen");
        assert_eq!(commented.to_string(), "counter comment \"seen\"");
    }

    #[test]
    fn elements_are_typed() {
        let mut set = Set::new(
            "flows6",
            &[
                Datatype::InetProto,
                Datatype::InetService,
                Datatype::Ipv6Addr,
            ],
            &[],
        );
        let target = "2001:db8::1".parse().unwrap();
        set.push(
            &[Value::Proto(17), Value::Port(53), Value::Ipv6(target)],
            &[],
        );
        let table = Table {
            name: "t".to_owned(),
            sets: vec![set],
            chains: vec![],
        };
        let text = table.to_string();
        assert!(
            text.contains("type inet_proto . inet_service . ipv6_addr\n"),
            "{text}"
        );
        assert!(text.contains("\t\t\tudp . 53 . 2001:db8::1,\n"), "{text}");
    }
}
