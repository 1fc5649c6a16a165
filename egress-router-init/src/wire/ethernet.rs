//! Ethernet II frames.

use super::mac::MacAddr;

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EtherType {
    Arp,
    Ipv6,
}

impl EtherType {
    /// The number in the frame (`ETH_P_ARP`, `ETH_P_IPV6`).
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        [Self::Arp, Self::Ipv6]
            .into_iter()
            .find(|known| known.number() == number)
    }
}

/// The addresses and type at the head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) destination: MacAddr,
    pub(super) source: MacAddr,
    pub(super) ether_type: EtherType,
}

impl Header {
    /// Length in bytes.
    pub(super) const LEN: usize = 14;

    /// The frame that carries `payload`. Padding to the minimum length is the
    /// driver's.
    pub(super) fn frame(self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(Self::LEN + payload.len());
        frame.extend(self.destination.octets());
        frame.extend(self.source.octets());
        frame.extend(self.ether_type.number().to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Splits a frame into header and payload; `None` when it is too short or
    /// carries something else than ARP or IPv6.
    pub(super) fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (destination, rest) = frame.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let (ether_type, payload) = rest.split_first_chunk::<2>()?;
        let header = Self {
            destination: MacAddr::from(*destination),
            source: MacAddr::from(*source),
            ether_type: EtherType::from_number(u16::from_be_bytes(*ether_type))?,
        };
        Some((header, payload))
    }
}
