//! The ports of a rule.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use egress_config::{Port, PortError};
use thiserror::Error;

use super::rule::RuleIndex;

/// Ports from one to another, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct PortRange {
    low: u16,
    high: u16,
}

impl PortRange {
    /// Every port.
    pub(super) const ALL: Self = Self {
        low: 1,
        high: u16::MAX,
    };

    pub(super) const fn new(low: u16, high: u16) -> Self {
        Self { low, high }
    }

    /// Whether `port` is one of them.
    pub(super) const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }

    /// Whether every port of `other` is one of them.
    pub(super) const fn covers(self, other: Self) -> bool {
        self.low <= other.low && other.high <= self.high
    }
}

/// `80`, `8000-8100`; every port as nothing.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            Ok(())
        } else if self.low == self.high {
            self.low.fmt(f)
        } else {
            write!(f, "{}-{}", self.low, self.high)
        }
    }
}

/// A text that is no port or range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum PortRangeError {
    /// One of the ports is none.
    #[error("{0}")]
    Port(#[from] PortError),
    /// `90-80`.
    #[error("the range ends before it starts; write the lower port first")]
    Backwards,
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let low = low.parse::<Port>()?.get();
        let high = high.parse::<Port>()?.get();
        if low <= high {
            Ok(Self { low, high })
        } else {
            Err(PortRangeError::Backwards)
        }
    }
}

/// For each port, the rule that stands first.
#[derive(Clone, Default, Debug)]
pub(super) struct PortMap(Box<[Segment]>);

#[derive(Clone, Copy, Debug)]
struct Segment {
    ports: PortRange,
    rule: RuleIndex,
}

impl PortMap {
    /// The map of rules that are given in their order. n log n.
    pub(super) fn new(rules: impl IntoIterator<Item = (PortRange, RuleIndex)>) -> Self {
        let mut rules = rules.into_iter().peekable();
        if rules.peek().is_none() {
            return Self::default();
        }
        // The ports that no rule has taken so far: low -> high.
        let mut free = BTreeMap::from([(PortRange::ALL.low, PortRange::ALL.high)]);
        let mut segments = Vec::new();
        for (ports, rule) in rules {
            while let Some((low, high)) = free
                .range(..=ports.high)
                .next_back()
                .map(|(&low, &high)| (low, high))
                .filter(|&(_, high)| high >= ports.low)
            {
                free.remove(&low);
                let taken = PortRange::new(low.max(ports.low), high.min(ports.high));
                if taken.high < high {
                    free.insert(taken.high + 1, high);
                }
                if low < taken.low {
                    free.insert(low, taken.low - 1);
                }
                segments.push(Segment { ports: taken, rule });
            }
            if free.is_empty() {
                break;
            }
        }
        segments.sort_unstable_by_key(|segment| segment.ports.low);
        Self(segments.into_boxed_slice())
    }

    /// The rule that stands first for `port`.
    pub(super) fn first(&self, port: u16) -> Option<RuleIndex> {
        self.segment(port).map(|segment| segment.rule)
    }

    /// The rule that stands first for every one of `ports`.
    pub(super) fn covering(&self, ports: PortRange) -> Option<RuleIndex> {
        self.segment(ports.low)
            .filter(|segment| segment.ports.covers(ports))
            .map(|segment| segment.rule)
    }

    fn segment(&self, port: u16) -> Option<&Segment> {
        let behind = self.0.partition_point(|segment| segment.ports.high < port);
        self.0
            .get(behind)
            .filter(|segment| segment.ports.contains(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_takes_a_port() {
        let rules = [(100, 200), (150, 300), (1, 99), (50, 400), (80, 80)];
        let map = PortMap::new(
            rules
                .into_iter()
                .zip(0..)
                .map(|((low, high), index)| (PortRange { low, high }, RuleIndex::of(index))),
        );
        for port in 1..=u16::MAX {
            let expected = rules
                .iter()
                .position(|&(low, high)| low <= port && port <= high)
                .and_then(|index| u32::try_from(index).ok())
                .map(RuleIndex::of);
            assert_eq!(map.first(port), expected, "{port}");
        }
        let covering = |low, high| map.covering(PortRange { low, high });
        assert_eq!(covering(80, 80), Some(RuleIndex::of(2)));
        assert_eq!(covering(250, 300), Some(RuleIndex::of(1)));
        assert_eq!(covering(250, 301), None);
        assert_eq!(covering(401, 401), None);
    }

    #[test]
    fn a_port_or_a_range() {
        assert_eq!("80".parse(), Ok(PortRange { low: 80, high: 80 }));
        assert_eq!("1-65535".parse(), Ok(PortRange::ALL));
        assert_eq!("80-90".parse::<PortRange>().unwrap().to_string(), "80-90");
        assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
        for (text, error) in [
            ("90-80", PortRangeError::Backwards),
            ("80-", PortRangeError::Port(PortError::NotANumber)),
            ("-80", PortRangeError::Port(PortError::NotANumber)),
            ("1-2-3", PortRangeError::Port(PortError::NotANumber)),
            ("0", PortRangeError::Port(PortError::OutOfRange)),
            ("080", PortRangeError::Port(PortError::LeadingZero)),
            ("*", PortRangeError::Port(PortError::NotANumber)),
        ] {
            assert_eq!(text.parse::<PortRange>(), Err(error), "{text:?}");
        }
    }
}
