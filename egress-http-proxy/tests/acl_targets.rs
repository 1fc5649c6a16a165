//! Properties of canonical targets: whatever a client writes, one destination
//! is judged in one way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_config::{Diagnostics, List, Port};
use egress_http_proxy::acl::{AbsoluteForm, Guard, Host, Policy, Rules, Target};
use proptest::prelude::*;

fn policy(lines: &str, guard: Guard) -> Policy {
    let mut diagnostics = Diagnostics::new();
    let rules = Rules::parse(&List::new("X", lines), &mut diagnostics);
    assert!(diagnostics.errors().is_empty(), "{diagnostics}");
    Policy::new(rules).guard(guard, [])
}

/// One part of an address in decimal, octal or hexadecimal, with any number
/// of leading zeros that its form allows.
fn part(value: u32) -> impl Strategy<Value = String> {
    (0..5_u8, 0..4_usize).prop_map(move |(form, zeros)| {
        let zeros = "0".repeat(zeros);
        match form {
            0 | 1 => value.to_string(),
            2 => format!("0{zeros}{value:o}"),
            3 => format!("0x{zeros}{value:x}"),
            _ => format!("0X{zeros}{value:X}"),
        }
    })
}

/// Every spelling of an IPv4 address.
fn spelling(address: Ipv4Addr) -> impl Strategy<Value = String> {
    let bits = u32::from(address);
    let [a, b, c, d] = address.octets().map(u32::from);
    let dotted = prop_oneof![
        part(bits).prop_map(|whole| whole),
        (part(a), part(bits & 0xff_ffff)).prop_map(|(a, rest)| format!("{a}.{rest}")),
        (part(a), part(b), part(bits & 0xffff)).prop_map(|(a, b, rest)| format!("{a}.{b}.{rest}")),
        (part(a), part(b), part(c), part(d)).prop_map(|(a, b, c, d)| format!("{a}.{b}.{c}.{d}")),
    ];
    let [high, low] = [bits >> 16, bits & 0xffff];
    prop_oneof![
        4 => (dotted, any::<bool>()).prop_map(|(text, dot)| if dot { text + "." } else { text }),
        1 => Just(format!("[::ffff:{address}]")),
        1 => Just(format!("[::FFFF:{high:x}:{low:X}]")),
        1 => Just(format!("[0:0:0:0:0:ffff:{high:04x}:{low:04x}]")),
    ]
}

fn ipv4_spelling() -> impl Strategy<Value = (Ipv4Addr, String)> {
    any::<u32>()
        .prop_map(Ipv4Addr::from)
        .prop_flat_map(|address| (Just(address), spelling(address)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(target) = Target::from_authority(&bytes) {
            prop_assert_eq!(Target::from_authority(target.to_string().as_bytes()), Ok(target));
        }
        let uri = [b"http://", &bytes[..]].concat();
        if let Ok(form) = AbsoluteForm::parse(&uri) {
            prop_assert!(uri.ends_with(form.path_and_query()));
        }
    }

    #[test]
    fn a_likely_host_reads_as_itself(host in r"[-a-zA-Z0-9_.:\[\]@%/?#* ]{0,24}(:[0-9]{0,6})?") {
        if let Ok(target) = Target::from_authority(host.as_bytes()) {
            prop_assert_eq!(Target::from_authority(target.to_string().as_bytes()), Ok(target.clone()));
            let uri = format!("http://{}/x", target.host_field());
            let form = AbsoluteForm::parse(uri.as_bytes());
            prop_assert_eq!(form.map(AbsoluteForm::into_target), Ok(target));
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_one_target(
        (address, text) in ipv4_spelling(),
        port in 1..=u16::MAX,
    ) {
        let expected = Target::new(Host::Address(address.into()), Port::new(port).ok_or(TestCaseError::fail("port"))?);
        prop_assert_eq!(Target::from_authority(format!("{text}:{port}").as_bytes()), Ok(expected.clone()));
        let uri = format!("http://{text}:{port}/");
        prop_assert_eq!(
            AbsoluteForm::parse(uri.as_bytes()).map(AbsoluteForm::into_target),
            Ok(expected)
        );
    }

    #[test]
    fn no_spelling_dodges_a_denied_network(
        (address, text) in ipv4_spelling(),
        length in 1..=32_u8,
        wrapped in 0..6_u8,
    ) {
        let rules = policy(&format!("!{address}/{length}\n*"), Guard::Off);
        let [a, b, c, d] = address.octets().map(u16::from);
        let [high, low] = [a << 8 | b, c << 8 | d];
        let segments = match wrapped {
            0 => [0, 0, 0, 0, 0, 0xffff, high, low],
            1 => [0x64, 0xff9b, 0, 0, 0, 0, high, low],
            2 => [0x2002, high, low, 0, 0, 0, 0, 1],
            3 => [0x2001, 0, 1, 2, 3, 4, !high, !low],
            4 => [0, 0, 0, 0, 0xffff, 0, high, low],
            _ => [0, 0, 0, 0, 0, 0, high, low],
        };
        prop_assume!(wrapped != 5 || u32::from(address) > 1);
        let wrapped = Ipv6Addr::from(segments);
        for host in [text, format!("[{wrapped}]")] {
            let target = Target::from_authority(format!("{host}:80").as_bytes());
            prop_assert!(target.is_ok(), "{}", host);
            let Ok(target) = target else { continue };
            let Host::Address(literal) = *target.host() else {
                return Err(TestCaseError::fail("a name"));
            };
            prop_assert!(!rules.judge_addresses(&target, &[literal]).decision().passes(), "{}", host);
        }
        let name = Target::from_authority(b"a.test:80").map_err(|error| TestCaseError::fail(error.to_string()))?;
        for resolved in [IpAddr::V4(address), IpAddr::V6(wrapped)] {
            prop_assert!(!rules.judge_addresses(&name, &[resolved]).decision().passes());
        }
    }

    #[test]
    fn nothing_the_guard_refuses_is_dialled(bits in any::<u128>(), shape in 0..8_u8) {
        let address = match shape {
            0 => IpAddr::V6(bits.into()),
            1 => IpAddr::V6((bits & 0xffff_ffff).into()),
            2 => IpAddr::V6((0xffff_0000_0000 | bits & 0xffff_ffff).into()),
            3 => IpAddr::V6((0xfe80 << 112 | bits >> 16).into()),
            4 => IpAddr::V4(Ipv4Addr::from((bits & 0xffff_ffff) as u32)),
            5 => IpAddr::V4(Ipv4Addr::from(0x7f00_0000 | (bits & 0xff_ffff) as u32)),
            6 => IpAddr::V6((0x0064_ff9b_u128 << 96 | 0x7f00_0000 | bits & 0xff_ffff).into()),
            _ => IpAddr::V6((0x2002_7f00_u128 << 96 | bits >> 32).into()),
        };
        let guarded = policy("*", Guard::Local);
        let target = Target::from_authority(b"a.test:80").map_err(|error| TestCaseError::fail(error.to_string()))?;
        for dialled in guarded.judge_addresses(&target, &[address]).addresses() {
            let local = match *dialled {
                IpAddr::V4(dialled) => {
                    dialled.is_loopback() || dialled.is_unspecified() || dialled.is_link_local()
                        || dialled.is_multicast() || dialled.is_broadcast()
                }
                IpAddr::V6(dialled) => {
                    dialled.is_loopback() || dialled.is_unspecified() || dialled.is_multicast()
                        || dialled.is_unicast_link_local() || dialled.to_ipv4().is_some()
                }
            };
            prop_assert!(!local, "{}", dialled);
        }
        prop_assert!((5..8).contains(&shape) <= guarded.judge_addresses(&target, &[address]).addresses().is_empty());
    }
}
