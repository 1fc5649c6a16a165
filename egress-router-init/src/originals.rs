//! What was there before us, kept where it outlives every container: in the
//! alias of the egress interface.
//!
//! `undo` reads it. A pod has no disk that its init container and a later
//! container share, but it has one network namespace, and `ip link` shows what
//! we noted.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use ipnet::IpNet;

use crate::state::MacvlanMode;

/// What the alias starts with.
const TAG: &str = "egress-router";

/// The kernel's limit on an alias, `IFALIASZ`, less its closing NUL.
const MAX_ALIAS: usize = 255;

/// State of the egress interface and of the settings around it before the
/// first run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Originals {
    /// Whether the interface was up.
    pub up: bool,
    /// Its macvlan mode.
    pub macvlan_mode: Option<MacvlanMode>,
    /// Values of the settings that we changed.
    pub settings: Vec<(Setting, u32)>,
    /// The interface of [`Setting::PodForwarding`], when that is there.
    pub pod_interface: Option<String>,
    /// Not an original, but ours: the addresses that our runs added. (The
    /// kernel has a mark for that, `IFA_PROTO`, but only since 5.18.)
    pub added: Vec<IpNet>,
    /// The alias that was there.
    pub alias: Option<String>,
}

/// A kernel setting that we change and `undo` restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// `net.ipv4.conf.<pod interface>.forwarding`
    PodForwarding,
    /// `net.ipv4.conf.<egress interface>.forwarding`
    EgressForwarding,
    /// `net.ipv4.conf.<egress interface>.arp_ignore`
    ArpIgnore,
    /// `net.ipv4.conf.<egress interface>.arp_announce`
    ArpAnnounce,
    /// `net.ipv6.conf.<egress interface>.addr_gen_mode`
    AddrGenMode,
    /// `net.ipv6.conf.<egress interface>.accept_ra`
    AcceptRa,
    /// `net.ipv6.conf.<egress interface>.autoconf`
    Autoconf,
    /// `net.ipv6.conf.all.forwarding`
    Ipv6Forwarding,
    /// `net.ipv4.ip_unprivileged_port_start`
    UnprivilegedPorts,
}

impl Setting {
    /// Every setting.
    pub const ALL: [Self; 9] = [
        Self::PodForwarding,
        Self::EgressForwarding,
        Self::ArpIgnore,
        Self::ArpAnnounce,
        Self::AddrGenMode,
        Self::AcceptRa,
        Self::Autoconf,
        Self::Ipv6Forwarding,
        Self::UnprivilegedPorts,
    ];

    /// Whether it is changed through /proc/sys, which may be read-only.
    #[must_use]
    pub fn is_sysctl(self) -> bool {
        matches!(
            self,
            Self::AcceptRa | Self::Autoconf | Self::Ipv6Forwarding | Self::UnprivilegedPorts
        )
    }

    /// The interface that it is of, by the name that sysctl(8) has for it.
    #[must_use]
    pub fn interface<'a>(self, pod: &'a str, egress: &'a str) -> &'a str {
        match self {
            Self::PodForwarding => pod,
            Self::Ipv6Forwarding | Self::UnprivilegedPorts => "all",
            _ => egress,
        }
    }

    /// Its name in a note: short, so that the longest note fits. That of
    /// [`Self::PodForwarding`] comes after the interface's name and a slash,
    /// which no interface has in its name.
    fn name(self) -> &'static str {
        match self {
            Self::PodForwarding | Self::EgressForwarding => "fwd",
            Self::ArpIgnore => "ignore",
            Self::ArpAnnounce => "announce",
            Self::AddrGenMode => "gen",
            Self::AcceptRa => "ra",
            Self::Autoconf => "autoconf",
            Self::Ipv6Forwarding => "v6fwd",
            Self::UnprivilegedPorts => "low",
        }
    }
}

impl Originals {
    /// The note in an alias, if there is one.
    #[must_use]
    pub fn from_alias(alias: Option<&str>) -> Option<Self> {
        alias?.parse().ok()
    }

    /// Reads `NAME=VALUE` or, of the pod interface, `INTERFACE/NAME=VALUE`.
    fn read_setting(&mut self, name: &str, value: &str) {
        let Ok(value) = value.parse() else { return };
        let setting = match name.split_once('/') {
            Some((pod, _)) => {
                self.pod_interface = Some(pod.to_owned());
                Some(Setting::PodForwarding)
            }
            None => Setting::ALL
                .into_iter()
                .find(|setting| *setting != Setting::PodForwarding && setting.name() == name),
        };
        self.settings
            .extend(setting.map(|setting| (setting, value)));
    }
}

impl Display for Originals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut text = format!("{TAG} was {}", if self.up { "up" } else { "down" });
        if let Some(mode) = self.macvlan_mode {
            text += " mode=";
            text += mode.as_str();
        }
        for (setting, value) in &self.settings {
            text.push(' ');
            if *setting == Setting::PodForwarding {
                text += self.pod_interface.as_deref().unwrap_or_default();
                text.push('/');
            }
            text += &format!("{}={value}", setting.name());
        }
        if !self.added.is_empty() {
            let added: Vec<String> = self.added.iter().map(IpNet::to_string).collect();
            text += " added=";
            text += &added.join(",");
        }
        if let Some(alias) = &self.alias {
            // The last word, because it may hold anything. One that does not
            // fit is given up: it was only a label.
            let with_alias = format!("{text} alias={alias}");
            if with_alias.len() <= MAX_ALIAS {
                text = with_alias;
            }
        }
        f.write_str(&text)
    }
}

/// The alias is not a note of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

impl FromStr for Originals {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let rest = text
            .strip_prefix(TAG)
            .and_then(|rest| rest.strip_prefix(" was "));
        let rest = rest.ok_or(NotOurs)?;
        let (rest, alias) = match rest.split_once(" alias=") {
            Some((rest, alias)) => (rest, Some(alias.to_owned())),
            None => (rest, None),
        };
        let mut originals = Self {
            alias,
            ..Self::default()
        };
        for word in rest.split(' ') {
            match word.split_once('=') {
                None => originals.up = word == "up",
                Some(("mode", mode)) => {
                    originals.macvlan_mode =
                        MacvlanMode::ALL.into_iter().find(|m| m.as_str() == mode);
                }
                Some(("added", list)) => {
                    originals.added = list.split(',').filter_map(|a| a.parse().ok()).collect();
                }
                Some((name, value)) => originals.read_setting(name, value),
            }
        }
        Ok(originals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Originals {
        Originals {
            up: false,
            macvlan_mode: Some(MacvlanMode::Passthru),
            settings: Setting::ALL.map(|setting| (setting, 1)).to_vec(),
            pod_interface: Some("pod-0123456789a".to_owned()),
            added: vec!["192.168.112.199/24".parse().unwrap()],
            alias: Some("net1 alias=lan up".to_owned()),
        }
    }

    #[test]
    fn a_note_reads_back_as_written() {
        assert_eq!(example().to_string().parse(), Ok(example()));
        let least = Originals::default();
        assert_eq!(least.to_string(), "egress-router was down");
        assert_eq!(least.to_string().parse(), Ok(least));
    }

    #[test]
    fn a_note_is_readable() {
        let note = Originals {
            up: true,
            macvlan_mode: Some(MacvlanMode::Private),
            settings: vec![(Setting::PodForwarding, 0), (Setting::EgressForwarding, 1)],
            pod_interface: Some("eth0".to_owned()),
            alias: None,
            ..example()
        };
        let text = "egress-router was up mode=private eth0/fwd=0 fwd=1 added=192.168.112.199/24";
        assert_eq!(note.to_string(), text);
        assert_eq!(text.parse(), Ok(note));
    }

    /// Both addresses of both families, while they are exchanged.
    #[test]
    fn the_longest_note_fits_an_alias() {
        let longest = Originals {
            added: vec![
                "192.168.112.199/24".parse().unwrap(),
                "192.168.112.198/24".parse().unwrap(),
                "2001:db8:1111:2222:3333:4444:5555:6666/128"
                    .parse()
                    .unwrap(),
                "2001:db8:1111:2222:3333:4444:5555:7777/128"
                    .parse()
                    .unwrap(),
            ],
            alias: None,
            ..example()
        };
        let text = longest.to_string();
        assert!(text.len() <= MAX_ALIAS, "{} bytes: {text}", text.len());
        assert_eq!(text.parse(), Ok(longest));
    }

    #[test]
    fn an_alias_of_somebody_else_is_not_a_note() {
        for alias in ["", "uplink", "egress-router", "egress-routers was up"] {
            assert_eq!(Originals::from_alias(Some(alias)), None, "{alias}");
        }
        assert_eq!(Originals::from_alias(None), None);
    }

    #[test]
    fn an_alias_too_long_to_keep_is_given_up_rather_than_the_note() {
        let long = Originals {
            alias: Some("x".repeat(200)),
            ..example()
        };
        assert_eq!(
            long.to_string().parse(),
            Ok(Originals {
                alias: None,
                ..example()
            })
        );
    }
}
