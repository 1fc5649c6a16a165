//! The table of the router: DESIGN 2.4 as a pure function.

use std::net::IpAddr;

use egress_config::{AddressFamily, Port};
use ipnet::IpNet;

use super::table::{
    CT_STATUS_DNAT, Chain, Datatype, FilledBy, Hook, Policy, Reject, Rule, Selector, Set,
    Statement, Table, Value, ct_state,
    dsl::{
        count_in, ct_state, ct_status_without, daddr_in, dport, goto, icmpv6_type, iifname, is_in,
        jump, l4proto, nfproto, oifname, tcp_syn, to_local_address,
    },
};
use crate::redirect::Redirects;

/// Name of the table; other people's tables are not touched.
pub const TABLE: &str = "egress_router";

/// Chain for the operator's own rules.
pub const ADMIN_CHAIN: &str = "admin";

/// Chain whose counter says how many packets were refused.
pub const REFUSE_CHAIN: &str = "refuse";

/// Chain whose counter says what hosts of the physical network sent to the
/// pod's own sockets.
pub const FROM_LAN_CHAIN: &str = "from_lan";

/// Chain that lets processes of the pod reach the pod network.
const TO_POD_NETWORK_CHAIN: &str = "to_pod_network";

/// Chain that lets redirected connections through.
const REDIRECTED_CHAIN: &str = "redirected";

/// Chain whose only counter says what hosts of the physical network sent
/// towards the cluster.
pub const FORWARD_CHAIN: &str = "forward";

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// What the packet rules are made from.
#[derive(Debug, Clone, Copy)]
pub struct Firewall<'a> {
    /// Interface of the pod network.
    pub pod_interface: &'a str,
    /// Interface of the physical network.
    pub egress_interface: &'a str,
    /// The address that the outside is to see, one per family.
    pub sources: &'a [IpAddr],
    /// Where connections to the pod go.
    pub redirects: &'a Redirects,
    /// TCP ports of the pod itself that a fallback leaves alone.
    pub local_ports: &'a [Port],
    /// IPv6 networks that processes of the pod reach by the pod interface;
    /// empty where that has no IPv6.
    pub pod_networks: &'a [IpNet],
}

/// Name of the map that says where a connection goes.
#[must_use]
pub fn dnat_map(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "dnat4",
        AddressFamily::Ipv6 => "dnat6",
    }
}

/// Name of the set of mappings that may pass.
#[must_use]
pub fn flow_set(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "flows4",
        AddressFamily::Ipv6 => "flows6",
    }
}

/// Name of the set that counts what passed, by mapping.
#[must_use]
pub fn count_set(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "counts4",
        AddressFamily::Ipv6 => "counts6",
    }
}

/// Name of the set that holds the fallback's address, with its counter.
#[must_use]
pub fn fallback_set(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "fallback4",
        AddressFamily::Ipv6 => "fallback6",
    }
}

impl Firewall<'_> {
    /// The table, in the order in which the kernel takes it.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut sets = Vec::new();
        for family in self.families() {
            sets.extend(self.sets(family));
        }
        let mut chains = vec![
            Chain::operator(ADMIN_CHAIN),
            refuse(),
            self.redirected(),
            from_lan(),
            self.translate(),
            self.prerouting(),
            self.postrouting(),
            self.input(),
            self.forward(),
        ];
        chains.extend(self.pod_network());
        chains.push(self.output());
        Table {
            name: TABLE.to_owned(),
            sets,
            chains,
        }
    }

    /// Families that have a source address, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = AddressFamily> {
        AddressFamily::ALL.into_iter().filter(|family| {
            self.sources
                .iter()
                .any(|source| AddressFamily::of(*source) == *family)
        })
    }

    /// Names of the sets and chains that another configuration may have left:
    /// those of a family without a source address, and of a pod network
    /// without IPv6.
    #[must_use]
    pub fn retired(&self) -> Vec<&'static str> {
        let chain = self.pod_networks.is_empty().then_some(TO_POD_NETWORK_CHAIN);
        AddressFamily::ALL
            .into_iter()
            .filter(|family| self.families().all(|known| known != *family))
            .flat_map(|family| {
                [
                    dnat_map(family),
                    flow_set(family),
                    count_set(family),
                    fallback_set(family),
                ]
            })
            .chain(chain)
            .collect()
    }

    fn fallbacks(&self) -> impl Iterator<Item = (AddressFamily, IpAddr)> {
        self.families()
            .filter_map(|family| Some((family, self.redirects.fallback(family)?)))
    }

    /// `dnat`: what the client spoke to -> where it goes. `flows`: the same
    /// pairs as conntrack remembers them, so that a packet of a connection
    /// whose mapping is gone finds nothing and is refused. `counts`: those of
    /// them that had packets, so that only what is used costs counters, which
    /// take the kernel longer to make than all the rest. `fallback`: the
    /// address where the other ports go.
    fn sets(&self, family: AddressFamily) -> [Set; 4] {
        let address = match family {
            AddressFamily::Ipv4 => Datatype::Ipv4Addr,
            AddressFamily::Ipv6 => Datatype::Ipv6Addr,
        };
        let local = [Datatype::InetProto, Datatype::InetService];
        let remote = [address, Datatype::InetService];
        let mut dnat = Set::new(dnat_map(family), &local, &remote);
        let mut flows = Set::new(flow_set(family), &[local, remote].concat(), &[]);
        let mappings = || {
            self.redirects
                .mappings()
                .iter()
                .filter(|m| AddressFamily::of(m.target()) == family)
        };
        let count = mappings().count();
        dnat.elements.reserve(count);
        flows.elements.reserve(count);
        for mapping in mappings() {
            let [proto, port, to, to_port] = [
                Value::Proto(mapping.protocol().number()),
                Value::Port(mapping.port().get()),
                Value::from(mapping.target()),
                Value::Port(mapping.target_port().get()),
            ];
            dnat.push(&[proto, port], &[to, to_port]);
            flows.push(&[proto, port, to, to_port], &[]);
        }
        let counts = Set {
            name: count_set(family).to_owned(),
            filled_by: FilledBy::Packets,
            ..flows.clone()
        }
        .with_counter();
        let mut fallback = Set::new(fallback_set(family), &[address], &[]).with_counter();
        if let Some(to) = self.redirects.fallback(family) {
            fallback.push(&[to.into()], &[]);
        }
        [dnat, flows, counts, fallback]
    }

    /// Only what a pod sent to an address of this pod is redirected: a router
    /// that somebody uses as a next hop stays closed.
    fn prerouting(&self) -> Chain {
        Chain::base(
            "prerouting",
            Hook::NatPrerouting,
            vec![Rule::new(vec![
                iifname(self.pod_interface),
                to_local_address(),
                goto("translate"),
            ])],
        )
    }

    fn translate(&self) -> Chain {
        let mut rules: Vec<Rule> = self
            .families()
            .map(|family| {
                Rule::new(vec![
                    nfproto(family),
                    Statement::DnatMap {
                        family,
                        key: vec![Selector::L4proto, Selector::ThDport],
                        map: dnat_map(family).to_owned(),
                    },
                ])
            })
            .collect();
        let mut fallbacks = self.fallbacks().peekable();
        if fallbacks.peek().is_some() {
            rules.extend(self.local_ports.iter().map(|port| {
                Rule::new(vec![l4proto(TCP), dport(port.get()), Statement::Return])
                    .comment("the pod's own port")
            }));
        }
        rules.extend(fallbacks.map(|(family, to)| {
            Rule::new(vec![nfproto(family), Statement::Dnat { to, port: None }]).comment("fallback")
        }));
        Chain::regular("translate", rules)
    }

    fn postrouting(&self) -> Chain {
        let rules = self
            .sources
            .iter()
            .map(|source| {
                Rule::new(vec![
                    oifname(self.egress_interface),
                    nfproto(AddressFamily::of(*source)),
                    Statement::Snat { to: *source },
                ])
            })
            .collect();
        Chain::base("postrouting", Hook::NatPostrouting, rules)
    }

    fn input(&self) -> Chain {
        Chain::base(
            "input",
            Hook::FilterInput,
            vec![Rule::new(vec![
                iifname(self.egress_interface),
                goto(FROM_LAN_CHAIN),
            ])],
        )
    }

    fn forward(&self) -> Chain {
        let (pod, egress) = (self.pod_interface, self.egress_interface);
        let replies = ct_state(ct_state::ESTABLISHED | ct_state::RELATED);
        Chain::base(
            FORWARD_CHAIN,
            Hook::FilterForward(Policy::Drop),
            vec![
                Rule::new(vec![jump(ADMIN_CHAIN)]),
                // Answering a packet that fits no connection with a reset
                // would end the connection that it does not fit.
                Rule::new(vec![ct_state(ct_state::INVALID), Statement::Drop]),
                Rule::new(vec![l4proto(TCP), tcp_syn(), Statement::ClampMss]),
                Rule::new(vec![iifname(pod), oifname(egress), goto(REDIRECTED_CHAIN)]),
                Rule::new(vec![
                    iifname(egress),
                    oifname(pod),
                    replies,
                    goto(REDIRECTED_CHAIN),
                ]),
                Rule::new(vec![iifname(pod), goto(REFUSE_CHAIN)]).comment("not a way through"),
                Rule::new(vec![Statement::Counter]).comment("from the physical network: dropped"),
            ],
        )
    }

    fn output(&self) -> Chain {
        let mut rules = vec![Rule::new(vec![jump(ADMIN_CHAIN)])];
        if !self.pod_networks.is_empty() {
            rules.push(Rule::new(vec![
                nfproto(AddressFamily::Ipv6),
                oifname(self.pod_interface),
                ct_state(ct_state::NEW),
                goto(TO_POD_NETWORK_CHAIN),
            ]));
        }
        Chain::base("output", Hook::FilterOutput, rules)
    }

    /// Where the main table has no route, the kernel gives an IPv6 socket that
    /// is not bound the address of the pod and looks again
    /// (`ip6_dst_lookup_tail`). The rule for that address would then lead it
    /// out by the pod network, with the address of the node.
    fn pod_network(&self) -> Option<Chain> {
        if self.pod_networks.is_empty() {
            return None;
        }
        let mut rules: Vec<Rule> = self
            .pod_networks
            .iter()
            .map(|network| {
                Rule::new(vec![
                    nfproto(AddressFamily::of(network.addr())),
                    daddr_in(*network, true),
                    Statement::Accept,
                ])
            })
            .collect();
        rules.push(Rule::new(vec![goto(REFUSE_CHAIN)]).comment("by the way out, or not at all"));
        Some(Chain::regular(TO_POD_NETWORK_CHAIN, rules))
    }

    /// Both directions of a connection, and ICMP errors about it, carry the
    /// same original port and the same translated address: one lookup serves
    /// all of them. A rule for each protocol of the packet, because nft(8)
    /// reads the ports of a connection only where it knows that.
    fn redirected(&self) -> Chain {
        let mut rules = vec![Rule::new(vec![
            ct_status_without(CT_STATUS_DNAT),
            goto(REFUSE_CHAIN),
        ])];
        for family in self.families() {
            let key = [
                Selector::CtProtocol,
                Selector::CtOriginalDport,
                translated(family),
                Selector::CtReplySport,
            ];
            for protocol in packet_protocols(family) {
                rules.push(Rule::new(vec![
                    nfproto(family),
                    l4proto(protocol),
                    count_in(&key, flow_set(family), count_set(family)),
                    Statement::Accept,
                ]));
                rules.push(
                    Rule::new(vec![
                        nfproto(family),
                        l4proto(protocol),
                        is_in(&key, flow_set(family)),
                        Statement::Accept,
                    ])
                    .comment("not counted for want of memory"),
                );
            }
        }
        for (family, _) in self.fallbacks() {
            // A port that has a mapping of its own by now is no fallback's.
            for protocol in packet_protocols(family) {
                rules.push(Rule::new(vec![
                    nfproto(family),
                    l4proto(protocol),
                    is_in(
                        &[Selector::CtProtocol, Selector::CtOriginalDport],
                        dnat_map(family),
                    ),
                    goto(REFUSE_CHAIN),
                ]));
            }
            rules.push(Rule::new(vec![
                nfproto(family),
                is_in(&[translated(family)], fallback_set(family)),
                Statement::Accept,
            ]));
        }
        rules.push(Rule::new(vec![goto(REFUSE_CHAIN)]));
        Chain::regular(REDIRECTED_CHAIN, rules)
    }
}

/// What a packet of a mapping's connection can be: its own protocol, or an
/// error about it.
fn packet_protocols(family: AddressFamily) -> [u8; 3] {
    let icmp = match family {
        AddressFamily::Ipv4 => ICMP,
        AddressFamily::Ipv6 => ICMPV6,
    };
    [TCP, UDP, icmp]
}

/// Where a connection was translated to.
fn translated(family: AddressFamily) -> Selector {
    match family {
        AddressFamily::Ipv4 => Selector::CtReplySaddr4,
        AddressFamily::Ipv6 => Selector::CtReplySaddr6,
    }
}

/// Refused at once, so that a client need not wait for a time-out.
fn refuse() -> Chain {
    Chain::regular(
        REFUSE_CHAIN,
        vec![
            Rule::new(vec![Statement::Counter]),
            Rule::new(vec![l4proto(TCP), Statement::Reject(Reject::TcpReset)]),
            Rule::new(vec![Statement::Reject(Reject::AdminProhibited)]),
        ],
    )
}

/// The pod's own sockets are not for the physical network. Path MTU discovery
/// arrives as related; neighbour discovery needs its solicitations and
/// advertisements (and the multicast listener query that keeps a snooping
/// switch sending them). Router advertisements are not accepted.
fn from_lan() -> Chain {
    const LISTENER_QUERY: u8 = 130;
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    let mut rules = vec![Rule::new(vec![
        ct_state(ct_state::ESTABLISHED | ct_state::RELATED),
        Statement::Accept,
    ])];
    for number in [
        LISTENER_QUERY,
        NEIGHBOUR_SOLICITATION,
        NEIGHBOUR_ADVERTISEMENT,
    ] {
        rules.push(Rule::new(vec![
            nfproto(AddressFamily::Ipv6),
            l4proto(ICMPV6),
            icmpv6_type(number),
            Statement::Accept,
        ]));
    }
    rules.push(Rule::new(vec![Statement::Counter, Statement::Drop]));
    Chain::regular(FROM_LAN_CHAIN, rules)
}
