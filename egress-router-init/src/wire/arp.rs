//! ARP for IPv4 over Ethernet (RFC 826), with the probe and the announcement
//! of RFC 5227.

use std::net::Ipv4Addr;

use super::mac::MacAddr;

/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const PREAMBLE: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Request,
    Reply,
}

impl Operation {
    const fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// An ARP request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArpPacket {
    pub(super) operation: Operation,
    pub(super) sender_mac: MacAddr,
    pub(super) sender_ip: Ipv4Addr,
    pub(super) target_mac: MacAddr,
    pub(super) target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Asks whether anyone holds `address` without claiming it: the sender
    /// address is zero, so no cache on the LAN changes (RFC 5227 section
    /// 2.1.1).
    pub(super) const fn probe(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddr::UNSPECIFIED,
            target_ip: address,
        }
    }

    /// States that `address` is at `mac` (RFC 5227 section 2.3).
    ///
    /// A request, not a reply: every host that follows RFC 826 updates its
    /// cache from either, but some gateways drop a reply they did not ask for
    /// (RFC 5227 section 3), and Linux takes a broadcast reply for gratuitous
    /// only when its target hardware address repeats the sender's.
    pub(super) const fn announcement(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self::question(mac, address, address)
    }

    /// Asks where `target` is, so that it can be sent something from `source`
    /// (RFC 826).
    pub(super) const fn question(mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            sender_ip: source,
            ..Self::probe(mac, target)
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend(PREAMBLE);
        bytes.extend(self.operation.number().to_be_bytes());
        bytes.extend(self.sender_mac.octets());
        bytes.extend(self.sender_ip.octets());
        bytes.extend(self.target_mac.octets());
        bytes.extend(self.target_ip.octets());
        bytes
    }

    /// Reads the payload of an ARP frame, which may be padded; `None` unless
    /// it is a request or reply for IPv4 over Ethernet.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&PREAMBLE)?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk::<6>()?;
        let (target_ip, _padding) = rest.split_first_chunk::<4>()?;
        let number = u16::from_be_bytes(*operation);
        Some(Self {
            operation: [Operation::Request, Operation::Reply]
                .into_iter()
                .find(|known| known.number() == number)?,
            sender_mac: MacAddr::from(*sender_mac),
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_mac: MacAddr::from(*target_mac),
            target_ip: Ipv4Addr::from(*target_ip),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    const MAC: [u8; 6] = [0x02, 0x42, 0xac, 0x11, 0x00, 0x02];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    #[test]
    fn probe_bytes() {
        #[rustfmt::skip]
        let golden = [
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
            0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 192, 0, 2, 7,
        ];
        assert_eq!(ArpPacket::probe(MAC.into(), ADDRESS).to_bytes(), golden);
    }

    #[test]
    fn question_bytes() {
        #[rustfmt::skip]
        let golden = [
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
            0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 192, 0, 2, 7,
            0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ];
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(
            ArpPacket::question(MAC.into(), ADDRESS, gateway).to_bytes(),
            golden
        );
    }

    #[test]
    fn announcement_bytes() {
        #[rustfmt::skip]
        let golden = [
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
            0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 192, 0, 2, 7,
            0, 0, 0, 0, 0, 0, 192, 0, 2, 7,
        ];
        assert_eq!(
            ArpPacket::announcement(MAC.into(), ADDRESS).to_bytes(),
            golden
        );
    }

    #[test]
    fn padding_is_ignored_and_truncation_refused() {
        let probe = ArpPacket::probe(MAC.into(), ADDRESS);
        let mut bytes = probe.to_bytes();
        assert_eq!(ArpPacket::parse(bytes.get(..27).unwrap()), None);
        bytes.extend([0; 18]);
        assert_eq!(ArpPacket::parse(&bytes), Some(probe));
    }

    #[test]
    fn other_hardware_protocols_and_operations_are_refused() {
        let bytes = ArpPacket::probe(MAC.into(), ADDRESS).to_bytes();
        for (offset, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (7, 0)] {
            let mut other = bytes.clone();
            *other.get_mut(offset).unwrap() = value;
            assert_eq!(ArpPacket::parse(&other), None, "byte {offset} = {value}");
        }
    }

    fn packet() -> impl Strategy<Value = ArpPacket> {
        (
            prop_oneof![Just(Operation::Request), Just(Operation::Reply)],
            any::<[u8; 6]>(),
            any::<[u8; 4]>(),
            any::<[u8; 6]>(),
            any::<[u8; 4]>(),
        )
            .prop_map(
                |(operation, sender_mac, sender_ip, target_mac, target_ip)| ArpPacket {
                    operation,
                    sender_mac: sender_mac.into(),
                    sender_ip: sender_ip.into(),
                    target_mac: target_mac.into(),
                    target_ip: target_ip.into(),
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(packet in packet()) {
            prop_assert_eq!(ArpPacket::parse(&packet.to_bytes()), Some(packet));
        }

        #[test]
        fn what_parses_is_what_was_there(operation in 0u8..4, tail in any::<[u8; 20]>()) {
            let bytes: Vec<u8> = PREAMBLE.into_iter().chain([0, operation]).chain(tail).collect();
            prop_assert_eq!(
                ArpPacket::parse(&bytes).map(ArpPacket::to_bytes),
                matches!(operation, 1 | 2).then_some(bytes)
            );
        }

        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>()) {
            let all = PREAMBLE.into_iter().chain(bytes.iter().copied()).collect::<Vec<_>>();
            ArpPacket::parse(&all);
            ArpPacket::parse(&bytes);
        }
    }
}
