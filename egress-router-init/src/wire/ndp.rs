//! Neighbour Solicitation and Advertisement (RFC 4861), as Duplicate Address
//! Detection (RFC 4862 section 5.4) uses them.

use std::net::Ipv6Addr;

use super::mac::MacAddr;

/// Every node on the link.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// IPv6 next header ICMPv6.
pub(super) const ICMPV6: u8 = 58;
/// ICMPv6 type of a Neighbour Solicitation.
pub(super) const SOLICITATION: u8 = 135;
/// ICMPv6 type of a Neighbour Advertisement.
pub(super) const ADVERTISEMENT: u8 = 136;

/// A router decrements the hop limit: 255 proves that the sender is on the link
/// (RFC 4861 section 3.1).
const ON_LINK: u8 = 255;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The group that every holder of `address` listens to (RFC 4291 section
/// 2.7.1).
pub(super) const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const GROUPS: u128 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).to_bits();
    Ipv6Addr::from_bits(GROUPS | address.to_bits() & 0x00ff_ffff)
}

/// What a Neighbour Discovery packet says about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Who holds the target?
    Solicitation { sender_mac: Option<MacAddr> },
    /// The target is here.
    Advertisement {
        /// Flags router, solicited and override, as they stand in the packet.
        flags: u8,
        target_mac: Option<MacAddr>,
    },
}

/// A Neighbour Solicitation or Advertisement in its IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NdPacket {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) target: Ipv6Addr,
    pub(super) message: Message,
}

impl NdPacket {
    /// Asks whether anyone holds `address` without claiming it: the source is
    /// unspecified, so a holder answers to all nodes (RFC 4862 section 5.4.2).
    pub(super) const fn probe(address: Ipv6Addr) -> Self {
        Self {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(address),
            target: address,
            message: Message::Solicitation { sender_mac: None },
        }
    }

    /// States that `address` is at `mac`, replacing what the caches hold (RFC
    /// 4861 section 7.2.6).
    ///
    /// The router flag stays off although the pod forwards: nobody on the LAN
    /// may use it as a router.
    pub(super) const fn announcement(mac: MacAddr, address: Ipv6Addr) -> Self {
        Self {
            source: address,
            destination: ALL_NODES,
            target: address,
            message: Message::Advertisement {
                flags: OVERRIDE,
                target_mac: Some(mac),
            },
        }
    }

    /// Asks where `target` is, so that it can be sent something from `source`
    /// (RFC 4861 section 7.2.2); at its own address where it is `known`
    /// (section 7.3.3).
    pub(super) const fn question(
        mac: MacAddr,
        source: Ipv6Addr,
        target: Ipv6Addr,
        known: bool,
    ) -> Self {
        Self {
            source,
            destination: if known {
                target
            } else {
                solicited_node(target)
            },
            target,
            message: Message::Solicitation {
                sender_mac: Some(mac),
            },
        }
    }

    /// The IPv6 packet.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (kind, flags, option, mac) = match self.message {
            Message::Solicitation { sender_mac } => {
                (SOLICITATION, 0, SOURCE_LINK_LAYER, sender_mac)
            }
            Message::Advertisement { flags, target_mac } => {
                (ADVERTISEMENT, flags, TARGET_LINK_LAYER, target_mac)
            }
        };
        let mut body = vec![flags, 0, 0, 0];
        body.extend(self.target.octets());
        let mut length: u16 = 24;
        if let Some(mac) = mac {
            // The length of an option counts units of eight bytes.
            body.extend([option, 1]);
            body.extend(mac.octets());
            length += 8;
        }

        let head = [kind, 0];
        let parts = [&head[..], &[0, 0], &body];
        let sum = checksum(self.source, self.destination, length, parts);

        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([ICMPV6, ON_LINK]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(head);
        bytes.extend(sum.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads the payload of an IPv6 frame, which may be padded; `None` unless
    /// it is a solicitation or advertisement that passes the checks of RFC 4861
    /// section 7.1.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let ([version, _, _, _, l0, l1, ICMPV6, ON_LINK], rest) = bytes.split_first_chunk::<8>()?
        else {
            return None;
        };
        let (source, rest) = address(rest)?;
        let (destination, rest) = address(rest)?;
        let length = u16::from_be_bytes([*l0, *l1]);
        let icmp = rest.get(..usize::from(length))?;
        if version >> 4 != 6 || checksum(source, destination, length, [icmp, &[], &[]]) != 0 {
            return None;
        }

        let ([kind, 0, _, _, flags, _, _, _], rest) = icmp.split_first_chunk::<8>()? else {
            return None;
        };
        let (target, options) = address(rest)?;
        if target.is_multicast() || source.is_multicast() {
            return None;
        }
        let message = match *kind {
            SOLICITATION => {
                let sender_mac = link_layer_option(SOURCE_LINK_LAYER, options)?;
                let misdirected = destination != solicited_node(target);
                if source.is_unspecified() && (misdirected || sender_mac.is_some()) {
                    return None;
                }
                Message::Solicitation { sender_mac }
            }
            ADVERTISEMENT => {
                if destination.is_multicast() && flags & SOLICITED != 0 {
                    return None;
                }
                Message::Advertisement {
                    flags: flags & (ROUTER | SOLICITED | OVERRIDE),
                    target_mac: link_layer_option(TARGET_LINK_LAYER, options)?,
                }
            }
            _ => return None,
        };
        Some(Self {
            source,
            destination,
            target,
            message,
        })
    }
}

fn address(bytes: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let (octets, rest) = bytes.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*octets), rest))
}

/// The Ethernet address in the first option of type `wanted`; `None` when the
/// options are malformed, which makes the whole packet invalid (RFC 4861
/// section 4.6).
fn link_layer_option(wanted: u8, mut options: &[u8]) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [kind, units, ..] = options {
        if *units == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(usize::from(*units) * 8)?;
        if *kind == wanted
            && found.is_none()
            && let [_, 1, mac @ ..] = option
        {
            found = MacAddr::try_from(mac).ok();
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The Internet checksum over the IPv6 pseudo-header and the parts of an ICMPv6
/// message of `length` bytes, each part but the last of even length (RFC 8200
/// section 8.1); zero over a message that carries its right checksum.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, length: u16, parts: [&[u8]; 3]) -> u16 {
    let addresses = [&source.octets()[..], &destination.octets()];
    let words = addresses
        .into_iter()
        .chain(parts)
        .flat_map(|part| part.chunks(2))
        .map(|pair| match *pair {
            [high, low] => u16::from_be_bytes([high, low]),
            [high] => u16::from_be_bytes([high, 0]),
            _ => 0,
        });
    !words.fold(add(length, u16::from(ICMPV6)), add)
}

/// One's complement addition.
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    const MAC: [u8; 6] = [0x02, 0x42, 0xac, 0x11, 0x00, 0x02];
    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);

    #[rustfmt::skip]
    const PROBE: [u8; 64] = [
        0x60, 0, 0, 0, 0, 24, 58, 255,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
        135, 0, 0xe4, 0x1e, 0, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
    ];

    #[rustfmt::skip]
    const ANNOUNCEMENT: [u8; 72] = [
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        136, 0, 0xe4, 0x07, 0x20, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        2, 1, 0x02, 0x42, 0xac, 0x11, 0x00, 0x02,
    ];

    /// `packet` with the ICMPv6 checksum made right.
    fn summed(mut packet: Vec<u8>) -> Vec<u8> {
        packet[42..44].fill(0);
        let [source, destination] = [8, 24].map(|at| address(&packet[at..]).unwrap().0);
        let icmp = &packet[40..];
        let length = u16::try_from(icmp.len()).unwrap();
        let sum = checksum(source, destination, length, [icmp, &[], &[]]);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// `packet` with one byte changed and the checksum made right again.
    fn altered(packet: &[u8], offset: usize, value: u8) -> Vec<u8> {
        let mut other = packet.to_vec();
        other[offset] = value;
        summed(other)
    }

    #[test]
    fn probe_bytes() {
        assert_eq!(NdPacket::probe(ADDRESS).to_bytes(), PROBE);
        assert_eq!(NdPacket::parse(&PROBE), Some(NdPacket::probe(ADDRESS)));
    }

    #[test]
    fn announcement_bytes() {
        let announcement = NdPacket::announcement(MAC.into(), ADDRESS);
        assert_eq!(announcement.to_bytes(), ANNOUNCEMENT);
        assert_eq!(NdPacket::parse(&ANNOUNCEMENT), Some(announcement));
    }

    #[test]
    fn the_solicited_node_group_keeps_the_low_24_bits() {
        let group = solicited_node("2001:db8:ffff:ffff:ffff:ffff:89ab:cdef".parse().unwrap());
        assert_eq!(group.to_string(), "ff02::1:ffab:cdef");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for packet in [&PROBE[..], &ANNOUNCEMENT] {
            let meant = NdPacket::parse(packet);
            // The traffic class and flow label are nobody's business.
            for bit in (0..4).chain(32..packet.len() * 8) {
                let mut other = packet.to_vec();
                other[bit / 8] ^= 0x80 >> (bit % 8);
                assert_ne!(NdPacket::parse(&other), meant, "bit {bit}");
            }
        }
    }

    #[test]
    fn truncation_is_refused_and_padding_ignored() {
        for end in 0..PROBE.len() {
            assert_eq!(NdPacket::parse(&PROBE[..end]), None, "{end} bytes");
        }
        let padded = [&PROBE[..], &[0; 20]].concat();
        assert_eq!(NdPacket::parse(&padded), Some(NdPacket::probe(ADDRESS)));
    }

    #[test]
    fn what_rfc_4861_section_7_1_discards_is_discarded() {
        for (offset, value, why) in [
            (7, 254, "not from this link"),
            (41, 1, "code"),
            (48, 0xff, "multicast target"),
            (39, 0x57, "unspecified source, other group"),
        ] {
            let other = altered(&PROBE, offset, value);
            assert_eq!(NdPacket::parse(&other), None, "solicitation: {why}");
        }
        for (offset, value, why) in [
            (44, SOLICITED, "solicited, yet to all nodes"),
            (65, 0, "option of length zero"),
            (65, 2, "option longer than the packet"),
            (40, 137, "redirect"),
        ] {
            let other = altered(&ANNOUNCEMENT, offset, value);
            assert_eq!(NdPacket::parse(&other), None, "advertisement: {why}");
        }
        let mut with_option = [&PROBE[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        with_option[5] = 32;
        assert_eq!(NdPacket::parse(&summed(with_option)), None);
    }

    #[test]
    fn unknown_options_are_skipped() {
        // A nonce (RFC 3971) before the link-layer address.
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let mut packet = [&ANNOUNCEMENT[..64], &nonce, &ANNOUNCEMENT[64..]].concat();
        packet[5] = 40;
        assert_eq!(
            NdPacket::parse(&summed(packet)),
            Some(NdPacket::announcement(MAC.into(), ADDRESS))
        );
    }

    fn unicast() -> impl Strategy<Value = Ipv6Addr> {
        any::<[u8; 15]>().prop_map(|[a, rest @ ..]| {
            let mut octets = [0x20; 16];
            octets[0] = a & 0x3f;
            octets[1..].copy_from_slice(&[&[1], &rest[..]].concat());
            octets.into()
        })
    }

    fn packet() -> impl Strategy<Value = NdPacket> {
        let mac = proptest::option::of(any::<[u8; 6]>().prop_map(MacAddr::from));
        let flags = any::<u8>().prop_map(|bits| bits & (ROUTER | SOLICITED | OVERRIDE));
        let message = prop_oneof![
            mac.clone()
                .prop_map(|sender_mac| Message::Solicitation { sender_mac }),
            (flags, mac)
                .prop_map(|(flags, target_mac)| Message::Advertisement { flags, target_mac }),
        ];
        prop_oneof![
            unicast().prop_map(NdPacket::probe),
            (unicast(), any::<[u8; 6]>())
                .prop_map(|(address, mac)| NdPacket::announcement(mac.into(), address)),
            (unicast(), unicast(), unicast(), message).prop_map(
                |(source, destination, target, message)| NdPacket {
                    source,
                    destination,
                    target,
                    message,
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(packet in packet()) {
            prop_assert_eq!(NdPacket::parse(&packet.to_bytes()), Some(packet));
        }

        #[test]
        fn no_input_panics(
            bytes in any::<Vec<u8>>(),
            flags in any::<u8>(),
            kind in prop_oneof![Just(SOLICITATION), Just(ADVERTISEMENT)],
            options in proptest::collection::vec(0u8..4, 0..40),
        ) {
            NdPacket::parse(&bytes);
            // Past the checksum, to the options.
            let mut packet = [&PROBE[..], &options].concat();
            packet[5] = 24 + u8::try_from(options.len()).unwrap();
            packet[40] = kind;
            packet[44] = flags;
            NdPacket::parse(&summed(packet));
        }
    }
}
