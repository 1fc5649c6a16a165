//! The order in which the addresses of a destination are dialled.

use std::net::SocketAddr;

/// The addresses of a destination as they stand, best first: healthy before
/// unhealthy, and IPv4 before IPv6 within each. Addresses of one rank take
/// turns.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Rotation {
    ranks: [Box<[SocketAddr]>; 4],
}

impl Rotation {
    /// Addresses with their health.
    pub(super) fn new(addresses: &(impl Iterator<Item = (SocketAddr, bool)> + Clone)) -> Self {
        let rank = |healthy: bool, ipv4: bool| {
            let of_rank = |&(address, health): &(SocketAddr, bool)| {
                health == healthy && address.is_ipv4() == ipv4
            };
            let ranked = addresses.clone().filter(of_rank);
            ranked.map(|(address, _)| address).collect()
        };
        Self {
            ranks: [
                rank(true, true),
                rank(true, false),
                rank(false, true),
                rank(false, false),
            ],
        }
    }

    /// All addresses in the order in which to dial them, for the connection
    /// with this number: each rank starts one address further with each
    /// connection. Allocates nothing.
    pub fn pick(&self, turn: usize) -> impl Iterator<Item = SocketAddr> + Clone + '_ {
        self.ranks.iter().flat_map(move |rank| {
            let start = turn.checked_rem(rank.len()).unwrap_or(0);
            let (later, first) = rank.split_at_checked(start).unwrap_or((&[], rank));
            first.iter().chain(later).copied()
        })
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.ranks.iter().any(|rank| rank.contains(&address))
    }

    /// How many addresses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranks.iter().map(|rank| rank.len()).sum()
    }

    /// Whether there is no address at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many addresses are healthy.
    #[must_use]
    pub fn healthy(&self) -> usize {
        let [ipv4, ipv6, ..] = &self.ranks;
        ipv4.len() + ipv6.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(addresses: &[(&str, bool)]) -> Rotation {
        let parsed: Vec<(SocketAddr, bool)> = addresses
            .iter()
            .map(|&(address, healthy)| (address.parse().unwrap(), healthy))
            .collect();
        Rotation::new(&parsed.into_iter())
    }

    fn picked(rotation: &Rotation, turn: usize) -> String {
        let picked: Vec<String> = rotation
            .pick(turn)
            .map(|address| address.to_string())
            .collect();
        picked.join(" ")
    }

    #[test]
    fn healthy_then_ipv4_and_equals_take_turns() {
        let rotation = rotation(&[
            ("[2001:db8::2]:80", false),
            ("[2001:db8::1]:80", true),
            ("192.0.2.1:80", true),
            ("192.0.2.2:80", true),
            ("192.0.2.3:80", true),
            ("192.0.2.8:80", false),
            ("192.0.2.9:80", false),
        ]);
        assert_eq!(rotation.len(), 7);
        assert_eq!(rotation.healthy(), 4);
        let rest = "[2001:db8::1]:80";
        let last = "[2001:db8::2]:80";
        for (turn, ipv4, unhealthy) in [
            (
                0,
                "192.0.2.1:80 192.0.2.2:80 192.0.2.3:80",
                "192.0.2.8:80 192.0.2.9:80",
            ),
            (
                1,
                "192.0.2.2:80 192.0.2.3:80 192.0.2.1:80",
                "192.0.2.9:80 192.0.2.8:80",
            ),
            (
                5,
                "192.0.2.3:80 192.0.2.1:80 192.0.2.2:80",
                "192.0.2.9:80 192.0.2.8:80",
            ),
        ] {
            assert_eq!(
                picked(&rotation, turn),
                format!("{ipv4} {rest} {unhealthy} {last}")
            );
        }
    }

    #[test]
    fn of_nothing_nothing_is_picked() {
        let rotation = Rotation::default();
        assert!(rotation.is_empty());
        assert_eq!(rotation.pick(usize::MAX).next(), None);
    }
}
