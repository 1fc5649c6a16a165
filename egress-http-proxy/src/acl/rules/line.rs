//! One line of the list: its grammar.

use egress_config::{
    AddressError, DomainName, DomainNameError, NetworkError, parse_address, parse_interface_address,
};
use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

use super::glob::{self, GlobError};
use super::network_index::is_everything;
use super::ports::PortRangeError;
use super::rule::Subject;
use super::{Action, PortRange};
use crate::acl::inet_aton;
use crate::acl::judged::canonical;

/// A line that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RuleLine {
    pub(super) action: Action,
    pub(super) destination: Destination,
    pub(super) ports: PortRange,
    pub(super) odd: Option<Odd>,
}

/// What a line matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Destination {
    Any,
    Network(IpNet),
    Name(DomainName),
    Domain(DomainName),
    Glob(String),
    DomainGlob(String),
}

impl Destination {
    pub(super) fn subject(&self) -> Subject<'_> {
        match self {
            Self::Any => Subject::Any,
            Self::Network(network) => Subject::Network(*network),
            Self::Name(name) => Subject::Name(name.as_str()),
            Self::Domain(name) => Subject::Domain(name.as_str()),
            Self::Glob(pattern) => Subject::Glob(pattern),
            Self::DomainGlob(pattern) => Subject::DomainGlob(pattern),
        }
    }
}

/// What is accepted in a line, but may not be meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum Odd {
    #[error("is read as {0}; write that")]
    ReadAs(IpNet),
    #[error(
        "0.0.0.0/0 matches every destination, by name and by IPv6 address as well; write * as the last line if that is meant"
    )]
    Everything,
    #[error("::/0 matches every IPv6 address; write the networks that are meant")]
    EveryIpv6,
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum LineError {
    #[error("nothing stands behind the !; write !NAME or !ADDRESS")]
    NothingDenied,
    #[error("has more than one !; write one to deny")]
    DoubleNegation,
    #[error("would deny everything, as holds without it; remove the line")]
    DenyEverything,
    #[error("a comment stands on a line of its own; move it there")]
    Comment,
    #[error("is more than one entry; write each on a line of its own")]
    SeveralEntries,
    #[error("is a URL; write the host alone, or HOST:PORT")]
    Url,
    #[error("has a path, but rules are about hosts; write the host alone")]
    Path,
    #[error("'{text}': {source}")]
    Ports {
        text: String,
        source: PortRangeError,
    },
    #[error("an IPv6 address has brackets only before a port; write ADDRESS or [ADDRESS]:PORT")]
    Brackets,
    #[error(
        "a prefix of no bits leaves nothing of the address; write the length that is meant, or * as the last line for everything"
    )]
    NoPrefix,
    #[error("{0}")]
    Network(#[from] NetworkError),
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error(
        "ends in a number, as only addresses do; write a name, or an address with four decimal octets"
    )]
    Number,
    #[error("{0}")]
    Name(#[from] DomainNameError),
    #[error("{0}")]
    Glob(#[from] GlobError),
}

impl RuleLine {
    /// Reads `[!]DESTINATION[:PORT[-PORT]]`.
    pub(super) fn parse(text: &str) -> Result<Self, LineError> {
        let (action, text) = match text.strip_prefix('!') {
            Some(text) => (Action::Deny, text),
            None => (Action::Allow, text),
        };
        if text.is_empty() {
            return Err(LineError::NothingDenied);
        }
        if text.starts_with('!') {
            return Err(LineError::DoubleNegation);
        }
        if text.contains(',') && !text.contains('{') {
            return Err(LineError::SeveralEntries);
        }
        if let Some(position) = text.find([' ', '\t']) {
            let rest = text.get(position..).unwrap_or_default();
            return Err(if rest.trim_start_matches([' ', '\t']).starts_with('#') {
                LineError::Comment
            } else {
                LineError::SeveralEntries
            });
        }
        let (host, ports) = split_ports(text)?;
        let (destination, odd) = parse_destination(host)?;
        let line = Self {
            action,
            destination,
            ports,
            odd,
        };
        if line.is_wildcard() && action == Action::Deny {
            return Err(LineError::DenyEverything);
        }
        Ok(line)
    }

    /// Whether it is `*`, behind which no line can match.
    pub(super) fn is_wildcard(&self) -> bool {
        self.destination == Destination::Any && self.ports == PortRange::ALL
    }
}

/// Splits the ports from a host. Brackets around an IPv6 address go with
/// them.
fn split_ports(text: &str) -> Result<(&str, PortRange), LineError> {
    if text.contains("://") {
        return Err(LineError::Url);
    }
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .filter(|(inner, _)| inner.contains(':'));
    let (host, ports) = match bracketed {
        Some((host, rest)) => (host, rest.strip_prefix(':').ok_or(LineError::Brackets)?),
        None => match text.split_once(':') {
            None => return Ok((text, PortRange::ALL)),
            // Two colons make an IPv6 address.
            Some((_, rest)) if rest.contains(':') => return Ok((text, PortRange::ALL)),
            Some(split) => split,
        },
    };
    let ports = ports.parse().map_err(|source| LineError::Ports {
        text: ports.to_owned(),
        source,
    })?;
    Ok((host, ports))
}

fn parse_destination(host: &str) -> Result<(Destination, Option<Odd>), LineError> {
    if host == "*" {
        return Ok((Destination::Any, None));
    }
    if host.contains('/') || host.contains(':') {
        return parse_network(host);
    }
    if let Ok(address) = parse_address(host) {
        return Ok(network(IpNet::from(address)));
    }
    if let Some(domain) = host.strip_prefix("*.") {
        let destination = if glob::is_pattern(domain) {
            Destination::DomainGlob(glob::parse_pattern(domain)?)
        } else {
            Destination::Domain(parse_name(domain)?)
        };
        return Ok((destination, None));
    }
    let destination = if glob::is_pattern(host) {
        Destination::Glob(glob::parse_pattern(host)?)
    } else {
        Destination::Name(parse_name(host)?)
    };
    Ok((destination, None))
}

fn parse_name(text: &str) -> Result<DomainName, LineError> {
    let without_dot = text.strip_suffix('.').unwrap_or(text);
    if inet_aton::ends_in_number(without_dot) {
        return Err(match parse_address(text) {
            Err(error) if error != AddressError::NotAnAddress => error.into(),
            Err(_) | Ok(_) => LineError::Number,
        });
    }
    Ok(text.parse()?)
}

fn parse_network(text: &str) -> Result<(Destination, Option<Odd>), LineError> {
    let read = parse_interface_address(text).map_err(|error| match error {
        NetworkError::Address(AddressError::NotAnAddress) if !text.contains(':') => LineError::Path,
        NetworkError::Address(error) => error.into(),
        _ => error.into(),
    })?;
    if read.prefix_len() == 0 && read.trunc() != read {
        return Err(LineError::NoPrefix);
    }
    Ok(network(read))
}

/// The network in the form in which targets are judged.
fn network(read: IpNet) -> (Destination, Option<Odd>) {
    let network = canonical_network(read).trunc();
    let odd = if is_everything(network) {
        Some(Odd::Everything)
    } else if network.prefix_len() == 0 {
        Some(Odd::EveryIpv6)
    } else if network == read {
        None
    } else {
        Some(Odd::ReadAs(network))
    };
    (Destination::Network(network), odd)
}

/// IPv4 networks in IPv6 dress as IPv4 networks, as targets are.
fn canonical_network(network: IpNet) -> IpNet {
    let length = match network {
        IpNet::V6(network) => network.prefix_len().checked_sub(96),
        IpNet::V4(_) => None,
    };
    match (canonical(network.addr()), length) {
        (std::net::IpAddr::V4(address), Some(length)) => {
            Ipv4Net::new(address, length).map_or(network, IpNet::from)
        }
        _ => network,
    }
}
