//! Redirect lines: which port of the pod leads to which server.

use std::fmt;
use std::net::IpAddr;

use egress_config::{
    AddressError, AddressFamily, Continued, Diagnostic, Diagnostics, Line, List, Port, PortError,
    Protocol, ProtocolError, SpecialAddress, parse_address,
};
use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

/// All redirects, in the order of their lines. Unique per family, protocol
/// and port; at most one fallback per family.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Redirects {
    mappings: Vec<Mapping>,
    fallbacks: Vec<Fallback>,
}

impl Redirects {
    /// Reads a list of `PORT PROTO IP [REMOTE_PORT]` lines, and at its end at
    /// most one `IP` per family, which takes every other port.
    ///
    /// `judge` says whether the pod can reach a target; addresses that no
    /// router can forward to never get that far. A bad line is left out and
    /// reported to `diagnostics`, in the order of the lines. The work is
    /// linear in the length of the list.
    pub fn parse(
        list: &List,
        judge: impl Fn(IpAddr) -> Result<(), TargetError>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut parser = Parser {
            list,
            judge,
            diagnostics,
            used: UsedPorts::default(),
            redirects: Self::default(),
            last_lines: Vec::new(),
        };
        for line in list.lines() {
            parser.line(line);
        }
        parser.redirects
    }

    /// The redirects of single ports.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The redirects of every other port.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// Where every other port of a family goes.
    #[must_use]
    pub fn fallback(&self, family: AddressFamily) -> Option<IpAddr> {
        self.fallbacks
            .iter()
            .map(|fallback| fallback.target)
            .find(|&target| AddressFamily::of(target) == family)
    }

    /// Whether every port is answered as closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty() && self.fallbacks.is_empty()
    }
}

/// One port of the pod that leads to a port of a server. It holds for the
/// address family of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Mapping {
    line: u32,
    protocol: Protocol,
    port: Port,
    target: IpAddr,
    target_port: Port,
}

impl Mapping {
    /// The number of its line, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// TCP or UDP.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The port of the pod.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// The address of the server.
    #[must_use]
    pub fn target(&self) -> IpAddr {
        self.target
    }

    /// The port of the server.
    #[must_use]
    pub fn target_port(&self) -> Port {
        self.target_port
    }
}

/// The mapping as a line that reads as the same mapping.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.port, self.protocol, self.target)?;
        if self.target_port == self.port {
            Ok(())
        } else {
            write!(f, " {}", self.target_port)
        }
    }
}

/// Every port and protocol without a mapping goes to the same port of a
/// server. It holds for the address family of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Fallback {
    line: u32,
    target: IpAddr,
}

impl Fallback {
    /// The number of its line, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The address of the server.
    #[must_use]
    pub fn target(&self) -> IpAddr {
        self.target
    }
}

/// The fallback as a line that reads as the same fallback.
impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// Why nothing can be redirected to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TargetError {
    /// No host that a router forwards to has such an address.
    #[error(
        "{target} is {special}, to which nothing can be redirected; write the address of a server"
    )]
    Special {
        /// The address.
        target: IpAddr,
        /// What it is.
        special: SpecialAddress,
    },
    /// The router has no source address of that family.
    #[error(
        "the target is {family}, but there is no {family} EGRESS_SOURCE; add one with its EGRESS_GATEWAY, or remove the line"
    )]
    NoSource {
        /// The family of the target.
        family: AddressFamily,
    },
    /// The router itself.
    #[error("{target} is EGRESS_SOURCE, the router itself; write the address of a server")]
    Source {
        /// The address.
        target: IpAddr,
    },
    /// The first or last address of the source's subnet.
    #[error("{target} is the {edge} address of {subnet}; write the address of a server")]
    SubnetEdge {
        /// The address.
        target: IpAddr,
        /// Which end of the subnet.
        edge: &'static str,
        /// The subnet of `EGRESS_SOURCE`.
        subnet: IpNet,
    },
}

/// What is wrong with a redirect line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
enum RedirectError<'a> {
    #[error("is no redirect; write PORT PROTO IP [REMOTE_PORT], or IP alone for every other port")]
    Shape,
    #[error("a comment stands on a line of its own; move it there")]
    Comment,
    #[error("'{text}' is a port range; write one line per port")]
    PortRange { text: &'a str },
    #[error("'{text}': {source}")]
    Port { text: &'a str, source: PortError },
    #[error("'{text}': {source}")]
    Protocol {
        text: &'a str,
        source: ProtocolError,
    },
    #[error("'{text}' is not an IP address; write an address, or use egress-dns-proxy for names")]
    NotAnAddress { text: &'a str },
    #[error("'{text}': {source}")]
    Address { text: &'a str, source: AddressError },
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(
        "{family} port {port}/{protocol} is already redirected by line {first}; remove one of the lines"
    )]
    Duplicate {
        family: AddressFamily,
        protocol: Protocol,
        port: Port,
        first: u32,
    },
    #[error("the {family} fallback already stands in line {first}; remove one of the lines")]
    SecondFallback { family: AddressFamily, first: u32 },
    #[error(
        "a fallback takes every other port, so it must stand last, but line {next} follows; move it to the end"
    )]
    FallbackNotLast { next: u32 },
}

impl RedirectError<'_> {
    /// The sentence with which the image we replace stopped.
    fn legacy(&self, line: Line<'_>) -> String {
        match self {
            Self::Port {
                text,
                source: PortError::OutOfRange | PortError::LeadingZero,
            } => format!("Invalid port: {text}, must be in the range 1 to 65535"),
            Self::Duplicate { port, .. } => format!(
                "EGRESS_DESTINATION localport {port} is already used, must be unique for each destination"
            ),
            Self::SecondFallback { .. } | Self::FallbackNotLast { .. } => {
                "EGRESS_DESTINATION fallback IP must be the last line".to_owned()
            }
            Self::Shape
            | Self::Comment
            | Self::PortRange { .. }
            | Self::Port {
                source: PortError::NotANumber,
                ..
            }
            | Self::Protocol { .. }
            | Self::NotAnAddress { .. }
            | Self::Address { .. }
            | Self::Target(_) => invalid_value(line),
        }
    }
}

fn invalid_value(line: Line<'_>) -> String {
    format!("EGRESS_DESTINATION value '{}' is invalid", line.text())
}

struct Parser<'a, 'd, J> {
    list: &'a List,
    judge: J,
    diagnostics: &'d mut Diagnostics,
    used: UsedPorts,
    redirects: Redirects,
    /// Fallbacks that no other line has followed so far.
    last_lines: Vec<Line<'a>>,
}

impl<'a, J: Fn(IpAddr) -> Result<(), TargetError>> Parser<'a, '_, J> {
    fn line(&mut self, line: Result<Line<'a>, Continued<'a>>) {
        match line {
            Ok(line) => {
                if let Err(error) = self.entry(line) {
                    self.report(line, &error);
                }
            }
            Err(continued) => {
                let line = continued.line();
                self.not_last(line);
                self.diagnostics.error(
                    Diagnostic::at(self.list.variable().to_owned(), line, continued)
                        .legacy(invalid_value(line)),
                );
            }
        }
    }

    fn entry(&mut self, line: Line<'a>) -> Result<(), RedirectError<'a>> {
        let mut fields = line.fields();
        let parts = [(); 5].map(|()| fields.next());
        let read = match parts {
            [Some(target), None, ..] => match fallback_address(target) {
                Ok(target) => return self.fallback(line, target),
                Err(error) => Err(error),
            },
            [Some(port), Some(protocol), Some(target), target_port, None] => {
                mapping(line, port, protocol, target, target_port)
            }
            _ => Err(RedirectError::Shape),
        };
        self.not_last(line);
        match read {
            Ok(mapping) => self.mapping(mapping),
            Err(_) if line.fields().any(|field| field.starts_with('#')) => {
                Err(RedirectError::Comment)
            }
            Err(error) => Err(error),
        }
    }

    fn mapping(&mut self, mapping: Mapping) -> Result<(), RedirectError<'a>> {
        if let Err(first) = self.used.claim(&mapping) {
            return Err(RedirectError::Duplicate {
                family: AddressFamily::of(mapping.target),
                protocol: mapping.protocol,
                port: mapping.port,
                first,
            });
        }
        self.target(mapping.target)?;
        self.redirects.mappings.push(mapping);
        Ok(())
    }

    fn fallback(&mut self, line: Line<'a>, target: IpAddr) -> Result<(), RedirectError<'a>> {
        let family = AddressFamily::of(target);
        let fallbacks = &mut self.redirects.fallbacks;
        let same_family = |other: &&Fallback| AddressFamily::of(other.target) == family;
        if let Some(first) = fallbacks.iter().find(same_family) {
            let first = first.line;
            return Err(RedirectError::SecondFallback { family, first });
        }
        fallbacks.push(Fallback {
            line: line.number(),
            target,
        });
        self.last_lines.push(line);
        self.target(target)
    }

    fn target(&self, target: IpAddr) -> Result<(), RedirectError<'a>> {
        if let Some(special) = SpecialAddress::of(target) {
            return Err(TargetError::Special { target, special }.into());
        }
        Ok((self.judge)(target)?)
    }

    /// A line that is no fallback follows: each fallback before it is
    /// reported, once.
    fn not_last(&mut self, next: Line<'a>) {
        for line in std::mem::take(&mut self.last_lines) {
            let next = next.number();
            self.report(line, &RedirectError::FallbackNotLast { next });
        }
    }

    fn report(&mut self, line: Line<'a>, error: &RedirectError<'a>) {
        self.diagnostics.error(
            Diagnostic::at(self.list.variable().to_owned(), line, error).legacy(error.legacy(line)),
        );
    }
}

fn mapping<'a>(
    line: Line<'a>,
    port: &'a str,
    protocol: &'a str,
    target: &'a str,
    target_port: Option<&'a str>,
) -> Result<Mapping, RedirectError<'a>> {
    // The form of every field is judged before the range of a port, as in the
    // image we replace: its sentences differ.
    let port_of = |text: &'a str| match text.parse::<Port>() {
        Err(PortError::NotANumber) if is_range(text) => Err(RedirectError::PortRange { text }),
        Err(source @ PortError::NotANumber) => Err(RedirectError::Port { text, source }),
        read => Ok(read.map_err(|source| RedirectError::Port { text, source })),
    };
    let port = port_of(port)?;
    let protocol = protocol.parse().map_err(|source| RedirectError::Protocol {
        text: protocol,
        source,
    })?;
    let target = target_address(target)?;
    let target_port = target_port.map(port_of).transpose()?;
    let port = port?;
    Ok(Mapping {
        line: line.number(),
        protocol,
        port,
        target,
        target_port: target_port.transpose()?.unwrap_or(port),
    })
}

fn is_range(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-')
        .is_some_and(|(low, high)| digits(low) && digits(high))
}

fn target_address(text: &str) -> Result<IpAddr, RedirectError<'_>> {
    parse_address(text).map_err(|source| match source {
        AddressError::NotAnAddress => RedirectError::NotAnAddress { text },
        _ => RedirectError::Address { text, source },
    })
}

fn fallback_address(text: &str) -> Result<IpAddr, RedirectError<'_>> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A port whose line went missing, not an address.
        Err(RedirectError::Shape)
    } else {
        target_address(text)
    }
}

/// Which line uses a port, per family and protocol. A table and not a hash
/// map: a list may have as many lines as there are ports.
#[derive(Default)]
struct UsedPorts([Vec<u32>; 4]);

impl UsedPorts {
    /// Notes the port of a mapping.
    ///
    /// # Errors
    /// The line that uses the port already.
    fn claim(&mut self, mapping: &Mapping) -> Result<(), u32> {
        let [tcp4, udp4, tcp6, udp6] = &mut self.0;
        let lines = match (mapping.target, mapping.protocol) {
            (IpAddr::V4(_), Protocol::Tcp) => tcp4,
            (IpAddr::V4(_), Protocol::Udp) => udp4,
            (IpAddr::V6(_), Protocol::Tcp) => tcp6,
            (IpAddr::V6(_), Protocol::Udp) => udp6,
        };
        if lines.is_empty() {
            *lines = vec![0; usize::from(u16::MAX) + 1];
        }
        match lines.get_mut(usize::from(mapping.port.get())) {
            Some(free @ 0) => {
                *free = mapping.line;
                Ok(())
            }
            Some(first) => Err(*first),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Redirects, Diagnostics) {
        let mut diagnostics = Diagnostics::new();
        let list = List::new("EGRESS_DESTINATION", text);
        let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
        (redirects, diagnostics)
    }

    fn good(text: &str) -> Redirects {
        let (redirects, diagnostics) = parse(text);
        assert_eq!(diagnostics, Diagnostics::new());
        redirects
    }

    fn report(text: &str) -> String {
        parse(text).1.to_string()
    }

    fn lines(redirects: &Redirects) -> Vec<String> {
        let mappings = redirects.mappings().iter().map(ToString::to_string);
        let fallbacks = redirects.fallbacks().iter().map(ToString::to_string);
        mappings.chain(fallbacks).collect()
    }

    #[test]
    fn the_documented_example() {
        let redirects = good(
            "# web\n80   tcp 203.0.113.25\n\n8080 tcp 203.0.113.26 80\r\n8443 tcp 203.0.113.26 443\n203.0.113.27\n",
        );
        assert_eq!(
            lines(&redirects),
            [
                "80 tcp 203.0.113.25",
                "8080 tcp 203.0.113.26 80",
                "8443 tcp 203.0.113.26 443",
                "203.0.113.27"
            ]
        );
        let numbers: Vec<u32> = redirects.mappings().iter().map(Mapping::line).collect();
        assert_eq!(numbers, [2, 4, 5]);
        assert_eq!(redirects.fallbacks()[0].line(), 6);
        assert_eq!(
            redirects.fallback(AddressFamily::Ipv4),
            Some("203.0.113.27".parse().unwrap())
        );
        assert_eq!(redirects.fallback(AddressFamily::Ipv6), None);
    }

    #[test]
    fn a_port_is_unique_per_family_and_protocol() {
        let all = "53 tcp 192.0.2.1\n53 udp 192.0.2.1\n53 tcp 2001:db8::1\n53 udp 2001:db8::1";
        assert_eq!(good(all).mappings().len(), 4);
        for line in all.lines() {
            let (redirects, diagnostics) = parse(&format!("{all}\n{line} 5353"));
            assert_eq!(redirects.mappings().len(), 4);
            assert_eq!(
                diagnostics.legacy(),
                Some(
                    "EGRESS_DESTINATION localport 53 is already used, must be unique for each destination"
                )
            );
        }
        assert_eq!(
            report("80 tcp 192.0.2.1\n#\n80 tcp 192.0.2.2 8080"),
            "EGRESS_DESTINATION line 3: '80 tcp 192.0.2.2 8080': IPv4 port 80/tcp is already redirected by line 1; remove one of the lines\n\
             EGRESS_DESTINATION localport 80 is already used, must be unique for each destination"
        );
    }

    #[test]
    fn one_fallback_per_family_at_the_end() {
        let both = good("80 tcp 192.0.2.1\n2001:db8::1\n192.0.2.1\n");
        assert_eq!(both.fallbacks().len(), 2);
        let sentence = "EGRESS_DESTINATION fallback IP must be the last line";
        assert_eq!(
            report("192.0.2.1\n2001:db8::1\n80 tcp 192.0.2.1\n81 tcp 192.0.2.1"),
            format!(
                "EGRESS_DESTINATION line 1: '192.0.2.1': a fallback takes every other port, so it must stand last, but line 3 follows; move it to the end\n\
                 EGRESS_DESTINATION line 2: '2001:db8::1': a fallback takes every other port, so it must stand last, but line 3 follows; move it to the end\n\
                 {sentence}"
            )
        );
        assert_eq!(
            report("192.0.2.1\n192.0.2.2"),
            format!(
                "EGRESS_DESTINATION line 2: '192.0.2.2': the IPv4 fallback already stands in line 1; remove one of the lines\n{sentence}"
            )
        );
        // A bad line follows as much as a good one.
        assert_eq!(parse("192.0.2.1\ngarbage").1.legacy(), Some(sentence));
        assert_eq!(parse("192.0.2.1\n80 tcp \\").1.legacy(), Some(sentence));
    }

    #[test]
    fn each_refusal_says_why_and_ends_with_the_known_sentence() {
        let invalid = |line: &str| format!("EGRESS_DESTINATION value '{line}' is invalid");
        let port = |port: &str| format!("Invalid port: {port}, must be in the range 1 to 65535");
        for (line, reason, sentence) in [
            ("garbage", "'garbage' is not an IP address; ", None),
            ("80", "is no redirect; ", None),
            ("80 tcp", "is no redirect; ", None),
            ("80 tcp 192.0.2.1 80 x", "is no redirect; ", None),
            (
                "80 tcp 192.0.2.1 # web",
                "a comment stands on a line of its own; ",
                None,
            ),
            (
                "192.0.2.1 # rest",
                "a comment stands on a line of its own; ",
                None,
            ),
            ("80 tcp \\", "a line cannot be continued with '\\'; ", None),
            ("1-5 tcp 192.0.2.1", "'1-5' is a port range; ", None),
            ("80 tcp 192.0.2.1 1-5", "'1-5' is a port range; ", None),
            ("http tcp 192.0.2.1", "'http': is not a port number; ", None),
            ("80 TCP 192.0.2.1", "'TCP': unknown protocol; ", None),
            ("80 sctp 192.0.2.1", "'sctp': unknown protocol; ", None),
            (
                "80 tcp example.com",
                "'example.com' is not an IP address; ",
                None,
            ),
            (
                "80 tcp 999.0.2.1",
                "'999.0.2.1': an octet is larger than 255; ",
                None,
            ),
            (
                "80 tcp 192.0.2.010",
                "'192.0.2.010': an octet has a leading zero; ",
                None,
            ),
            (
                "80 tcp 192.0.2.0/24",
                "'192.0.2.0/24': has a prefix length; ",
                None,
            ),
            (
                "80 tcp 192.0.2.1:80",
                "'192.0.2.1:80' is not an IP address; ",
                None,
            ),
            (
                "80 tcp 127.0.0.1",
                "127.0.0.1 is a loopback address, ",
                None,
            ),
            (
                "169.254.169.254",
                "169.254.169.254 is a link-local address, ",
                None,
            ),
            (
                "80 tcp 0.0.0.0",
                "0.0.0.0 is the unspecified address, ",
                None,
            ),
            (
                "80 tcp 224.0.0.1",
                "224.0.0.1 is a multicast address, ",
                None,
            ),
            (
                "80 tcp 255.255.255.255",
                "255.255.255.255 is the broadcast address, ",
                None,
            ),
            (
                "80 tcp ::ffff:192.0.2.1",
                "::ffff:192.0.2.1 is an IPv4-mapped IPv6 address, ",
                None,
            ),
            (
                "0 tcp 192.0.2.1",
                "'0': port is out of range; ",
                Some(port("0")),
            ),
            (
                "080 tcp 192.0.2.1",
                "'080': a port has no leading zeros; ",
                Some(port("080")),
            ),
            (
                "800000 tcp 192.0.2.1",
                "'800000': port is out of range; ",
                Some(port("800000")),
            ),
            (
                "80 tcp 192.0.2.1 65536",
                "'65536': port is out of range; ",
                Some(port("65536")),
            ),
            // The form of the fields comes before the range of the port.
            ("0 tcp garbage", "'garbage' is not an IP address; ", None),
            ("0 tcp 192.0.2.1 x", "'x': is not a port number; ", None),
        ] {
            let (redirects, diagnostics) = parse(line);
            assert!(redirects.mappings().is_empty(), "{line}");
            let start = format!("EGRESS_DESTINATION line 1: '{line}': {reason}");
            let report = diagnostics.to_string();
            assert!(report.starts_with(&start), "{report}");
            assert_eq!(diagnostics.errors().len(), 1, "{report}");
            assert_eq!(
                report.lines().last(),
                Some(&*sentence.unwrap_or_else(|| invalid(line)))
            );
        }
    }

    #[test]
    fn a_target_that_the_judge_refuses_is_reported_with_its_line() {
        let mut diagnostics = Diagnostics::new();
        let list = List::new("EGRESS_DESTINATION_FILE", "80 tcp 192.0.2.1\n2001:db8::1");
        let judge = |target| match target {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(_) => Err(TargetError::NoSource {
                family: AddressFamily::Ipv6,
            }),
        };
        let redirects = Redirects::parse(&list, judge, &mut diagnostics);
        assert_eq!(redirects.mappings().len(), 1);
        assert_eq!(
            diagnostics.to_string(),
            "EGRESS_DESTINATION_FILE line 2: '2001:db8::1': the target is IPv6, but there is no IPv6 EGRESS_SOURCE; \
             add one with its EGRESS_GATEWAY, or remove the line\n\
             EGRESS_DESTINATION value '2001:db8::1' is invalid"
        );
    }

    #[test]
    fn every_port_of_both_protocols_and_families_at_once() {
        let mut text = String::new();
        for port in 1..=65535 {
            for line in [
                "tcp 192.0.2.1",
                "udp 192.0.2.1",
                "tcp 2001:db8::1",
                "udp 2001:db8::1",
            ] {
                text.push_str(&format!("{port} {line}\n"));
            }
        }
        let redirects = good(&text);
        assert_eq!(redirects.mappings().len(), 4 * 65535);
        let last = redirects.mappings().last().unwrap();
        assert_eq!(last.line(), 4 * 65535);
        assert_eq!(last.to_string(), "65535 udp 2001:db8::1");
    }

    #[test]
    fn json() {
        let redirects = good("53 udp 2001:db8::1 5353\n\n192.0.2.1");
        assert_eq!(
            serde_json::to_value(redirects).unwrap(),
            serde_json::json!({
                "mappings": [{
                    "line": 1,
                    "protocol": "udp",
                    "port": 53,
                    "target": "2001:db8::1",
                    "target_port": 5353,
                }],
                "fallbacks": [{"line": 3, "target": "192.0.2.1"}],
            })
        );
    }
}
