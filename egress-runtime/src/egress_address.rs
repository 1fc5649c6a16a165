//! The addresses of this pod, and the one that outgoing connections leave with.

use std::io;
use std::net::IpAddr;

use egress_config::{AddressFamily, InterfaceName, SpecialAddress};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use thiserror::Error;

/// The egress interface where nothing else is said: the name that the
/// router's set-up and the annotation of OpenShift's SDN give it.
const DEFAULT_INTERFACE: &str = "macvlan0";

/// The source addresses of outgoing connections, at most one per family.
///
/// It fails closed: with an address of one family only, destinations of the
/// other cannot be dialled, because they would leave with some other address.
/// Bound to nothing ([`EgressAddress::none`]), the kernel chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EgressAddress {
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
}

impl EgressAddress {
    /// Bound to nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
        }
    }

    /// Bound to these, for tests.
    #[cfg(test)]
    pub(crate) const fn bound(ipv4: Option<IpAddr>, ipv6: Option<IpAddr>) -> Self {
        Self { ipv4, ipv6 }
    }

    /// `sources` where given (`EGRESS_SOURCE`), else the first address of each
    /// family on `interface` (`EGRESS_INTERFACE`), else those of `macvlan0`,
    /// else nothing. Looks at the interfaces of this network namespace, once.
    ///
    /// # Errors
    /// When a source is on no interface, two are of one family, the interface
    /// named is missing, or the egress interface has no address.
    pub fn find(
        sources: &[IpAddr],
        interface: Option<&InterfaceName>,
    ) -> Result<Self, EgressAddressError> {
        choose(&list()?, sources, interface)
    }

    /// What to bind a socket to before it connects to an address of `family`.
    #[must_use]
    pub const fn source_for(&self, family: AddressFamily) -> Option<IpAddr> {
        match family {
            AddressFamily::Ipv4 => self.ipv4,
            AddressFamily::Ipv6 => self.ipv6,
        }
    }

    /// Whether a destination of `family` can be dialled.
    #[must_use]
    pub const fn family_allowed(&self, family: AddressFamily) -> bool {
        self.source_for(family).is_some() || (self.ipv4.is_none() && self.ipv6.is_none())
    }

    /// Whether `address`, IPv4-mapped or not, is an egress address: the local
    /// address of a connection that came from the physical network.
    #[must_use]
    pub fn is_ours(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ipv4 == Some(address) || self.ipv6 == Some(address)
    }
}

/// All addresses of the pod, loopback and link-local ones included. They may
/// change while the pod runs.
///
/// # Errors
/// When the kernel does not list them.
pub fn own_addresses() -> Result<Vec<IpAddr>, EgressAddressError> {
    Ok(list()?.into_iter().filter_map(|own| own.address).collect())
}

/// Why the egress address is not known.
#[derive(Debug, Error)]
pub enum EgressAddressError {
    /// `getifaddrs(3)` failed.
    #[error("cannot list this pod's addresses: {0}")]
    List(#[source] io::Error),
    /// A source that no interface has.
    #[error(
        "EGRESS_SOURCE {0} is on no interface of this pod; run egress-router-init first, or correct EGRESS_SOURCE"
    )]
    SourceMissing(IpAddr),
    /// Two sources of one family.
    #[error("EGRESS_SOURCE has two {0} addresses; give one per family")]
    TwoSources(AddressFamily),
    /// The interface named is not there.
    #[error(
        "EGRESS_INTERFACE {0} does not exist in this pod; run egress-router-init first, or correct EGRESS_INTERFACE"
    )]
    InterfaceMissing(InterfaceName),
    /// The interface has no address, or link-local ones only.
    #[error(
        "egress interface {0} has no global address; run egress-router-init first, or set EGRESS_SOURCE"
    )]
    NoGlobalAddress(Box<str>),
}

/// An interface, and an IP address that it has.
#[derive(Debug)]
struct Own {
    interface: String,
    address: Option<IpAddr>,
}

fn list() -> Result<Vec<Own>, EgressAddressError> {
    let interfaces = getifaddrs().map_err(|error| EgressAddressError::List(error.into()))?;
    // Each interface has an entry of its link-layer address at least.
    Ok(interfaces
        .map(|entry| Own {
            address: entry.address.as_ref().and_then(ip),
            interface: entry.interface_name,
        })
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    address
        .as_sockaddr_in()
        .map(|ipv4| ipv4.ip().into())
        .or_else(|| address.as_sockaddr_in6().map(|ipv6| ipv6.ip().into()))
}

fn choose(
    all: &[Own],
    sources: &[IpAddr],
    interface: Option<&InterfaceName>,
) -> Result<EgressAddress, EgressAddressError> {
    if !sources.is_empty() {
        let missing = |source: &&IpAddr| all.iter().all(|own| own.address != Some(**source));
        if let Some(&source) = sources.iter().find(missing) {
            return Err(EgressAddressError::SourceMissing(source));
        }
        return Ok(EgressAddress {
            ipv4: only(sources, AddressFamily::Ipv4)?,
            ipv6: only(sources, AddressFamily::Ipv6)?,
        });
    }
    let name = interface.map_or(DEFAULT_INTERFACE, InterfaceName::as_str);
    let of_interface = || all.iter().filter(|own| device(&own.interface) == name);
    if of_interface().next().is_none() {
        return interface.map_or(Ok(EgressAddress::none()), |interface| {
            Err(EgressAddressError::InterfaceMissing(interface.clone()))
        });
    }
    let first = |family| {
        let global = |address: &IpAddr| {
            AddressFamily::of(*address) == family && SpecialAddress::of(*address).is_none()
        };
        of_interface().filter_map(|own| own.address).find(global)
    };
    let found = EgressAddress {
        ipv4: first(AddressFamily::Ipv4),
        ipv6: first(AddressFamily::Ipv6),
    };
    if found == EgressAddress::none() {
        return Err(EgressAddressError::NoGlobalAddress(name.into()));
    }
    Ok(found)
}

fn only(sources: &[IpAddr], family: AddressFamily) -> Result<Option<IpAddr>, EgressAddressError> {
    let mut of_family = sources
        .iter()
        .filter(|&&source| AddressFamily::of(source) == family);
    let first = of_family.next().copied();
    match of_family.next() {
        Some(_) => Err(EgressAddressError::TwoSources(family)),
        None => Ok(first),
    }
}

/// `macvlan0` of `macvlan0:1`: an IPv4 address is listed under its label
/// (netdevice(7), `IFA_LABEL`), not under the interface's name.
fn device(label: &str) -> &str {
    label.split_once(':').map_or(label, |(device, _)| device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pod() -> Vec<Own> {
        [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "10.1.0.5"),
            ("macvlan0", "fe80::1"),
            ("macvlan0:egress", "192.0.2.10"),
            ("macvlan0", "2001:db8::10"),
            ("net1", "198.51.100.7"),
            ("net2", "fe80::2"),
            ("net3", ""),
        ]
        .map(|(interface, address)| Own {
            interface: interface.to_owned(),
            address: address.parse().ok(),
        })
        .into()
    }

    fn found(sources: &[&str], interface: Option<&str>) -> Result<[Option<IpAddr>; 2], String> {
        let sources: Vec<IpAddr> = sources.iter().map(|source| ip(source)).collect();
        let interface = interface.map(|name| name.parse().unwrap());
        choose(&pod(), &sources, interface.as_ref())
            .map(|address| AddressFamily::ALL.map(|family| address.source_for(family)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn sources_go_before_the_interface() {
        assert_eq!(
            found(&["10.1.0.5"], Some("net1")),
            Ok([Some(ip("10.1.0.5")), None])
        );
        assert_eq!(
            found(&["2001:db8::10", "192.0.2.10"], None),
            Ok([Some(ip("192.0.2.10")), Some(ip("2001:db8::10"))])
        );
    }

    #[test]
    fn the_interface_gives_its_first_global_addresses() {
        let macvlan = Ok([Some(ip("192.0.2.10")), Some(ip("2001:db8::10"))]);
        assert_eq!(found(&[], None), macvlan);
        assert_eq!(found(&[], Some("macvlan0")), macvlan);
        assert_eq!(
            found(&[], Some("net1")),
            Ok([Some(ip("198.51.100.7")), None])
        );
    }

    #[test]
    fn what_was_asked_for_and_is_not_there_is_an_error() {
        for (sources, interface, word) in [
            (vec!["192.0.2.11"], None, "192.0.2.11 is on no interface"),
            (vec!["192.0.2.10", "10.1.0.5"], None, "two IPv4 addresses"),
            (vec![], Some("net9"), "net9 does not exist"),
            (vec![], Some("net2"), "net2 has no global address"),
            (vec![], Some("net3"), "net3 has no global address"),
        ] {
            let text = found(&sources, interface).unwrap_err();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn without_macvlan0_nothing_is_bound() {
        let none = choose(&[], &[], None).unwrap();
        assert_eq!(none, EgressAddress::none());
        assert!(AddressFamily::ALL.map(|family| none.family_allowed(family)) == [true, true]);
        assert!(!none.is_ours(ip("192.0.2.10")));
    }

    #[test]
    fn a_family_without_source_is_closed() {
        let address = choose(&pod(), &[ip("192.0.2.10")], None).unwrap();
        assert!(address.family_allowed(AddressFamily::Ipv4));
        assert!(!address.family_allowed(AddressFamily::Ipv6));
        assert!(address.is_ours(ip("192.0.2.10")));
        assert!(address.is_ours(ip("::ffff:192.0.2.10")));
        assert!(!address.is_ours(ip("10.1.0.5")));
    }

    #[test]
    fn the_kernel_lists_loopback() {
        assert!(own_addresses().unwrap().contains(&ip("127.0.0.1")));
        let found = EgressAddress::find(&[ip("127.0.0.1")], None).unwrap();
        assert_eq!(found.source_for(AddressFamily::Ipv4), Some(ip("127.0.0.1")));
    }
}
