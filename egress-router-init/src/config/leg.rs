//! The router's place on the physical network, per address family.

use std::net::IpAddr;

use egress_config::{
    AddressError, AddressFamily, Diagnostic, NetworkError, Reader, SpecialAddress, VariableSpec,
    parse_address, parse_interface_address, variables, words,
};
use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

use crate::redirect::TargetError;

/// Source address and gateway of one address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Leg {
    source: IpNet,
    gateway: IpAddr,
}

impl Leg {
    /// The reserved address with the length of its subnet's prefix.
    #[must_use]
    pub fn source(&self) -> IpNet {
        self.source
    }

    /// The next hop, of the same family. It may lie outside the subnet.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The family of both.
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        AddressFamily::of(self.gateway)
    }
}

/// Reads `EGRESS_SOURCE` and `EGRESS_GATEWAY`: IPv4 first, each family at
/// most once. `None` when something was reported.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Vec<Leg>> {
    let sources = SOURCE.read(reader, parse_source, IpNet::addr);
    let gateways = GATEWAY.read(reader, parse_gateway, |gateway| *gateway);
    let (sources, gateways) = (sources?, gateways?);
    let mut legs = Some(Vec::new());
    for family in AddressFamily::ALL {
        let source = sources
            .iter()
            .find(|source| AddressFamily::of(source.addr()) == family);
        let gateway = gateways
            .iter()
            .find(|&&gateway| AddressFamily::of(gateway) == family);
        let leg = match (source, gateway) {
            (Some(&source), Some(&gateway)) => leg(source, gateway),
            (Some(source), None) => Err(LegError::NoGateway {
                family,
                address: source.addr(),
            }),
            (None, Some(&gateway)) => Err(LegError::NoSource { family, gateway }),
            (None, None) => continue,
        };
        match leg {
            Ok(leg) => {
                if let Some(legs) = &mut legs {
                    legs.push(leg);
                }
            }
            Err(error) => {
                GATEWAY.report(reader, None, &error);
                legs = None;
            }
        }
    }
    legs
}

/// Whether something of the pod can be redirected to `target`.
///
/// # Errors
/// [`TargetError`] says why not.
pub(super) fn judge_target(legs: &[Leg], target: IpAddr) -> Result<(), TargetError> {
    let family = AddressFamily::of(target);
    let Some(leg) = legs.iter().find(|leg| leg.family() == family) else {
        return Err(TargetError::NoSource { family });
    };
    if leg.source.addr() == target {
        return Err(TargetError::Source { target });
    }
    match subnet_edge(target, leg.source) {
        // The routers of an IPv6 subnet answer there.
        None | Some(ANYCAST) => Ok(()),
        Some(edge) => Err(TargetError::SubnetEdge {
            target,
            edge,
            subnet: leg.source.trunc(),
        }),
    }
}

const NETWORK: &str = "network";
const BROADCAST: &str = "broadcast";
const ANYCAST: &str = "subnet-router anycast";

/// Which address that is no host's `address` is in a subnet: RFC 919 and 950
/// for IPv4, RFC 4291 section 2.6.1 for IPv6. A point-to-point subnet has
/// none (RFC 3021, RFC 6164).
fn subnet_edge(address: IpAddr, subnet: IpNet) -> Option<&'static str> {
    let point_to_point = subnet.max_prefix_len() - subnet.prefix_len() < 2;
    if point_to_point {
        None
    } else if address == subnet.network() {
        Some(match subnet {
            IpNet::V4(_) => NETWORK,
            IpNet::V6(_) => ANYCAST,
        })
    } else if subnet.addr().is_ipv4() && address == subnet.broadcast() {
        Some(BROADCAST)
    } else {
        None
    }
}

/// A variable with at most one address per family, and the sentence of the
/// image we replace for everything that is wrong with it.
struct Addresses {
    variable: &'static VariableSpec,
    legacy: &'static str,
}

const SOURCE: Addresses = Addresses {
    variable: variables::SOURCE,
    legacy: "EGRESS_SOURCE unspecified or invalid",
};

const GATEWAY: Addresses = Addresses {
    variable: variables::GATEWAY,
    legacy: "EGRESS_GATEWAY unspecified or invalid",
};

impl Addresses {
    fn read<T>(
        &self,
        reader: &mut Reader<'_>,
        parse: impl Fn(&str) -> Result<T, LegError>,
        address: impl Fn(&T) -> IpAddr,
    ) -> Option<Vec<T>> {
        let Some(text) = reader.text(self.variable) else {
            self.report(reader, None, &LegError::Unset);
            return None;
        };
        let mut read: Vec<T> = Vec::new();
        let mut good = true;
        for word in words(&text) {
            let parsed = parse(word).and_then(|parsed| {
                let family = AddressFamily::of(address(&parsed));
                if read
                    .iter()
                    .any(|other| AddressFamily::of(address(other)) == family)
                {
                    Err(LegError::Second { family })
                } else {
                    Ok(parsed)
                }
            });
            match parsed {
                Ok(parsed) => read.push(parsed),
                Err(error) => {
                    self.report(reader, Some(word), &error);
                    good = false;
                }
            }
        }
        if good && read.is_empty() {
            self.report(reader, Some(&text), &LegError::Unset);
        }
        (good && !read.is_empty()).then_some(read)
    }

    fn report(&self, reader: &mut Reader<'_>, text: Option<&str>, error: &LegError) {
        let diagnostic = Diagnostic::new(self.variable.name(), error).legacy(self.legacy);
        reader.error(match text {
            Some(text) => diagnostic.text(text),
            None => diagnostic,
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
enum LegError {
    #[error("is not set; write an address of the physical network")]
    Unset,
    #[error(transparent)]
    Source(#[from] NetworkError),
    #[error(transparent)]
    Gateway(#[from] AddressError),
    #[error("is {0}; write an address of the physical network")]
    Special(SpecialAddress),
    #[error("the prefix length 0 makes every address a neighbour; write that of the subnet")]
    PrefixZero,
    #[error("is the {edge} address of {subnet}; write the address of a host")]
    SubnetEdge { edge: &'static str, subnet: IpNet },
    #[error("is a second {family} address; write one per family")]
    Second { family: AddressFamily },
    #[error("the source {address} has no {family} gateway; add one")]
    NoGateway {
        family: AddressFamily,
        address: IpAddr,
    },
    #[error("the gateway {gateway} has no {family} EGRESS_SOURCE; add one, or remove the gateway")]
    NoSource {
        family: AddressFamily,
        gateway: IpAddr,
    },
    #[error("the gateway {0} is EGRESS_SOURCE itself; write the address of the next hop")]
    GatewayIsSource(IpAddr),
    #[error(
        "the gateway {gateway} is the {edge} address of {subnet}; write the address of the next hop"
    )]
    GatewayAtEdge {
        gateway: IpAddr,
        edge: &'static str,
        subnet: IpNet,
    },
}

fn parse_source(text: &str) -> Result<IpNet, LegError> {
    let source = parse_interface_address(text)?;
    if let Some(special) = SpecialAddress::of(source.addr()) {
        return Err(LegError::Special(special));
    }
    if source.prefix_len() == 0 {
        return Err(LegError::PrefixZero);
    }
    match subnet_edge(source.addr(), source) {
        Some(edge) => Err(LegError::SubnetEdge {
            edge,
            subnet: source.trunc(),
        }),
        None => Ok(source),
    }
}

fn parse_gateway(text: &str) -> Result<IpAddr, LegError> {
    let gateway = parse_address(text)?;
    match SpecialAddress::of(gateway) {
        // The usual address of an IPv6 router, and of some CNIs' IPv4 ones.
        None | Some(SpecialAddress::LinkLocal) => Ok(gateway),
        Some(special) => Err(LegError::Special(special)),
    }
}

fn leg(source: IpNet, gateway: IpAddr) -> Result<Leg, LegError> {
    if gateway == source.addr() {
        return Err(LegError::GatewayIsSource(gateway));
    }
    match subnet_edge(gateway, source) {
        None | Some(ANYCAST) => Ok(Leg { source, gateway }),
        Some(edge) => Err(LegError::GatewayAtEdge {
            gateway,
            edge,
            subnet: source.trunc(),
        }),
    }
}
