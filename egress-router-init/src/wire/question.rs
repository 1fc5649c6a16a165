//! Whether the gateway is there: what is asked, and what answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::arp::{ArpPacket, Operation};
use super::ethernet::{EtherType, Header};
use super::mac::MacAddr;
use super::ndp::{Message, NdPacket};

/// The question for a gateway's Ethernet address, as the kernel would ask it
/// before it sends something there from the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    V4 {
        mac: MacAddr,
        source: Ipv4Addr,
        gateway: Ipv4Addr,
    },
    V6 {
        mac: MacAddr,
        source: Ipv6Addr,
        gateway: Ipv6Addr,
    },
}

impl Question {
    /// `None` unless both addresses are of one family.
    pub(super) const fn new(mac: MacAddr, source: IpAddr, gateway: IpAddr) -> Option<Self> {
        match (source, gateway) {
            (IpAddr::V4(source), IpAddr::V4(gateway)) => Some(Self::V4 {
                mac,
                source,
                gateway,
            }),
            (IpAddr::V6(source), IpAddr::V6(gateway)) => Some(Self::V6 {
                mac,
                source,
                gateway,
            }),
            _ => None,
        }
    }

    /// The frame that asks: everyone, or the host at `known` whether it still
    /// is the gateway (RFC 1122 section 2.3.2.1, RFC 4861 section 7.3.3).
    pub(super) fn frame(self, known: Option<MacAddr>) -> Vec<u8> {
        match self {
            Self::V4 {
                mac,
                source,
                gateway,
            } => {
                let packet = ArpPacket::question(mac, source, gateway);
                let header = Header {
                    destination: known.unwrap_or(MacAddr::BROADCAST),
                    source: mac,
                    ether_type: EtherType::Arp,
                };
                header.frame(&packet.to_bytes())
            }
            Self::V6 {
                mac,
                source,
                gateway,
            } => {
                let packet = NdPacket::question(mac, source, gateway, known.is_some());
                let header = Header {
                    destination: known.unwrap_or_else(|| MacAddr::of_group(packet.destination)),
                    source: mac,
                    ether_type: EtherType::Ipv6,
                };
                header.frame(&packet.to_bytes())
            }
        }
    }

    /// Where the gateway is, if that is what a received frame says.
    pub(super) fn answer(self, frame: &[u8]) -> Option<MacAddr> {
        let (header, payload) = Header::parse(frame)?;
        match (self, header.ether_type) {
            (
                Self::V4 {
                    source, gateway, ..
                },
                EtherType::Arp,
            ) => {
                let packet = ArpPacket::parse(payload)?;
                let answers = packet.operation == Operation::Reply
                    && packet.sender_ip == gateway
                    && packet.target_ip == source;
                answers.then_some(packet.sender_mac)
            }
            (Self::V6 { gateway, .. }, EtherType::Ipv6) => {
                let packet = NdPacket::parse(payload)?;
                match packet.message {
                    Message::Advertisement { target_mac, .. } if packet.target == gateway => {
                        Some(target_mac.unwrap_or(header.source))
                    }
                    Message::Advertisement { .. } | Message::Solicitation { .. } => None,
                }
            }
            (Self::V4 { .. }, EtherType::Ipv6) | (Self::V6 { .. }, EtherType::Arp) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::claim::Claim;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ours() -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, 1])
    }

    fn gateways() -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, 2])
    }

    fn questions() -> [Question; 2] {
        [("192.0.2.7", "192.0.2.1"), ("2001:db8::7", "fe80::1")]
            .map(|(source, gateway)| Question::new(ours(), ip(source), ip(gateway)).unwrap())
    }

    /// What the gateway says to the question.
    fn answers() -> [Vec<u8>; 2] {
        let arp = ArpPacket {
            operation: Operation::Reply,
            sender_mac: gateways(),
            sender_ip: "192.0.2.1".parse().unwrap(),
            target_mac: ours(),
            target_ip: "192.0.2.7".parse().unwrap(),
        };
        let nd = NdPacket {
            source: "fe80::1".parse().unwrap(),
            destination: "2001:db8::7".parse().unwrap(),
            target: "fe80::1".parse().unwrap(),
            message: Message::Advertisement {
                flags: 0xe0,
                target_mac: Some(gateways()),
            },
        };
        [
            (EtherType::Arp, arp.to_bytes()),
            (EtherType::Ipv6, nd.to_bytes()),
        ]
        .map(|(ether_type, payload)| {
            let header = Header {
                destination: ours(),
                source: gateways(),
                ether_type,
            };
            header.frame(&payload)
        })
    }

    #[test]
    fn everyone_is_asked_or_only_the_host_that_is_known() {
        let to = |known| {
            questions().map(|question| {
                let frame = question.frame(known);
                Header::parse(&frame).unwrap().0.destination.to_string()
            })
        };
        assert_eq!(to(None), ["ff:ff:ff:ff:ff:ff", "33:33:ff:00:00:01"]);
        assert_eq!(to(Some(gateways())), ["02:00:00:00:00:02"; 2]);
    }

    #[test]
    fn an_ipv6_question_is_a_packet_that_a_gateway_takes() {
        let [_, question] = questions();
        for (known, to) in [(None, "ff02::1:ff00:1"), (Some(gateways()), "fe80::1")] {
            let frame = question.frame(known);
            let packet = NdPacket::parse(Header::parse(&frame).unwrap().1).unwrap();
            assert_eq!(packet.destination, to.parse::<Ipv6Addr>().unwrap());
            assert_eq!(packet.target, "fe80::1".parse::<Ipv6Addr>().unwrap());
            let sender_mac = Some(ours());
            assert_eq!(packet.message, Message::Solicitation { sender_mac });
        }
    }

    #[test]
    fn the_gateways_word_is_the_answer_and_nothing_else_is() {
        for (number, question) in questions().into_iter().enumerate() {
            let [same, other] = [number, 1 - number].map(|family| answers()[family].clone());
            assert_eq!(question.answer(&same), Some(gateways()));
            assert_eq!(question.answer(&other), None);
            assert_eq!(question.answer(&question.frame(None)), None);
        }
        // Another host's word for itself, and the gateway's question for us.
        let [v4, v6] = questions();
        for (question, address) in [(v4, "192.0.2.9"), (v6, "fe80::9")] {
            let claim = Claim::new(gateways(), ip(address));
            assert_eq!(question.answer(&claim.announcement()), None);
        }
        let asks = Question::new(gateways(), ip("192.0.2.1"), ip("192.0.2.7")).unwrap();
        assert_eq!(v4.answer(&asks.frame(None)), None);
    }

    #[test]
    fn a_gateway_of_another_family_is_no_question() {
        assert_eq!(Question::new(ours(), ip("192.0.2.7"), ip("fe80::1")), None);
    }
}
