//! The lists of rules, and who is asked for.

use std::fmt::Write as _;

use super::ground::ORIGIN_HOST;

/// A list of allow rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleList(Content);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// One rule: the origin's address.
    Origin,
    /// So many rules, a name each.
    Names(usize),
}

/// One allow rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    Address(&'static str),
    Name(String),
}

impl Rule {
    pub(crate) fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }

    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Address(host) => host,
            Self::Name(host) => host,
        }
    }
}

/// How many names of a list are asked for in turn.
const ASKED: usize = 50;

impl RuleList {
    pub(crate) fn origin_only() -> Self {
        Self(Content::Origin)
    }

    pub(crate) fn of_names(count: usize) -> Self {
        Self(Content::Names(count))
    }

    fn len(&self) -> usize {
        match self.0 {
            Content::Origin => 1,
            Content::Names(count) => count,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Rule> {
        (0..self.len()).map(|number| match self.0 {
            Content::Origin => Rule::Address(ORIGIN_HOST),
            Content::Names(_) => Rule::Name(name(number)),
        })
    }

    /// As our proxies read it, and as `{rules}` gives it to others.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for rule in self.iter() {
            text.push_str(rule.host());
            text.push('\n');
        }
        text
    }

    /// Hosts that are allowed, spread evenly over the list.
    pub(crate) fn hits(&self) -> Vec<String> {
        let asked = self.len().min(ASKED);
        self.iter()
            .enumerate()
            .filter(|(number, _)| (number * asked) % self.len() < asked)
            .map(|(_, rule)| rule.host().to_owned())
            .collect()
    }

    /// As many hosts that are denied.
    pub(crate) fn misses(&self) -> Vec<String> {
        (0..self.len().min(ASKED))
            .map(|number| format!("n{number:06}.elsewhere.example"))
            .collect()
    }
}

fn name(number: usize) -> String {
    format!("n{number:06}.rules.example")
}

/// A hosts(5) file in which every name of the lists leads to the origin.
pub(crate) fn hosts_file(lists: &[usize]) -> String {
    let mut text = format!("{ORIGIN_HOST} localhost bench\n");
    let mut names: Vec<String> = lists
        .iter()
        .flat_map(|count| RuleList::of_names(*count).hits())
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{ORIGIN_HOST} {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_spread_over_the_list() {
        assert_eq!(RuleList::origin_only().hits(), [ORIGIN_HOST]);
        assert_eq!(RuleList::of_names(10).hits().len(), 10);
        let hits = RuleList::of_names(100_000).hits();
        assert_eq!(hits.len(), ASKED);
        assert_eq!(hits.first().unwrap(), "n000000.rules.example");
        assert_eq!(hits.last().unwrap(), "n098000.rules.example");
    }

    #[test]
    fn misses_are_in_no_list() {
        let list = RuleList::of_names(100);
        let lines = list.lines();
        for miss in list.misses() {
            assert!(!lines.contains(&miss));
        }
    }

    #[test]
    fn all_hits_are_in_the_hosts_file() {
        let hosts = hosts_file(&[10, 1_000]);
        for list in [10, 1_000].map(RuleList::of_names) {
            for hit in list.hits() {
                assert!(hosts.contains(&format!("127.0.0.1 {hit}\n")), "{hit}");
            }
        }
    }
}
