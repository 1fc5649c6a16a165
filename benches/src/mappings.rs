//! The lists that everybody has to carry out.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

/// What the documentation of the images that the router replaces shows for
/// several destinations.
pub(crate) const DOCUMENTED_EXAMPLE: &str =
    "80   tcp 203.0.113.25\n8080 tcp 203.0.113.26 80\n8443 tcp 203.0.113.26 443\n203.0.113.27\n";

/// Port of the first mapping; the others follow without a gap. There is room
/// for 50 000 below 65536.
const FIRST_PORT: u16 = 10_000;

/// TCP ports from 10000 up, each to an address and port of its own in
/// 198.51.100.0/24; the first and the last to a server that is there.
#[derive(Debug, Clone)]
pub(crate) struct Mappings {
    ports: std::ops::RangeInclusive<u16>,
    server: SocketAddrV4,
    changed: bool,
}

impl Mappings {
    /// `count` mappings, the outermost to `server`; `None` when there are not
    /// as many ports.
    pub(crate) fn new(count: usize, server: SocketAddrV4) -> Option<Self> {
        let last = FIRST_PORT.checked_add(u16::try_from(count.checked_sub(1)?).ok()?)?;
        Some(Self {
            ports: FIRST_PORT..=last,
            server,
            changed: false,
        })
    }

    /// The same but for one mapping in the middle, which leads elsewhere.
    pub(crate) fn with_one_changed(&self) -> Self {
        Self {
            changed: true,
            ..self.clone()
        }
    }

    pub(crate) fn first_port(&self) -> u16 {
        *self.ports.start()
    }

    pub(crate) fn last_port(&self) -> u16 {
        *self.ports.end()
    }

    /// Port and where it leads.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, SocketAddrV4)> {
        let middle = self.first_port() + (self.last_port() - self.first_port()) / 2;
        self.ports.clone().map(move |port| {
            let target = if port == self.first_port() || port == self.last_port() {
                self.server
            } else if port == middle && self.changed {
                SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443)
            } else {
                let [high, low] = (port - self.first_port()).to_be_bytes();
                SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, low), 1000 + u16::from(high))
            };
            (port, target)
        })
    }

    /// The list as `EGRESS_DESTINATION` has it.
    pub(crate) fn lines(&self) -> String {
        self.lines_of(|text, port, target| {
            write!(text, "{port} tcp {} {}", target.ip(), target.port())
        })
    }

    /// A line of text for each mapping.
    pub(crate) fn lines_of(
        &self,
        line: impl Fn(&mut String, u16, SocketAddrV4) -> std::fmt::Result,
    ) -> String {
        let mut text = String::new();
        for (port, target) in self.iter() {
            // Writing to a string cannot fail.
            let _ = line(&mut text, port, target);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use egress_config::{Diagnostics, List};
    use egress_router_init::redirect::Redirects;

    use super::*;

    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 25), 8080);

    #[test]
    fn the_router_reads_all_lines() {
        for text in [
            Mappings::new(50_000, SERVER).unwrap().lines(),
            DOCUMENTED_EXAMPLE.to_owned(),
        ] {
            let mut diagnostics = Diagnostics::new();
            let list = List::new("EGRESS_DESTINATION", text.as_str());
            let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
            assert!(diagnostics.errors().is_empty(), "{diagnostics}");
            let count = redirects.mappings().len() + redirects.fallbacks().len();
            assert_eq!(count, text.lines().count());
        }
    }

    #[test]
    fn only_the_outermost_lead_to_the_server() {
        let mappings = Mappings::new(1_000, SERVER).unwrap();
        let ports: Vec<u16> = mappings
            .iter()
            .filter(|(_, target)| *target == SERVER)
            .map(|(port, _)| port)
            .collect();
        assert_eq!(ports, [mappings.first_port(), mappings.last_port()]);
        assert_eq!(
            mappings
                .iter()
                .map(|(_, target)| target)
                .collect::<HashSet<_>>()
                .len(),
            999
        );
    }

    #[test]
    fn one_changed_is_one() {
        let mappings = Mappings::new(10, SERVER).unwrap();
        let changed = mappings.with_one_changed();
        assert_eq!(
            mappings
                .iter()
                .zip(changed.iter())
                .filter(|(a, b)| a != b)
                .count(),
            1
        );
    }

    #[test]
    fn there_are_65536_ports() {
        assert!(Mappings::new(0, SERVER).is_none());
        assert!(Mappings::new(55_536, SERVER).is_some());
        assert!(Mappings::new(55_537, SERVER).is_none());
    }
}
