//! Which commands lead from the chains that are there to those that are
//! wanted: pure, so that every state an interruption leaves can be tested.

use std::collections::HashMap;

use egress_config::AddressFamily;

use super::command::{Change, Command};
use super::listing::{Entry, Listing};
use super::ruleset::{ADMIN_CHAIN, Generation, Hook, Rule, Ruleset, TableName};
use crate::firewall::Count;

/// What is there, of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) family: AddressFamily,
    pub(super) filter: Listing,
    pub(super) nat: Listing,
}

/// How new rules come into force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Fills the generation that no packet sees.
    pub(super) prepare: Vec<Command>,
    /// Moves the jumps over.
    pub(super) switch: Vec<Command>,
    /// Deletes the generation that no packet sees any more.
    pub(super) discard: Vec<Command>,
}

impl Script {
    /// The commands that put `ruleset` in force where there is nothing.
    pub(super) fn fresh(ruleset: &Ruleset) -> Self {
        Self::new(
            ruleset,
            &AddressFamily::ALL.map(|family| Observed {
                family,
                filter: Listing::default(),
                nat: Listing::default(),
            }),
        )
    }

    /// The commands that put `ruleset` in force where `observed` is, which has
    /// been repaired. A family that was not observed is left out.
    pub(super) fn new(ruleset: &Ruleset, observed: &[Observed]) -> Self {
        let counts: HashMap<Entry, Count> = observed.iter().flat_map(Observed::entries).collect();
        let mut script = Self::default();
        for there in observed {
            if !there.filter.has_chain(ADMIN_CHAIN) {
                script.prepare.push(there.command(
                    TableName::Filter,
                    Change::NewChain {
                        chain: ADMIN_CHAIN.to_owned(),
                    },
                ));
            }
        }
        for wanted in ruleset.hooks() {
            let Some(there) = observed.iter().find(|there| there.family == wanted.family) else {
                continue;
            };
            let (hook, old) = (
                wanted.hook,
                there.table(wanted.hook.table()).in_force(wanted.hook),
            );
            let new = old.map_or(Generation::A, Generation::other);
            for chain in &wanted.chains {
                let name = new.of(chain.name);
                script.prepare.push(there.command(
                    hook.table(),
                    Change::NewChain {
                        chain: name.clone(),
                    },
                ));
                script.prepare.extend(chain.rules.iter().map(|rule| {
                    let rule = counted(rule, new, &counts);
                    there.command(
                        hook.table(),
                        Change::Append {
                            chain: name.clone(),
                            rule,
                        },
                    )
                }));
            }
            script.switch.push(there.command(
                hook.table(),
                Change::InsertFirst {
                    chain: hook.base_chain().to_owned(),
                    rule: jump(hook, new),
                },
            ));
            if let Some(old) = old {
                script.switch.push(there.unhook(hook, old));
                script.discard.extend(there.discard(hook, old));
            }
        }
        // The base chains of a family that has lost its source address.
        for hook in Hook::ALL.into_iter().rev() {
            for there in observed {
                let wanted = ruleset
                    .hooks()
                    .iter()
                    .any(|w| w.hook == hook && w.family == there.family);
                if let (false, Some(old)) = (wanted, there.table(hook.table()).in_force(hook)) {
                    script.switch.push(there.unhook(hook, old));
                    script.discard.extend(there.discard(hook, old));
                }
            }
        }
        script
    }
}

impl Observed {
    /// Whether anything of ours is there; the operator's chain is theirs.
    pub(super) fn is_present(&self) -> bool {
        self.filter.has_ours() || self.nat.has_ours()
    }

    /// The mappings and fallbacks in force.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Entry, Count)> {
        let generation = self.filter.in_force(Hook::Forward);
        generation
            .into_iter()
            .flat_map(|generation| self.filter.entries(generation))
    }

    /// Takes away what an interrupted run left and no packet needs.
    pub(super) fn repair(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for hook in Hook::ALL {
            let mut generations = self.table(hook.table()).generations(hook);
            let in_force = generations.next();
            // Each jump leads to rules that are complete: one is enough.
            commands.extend(generations.map(|generation| self.unhook(hook, generation)));
            for generation in Generation::ALL {
                if Some(generation) != in_force {
                    commands.extend(self.discard_present(hook, generation));
                }
            }
        }
        commands
    }

    /// Takes away what did not get into force.
    pub(super) fn sweep(&self) -> Vec<Command> {
        let in_force = |hook: Hook| self.table(hook.table()).in_force(hook).is_some();
        if Hook::ALL.into_iter().any(in_force) {
            self.repair()
        } else {
            self.removal()
        }
    }

    /// Takes everything away that is ours, and the operator's chain when it
    /// is of no use to anybody. First nothing is redirected any more, then
    /// nothing is filtered.
    pub(super) fn removal(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for hook in Hook::ALL.into_iter().rev() {
            let generations = self.table(hook.table()).generations(hook);
            commands.extend(generations.map(|generation| self.unhook(hook, generation)));
        }
        for hook in Hook::ALL {
            for generation in Generation::ALL {
                commands.extend(self.discard_present(hook, generation));
            }
        }
        if self.filter.has_chain(ADMIN_CHAIN) && self.filter.is_idle(ADMIN_CHAIN) {
            let chain = ADMIN_CHAIN.to_owned();
            commands.push(self.command(TableName::Filter, Change::DeleteChain { chain }));
        }
        commands
    }

    fn table(&self, table: TableName) -> &Listing {
        match table {
            TableName::Filter => &self.filter,
            TableName::Nat => &self.nat,
        }
    }

    fn command(&self, table: TableName, change: Change) -> Command {
        Command::new(self.family, table, change)
    }

    fn unhook(&self, hook: Hook, generation: Generation) -> Command {
        let (chain, rule) = (hook.base_chain().to_owned(), jump(hook, generation));
        self.command(hook.table(), Change::Delete { chain, rule })
    }

    fn discard(&self, hook: Hook, generation: Generation) -> Vec<Command> {
        self.discard_chains(hook, hook.chains().iter().map(|chain| generation.of(chain)))
    }

    fn discard_present(&self, hook: Hook, generation: Generation) -> Vec<Command> {
        let table = self.table(hook.table());
        let chains = hook.chains().iter().map(|chain| generation.of(chain));
        self.discard_chains(hook, chains.filter(|chain| table.has_chain(chain)))
    }

    /// A chain that another one leads to cannot be deleted: all are flushed
    /// first.
    fn discard_chains(
        &self,
        hook: Hook,
        chains: impl Iterator<Item = String> + Clone,
    ) -> Vec<Command> {
        let flush = chains.clone().map(|chain| Change::Flush { chain });
        let delete = chains.map(|chain| Change::DeleteChain { chain });
        flush
            .chain(delete)
            .map(|change| self.command(hook.table(), change))
            .collect()
    }
}

/// The rule of a base chain that leads to ours.
fn jump(hook: Hook, generation: Generation) -> String {
    format!("-j {}", generation.of(hook.entry_chain()))
}

/// A rule that goes on counting where its predecessor is.
fn counted(rule: &Rule, generation: Generation, counts: &HashMap<Entry, Count>) -> String {
    let text = rule.text(generation);
    match rule.entry.and_then(|entry| counts.get(&entry)) {
        Some(Count { packets, bytes }) => format!("-c {packets} {bytes} {text}"),
        None => text,
    }
}
