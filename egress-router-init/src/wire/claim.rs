//! Our address and who contests it.

use std::net::IpAddr;

use super::arp::{ArpPacket, Operation};
use super::ethernet::{EtherType, Header};
use super::mac::MacAddr;
use super::ndp::{Message, NdPacket};

/// Another host on the LAN uses our address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} is in use by another host, MAC address {holder}; stop that host or use another \
     EGRESS_SOURCE"
)]
pub struct Conflict {
    /// The address both want.
    pub address: IpAddr,
    /// The Ethernet address of the other host.
    pub holder: MacAddr,
}

/// How far we are with an address decides what counts as a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Asking: another host that asks too is a rival (RFC 5227 section 2.1.1).
    Probing,
    /// Holding: a host that asks gets the kernel's answer and is no rival (RFC
    /// 5227 section 2.4).
    Holding,
}

/// An address that we want or hold, at our Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    mac: MacAddr,
    address: IpAddr,
}

impl Claim {
    pub(super) const fn new(mac: MacAddr, address: IpAddr) -> Self {
        Self { mac, address }
    }

    pub(super) const fn ether_type(self) -> EtherType {
        match self.address {
            IpAddr::V4(_) => EtherType::Arp,
            IpAddr::V6(_) => EtherType::Ipv6,
        }
    }

    /// The frame that asks whether the address is free.
    pub(super) fn probe(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => self.frame(
                MacAddr::BROADCAST,
                &ArpPacket::probe(self.mac, address).to_bytes(),
            ),
            IpAddr::V6(address) => self.multicast(NdPacket::probe(address)),
        }
    }

    /// The frame that tells everyone where the address is.
    pub(super) fn announcement(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => self.frame(
                MacAddr::BROADCAST,
                &ArpPacket::announcement(self.mac, address).to_bytes(),
            ),
            IpAddr::V6(address) => self.multicast(NdPacket::announcement(self.mac, address)),
        }
    }

    /// The conflict that a received frame shows, if any. Our own frames, which
    /// a switch may loop back, show none.
    pub(super) fn conflict(self, frame: &[u8], phase: Phase) -> Option<Conflict> {
        let (header, payload) = Header::parse(frame)?;
        let holder = match (self.address, header.ether_type) {
            (IpAddr::V4(address), EtherType::Arp) => {
                let packet = ArpPacket::parse(payload)?;
                let uses = packet.sender_ip == address;
                let asks = packet.operation == Operation::Request
                    && packet.sender_ip.is_unspecified()
                    && packet.target_ip == address;
                (uses || asks && phase == Phase::Probing).then_some(packet.sender_mac)
            }
            (IpAddr::V6(address), EtherType::Ipv6) => {
                let packet = NdPacket::parse(payload)?;
                match packet.message {
                    _ if packet.target != address => None,
                    Message::Advertisement { target_mac, .. } => {
                        Some(target_mac.unwrap_or(header.source))
                    }
                    // With a source address it is a host that wants to talk to
                    // the holder (RFC 4862 section 5.4.3).
                    Message::Solicitation { .. } => (phase == Phase::Probing
                        && packet.source.is_unspecified())
                    .then_some(header.source),
                }
            }
            (IpAddr::V4(_), EtherType::Ipv6) | (IpAddr::V6(_), EtherType::Arp) => None,
        }?;
        (holder != self.mac).then_some(Conflict {
            address: self.address,
            holder,
        })
    }

    fn multicast(self, packet: NdPacket) -> Vec<u8> {
        self.frame(MacAddr::of_group(packet.destination), &packet.to_bytes())
    }

    fn frame(self, destination: MacAddr, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            destination,
            source: self.mac,
            ether_type: self.ether_type(),
        };
        header.frame(payload)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::wire::ndp::solicited_node;

    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    const PHASES: [Phase; 2] = [Phase::Probing, Phase::Holding];

    fn ours() -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, 1])
    }

    fn theirs() -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, 2])
    }

    fn claims() -> [Claim; 2] {
        [V4.into(), V6.into()].map(|address| Claim::new(ours(), address))
    }

    fn rivals() -> [Claim; 2] {
        [V4.into(), V6.into()].map(|address| Claim::new(theirs(), address))
    }

    fn arp(packet: ArpPacket) -> Vec<u8> {
        rivals()[0].frame(MacAddr::BROADCAST, &packet.to_bytes())
    }

    #[test]
    fn frames_are_addressed_to_everyone_who_must_hear_them() {
        let heads = claims().map(|claim| {
            [claim.probe(), claim.announcement()]
                .map(|frame| Header::parse(&frame).unwrap().0)
                .map(|header| (header.destination.to_string(), header.source))
        });
        let [v4, v6] = heads;
        assert_eq!(v4, ["ff:ff:ff:ff:ff:ff"; 2].map(|to| (to.into(), ours())));
        assert_eq!(
            v6,
            ["33:33:ff:00:00:07", "33:33:00:00:00:01"].map(|to| (to.into(), ours()))
        );
    }

    #[test]
    fn an_announcement_from_another_host_is_a_conflict_in_every_phase() {
        for (claim, rival) in claims().into_iter().zip(rivals()) {
            for phase in PHASES {
                assert_eq!(
                    claim.conflict(&rival.announcement(), phase),
                    Some(Conflict {
                        address: claim.address,
                        holder: theirs(),
                    })
                );
            }
        }
    }

    #[test]
    fn a_probe_from_another_host_is_a_conflict_while_we_probe() {
        for (claim, rival) in claims().into_iter().zip(rivals()) {
            let holder = |phase| claim.conflict(&rival.probe(), phase).map(|c| c.holder);
            assert_eq!(holder(Phase::Probing), Some(theirs()));
            assert_eq!(holder(Phase::Holding), None);
        }
    }

    #[test]
    fn our_own_frames_looped_back_are_none() {
        for claim in claims() {
            for phase in PHASES {
                assert_eq!(claim.conflict(&claim.probe(), phase), None);
                assert_eq!(claim.conflict(&claim.announcement(), phase), None);
            }
        }
    }

    #[test]
    fn other_addresses_are_none() {
        let elsewhere: [IpAddr; 2] = [
            Ipv4Addr::new(192, 0, 2, 8).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 0, 0, 7).into(),
        ];
        for claim in claims() {
            for rival in elsewhere.map(|address| Claim::new(theirs(), address)) {
                for phase in PHASES {
                    assert_eq!(claim.conflict(&rival.probe(), phase), None);
                    assert_eq!(claim.conflict(&rival.announcement(), phase), None);
                }
            }
        }
    }

    #[test]
    fn arp_replies_and_requests_from_our_address_are_conflicts() {
        for operation in [Operation::Request, Operation::Reply] {
            let frame = arp(ArpPacket {
                operation,
                sender_mac: theirs(),
                sender_ip: V4,
                target_mac: ours(),
                target_ip: Ipv4Addr::new(192, 0, 2, 1),
            });
            for phase in PHASES {
                assert!(claims()[0].conflict(&frame, phase).is_some());
            }
        }
    }

    #[test]
    fn a_host_that_only_looks_for_us_is_none() {
        let question = ArpPacket {
            sender_ip: Ipv4Addr::new(192, 0, 2, 1),
            ..ArpPacket::probe(theirs(), V4)
        };
        let solicitation = NdPacket {
            source: "fe80::1".parse().unwrap(),
            destination: solicited_node(V6),
            target: V6,
            message: Message::Solicitation {
                sender_mac: Some(theirs()),
            },
        };
        for phase in PHASES {
            assert_eq!(claims()[0].conflict(&arp(question), phase), None);
            let frame = rivals()[1].multicast(solicitation);
            assert_eq!(claims()[1].conflict(&frame, phase), None);
        }
    }

    #[test]
    fn the_advertised_address_names_the_holder_before_the_frame_does() {
        let advertisement = |target_mac| NdPacket {
            source: V6,
            destination: crate::wire::ndp::ALL_NODES,
            target: V6,
            message: Message::Advertisement {
                flags: 0,
                target_mac,
            },
        };
        let behind_a_bridge = MacAddr::from([2, 0, 0, 0, 0, 3]);
        for (option, holder) in [(Some(behind_a_bridge), behind_a_bridge), (None, theirs())] {
            let frame = rivals()[1].multicast(advertisement(option));
            let conflict = claims()[1].conflict(&frame, Phase::Probing);
            assert_eq!(conflict.map(|c| c.holder), Some(holder));
        }
    }

    #[test]
    fn the_sentence_names_both_addresses_and_the_remedy() {
        let conflict = Conflict {
            address: V4.into(),
            holder: theirs(),
        };
        assert_eq!(
            conflict.to_string(),
            "192.0.2.7 is in use by another host, MAC address 02:00:00:00:00:02; stop that host \
             or use another EGRESS_SOURCE"
        );
    }
}
