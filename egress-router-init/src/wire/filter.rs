//! Socket filters (classic BPF), so that a busy LAN does not wake us.
//!
//! They only thin out what arrives; [`Claim::conflict`] and [`Question::answer`]
//! judge. Offsets count
//! from the start of the Ethernet frame; a load beyond its end drops it.
//!
//! [`Claim::conflict`]: super::claim::Claim::conflict
//! [`Question::answer`]: super::question::Question::answer

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

use super::ndp::{ADVERTISEMENT, ICMPV6, SOLICITATION};

/// The frames that can say something about who holds `address`: ARP packets
/// that it sends, ARP probes for it, Neighbour Solicitations and Advertisements
/// with it as the target. And those that can answer a question for `gateway`:
/// its ARP replies to `address`, and what has it as the target.
pub(super) fn about(address: IpAddr, gateway: IpAddr) -> Vec<SockFilter> {
    match (address, gateway) {
        (IpAddr::V4(address), IpAddr::V4(gateway)) => arp(address, gateway),
        (IpAddr::V6(address), IpAddr::V6(gateway)) => ndp(&[address, gateway]),
        // There is nothing to be heard of that gateway.
        (IpAddr::V4(address), IpAddr::V6(_)) => arp(address, address),
        (IpAddr::V6(address), IpAddr::V4(_)) => ndp(&[address]),
    }
}

const OPERATION: u32 = 20;
const SENDER_IP: u32 = 28;
const TARGET_IP: u32 = 38;
const REPLY: u32 = 2;

fn arp(address: Ipv4Addr, gateway: Ipv4Addr) -> Vec<SockFilter> {
    // Where these instructions stand.
    const REPLIES: u8 = 4;
    const TARGETS: u8 = 6;
    const DROPS: u8 = 8;
    const ACCEPTS: u8 = 9;
    vec![
        load_word(SENDER_IP),
        equal(address.to_bits(), ACCEPTS - 2, 0),
        equal(gateway.to_bits(), REPLIES - 3, 0),
        equal(0, TARGETS - 4, DROPS - 4),
        load_half(OPERATION),
        equal(REPLY, 0, DROPS - 6),
        load_word(TARGET_IP),
        equal(address.to_bits(), 1, 0),
        DROP,
        ACCEPT,
    ]
}

const NEXT_HEADER: u32 = 20;
const ICMP_TYPE: u32 = 54;
const TARGET: u32 = 62;

/// Instructions that compare one target.
const PER_TARGET: u8 = 9;

fn ndp(targets: &[Ipv6Addr]) -> Vec<SockFilter> {
    let rest = targets
        .iter()
        .fold(0, |length: u8, _| length.saturating_add(PER_TARGET));
    let mut program = vec![
        load_byte(NEXT_HEADER),
        equal(u32::from(ICMPV6), 0, rest + 3),
        load_byte(ICMP_TYPE),
        equal(u32::from(SOLICITATION), 1, 0),
        equal(u32::from(ADVERTISEMENT), 0, rest),
    ];
    for target in targets {
        let octets = target.to_bits().to_be_bytes();
        let (words, _) = octets.as_chunks::<4>();
        for (word, (offset, differs)) in words.iter().zip([(0, 7), (4, 5), (8, 3), (12, 1)]) {
            program.push(load_word(TARGET + offset));
            program.push(equal(u32::from_be_bytes(*word), 0, differs));
        }
        program.push(ACCEPT);
    }
    program.push(DROP);
    program
}

/// `ret #-1`: the whole frame.
const ACCEPT: SockFilter = SockFilter::new(0x06, 0, 0, u32::MAX);
/// `ret #0`.
const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// `ld [offset]`
const fn load_word(offset: u32) -> SockFilter {
    SockFilter::new(0x20, 0, 0, offset)
}

/// `ldh [offset]`
const fn load_half(offset: u32) -> SockFilter {
    SockFilter::new(0x28, 0, 0, offset)
}

/// `ldb [offset]`
const fn load_byte(offset: u32) -> SockFilter {
    SockFilter::new(0x30, 0, 0, offset)
}

/// `jeq #value`, skipping `yes` or `no` instructions.
const fn equal(value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new(0x15, yes, no, value)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::wire::arp::{ArpPacket, Operation};
    use crate::wire::claim::Claim;
    use crate::wire::ethernet::{EtherType, Header};
    use crate::wire::mac::MacAddr;
    use crate::wire::ndp::{Message, NdPacket};

    /// Which of `frames` the kernel lets through the filter about `address`.
    /// Every socket has filters, so a local one will do.
    fn passes<const N: usize>(address: IpAddr, gateway: IpAddr, frames: [Vec<u8>; N]) -> [bool; N] {
        let (mut sender, mut receiver) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        receiver.attach_filter(&about(address, gateway)).unwrap();
        receiver.set_nonblocking(true).unwrap();
        frames.map(|frame| {
            sender.write_all(&frame).unwrap();
            let mut buffer = [0; 200];
            match receiver.read(&mut buffer) {
                Ok(length) => {
                    assert_eq!(buffer[..length], frame);
                    true
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    false
                }
            }
        })
    }

    fn mac() -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, 9])
    }

    fn frame(ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            destination: MacAddr::BROADCAST,
            source: mac(),
            ether_type,
        };
        header.frame(payload)
    }

    #[test]
    fn arp_about_the_address_passes() {
        let ours = Ipv4Addr::new(192, 0, 2, 7);
        let other = Ipv4Addr::new(192, 0, 2, 8);
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let claim = Claim::new(mac(), ours.into());
        let elsewhere = Claim::new(mac(), other.into());
        let reply = |sender_ip, target_ip| {
            let packet = ArpPacket {
                operation: Operation::Reply,
                sender_ip,
                target_ip,
                ..ArpPacket::probe(mac(), ours)
            };
            frame(EtherType::Arp, &packet.to_bytes())
        };
        let truncated = claim.probe().split_off(30);
        assert_eq!(
            passes(
                ours.into(),
                gateway.into(),
                [
                    claim.probe(),
                    claim.announcement(),
                    reply(ours, other),
                    reply(gateway, ours),
                    reply(other, ours),
                    reply(gateway, other),
                    // It looks for somebody, as it does all the time.
                    Claim::new(mac(), gateway.into()).announcement(),
                    elsewhere.probe(),
                    elsewhere.announcement(),
                    truncated,
                ]
            ),
            [
                true, true, true, true, false, false, false, false, false, false
            ]
        );
    }

    #[test]
    fn neighbour_discovery_about_the_address_passes() {
        let ours: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let gateway: Ipv6Addr = "fe80::1:2:3".parse().unwrap();
        let claim = Claim::new(mac(), ours.into());
        let mut same = [true; 4].to_vec();
        let mut frames = vec![claim.probe(), claim.announcement()];
        let advertisement = NdPacket {
            source: "fe80::1".parse().unwrap(),
            destination: ours,
            target: ours,
            message: Message::Advertisement {
                flags: 0x60,
                target_mac: None,
            },
        };
        frames.push(frame(EtherType::Ipv6, &advertisement.to_bytes()));
        frames.push(Claim::new(mac(), gateway.into()).announcement());
        // One bit off in each of the words of the targets.
        for (target, bit) in [ours, gateway]
            .into_iter()
            .flat_map(|target| [0, 40, 80, 127].map(|bit| (target, bit)))
        {
            let near = Ipv6Addr::from_bits(target.to_bits() ^ (1 << bit));
            frames.push(Claim::new(mac(), near.into()).announcement());
            same.push(false);
        }
        // TCP, and an echo request.
        for (offset, value) in [(20, 6), (54, 128)] {
            let mut other = claim.probe();
            other[offset] = value;
            frames.push(other);
            same.push(false);
        }
        let frames = <[Vec<u8>; 14]>::try_from(frames).unwrap();
        let passed = passes(ours.into(), gateway.into(), frames);
        assert_eq!(passed.to_vec(), same);
    }
}
