//! Finds the first rule that matches, at a cost that does not depend on how
//! many rules there are.

use std::net::IpAddr;

use super::glob_index::GlobIndex;
use super::name_index::{Earliest, NameIndex};
use super::network_index::{NetworkIndex, is_everything};
use super::ports::PortMap;
use super::rule::{RuleIndex, RuleStore, Subject};
use super::{Action, PortRange};

/// All rules, by what they match.
#[derive(Debug, Default)]
pub(super) struct Index {
    any: PortMap,
    names: NameIndex,
    globs: GlobIndex,
    networks: NetworkIndex,
    /// The rules on networks that allow, whatever the network.
    allowing: PortMap,
    /// Those that deny.
    denying: PortMap,
}

impl Index {
    /// # Errors
    /// What is wrong when the globs are too many to be matched at once.
    pub(super) fn new(store: &RuleStore) -> Result<Self, globset::Error> {
        let ports_of = |wanted: fn(Subject<'_>, Action) -> bool| {
            PortMap::new(
                store
                    .iter()
                    .filter(|(_, rule)| wanted(rule.subject, rule.action))
                    .map(|(index, rule)| (rule.ports, index)),
            )
        };
        Ok(Self {
            any: ports_of(|subject, _| is_any(subject)),
            allowing: ports_of(|subject, action| is_network(subject) && action == Action::Allow),
            denying: ports_of(|subject, action| is_network(subject) && action == Action::Deny),
            names: NameIndex::new(store),
            globs: GlobIndex::new(store)?,
            networks: NetworkIndex::new(store),
        })
    }

    /// The first rule that matches every host on `port`.
    pub(super) fn first_for_any(&self, port: u16) -> Option<RuleIndex> {
        self.any.first(port)
    }

    /// The first rule that matches a name.
    pub(super) fn first_for_name(
        &self,
        name: &str,
        port: u16,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        first.offer(self.any.first(port));
        first.offer(self.names.first(name, port, store));
        first.offer(self.globs.first(name, port));
        first.rule()
    }

    /// The first rule on networks that holds an address.
    pub(super) fn first_for_address(
        &self,
        address: IpAddr,
        shortest: u8,
        port: u16,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        self.networks.first(address, shortest, port, store)
    }

    /// The first rule on networks that does `action`, whatever the network.
    pub(super) fn first_address_rule(&self, action: Action, port: u16) -> Option<RuleIndex> {
        match action {
            Action::Allow => self.allowing.first(port),
            Action::Deny => self.denying.first(port),
        }
    }

    /// The first rule that alone takes everything that `subject` matches on
    /// all of `ports`, as far as this can be told by looking it up.
    pub(super) fn covering(
        &self,
        subject: Subject<'_>,
        ports: PortRange,
        store: &RuleStore,
    ) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        first.offer(self.any.covering(ports));
        match subject {
            Subject::Any => {}
            Subject::Network(network) => {
                first.offer(self.networks.covering(network, ports, store));
            }
            Subject::Name(name) => first.offer(self.names.covering_name(name, ports, store)),
            Subject::Domain(domain) => {
                first.offer(self.names.covering_domain(domain, ports, store));
            }
            Subject::Glob(pattern) | Subject::DomainGlob(pattern) => {
                first.offer(self.globs.covering(subject, ports));
                first.offer(
                    literal_domain(pattern)
                        .and_then(|domain| self.names.covering_domain(domain, ports, store)),
                );
            }
        }
        first.rule()
    }
}

/// The labels of a pattern behind its last glob: the domain in which all
/// names that it matches lie.
fn literal_domain(pattern: &str) -> Option<&str> {
    let glob_end = pattern.rfind(['*', '?', ']', '}'])?;
    let dot = pattern.get(glob_end..)?.find('.')?;
    pattern.get(glob_end + dot + 1..)
}

fn is_any(subject: Subject<'_>) -> bool {
    match subject {
        Subject::Any => true,
        Subject::Network(network) => is_everything(network),
        _ => false,
    }
}

fn is_network(subject: Subject<'_>) -> bool {
    matches!(subject, Subject::Network(network) if !is_everything(network))
}
