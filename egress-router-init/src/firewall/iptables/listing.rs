//! What iptables says is in a table.

use std::net::IpAddr;

use egress_config::{Port, Protocol};

use super::ruleset::{Generation, Hook, REDIRECTED_CHAIN};
use crate::firewall::{Count, Flow};

/// The chains and rules of a table, as `-v -S` prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    chains: Vec<String>,
    rules: Vec<Listed>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    chain: String,
    /// The words after the chain, without the counter.
    words: Vec<String>,
    count: Count,
}

/// What has a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Mapping(Flow),
    Fallback(IpAddr),
}

impl Listing {
    /// Reads lines such as `-N chain` and `-A chain -p tcp -c 1 52 -j DROP`;
    /// others, such as policies, are left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("-N"), Some(chain)) => listing.chains.push(chain.to_owned()),
                (Some("-A"), Some(chain)) => {
                    listing.rules.push(Listed::new(chain, words.collect()));
                }
                _ => {}
            }
        }
        listing
    }

    pub(super) fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain == name)
    }

    /// Whether a chain of ours is there, the operator's aside.
    pub(super) fn has_ours(&self) -> bool {
        self.chains.iter().any(|chain| is_ours(chain))
    }

    /// Whether a chain holds no rule, and no rule of others leads to it.
    pub(super) fn is_idle(&self, chain: &str) -> bool {
        !self.rules.iter().any(|rule| {
            rule.chain == chain
                || (!is_ours(&rule.chain) && rule.words.iter().any(|word| word == chain))
        })
    }

    /// The generations that a base chain jumps to, the first one first.
    pub(super) fn generations(&self, hook: Hook) -> impl Iterator<Item = Generation> {
        self.rules
            .iter()
            .filter(move |rule| rule.chain == hook.base_chain())
            .filter_map(move |rule| match rule.words.as_slice() {
                [option, chain] if option == "-j" => Generation::ALL
                    .into_iter()
                    .find(|g| g.of(hook.entry_chain()) == *chain),
                _ => None,
            })
    }

    /// The generation that decides.
    pub(super) fn in_force(&self, hook: Hook) -> Option<Generation> {
        self.generations(hook).next()
    }

    /// The mappings and fallbacks of a generation, with what they counted.
    pub(super) fn entries(&self, generation: Generation) -> impl Iterator<Item = (Entry, Count)> {
        self.of(generation.of(REDIRECTED_CHAIN))
            .filter_map(|rule| Some((rule.entry()?, rule.count)))
    }

    /// What all rules of a chain counted.
    pub(super) fn counted(&self, chain: &str) -> Count {
        let mut sum = Count::default();
        for rule in self.of(chain.to_owned()) {
            sum += rule.count;
        }
        sum
    }

    /// What the unconditional drop at the end of a chain counted.
    pub(super) fn dropped(&self, chain: &str) -> Count {
        self.of(chain.to_owned())
            .find(|rule| rule.words == ["-j", "DROP"])
            .map_or_else(Count::default, |rule| rule.count)
    }

    fn of(&self, chain: String) -> impl Iterator<Item = &Listed> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }
}

impl Listed {
    fn new(chain: &str, words: Vec<&str>) -> Self {
        let mut rule = Self {
            chain: chain.to_owned(),
            words: words.into_iter().map(str::to_owned).collect(),
            count: Count::default(),
        };
        if let Some(at) = rule.words.iter().position(|word| word == "-c") {
            let mut counter = rule.words.drain(at..rule.words.len().min(at + 3)).skip(1);
            let mut number = || counter.next()?.parse().ok();
            rule.count = Count {
                packets: number().unwrap_or(0),
                bytes: number().unwrap_or(0),
            };
        }
        rule
    }

    fn value(&self, option: &str) -> Option<&str> {
        let mut words = self.words.iter();
        words.find(|word| *word == option)?;
        words.next().map(String::as_str)
    }

    fn entry(&self) -> Option<Entry> {
        let target = self.value("--ctreplsrc")?.parse().ok()?;
        let Some(port) = self.value("--ctorigdstport") else {
            return Some(Entry::Fallback(target));
        };
        let number: u8 = self.value("--ctproto")?.parse().ok()?;
        Some(Entry::Mapping(Flow {
            protocol: [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .find(|p| p.number() == number)?,
            port: port_of(port)?,
            target,
            target_port: port_of(self.value("--ctreplsrcport")?)?,
        }))
    }
}

/// Whether a name is that of a chain of ours, of either generation.
fn is_ours(name: &str) -> bool {
    Hook::ALL.into_iter().flat_map(Hook::chains).any(|chain| {
        Generation::ALL
            .into_iter()
            .any(|generation| generation.of(chain) == name)
    })
}

fn port_of(text: &str) -> Option<Port> {
    Port::new(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
-P FORWARD ACCEPT -c 0 0
-N EGRESS-ADMIN
-N EGRESS-FORWARD-B
-N EGRESS-REDIRECTED-B
-N other
-A FORWARD -c 1 60 -j EGRESS-FORWARD-B
-A FORWARD -c 1 60 -j EGRESS-FORWARD-A
-A FORWARD -s 10.0.0.1/32 -c 1 60 -j EGRESS-FORWARD-A
-A EGRESS-FORWARD-B -c 9 999 -j EGRESS-ADMIN
-A EGRESS-FORWARD-B -m conntrack --ctstate INVALID -c 4 160 -j DROP
-A EGRESS-FORWARD-B -c 3 120 -j DROP
-A EGRESS-REDIRECTED-B -m conntrack ! --ctstate DNAT -c 1 1 -g EGRESS-REFUSE-B
-A EGRESS-REDIRECTED-B -m conntrack --ctproto 17 --ctreplsrc 203.0.113.5 --ctorigdstport 53 \
--ctreplsrcport 5353 -c 12 3456 -j RETURN
-A EGRESS-REDIRECTED-B -m conntrack --ctproto 17 --ctorigdstport 53 -c 5 5 -g EGRESS-REFUSE-B
-A EGRESS-REDIRECTED-B -m conntrack --ctreplsrc 203.0.113.9 -c 7 700 -j RETURN
";

    #[test]
    fn jumps_entries_and_counters() {
        let listing = Listing::parse(LISTING);
        let generations: Vec<_> = listing.generations(Hook::Forward).collect();
        assert_eq!(generations, [Generation::B, Generation::A]);
        assert_eq!(listing.in_force(Hook::Input), None);
        assert!(listing.has_ours() && listing.has_chain("other"));
        let flow = Flow {
            protocol: Protocol::Udp,
            port: port_of("53").unwrap(),
            target: "203.0.113.5".parse().unwrap(),
            target_port: port_of("5353").unwrap(),
        };
        let entries: Vec<_> = listing.entries(Generation::B).collect();
        assert_eq!(
            entries,
            [
                (
                    Entry::Mapping(flow),
                    Count {
                        packets: 12,
                        bytes: 3456
                    }
                ),
                (
                    Entry::Fallback("203.0.113.9".parse().unwrap()),
                    Count {
                        packets: 7,
                        bytes: 700
                    }
                ),
            ]
        );
        assert_eq!(
            listing.dropped("EGRESS-FORWARD-B"),
            Count {
                packets: 3,
                bytes: 120
            }
        );
        assert_eq!(listing.counted("EGRESS-REDIRECTED-B").packets, 25);
    }

    #[test]
    fn the_operators_chain_is_idle_when_only_ours_use_it() {
        assert!(Listing::parse(LISTING).is_idle("EGRESS-ADMIN"));
        for rule in ["-A EGRESS-ADMIN -j LOG", "-A other -g EGRESS-ADMIN"] {
            assert!(!Listing::parse(&format!("{LISTING}{rule}\n")).is_idle("EGRESS-ADMIN"));
        }
        assert!(!Listing::parse("-N EGRESS-ADMIN\n-N EGRESS-FORWARD-C\n").has_ours());
    }
}
