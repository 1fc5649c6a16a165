//! One rule and the compact store of all of them.

use std::fmt;

use ipnet::IpNet;

use super::{Action, PortRange};

/// Where a rule stands among the rules, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RuleIndex(u32);

impl RuleIndex {
    #[cfg(test)]
    pub(super) const fn of(index: u32) -> Self {
        Self(index)
    }
}

/// A rule that matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    index: RuleIndex,
    line: u32,
    action: Action,
}

impl Found {
    /// Where it stands.
    pub(crate) const fn index(self) -> RuleIndex {
        self.index
    }

    /// The number of its line.
    pub(crate) const fn line(self) -> u32 {
        self.line
    }

    /// What it does.
    pub(crate) const fn action(self) -> Action {
        self.action
    }
}

/// A part of the text of all names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

/// What a rule matches, as it is kept: 100 000 of them should cost little.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    Any,
    Network(IpNet),
    Name(Span),
    Domain(Span),
    Glob(Span),
    DomainGlob(Span),
}

/// What a rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject<'a> {
    /// `*`: every name and address.
    Any,
    /// `192.0.2.0/24`: the addresses of a network.
    Network(IpNet),
    /// `example.com`: that name.
    Name(&'a str),
    /// `*.example.com`, kept as `example.com`: that name and every name below.
    Domain(&'a str),
    /// `api-*.example.com`: the names of which each label matches.
    Glob(&'a str),
    /// `*.api-*.example.com`, kept as `api-*.example.com`: those names and
    /// every name below.
    DomainGlob(&'a str),
}

/// `example.com`, `*.example.com`, `192.0.2.7`, `192.0.2.0/24`, `*`.
impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Network(network) if is_host(network) => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Name(text) | Self::Glob(text) => f.write_str(text),
            Self::Domain(text) | Self::DomainGlob(text) => write!(f, "*.{text}"),
        }
    }
}

fn is_host(network: &IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

/// One rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rule<'a> {
    pub(super) line: u32,
    pub(super) action: Action,
    pub(super) ports: PortRange,
    pub(super) subject: Subject<'a>,
}

/// What the rule matches, as a line says it, without the `!`.
pub(super) struct Destination<'a>(pub(super) Rule<'a>);

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { subject, ports, .. } = self.0;
        if ports == PortRange::ALL {
            return subject.fmt(f);
        }
        match subject {
            Subject::Network(IpNet::V6(_)) => write!(f, "[{subject}]:{ports}"),
            _ => write!(f, "{subject}:{ports}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct KeptRule {
    line: u32,
    action: Action,
    ports: PortRange,
    kept: Kept,
}

/// All rules in order, with the text of their names in one piece.
#[derive(Clone, Default, Debug)]
pub(super) struct RuleStore {
    text: String,
    rules: Vec<KeptRule>,
}

impl RuleStore {
    /// Adds a rule at the end. `None` when 4 GiB of names or 2^32 rules are
    /// there already.
    pub(super) fn push(&mut self, rule: Rule<'_>) -> Option<RuleIndex> {
        let index = RuleIndex(u32::try_from(self.rules.len()).ok()?);
        let kept = match rule.subject {
            Subject::Any => Kept::Any,
            Subject::Network(network) => Kept::Network(network),
            Subject::Name(text) => Kept::Name(self.keep(text)?),
            Subject::Domain(text) => Kept::Domain(self.keep(text)?),
            Subject::Glob(text) => Kept::Glob(self.keep(text)?),
            Subject::DomainGlob(text) => Kept::DomainGlob(self.keep(text)?),
        };
        self.rules.push(KeptRule {
            line: rule.line,
            action: rule.action,
            ports: rule.ports,
            kept,
        });
        Some(index)
    }

    fn keep(&mut self, text: &str) -> Option<Span> {
        let span = Span {
            start: u32::try_from(self.text.len()).ok()?,
            length: u32::try_from(text.len()).ok()?,
        };
        self.text.push_str(text);
        Some(span)
    }

    /// Gives back what was reserved for more rules.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.rules.shrink_to_fit();
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rule at an index that this store gave out.
    pub(super) fn at(&self, index: RuleIndex) -> Option<Rule<'_>> {
        let position = usize::try_from(index.0).ok()?;
        self.rules.get(position).map(|kept| self.rule(kept))
    }

    /// What a decision needs of a rule.
    pub(super) fn found(&self, index: RuleIndex) -> Option<Found> {
        let position = usize::try_from(index.0).ok()?;
        self.rules.get(position).map(|kept| Found {
            index,
            line: kept.line,
            action: kept.action,
        })
    }

    /// Whether a rule is for `ports`, all of them.
    pub(super) fn covers(&self, index: RuleIndex, ports: PortRange) -> bool {
        let position = usize::try_from(index.0).ok();
        position
            .and_then(|position| self.rules.get(position))
            .is_some_and(|kept| kept.ports.covers(ports))
    }

    /// The rule of that line.
    pub(super) fn of_line(&self, line: u32) -> Option<Rule<'_>> {
        let position = self
            .rules
            .binary_search_by_key(&line, |rule| rule.line)
            .ok()?;
        self.rules.get(position).map(|kept| self.rule(kept))
    }

    /// All rules in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RuleIndex, Rule<'_>)> {
        (0..)
            .map(RuleIndex)
            .zip(self.rules.iter().map(|kept| self.rule(kept)))
    }

    fn rule(&self, kept: &KeptRule) -> Rule<'_> {
        Rule {
            line: kept.line,
            action: kept.action,
            ports: kept.ports,
            subject: match kept.kept {
                Kept::Any => Subject::Any,
                Kept::Network(network) => Subject::Network(network),
                Kept::Name(span) => Subject::Name(self.text(span)),
                Kept::Domain(span) => Subject::Domain(self.text(span)),
                Kept::Glob(span) => Subject::Glob(self.text(span)),
                Kept::DomainGlob(span) => Subject::DomainGlob(self.text(span)),
            },
        }
    }

    fn text(&self, span: Span) -> &str {
        let range = usize::try_from(span.start)
            .ok()
            .zip(usize::try_from(span.length).ok());
        range
            .and_then(|(start, length)| self.text.get(start..start.checked_add(length)?))
            .unwrap_or_default()
    }
}
