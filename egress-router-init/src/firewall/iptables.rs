//! iptables, for nodes whose tools want to see its rules.
//!
//! The binaries change one rule per call and know no transaction over several
//! chains. Therefore every chain of ours exists in two generations: the
//! one that is not in force is filled, then the jumps of the base chains are
//! moved over to it, then the other one is deleted. A new jump stands before
//! the old one goes, so what is closed stays closed; what fails on the way
//! is taken back, and what is interrupted is completed by the next run.
//! What a mapping counted goes along, except for what it counts meanwhile, and
//! with an ip6tables that takes no counters, as 1.8.9 over nf_tables.
//!
//! Every rule is a process, some milliseconds each: this driver is for small
//! lists, of [`MAX_MAPPINGS`] at most.

mod allowed;
mod binary;
mod command;
mod error;
mod listing;
mod ruleset;
mod script;

use std::collections::HashSet;

use egress_config::AddressFamily;
use tracing::{debug, warn};

use self::allowed::Allowed;
use self::binary::Binary;
use self::command::Command;
pub use self::error::IptablesError;
use self::listing::{Entry, Listing};
use self::ruleset::{FORWARD_CHAIN, Generation, Hook, INPUT_CHAIN, REFUSE_CHAIN, TableName};
pub use self::ruleset::{MAX_MAPPINGS, Ruleset};
use self::script::{Observed, Script};
use super::rules::Firewall;
use super::{Counters, Driver, DriverError, Replaced};
use crate::netlink::conntrack::Tracked;
use crate::netlink::nft::NftSocket;

/// Our chains and the jumps to them, and nothing else.
pub(super) struct Iptables {
    binaries: Vec<Binary>,
}

/// Whether there can be iptables rules in this network namespace, asked
/// without running anything: most pods have none, and starting a process is
/// not for nothing.
pub(super) fn may_have_iptables_rules() -> bool {
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .any(|path| std::fs::read_to_string(path).is_ok_and(|names| !names.is_empty()));
    // Who may not ask has not written any either.
    legacy
        || NftSocket::open()
            .and_then(|mut socket| socket.has_iptables_rules())
            .unwrap_or(false)
}

impl Iptables {
    /// Finds the binaries, before anything is touched.
    pub(super) fn open() -> Result<Self, IptablesError> {
        let binaries = AddressFamily::ALL
            .into_iter()
            .filter(|family| binary::kernel_has(*family))
            .map(Binary::find)
            .collect::<Result<_, _>>()?;
        Ok(Self { binaries })
    }

    fn observe(&self) -> Result<Vec<Observed>, IptablesError> {
        self.binaries
            .iter()
            .map(|binary| {
                Ok(Observed {
                    family: binary.family(),
                    filter: binary.list(TableName::Filter)?,
                    // Filter can be listed, so the kernel that does not list
                    // this one has none, and nothing of ours in it.
                    nat: binary.list(TableName::Nat).unwrap_or_default(),
                })
            })
            .collect()
    }

    fn run(&self, commands: &[Command]) -> Result<(), IptablesError> {
        commands
            .iter()
            .try_for_each(|command| self.run_one(command))
    }

    fn run_one(&self, command: &Command) -> Result<(), IptablesError> {
        self.binaries
            .iter()
            .filter(|binary| binary.family() == command.family())
            .try_for_each(|binary| binary.run(command))
    }

    /// Runs all commands, or none.
    fn run_or_undo(&self, commands: &[Command]) -> Result<(), IptablesError> {
        for (done, command) in commands.iter().enumerate() {
            let Err(error) = self.run_one(command) else {
                continue;
            };
            for undo in commands
                .iter()
                .take(done)
                .rev()
                .filter_map(Command::inverse)
            {
                if let Err(error) = self.run_one(&undo) {
                    warn!("taking a change of the packet rules back: {error}");
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// Takes a generation that did not get into force away.
    fn sweep(&self) {
        let swept = self.observe().and_then(|observed| {
            self.run(
                &observed
                    .iter()
                    .flat_map(Observed::sweep)
                    .collect::<Vec<_>>(),
            )
        });
        if let Err(error) = swept {
            warn!("taking packet rules that are not in force away: {error}");
        }
    }

    fn try_replace(&self, script: &Script) -> Result<(), IptablesError> {
        self.run(&script.prepare)?;
        self.run_or_undo(&script.switch)
    }
}

impl Driver for Iptables {
    fn replace(&mut self, firewall: &Firewall<'_>) -> Result<Replaced, DriverError> {
        let ruleset = Ruleset::new(firewall)?;
        let before = self.observe()?;
        self.run(&before.iter().flat_map(Observed::repair).collect::<Vec<_>>())?;
        let script = Script::new(&ruleset, &before);
        if let Err(error) = self.try_replace(&script) {
            self.sweep();
            return Err(error.into());
        }
        // The new rules are in force whatever becomes of the old ones.
        if let Err(error) = self.run(&script.discard) {
            warn!("taking the old packet rules away: {error}");
        }
        let old: HashSet<Entry> = before
            .iter()
            .flat_map(Observed::entries)
            .map(|(entry, _)| entry)
            .collect();
        let new: HashSet<Entry> = ruleset.entries().collect();
        forget(&old, &new);
        Ok(Replaced {
            added: new.difference(&old).count(),
            removed: old.difference(&new).count(),
            kept: new.intersection(&old).count(),
        })
    }

    fn remove(&mut self) -> Result<bool, DriverError> {
        let observed = self.observe()?;
        self.run(
            &observed
                .iter()
                .flat_map(Observed::removal)
                .collect::<Vec<_>>(),
        )?;
        Ok(observed.iter().any(Observed::is_present))
    }

    fn is_present(&mut self) -> Result<bool, DriverError> {
        for binary in &self.binaries {
            if binary.list(TableName::Filter)?.has_ours()
                || binary.list(TableName::Nat).is_ok_and(|nat| nat.has_ours())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn counters(&mut self) -> Result<Counters, DriverError> {
        let mut counters = Counters::default();
        let mut present = false;
        for binary in &self.binaries {
            let filter = binary.list(TableName::Filter)?;
            if let Some(generation) = filter.in_force(Hook::Forward) {
                present = true;
                add_forward(&mut counters, &filter, generation);
            }
            if let Some(generation) = filter.in_force(Hook::Input) {
                counters.dropped += filter.dropped(&generation.of(INPUT_CHAIN));
            }
        }
        counters.mappings.sort_unstable_by_key(|(flow, _)| *flow);
        if present {
            Ok(counters)
        } else {
            Err(IptablesError::Absent.into())
        }
    }
}

/// Ends the connections that the old rules made and the new ones refuse: a
/// client that goes on sending datagrams from one port would never get away
/// from an old destination. Nothing of the kernel's nftables is needed.
fn forget(old: &HashSet<Entry>, new: &HashSet<Entry>) {
    if old.is_empty() || old == new {
        return;
    }
    let [before, now] = [old, new].map(|entries| entries.iter().copied().collect::<Allowed>());
    let forgotten = NftSocket::open().and_then(|mut socket| {
        socket.forget(|tracked| match *tracked {
            Tracked::Translated(connection) => {
                before.contains(&connection) && !now.contains(&connection)
            }
            // It was refused, and would be so for as long as the client tries.
            Tracked::Untranslated {
                address,
                protocol,
                port,
            } => {
                let port = (AddressFamily::of(address), protocol, port);
                now.serves(port) && !before.serves(port)
            }
        })
    });
    match forgotten {
        Ok(forgotten) => debug!(forgotten, "connections of changed redirects"),
        // They are refused all the same, but keep their clients longer.
        Err(error) => warn!("ending connections of removed redirects: {error}"),
    }
}

fn add_forward(counters: &mut Counters, filter: &Listing, generation: Generation) {
    for (entry, count) in filter.entries(generation) {
        match entry {
            Entry::Mapping(flow) => counters.mappings.push((flow, count)),
            Entry::Fallback(target) => counters.fallbacks.push((target, count)),
        }
    }
    counters.refused += filter.counted(&generation.of(REFUSE_CHAIN));
    counters.dropped += filter.dropped(&generation.of(FORWARD_CHAIN));
}
