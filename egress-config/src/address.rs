//! IP addresses and networks as users write them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

use crate::decimal::plain_decimal;

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl AddressFamily {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The length of an address in bits, which is its host prefix length.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// A text that is no IP address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AddressError {
    /// `192.0.2.010`: 10 to one reader, 8 to another.
    #[error("an octet has a leading zero; write plain decimal octets")]
    LeadingZero,
    /// `999.2.3.4`.
    #[error("an octet is larger than 255; write octets from 0 to 255")]
    OctetTooLarge,
    /// `10.1.2`: what `inet_aton` would expand.
    #[error("an IPv4 address has four octets; write all of them")]
    OctetCount,
    /// `192.0.2.1/24`.
    #[error("has a prefix length; write the address alone")]
    HasPrefix,
    /// `[2001:db8::1]`.
    #[error("has brackets; write the address alone")]
    HasBrackets,
    /// `fe80::1%eth0`.
    #[error("has a zone; write the address alone")]
    HasZone,
    /// Anything else.
    #[error("is not an IP address; write one such as 192.0.2.7 or 2001:db8::7")]
    NotAnAddress,
}

/// Reads an IPv4 address as a strict dotted quad of decimal octets, or an
/// IPv6 address in any form of RFC 4291 section 2.2.
///
/// # Errors
/// [`AddressError`] names what is wrong.
pub fn parse_address(text: &str) -> Result<IpAddr, AddressError> {
    text.parse().map_err(|_| explain(text))
}

/// Finds out what is wrong with a text that the standard library refused.
fn explain(text: &str) -> AddressError {
    if let Some((address, _)) = text.split_once('/') {
        return if address.parse::<IpAddr>().is_ok() {
            AddressError::HasPrefix
        } else {
            explain(address)
        };
    }
    if text.starts_with('[') {
        return AddressError::HasBrackets;
    }
    if text.contains(':') {
        return if text.contains('%') {
            AddressError::HasZone
        } else {
            AddressError::NotAnAddress
        };
    }
    let octets = || text.split('.');
    let numeric =
        octets().all(|octet| !octet.is_empty() && octet.bytes().all(|byte| byte.is_ascii_digit()));
    if !numeric {
        AddressError::NotAnAddress
    } else if octets().count() != 4 {
        AddressError::OctetCount
    } else if octets().any(|octet| octet.len() > 1 && octet.starts_with('0')) {
        AddressError::LeadingZero
    } else {
        AddressError::OctetTooLarge
    }
}

/// A text that is no address with a prefix length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NetworkError {
    /// The part before the slash.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The part behind the slash.
    #[error("bad prefix length; write a decimal number from 0 to {max}")]
    PrefixLength {
        /// The number of bits of the family.
        max: u8,
    },
    /// Bits are set behind the prefix.
    #[error("has bits set behind its prefix; write {network}")]
    HostBits {
        /// The network that was probably meant.
        network: IpNet,
    },
}

/// Reads `IP[/LEN]`, an address and the subnet it stands in. Without a length
/// the subnet is the address itself (/32, /128).
///
/// # Errors
/// [`NetworkError`] names what is wrong.
pub fn parse_interface_address(text: &str) -> Result<IpNet, NetworkError> {
    let Some((address, length)) = text.split_once('/') else {
        return Ok(IpNet::from(parse_address(text)?));
    };
    let address = parse_address(address)?;
    let max = AddressFamily::of(address).bits();
    plain_decimal(length)
        .and_then(|length| u8::try_from(length).ok())
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or(NetworkError::PrefixLength { max })
}

/// Reads `IP[/LEN]`, a network: no bit may be set behind the prefix, since
/// that is a typing error in either half.
///
/// # Errors
/// [`NetworkError`] names what is wrong.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let network = parse_interface_address(text)?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(NetworkError::HostBits {
            network: network.trunc(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families() {
        for text in [
            "0.0.0.0",
            "192.0.2.7",
            "2001:db8::7",
            "::",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(
                parse_address(text).map(|a| a.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn each_refusal_says_why() {
        for (text, error) in [
            ("192.0.2.010", AddressError::LeadingZero),
            ("999.2.3.4", AddressError::OctetTooLarge),
            ("10.1.2", AddressError::OctetCount),
            ("3232235777", AddressError::OctetCount),
            ("1.2.3.4.5", AddressError::OctetCount),
            ("192.0.2.1/24", AddressError::HasPrefix),
            ("2001:db8::1/64", AddressError::HasPrefix),
            ("999.0.2.1/24", AddressError::OctetTooLarge),
            ("[2001:db8::1]", AddressError::HasBrackets),
            ("fe80::1%eth0", AddressError::HasZone),
            ("2001:db8:::1", AddressError::NotAnAddress),
            ("192.0.2.1:80", AddressError::NotAnAddress),
            ("example.com", AddressError::NotAnAddress),
            ("0x7f.0.0.1", AddressError::NotAnAddress),
            ("1..2.3", AddressError::NotAnAddress),
            ("", AddressError::NotAnAddress),
            ("/", AddressError::NotAnAddress),
        ] {
            assert_eq!(parse_address(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_interface_address_keeps_its_host_bits() {
        let address = parse_interface_address("192.0.2.7/24").unwrap();
        assert_eq!(address.to_string(), "192.0.2.7/24");
        assert_eq!(
            parse_interface_address("192.0.2.7").unwrap().prefix_len(),
            32
        );
        assert_eq!(
            parse_interface_address("2001:db8::7").unwrap().prefix_len(),
            128
        );
    }

    #[test]
    fn prefix_lengths_are_plain_numbers_of_the_family() {
        for bad in [
            "192.0.2.7/33",
            "192.0.2.7/",
            "192.0.2.7/024",
            "192.0.2.7/255.255.255.0",
            "192.0.2.7/-1",
        ] {
            assert_eq!(
                parse_interface_address(bad),
                Err(NetworkError::PrefixLength { max: 32 }),
                "{bad:?}"
            );
        }
        assert_eq!(
            parse_interface_address("2001:db8::/129"),
            Err(NetworkError::PrefixLength { max: 128 })
        );
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(
            parse_network("10.0.0.0/8").unwrap().to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(
            parse_network("10.0.0.1/8").unwrap_err().to_string(),
            "has bits set behind its prefix; write 10.0.0.0/8"
        );
    }
}
