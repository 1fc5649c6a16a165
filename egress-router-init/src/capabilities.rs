//! What the container lets us do (capabilities(7)).

use std::fs;
use std::io;

/// A capability that setting up the router takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// `CAP_NET_ADMIN`: interfaces, routes, packet rules.
    NetAdmin,
    /// `CAP_NET_RAW`: packet sockets for ARP and neighbour discovery.
    NetRaw,
}

impl Capability {
    /// Its bit in the kernel's masks.
    const fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::NetRaw => 13,
        }
    }

    /// As a manifest writes it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
        }
    }
}

/// The capabilities that this process lacks.
///
/// # Errors
/// When /proc cannot be read.
pub(crate) fn missing() -> io::Result<Vec<Capability>> {
    Ok(missing_from(&fs::read_to_string("/proc/self/status")?))
}

fn missing_from(status: &str) -> Vec<Capability> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    [Capability::NetAdmin, Capability::NetRaw]
        .into_iter()
        .filter(|capability| mask & (1 << capability.bit()) == 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_mask() {
        let status = |mask: &str| format!("Name:\tinit\nCapPrm:\tffff\nCapEff:\t{mask}\n");
        assert_eq!(missing_from(&status("0000000000003000")), []);
        assert_eq!(
            missing_from(&status("0000000000001000")),
            [Capability::NetRaw]
        );
        assert_eq!(
            missing_from(&status("0000000000000000")),
            [Capability::NetAdmin, Capability::NetRaw]
        );
        assert_eq!(missing_from(""), [Capability::NetAdmin, Capability::NetRaw]);
    }
}
