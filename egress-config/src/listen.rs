//! The address of a listening socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::address::{AddressError, parse_address};
use crate::port::{Port, PortError};

/// A text that is no listen address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ListenError {
    /// No colon before a port, or an address in the wrong dress.
    #[error("is not a listen address; write :PORT, IPV4:PORT, [IPV6]:PORT or off")]
    Shape,
    /// The part before the last colon is no address.
    #[error("has no address before its port; write :PORT, IPV4:PORT, [IPV6]:PORT or off")]
    Address(#[source] AddressError),
    /// The part behind the last colon is no port.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Reads `:PORT` (every address of both families), `IPV4:PORT`,
/// `[IPV6]:PORT`, or `off`, which gives `None`. Port 0 is refused: nobody
/// could know which port was chosen.
///
/// # Errors
/// [`ListenError`] names what is wrong.
pub fn parse_listen(text: &str) -> Result<Option<SocketAddr>, ListenError> {
    if text == "off" {
        return Ok(None);
    }
    let (host, port) = text.rsplit_once(':').ok_or(ListenError::Shape)?;
    let address = match host.strip_prefix('[') {
        Some(rest) => bracketed(rest)?,
        None if host.is_empty() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        None if host.contains(':') => return Err(ListenError::Shape),
        None => IpAddr::V4(ipv4(host)?),
    };
    let port: Port = port.parse()?;
    Ok(Some(SocketAddr::new(address, port.get())))
}

fn bracketed(rest: &str) -> Result<IpAddr, ListenError> {
    let text = rest.strip_suffix(']').ok_or(ListenError::Shape)?;
    match parse_address(text).map_err(ListenError::Address)? {
        address @ IpAddr::V6(_) => Ok(address),
        IpAddr::V4(_) => Err(ListenError::Shape),
    }
}

fn ipv4(text: &str) -> Result<Ipv4Addr, ListenError> {
    match parse_address(text).map_err(ListenError::Address)? {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(ListenError::Shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        for (text, address) in [
            (":9090", Some("[::]:9090")),
            ("192.0.2.1:9090", Some("192.0.2.1:9090")),
            ("0.0.0.0:1", Some("0.0.0.0:1")),
            ("[::]:9090", Some("[::]:9090")),
            ("[2001:db8::1]:65535", Some("[2001:db8::1]:65535")),
            ("off", None),
        ] {
            assert_eq!(
                parse_listen(text),
                Ok(address.map(|address| address.parse().unwrap())),
                "{text:?}"
            );
        }
    }

    #[test]
    fn each_refusal_says_why() {
        for (text, error) in [
            ("", ListenError::Shape),
            ("9090", ListenError::Shape),
            ("OFF", ListenError::Shape),
            ("2001:db8::1:9090", ListenError::Shape),
            ("[2001:db8::1:9090", ListenError::Shape),
            ("[192.0.2.1]:9090", ListenError::Shape),
            (
                "localhost:9090",
                ListenError::Address(AddressError::NotAnAddress),
            ),
            ("*:9090", ListenError::Address(AddressError::NotAnAddress)),
            (
                "1.2.3.400:9090",
                ListenError::Address(AddressError::OctetTooLarge),
            ),
            (":", ListenError::Port(PortError::NotANumber)),
            (":0", ListenError::Port(PortError::OutOfRange)),
            (":09090", ListenError::Port(PortError::LeadingZero)),
            ("[::]:70000", ListenError::Port(PortError::OutOfRange)),
        ] {
            assert_eq!(parse_listen(text), Err(error), "{text:?}");
        }
    }
}
