//! IPv4 addresses in every spelling that `inet_aton` reads: a client's
//! resolver takes them for addresses, so a rule on names must not see them.

use std::net::Ipv4Addr;

/// Whether a host is meant as an IPv4 address rather than as a name: its last
/// label is a decimal, octal or hexadecimal number (WHATWG URL, "ends in a
/// number"). Without a trailing dot.
pub(super) fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    hexadecimal || decimal
}

/// Reads one to four parts, each decimal, octal (`0`) or hexadecimal (`0x`).
/// All but the last are octets; the last fills what remains (inet(3)).
pub(super) fn parse_ipv4(host: &str) -> Option<Ipv4Addr> {
    let mut parts = [0_u32; 4];
    let mut count = 0_u32;
    let mut slots = parts.iter_mut();
    for part in host.split('.') {
        *slots.next()? = number(part)?;
        count += 1;
    }
    let last_bits = 8_u32.checked_mul(5_u32.checked_sub(count)?)?;
    let mut address = 0_u64;
    for (part, index) in parts.into_iter().zip(1..=count) {
        let bits = if index == count { last_bits } else { 8 };
        if u64::from(part) >> bits != 0 {
            return None;
        }
        address = (address << bits) | u64::from(part);
    }
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

fn number(part: &str) -> Option<u32> {
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X', ..] => (part.get(2..)?, 16),
        [b'0', _, ..] => (part.get(1..)?, 8),
        _ => (part, 10),
    };
    let all_digits = digits.chars().all(|digit| digit.is_digit(radix));
    if all_digits {
        u32::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_address() {
        for text in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.1",
            "0177.0x0.0.01",
            "127.0.0.01",
            "127.000.000.001",
            "017700000001",
            "127.0x0.01",
        ] {
            assert_eq!(parse_ipv4(text), Some(Ipv4Addr::LOCALHOST), "{text}");
            assert!(ends_in_number(text), "{text}");
        }
        assert_eq!(parse_ipv4("0"), Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(parse_ipv4("4294967295"), Some(Ipv4Addr::BROADCAST));
        assert_eq!(
            parse_ipv4("1.16777215").map(|a| a.octets()),
            Some([1, 255, 255, 255])
        );
    }

    #[test]
    fn what_is_out_of_range_is_no_address() {
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "1..2",
            "256.1.1.1",
            "1.2.3.256",
            "1.2.65536",
            "1.16777216",
            "4294967296",
            "1.2.3.4.5",
            "0x",
            "0x1g",
            "08",
            "1.2.3.-4",
            "+1",
            "0x+1",
            "99999999999",
            "1.2.3.4.",
            "127.0.0.1 ",
        ] {
            assert_eq!(parse_ipv4(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_end_in_a_letter() {
        for name in [
            "cafe.de",
            "0xabc.de",
            "1.2.3.a",
            "dead.beef",
            "x0",
            "0xg",
            "",
        ] {
            assert!(!ends_in_number(name), "{name}");
        }
        assert!(ends_in_number("a.1"));
        assert!(ends_in_number("a.0x1f"));
        assert!(ends_in_number("a.0x"));
    }
}
