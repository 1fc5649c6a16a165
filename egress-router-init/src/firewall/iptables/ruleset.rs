//! The rules as iptables knows them: the same meaning as
//! [`Firewall::table`](crate::firewall::rules::Firewall::table), rule by rule.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

use egress_config::{AddressFamily, Protocol};

use super::error::IptablesError;
use super::listing::Entry;
use super::script::Script;
use crate::firewall::Flow;
use crate::firewall::rules::Firewall;
use crate::redirect::Mapping;

/// The most mappings that the driver takes. Two or three rules each, of which
/// the kernel tries one after the other, and the program some milliseconds
/// each: such a list is in force after a quarter of a minute.
pub const MAX_MAPPINGS: usize = 1000;

/// Chain for the operator's own rules.
pub(super) const ADMIN_CHAIN: &str = "EGRESS-ADMIN";
/// What arrives from the physical network for the pod's own sockets.
pub(super) const INPUT_CHAIN: &str = "EGRESS-INPUT";
/// What passes through the pod.
pub(super) const FORWARD_CHAIN: &str = "EGRESS-FORWARD";
/// Lets redirected connections through.
pub(super) const REDIRECTED_CHAIN: &str = "EGRESS-REDIRECTED";
/// Refuses, and counts what it refused.
pub(super) const REFUSE_CHAIN: &str = "EGRESS-REFUSE";
const OUTPUT_CHAIN: &str = "EGRESS-OUTPUT";
const SNAT_CHAIN: &str = "EGRESS-SNAT";
const DNAT_CHAIN: &str = "EGRESS-DNAT";

const REPLIES: &str = "-m conntrack --ctstate RELATED,ESTABLISHED";

/// The packet rules of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    hooks: Vec<HookRules>,
}

/// What stands behind one base chain of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookRules {
    pub(super) family: AddressFamily,
    pub(super) hook: Hook,
    pub(super) chains: Vec<Chain>,
}

/// A chain, by its name without the generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    matches: String,
    target: Target,
    pub(super) entry: Option<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// `-j`: a verdict, or the operator's chain.
    Jump(String),
    /// `-g`: a chain of the same generation.
    Goto(&'static str),
}

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableName {
    Filter,
    Nat,
}

impl TableName {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl Display for TableName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A base chain that jumps to chains of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Input,
    Forward,
    Output,
    Postrouting,
    Prerouting,
}

impl Hook {
    /// In the order in which new rules take over: closed before open, and the
    /// source address before the first connection that needs it.
    pub(super) const ALL: [Self; 5] = [
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
        Self::Prerouting,
    ];

    pub(super) fn table(self) -> TableName {
        match self {
            Self::Input | Self::Forward | Self::Output => TableName::Filter,
            Self::Postrouting | Self::Prerouting => TableName::Nat,
        }
    }

    pub(super) fn base_chain(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
            Self::Prerouting => "PREROUTING",
        }
    }

    /// The chain that the base chain jumps to.
    pub(super) fn entry_chain(self) -> &'static str {
        match self {
            Self::Input => INPUT_CHAIN,
            Self::Forward => FORWARD_CHAIN,
            Self::Output => OUTPUT_CHAIN,
            Self::Postrouting => SNAT_CHAIN,
            Self::Prerouting => DNAT_CHAIN,
        }
    }

    /// All chains behind the base chain, each before those that lead to it.
    pub(super) fn chains(self) -> &'static [&'static str] {
        match self {
            Self::Input => &[INPUT_CHAIN],
            Self::Forward => &[REFUSE_CHAIN, REDIRECTED_CHAIN, FORWARD_CHAIN],
            Self::Output => &[OUTPUT_CHAIN],
            Self::Postrouting => &[SNAT_CHAIN],
            Self::Prerouting => &[DNAT_CHAIN],
        }
    }
}

/// Which of two sets of chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    A,
    B,
}

impl Generation {
    pub(super) const ALL: [Self; 2] = [Self::A, Self::B];

    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The full name of a chain.
    pub(super) fn of(self, chain: &str) -> String {
        match self {
            Self::A => format!("{chain}-A"),
            Self::B => format!("{chain}-B"),
        }
    }
}

impl Ruleset {
    /// The rules for a firewall. Both families are closed, also one without a
    /// source address, which has no redirects.
    ///
    /// # Errors
    /// When iptables cannot express the configuration.
    pub fn new(firewall: &Firewall<'_>) -> Result<Self, IptablesError> {
        for name in [firewall.pod_interface, firewall.egress_interface] {
            if name == "!" || name.ends_with('+') || name.contains(['\'', '"']) {
                return Err(IptablesError::Interface {
                    name: name.to_owned(),
                });
            }
        }
        let count = firewall.redirects.mappings().len();
        if count > MAX_MAPPINGS {
            return Err(IptablesError::TooMany { count });
        }
        Ok(Self {
            hooks: Hook::ALL
                .into_iter()
                .flat_map(|hook| AddressFamily::ALL.map(|family| (hook, family)))
                .filter_map(|(hook, family)| {
                    let chains = InFamily { firewall, family }.chains(hook)?;
                    Some(HookRules {
                        family,
                        hook,
                        chains,
                    })
                })
                .collect(),
        })
    }

    /// By hook, in the order in which they take over.
    pub(super) fn hooks(&self) -> &[HookRules] {
        &self.hooks
    }

    /// The mappings and fallbacks.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.hooks
            .iter()
            .flat_map(|hook| &hook.chains)
            .flat_map(|chain| &chain.rules)
            .filter_map(|rule| rule.entry)
    }
}

/// The commands that load the rules where there are none.
impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let script = Script::fresh(self);
        for command in script.prepare.iter().chain(&script.switch) {
            writeln!(f, "{command}")?;
        }
        Ok(())
    }
}

impl Rule {
    fn jump(matches: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            matches: matches.into(),
            target: Target::Jump(target.into()),
            entry: None,
        }
    }

    fn goto(matches: impl Into<String>, chain: &'static str) -> Self {
        Self {
            matches: matches.into(),
            target: Target::Goto(chain),
            entry: None,
        }
    }

    fn counted_as(self, entry: Entry) -> Self {
        Self {
            entry: Some(entry),
            ..self
        }
    }

    /// The rule as iptables takes it.
    pub(super) fn text(&self, generation: Generation) -> String {
        let space = if self.matches.is_empty() { "" } else { " " };
        match &self.target {
            Target::Jump(target) => format!("{}{space}-j {target}", self.matches),
            Target::Goto(chain) => format!("{}{space}-g {}", self.matches, generation.of(chain)),
        }
    }
}

/// The rules of one family. What ours let through they return: like a table of
/// their own they leave the last word to other people's rules behind them.
struct InFamily<'a, 'f> {
    firewall: &'a Firewall<'f>,
    family: AddressFamily,
}

impl InFamily<'_, '_> {
    fn chains(&self, hook: Hook) -> Option<Vec<Chain>> {
        let chain = |name, rules| Chain { name, rules };
        Some(match hook {
            Hook::Input => vec![chain(INPUT_CHAIN, self.input())],
            Hook::Forward => vec![
                chain(REFUSE_CHAIN, self.refuse()),
                chain(REDIRECTED_CHAIN, self.redirected()),
                chain(FORWARD_CHAIN, self.forward()),
            ],
            Hook::Output => vec![chain(OUTPUT_CHAIN, self.output())],
            Hook::Postrouting => vec![chain(SNAT_CHAIN, self.snat(self.source()?))],
            Hook::Prerouting => {
                self.source()?;
                vec![chain(DNAT_CHAIN, self.dnat())]
            }
        })
    }

    fn source(&self) -> Option<IpAddr> {
        let mut sources = self.firewall.sources.iter().copied();
        sources.find(|source| AddressFamily::of(*source) == self.family)
    }

    fn fallback(&self) -> Option<IpAddr> {
        self.firewall.redirects.fallback(self.family)
    }

    fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        let all = self.firewall.redirects.mappings().iter();
        all.filter(|mapping| AddressFamily::of(mapping.target()) == self.family)
    }

    /// The pod's own sockets are not for the physical network, except for what
    /// path MTU discovery and neighbour discovery need.
    fn input(&self) -> Vec<Rule> {
        let mut rules = vec![
            Rule::jump(format!("! -i {}", self.firewall.egress_interface), "RETURN"),
            Rule::jump(REPLIES, "RETURN"),
        ];
        if self.family == AddressFamily::Ipv6 {
            // Multicast listener query, neighbour solicitation, advertisement.
            rules.extend([130, 135, 136].map(|number| {
                Rule::jump(
                    format!("-p ipv6-icmp -m icmp6 --icmpv6-type {number}"),
                    "RETURN",
                )
            }));
        }
        rules.push(Rule::jump("", "DROP"));
        rules
    }

    fn forward(&self) -> Vec<Rule> {
        let (pod, egress) = (self.firewall.pod_interface, self.firewall.egress_interface);
        vec![
            Rule::jump("", ADMIN_CHAIN),
            // Answering a packet that fits no connection with a reset would
            // end the connection that it does not fit.
            Rule::jump("-m conntrack --ctstate INVALID", "DROP"),
            Rule::jump(
                "-p tcp -m tcp --tcp-flags SYN,RST SYN",
                "TCPMSS --clamp-mss-to-pmtu",
            ),
            Rule::goto(format!("-i {pod} -o {egress}"), REDIRECTED_CHAIN),
            Rule::goto(format!("-i {egress} -o {pod} {REPLIES}"), REDIRECTED_CHAIN),
            Rule::goto(format!("-i {pod}"), REFUSE_CHAIN),
            Rule::jump("", "DROP"),
        ]
    }

    /// Both directions of a connection, and ICMP errors about it, carry the
    /// same original port and the same translated address, so one rule serves
    /// all of them; a connection whose mapping is gone finds none.
    fn redirected(&self) -> Vec<Rule> {
        let mut rules = vec![Rule::goto("-m conntrack ! --ctstate DNAT", REFUSE_CHAIN)];
        if self.source().is_some() {
            rules.extend(self.mappings().map(|mapping| {
                let translated = format!(
                    "{} --ctreplsrc {} --ctreplsrcport {}",
                    original(mapping),
                    mapping.target(),
                    mapping.target_port().get(),
                );
                Rule::jump(translated, "RETURN").counted_as(Entry::Mapping(Flow::from(mapping)))
            }));
            if let Some(target) = self.fallback() {
                // A port that has a mapping of its own by now is no fallback's.
                rules.extend(
                    self.mappings()
                        .map(|m| Rule::goto(original(m), REFUSE_CHAIN)),
                );
                rules.push(
                    Rule::jump(format!("-m conntrack --ctreplsrc {target}"), "RETURN")
                        .counted_as(Entry::Fallback(target)),
                );
            }
        }
        rules.push(Rule::goto("", REFUSE_CHAIN));
        rules
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = vec![Rule::jump("", ADMIN_CHAIN)];
        let networks = self.firewall.pod_networks;
        if self.family == AddressFamily::Ipv6 && !networks.is_empty() {
            let pod = self.firewall.pod_interface;
            rules.push(Rule::jump(format!("! -o {pod}"), "RETURN"));
            rules.push(Rule::jump("-m conntrack ! --ctstate NEW", "RETURN"));
            let to = |network| Rule::jump(format!("-d {network}"), "RETURN");
            rules.extend(networks.iter().map(to));
            rules.extend(self.refuse());
        }
        rules
    }

    /// At once, so that a client need not wait for a time-out.
    fn refuse(&self) -> Vec<Rule> {
        let prohibited = match self.family {
            AddressFamily::Ipv4 => "icmp-admin-prohibited",
            AddressFamily::Ipv6 => "icmp6-adm-prohibited",
        };
        vec![
            Rule::jump("-p tcp", "REJECT --reject-with tcp-reset"),
            Rule::jump("", format!("REJECT --reject-with {prohibited}")),
        ]
    }

    /// Only what a pod sent to an address of this pod is redirected: a router
    /// that somebody uses as a next hop stays closed.
    fn dnat(&self) -> Vec<Rule> {
        let mut rules = vec![
            Rule::jump(format!("! -i {}", self.firewall.pod_interface), "RETURN"),
            Rule::jump("-m addrtype ! --dst-type LOCAL", "RETURN"),
        ];
        rules.extend(self.mappings().map(|mapping| {
            let to = SocketAddr::new(mapping.target(), mapping.target_port().get());
            Rule::jump(
                destination(mapping.protocol(), mapping.port().get()),
                format!("DNAT --to-destination {to}"),
            )
        }));
        if let Some(target) = self.fallback() {
            rules.extend(
                self.firewall
                    .local_ports
                    .iter()
                    .map(|port| Rule::jump(destination(Protocol::Tcp, port.get()), "RETURN")),
            );
            rules.push(Rule::jump("", format!("DNAT --to-destination {target}")));
        }
        rules
    }

    fn snat(&self, source: IpAddr) -> Vec<Rule> {
        let matches = format!("-o {}", self.firewall.egress_interface);
        vec![Rule::jump(matches, format!("SNAT --to-source {source}"))]
    }
}

/// What a client spoke to.
fn destination(protocol: Protocol, port: u16) -> String {
    format!("-p {protocol} -m {protocol} --dport {port}")
}

/// What a client spoke to, as conntrack remembers it.
fn original(mapping: &Mapping) -> String {
    format!(
        "-m conntrack --ctproto {} --ctorigdstport {}",
        mapping.protocol().number(),
        mapping.port().get()
    )
}
