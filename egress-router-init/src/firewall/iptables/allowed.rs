//! Which translated connections a list of redirects allows.

use std::collections::HashSet;
use std::net::IpAddr;

use egress_config::AddressFamily;

use super::listing::Entry;
use crate::netlink::conntrack::Connection;

/// A list of redirects, as connection tracking sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    flows: HashSet<(u8, u16, IpAddr, u16)>,
    /// Ports that no fallback serves.
    ports: HashSet<(AddressFamily, u8, u16)>,
    fallbacks: Vec<IpAddr>,
}

impl Allowed {
    pub(super) fn contains(&self, connection: &Connection) -> bool {
        let Connection {
            protocol,
            port,
            target,
            target_port,
        } = *connection;
        self.flows.contains(&(protocol, port, target, target_port))
            || self.fallbacks.contains(&target)
                && port == target_port
                && !self
                    .ports
                    .contains(&(AddressFamily::of(target), protocol, port))
    }
}

impl Allowed {
    /// Whether anything is allowed to a port of the router.
    pub(super) fn serves(&self, port: (AddressFamily, u8, u16)) -> bool {
        self.ports.contains(&port)
            || self
                .fallbacks
                .iter()
                .any(|fallback| AddressFamily::of(*fallback) == port.0)
    }
}

impl FromIterator<Entry> for Allowed {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut allowed = Self::default();
        for entry in entries {
            match entry {
                Entry::Mapping(flow) => {
                    let (protocol, port) = (flow.protocol.number(), flow.port.get());
                    let to = flow.target;
                    allowed
                        .flows
                        .insert((protocol, port, to, flow.target_port.get()));
                    allowed
                        .ports
                        .insert((AddressFamily::of(to), protocol, port));
                }
                Entry::Fallback(target) => allowed.fallbacks.push(target),
            }
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use egress_config::{Port, Protocol};

    use super::*;
    use crate::firewall::Flow;

    fn connection(protocol: u8, port: u16, target: &str, target_port: u16) -> Connection {
        Connection {
            protocol,
            port,
            target: target.parse().unwrap(),
            target_port,
        }
    }

    #[test]
    fn mappings_and_what_they_leave_to_the_fallback() {
        let port = |number| Port::new(number).unwrap();
        let allowed: Allowed = [
            Entry::Mapping(Flow {
                port: port(53),
                protocol: Protocol::Udp,
                target: "203.0.113.53".parse().unwrap(),
                target_port: port(5353),
            }),
            Entry::Fallback("203.0.113.9".parse().unwrap()),
        ]
        .into_iter()
        .collect();
        for (allows, protocol, port, target, target_port) in [
            (true, 17, 53, "203.0.113.53", 5353),
            (false, 6, 53, "203.0.113.53", 5353),
            (false, 17, 53, "203.0.113.53", 53),
            (false, 17, 53, "203.0.113.54", 5353),
            (true, 6, 53, "203.0.113.9", 53),
            (true, 1, 0, "203.0.113.9", 0),
            (false, 17, 53, "203.0.113.9", 53),
            (false, 6, 80, "203.0.113.9", 8080),
        ] {
            let connection = connection(protocol, port, target, target_port);
            assert_eq!(allowed.contains(&connection), allows, "{connection:?}");
        }
        assert!(!Allowed::default().contains(&connection(6, 80, "203.0.113.9", 80)));
        assert!(allowed.serves((AddressFamily::Ipv4, 6, 9999)));
        assert!(!allowed.serves((AddressFamily::Ipv6, 17, 53)));
        assert!(!Allowed::default().serves((AddressFamily::Ipv4, 6, 80)));
    }
}
