//! The order of addresses of both families.

use std::net::SocketAddr;

/// The addresses with the families taking turns, beginning with IPv4; each
/// family keeps its order (RFC 8305 section 4). IPv4 is first because it is
/// what a router's physical network surely has.
pub(super) fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut ipv4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut ipv6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        let pair = [ipv4.next(), ipv6.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_keep_their_order() {
        for (given, expected) in [
            ("", ""),
            ("[::1]:1 [::2]:1", "[::1]:1 [::2]:1"),
            ("1.1.1.1:1 1.1.1.2:1", "1.1.1.1:1 1.1.1.2:1"),
            (
                "[::1]:1 [::2]:1 1.1.1.2:1 1.1.1.1:1 1.1.1.3:1",
                "1.1.1.2:1 [::1]:1 1.1.1.1:1 [::2]:1 1.1.1.3:1",
            ),
        ] {
            let read = |text: &str| -> Vec<SocketAddr> {
                text.split_whitespace()
                    .map(|address| address.parse().unwrap())
                    .collect()
            };
            assert_eq!(interleave(&read(given)), read(expected));
        }
    }
}
