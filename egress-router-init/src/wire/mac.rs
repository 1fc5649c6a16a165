//! Ethernet addresses.

use std::fmt;
use std::net::Ipv6Addr;

/// A 48-bit Ethernet address, shown as `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// A link-layer address that is not 48 bits long: the link is not Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "link-layer address of {0} bytes: only Ethernet links (6 bytes) can carry an egress source"
)]
pub struct NotEthernet(usize);

impl MacAddr {
    /// Every station on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// All zeros: "not known" in ARP.
    pub(super) const UNSPECIFIED: Self = Self([0; 6]);

    /// Where an IPv6 multicast group is sent on Ethernet (RFC 2464 section 7).
    pub(super) const fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// The address as it stands in a frame.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl TryFrom<&[u8]> for MacAddr {
    type Error = NotEthernet;

    /// Reads the address a netlink link message carries.
    fn try_from(bytes: &[u8]) -> Result<Self, NotEthernet> {
        <[u8; 6]>::try_from(bytes)
            .map(Self)
            .map_err(|_| NotEthernet(bytes.len()))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_in_lower_case_hexadecimal_with_colons() {
        let mac = MacAddr::from([0x02, 0x00, 0xab, 0xCD, 0x0e, 0xff]);
        assert_eq!(mac.to_string(), "02:00:ab:cd:0e:ff");
    }

    #[test]
    fn other_lengths_are_not_ethernet() {
        assert_eq!(MacAddr::try_from(&[0u8; 20][..]), Err(NotEthernet(20)));
        assert_eq!(MacAddr::try_from(&[][..]), Err(NotEthernet(0)));
        assert_eq!(
            MacAddr::try_from(&[1u8, 2, 3, 4, 5, 6][..]),
            Ok(MacAddr::from([1, 2, 3, 4, 5, 6]))
        );
    }

    #[test]
    fn a_group_keeps_its_low_32_bits() {
        assert_eq!(
            MacAddr::of_group("ff02::1:ff12:3456".parse().unwrap()).to_string(),
            "33:33:ff:12:34:56"
        );
    }
}
