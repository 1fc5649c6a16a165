//! Destination lines: which port of the pod leads to which host.

use std::fmt;
use std::net::IpAddr;

use egress_config::{
    AddressError, Continued, Diagnostic, Diagnostics, DomainName, DomainNameError, Line, List,
    Port, PortError, Protocol, ProtocolError, SpecialAddress, parse_address,
};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// All mappings, in the order of their lines. Unique per protocol and port.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// Reads a list of `PORT HOST [REMOTE_PORT]` and
    /// `PORT/udp HOST [REMOTE_PORT]` lines.
    ///
    /// A bad line is left out and reported to `diagnostics`, in the order of
    /// the lines. The work is linear in the length of the list.
    pub fn parse(list: &List, diagnostics: &mut Diagnostics) -> Self {
        let mut used = UsedPorts::default();
        let mut mappings = Vec::new();
        for line in list.lines() {
            let read = line.map_err(|continued| {
                let line = continued.line();
                (line, MappingError::Continued(continued))
            });
            let read = read.and_then(|line| {
                let claimed = mapping(line).and_then(|mapping| used.claim(mapping));
                claimed.map_err(|error| (line, error))
            });
            match read {
                Ok(mapping) => mappings.push(mapping),
                Err((line, error)) => diagnostics.error(
                    Diagnostic::at(list.variable().to_owned(), line, &error)
                        .legacy(error.legacy(line)),
                ),
            }
        }
        Self(mappings)
    }

    /// In the order of their lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no port leads anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a Mappings {
    type Item = &'a Mapping;
    type IntoIter = std::slice::Iter<'a, Mapping>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One port of the pod that leads to a port of a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Mapping {
    line: u32,
    protocol: Protocol,
    port: Port,
    host: Host,
    remote_port: Port,
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

    /// Where it leads.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port of the host.
    #[must_use]
    pub fn remote_port(&self) -> Port {
        self.remote_port
    }

    /// The host and its port, as one text.
    #[must_use]
    pub fn destination(&self) -> String {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]:{}", self.remote_port),
            host => format!("{host}:{}", self.remote_port),
        }
    }
}

/// The mapping as a line that reads as the same mapping.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.port)?,
            Protocol::Udp => write!(f, "{}/udp", self.port)?,
        }
        write!(f, " {}", self.host)?;
        if self.remote_port == self.port {
            Ok(())
        } else {
            write!(f, " {}", self.remote_port)
        }
    }
}

/// A host as the user wrote it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// A name to resolve.
    Name(HostName),
    /// An address, which needs no resolver.
    Address(IpAddr),
}

impl Host {
    /// The name to resolve, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The host as its text.
impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The name of a host and whether the search list applies to it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostName {
    name: DomainName,
    search: Search,
}

impl HostName {
    /// The name itself.
    #[must_use]
    pub fn name(&self) -> &DomainName {
        &self.name
    }

    /// Whether the search list applies.
    #[must_use]
    pub fn search(&self) -> Search {
        self.search
    }
}

/// With the root dot of an absolute name, so that it reads as the same host.
impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        match self.search {
            Search::Listed => Ok(()),
            Search::Absolute => f.write_str("."),
        }
    }
}

/// Whether the domains of the search list are tried behind a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Search {
    /// As given, then in the search list.
    Listed,
    /// As given only: it was written with a dot at its end.
    Absolute,
}

/// What is wrong with a destination line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
enum MappingError<'a> {
    #[error("is no destination; write PORT HOST [REMOTE_PORT], or PORT/udp HOST [REMOTE_PORT]")]
    Shape,
    #[error("a comment stands on a line of its own; move it there")]
    Comment,
    #[error(transparent)]
    Continued(Continued<'a>),
    #[error("'{text}' is a port range; write one line per port")]
    PortRange { text: &'a str },
    #[error("'{text}': {source}")]
    Port { text: &'a str, source: PortError },
    #[error("'{text}': {source}")]
    Protocol {
        text: &'a str,
        source: ProtocolError,
    },
    #[error("the protocol stands with the port; write {port}/{protocol}")]
    ProtocolApart { port: &'a str, protocol: Protocol },
    #[error("'{text}' is not a host; write its name or address alone, and its port behind a blank")]
    NotAHost { text: &'a str },
    #[error("'{text}': {source}")]
    Address { text: &'a str, source: AddressError },
    #[error("'{text}': {source}")]
    Name {
        text: &'a str,
        source: DomainNameError,
    },
    #[error(
        "{address} is {special}, to which no connection can be made; write the address of a server"
    )]
    Special {
        address: IpAddr,
        special: SpecialAddress,
    },
    #[error(
        "port {port}/{protocol} already leads elsewhere by line {first}; remove one of the lines"
    )]
    Duplicate {
        protocol: Protocol,
        port: Port,
        first: u32,
    },
}

impl MappingError<'_> {
    /// The sentence with which the image we replace stopped.
    fn legacy(&self, line: Line<'_>) -> String {
        match self {
            Self::Port {
                text,
                source: PortError::OutOfRange | PortError::LeadingZero,
            } => format!("Invalid port: {text}, must be in the range 1 to 65535"),
            Self::Duplicate { port, .. } => {
                format!("Proxy port {port} already used, must be unique for each destination")
            }
            Self::Shape
            | Self::Comment
            | Self::Continued(_)
            | Self::PortRange { .. }
            | Self::Port {
                source: PortError::NotANumber,
                ..
            }
            | Self::Protocol { .. }
            | Self::ProtocolApart { .. }
            | Self::NotAHost { .. }
            | Self::Address { .. }
            | Self::Name { .. }
            | Self::Special { .. } => format!("Bad destination '{}'", line.text()),
        }
    }
}

fn mapping(line: Line<'_>) -> Result<Mapping, MappingError<'_>> {
    let mut fields = line.fields();
    let read = match [(); 4].map(|()| fields.next()) {
        [Some(port), Some(protocol @ ("tcp" | "udp")), ..] => apart(port, protocol),
        [Some(port), Some(host), remote_port, None] => fields_of(line, port, host, remote_port),
        _ => Err(MappingError::Shape),
    };
    match read {
        Err(_) if line.fields().any(|field| field.starts_with('#')) => Err(MappingError::Comment),
        read => read,
    }
}

/// `53 udp HOST` is a line of the router. A host of that name is written with
/// its root dot.
fn apart<'a>(port: &'a str, protocol: &'a str) -> Result<Mapping, MappingError<'a>> {
    let protocol = protocol_of(protocol)?;
    // Whether the port is in range matters less.
    let _ = port_of(port)?;
    Err(MappingError::ProtocolApart { port, protocol })
}

/// The form of every field is judged before the range of a port, as in the
/// image we replace: its sentences differ.
fn fields_of<'a>(
    line: Line<'a>,
    port: &'a str,
    host: &'a str,
    remote_port: Option<&'a str>,
) -> Result<Mapping, MappingError<'a>> {
    let (port, protocol) = match port.split_once('/') {
        Some((port, protocol)) => (port, protocol_of(protocol)?),
        None => (port, Protocol::Tcp),
    };
    let port = port_of(port)?;
    let host = host_of(host)?;
    let remote_port = remote_port.map(port_of).transpose()?;
    let port = port?;
    Ok(Mapping {
        line: line.number(),
        protocol,
        port,
        host,
        remote_port: remote_port.transpose()?.unwrap_or(port),
    })
}

fn protocol_of(text: &str) -> Result<Protocol, MappingError<'_>> {
    text.parse()
        .map_err(|source| MappingError::Protocol { text, source })
}

/// The outer error is about the form of a port, the inner one about its range.
fn port_of(text: &str) -> Result<Result<Port, MappingError<'_>>, MappingError<'_>> {
    match text.parse::<Port>() {
        Err(PortError::NotANumber) if is_range(text) => Err(MappingError::PortRange { text }),
        Err(source @ PortError::NotANumber) => Err(MappingError::Port { text, source }),
        read => Ok(read.map_err(|source| MappingError::Port { text, source })),
    }
}

fn is_range(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-')
        .is_some_and(|(low, high)| digits(low) && digits(high))
}

fn host_of(text: &str) -> Result<Host, MappingError<'_>> {
    match parse_address(text) {
        Ok(address) => address_of(address).map(Host::Address),
        Err(AddressError::NotAnAddress) if text.contains([':', '/']) => {
            Err(MappingError::NotAHost { text })
        }
        Err(AddressError::NotAnAddress) => name_of(text).map(Host::Name),
        Err(source) => Err(MappingError::Address { text, source }),
    }
}

fn address_of<'a>(address: IpAddr) -> Result<IpAddr, MappingError<'a>> {
    match undialable(address) {
        None => Ok(address),
        Some(special) => Err(MappingError::Special { address, special }),
    }
}

/// Why no server can be reached at an address, `None` when one can: loopback
/// is a container of the same pod, and IPv4 link-local a neighbour.
pub(crate) fn undialable(address: IpAddr) -> Option<SpecialAddress> {
    match SpecialAddress::of(address) {
        None | Some(SpecialAddress::Loopback) => None,
        Some(SpecialAddress::LinkLocal) if address.is_ipv4() => None,
        special => special,
    }
}

fn name_of(text: &str) -> Result<HostName, MappingError<'_>> {
    let name = text
        .parse()
        .map_err(|source| MappingError::Name { text, source })?;
    let search = if text.ends_with('.') {
        Search::Absolute
    } else {
        Search::Listed
    };
    Ok(HostName { name, search })
}

/// Which line uses a port, per protocol. A table and not a hash map: a list
/// may have as many lines as there are ports.
#[derive(Default)]
struct UsedPorts {
    tcp: Vec<u32>,
    udp: Vec<u32>,
}

impl UsedPorts {
    /// Notes the port of a mapping.
    ///
    /// # Errors
    /// When another line uses it.
    fn claim<'a>(&mut self, mapping: Mapping) -> Result<Mapping, MappingError<'a>> {
        let lines = match mapping.protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        };
        if lines.is_empty() {
            lines.resize(usize::from(u16::MAX) + 1, 0);
        }
        match lines.get_mut(usize::from(mapping.port.get())) {
            Some(&mut first) if first != 0 => Err(MappingError::Duplicate {
                protocol: mapping.protocol,
                port: mapping.port,
                first,
            }),
            Some(line) => {
                *line = mapping.line;
                Ok(mapping)
            }
            // The table has an entry for every port.
            None => Ok(mapping),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Mappings, Diagnostics) {
        let mut diagnostics = Diagnostics::new();
        let list = List::new("EGRESS_DNS_PROXY_DESTINATION", text);
        let mappings = Mappings::parse(&list, &mut diagnostics);
        (mappings, diagnostics)
    }

    fn good(text: &str) -> Mappings {
        let (mappings, diagnostics) = parse(text);
        assert_eq!(diagnostics, Diagnostics::new());
        mappings
    }

    fn only(text: &str) -> Mapping {
        let mappings = good(text);
        assert_eq!(mappings.len(), 1);
        mappings.iter().next().unwrap().clone()
    }

    #[test]
    fn every_form_of_a_line() {
        let mappings = good(
            "# web\n80 web.example.com\r\n\n 8080\tweb.example.com  80\n53/udp 192.0.2.53\n\
             53/tcp 2001:db8::53 5353\n5432 db\n443 WWW.Example.com.",
        );
        let lines: Vec<String> = mappings.iter().map(Mapping::to_string).collect();
        assert_eq!(
            lines,
            [
                "80 web.example.com",
                "8080 web.example.com 80",
                "53/udp 192.0.2.53",
                "53 2001:db8::53 5353",
                "5432 db",
                "443 www.example.com.",
            ]
        );
        let numbers: Vec<u32> = mappings.iter().map(Mapping::line).collect();
        assert_eq!(numbers, [2, 4, 5, 6, 7, 8]);
        let destinations: Vec<String> = mappings.iter().map(Mapping::destination).collect();
        assert_eq!(
            destinations,
            [
                "web.example.com:80",
                "web.example.com:80",
                "192.0.2.53:53",
                "[2001:db8::53]:5353",
                "db:5432",
                "www.example.com.:443",
            ]
        );
    }

    #[test]
    fn a_dot_at_the_end_keeps_the_search_list_away() {
        let search = |line| match only(line).host() {
            Host::Name(name) => name.search(),
            Host::Address(address) => panic!("{address}"),
        };
        assert_eq!(search("80 db.example.com"), Search::Listed);
        assert_eq!(search("80 db"), Search::Listed);
        assert_eq!(search("80 db.example.com."), Search::Absolute);
        assert_eq!(search("80 udp."), Search::Absolute);
    }

    #[test]
    fn a_port_is_unique_per_protocol() {
        assert_eq!(good("53 db\n53/udp db\n54 db").len(), 3);
        let (mappings, diagnostics) = parse("80 192.0.2.1\n#\n80/tcp db 8080\n53/udp a\n53/udp a");
        assert_eq!(mappings.len(), 2);
        assert_eq!(
            diagnostics.to_string(),
            "EGRESS_DNS_PROXY_DESTINATION line 3: '80/tcp db 8080': port 80/tcp already leads elsewhere by line 1; remove one of the lines\n\
             EGRESS_DNS_PROXY_DESTINATION line 5: '53/udp a': port 53/udp already leads elsewhere by line 4; remove one of the lines\n\
             Proxy port 80 already used, must be unique for each destination"
        );
    }

    #[test]
    fn each_refusal_says_why_and_ends_with_the_known_sentence() {
        let port = |port| {
            Some(format!(
                "Invalid port: {port}, must be in the range 1 to 65535"
            ))
        };
        for (line, reason, sentence) in [
            (
                "invalid",
                "is no destination; write PORT HOST [REMOTE_PORT], ",
                None,
            ),
            ("80", "is no destination; ", None),
            ("80 db 80 x", "is no destination; ", None),
            (
                "80 db # comment",
                "a comment stands on a line of its own; ",
                None,
            ),
            (
                "80 db 90 # comment",
                "a comment stands on a line of its own; ",
                None,
            ),
            (
                "80 1.2.3.4\\",
                "a line cannot be continued with '\\'; ",
                None,
            ),
            ("1-5 db", "'1-5' is a port range; ", None),
            ("80 db 1-5", "'1-5' is a port range; ", None),
            ("http db", "'http': is not a port number; ", None),
            ("53/sctp db", "'sctp': unknown protocol; ", None),
            ("53/UDP db", "'UDP': unknown protocol; ", None),
            (
                "53 udp 1.2.3.4",
                "the protocol stands with the port; write 53/udp",
                None,
            ),
            (
                "80 tcp db 8080",
                "the protocol stands with the port; write 80/tcp",
                None,
            ),
            (
                "80 udp",
                "the protocol stands with the port; write 80/udp",
                None,
            ),
            ("80 db:8080", "'db:8080' is not a host; ", None),
            ("80 http://db", "'http://db' is not a host; ", None),
            (
                "80 2001:db8::1::2",
                "'2001:db8::1::2' is not a host; ",
                None,
            ),
            (
                "80 192.0.2.0/24",
                "'192.0.2.0/24': has a prefix length; ",
                None,
            ),
            (
                "80 192.0.2.256",
                "'192.0.2.256': an octet is larger than 255; ",
                None,
            ),
            (
                "80 192.0.2",
                "'192.0.2': an IPv4 address has four octets; ",
                None,
            ),
            ("80 8080", "'8080': an IPv4 address has four octets; ", None),
            (
                "80 192.0.2.1.",
                "'192.0.2.1.': the last label is a number; ",
                None,
            ),
            (
                "80 *.example.com",
                "'*.example.com': the name has the character '*'; ",
                None,
            ),
            (
                "80 bücher.example",
                "'bücher.example': the name is not ASCII; ",
                None,
            ),
            ("80 0.0.0.0", "0.0.0.0 is the unspecified address, ", None),
            ("80 224.0.0.1", "224.0.0.1 is a multicast address, ", None),
            ("80 fe80::1", "fe80::1 is a link-local address, ", None),
            (
                "80 ::ffff:192.0.2.1",
                "::ffff:192.0.2.1 is an IPv4-mapped IPv6 address, ",
                None,
            ),
            ("0 db", "'0': port is out of range; ", port("0")),
            (
                "080 db",
                "'080': a port has no leading zeros; ",
                port("080"),
            ),
            (
                "80 db 65536",
                "'65536': port is out of range; ",
                port("65536"),
            ),
            (
                "88888/udp db",
                "'88888': port is out of range; ",
                port("88888"),
            ),
            // The form of the fields comes before the range of the port.
            ("0 -db", "'-db': a label starts or ends with a hyphen", None),
        ] {
            let (mappings, diagnostics) = parse(line);
            assert!(mappings.is_empty(), "{line}");
            let start = format!("EGRESS_DNS_PROXY_DESTINATION line 1: '{line}': {reason}");
            let report = diagnostics.to_string();
            assert!(report.starts_with(&start), "{report}");
            assert_eq!(diagnostics.errors().len(), 1, "{report}");
            let sentence = sentence.unwrap_or_else(|| format!("Bad destination '{line}'"));
            assert_eq!(report.lines().last(), Some(sentence.as_str()));
        }
    }

    #[test]
    fn a_neighbour_in_the_pod_or_on_the_link_is_a_host() {
        for line in ["80 127.0.0.1", "80 ::1", "80 169.254.20.10"] {
            assert_eq!(only(line).to_string(), line);
        }
    }

    #[test]
    fn every_port_of_both_protocols_at_once() {
        let text: String = (1..=65535)
            .map(|port| format!("{port} db.example.com\n{port}/udp db.example.com\n"))
            .collect();
        let mappings = good(&text);
        assert_eq!(mappings.len(), 2 * 65535);
        assert_eq!(
            mappings.iter().last().unwrap().to_string(),
            "65535/udp db.example.com"
        );
    }

    #[test]
    fn json() {
        assert_eq!(
            serde_json::to_value(good("53/udp db. 5353\n\n80 2001:db8::1")).unwrap(),
            serde_json::json!([
                {"line": 1, "protocol": "udp", "port": 53, "host": "db.", "remote_port": 5353},
                {"line": 3, "protocol": "tcp", "port": 80, "host": "2001:db8::1", "remote_port": 80},
            ])
        );
    }
}
