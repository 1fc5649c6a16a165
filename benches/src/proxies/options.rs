//! What is measured, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::generator::Interval;
use super::scenario::{Extent, Scenario};

/// What is measured, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) extent: Extent,
    pub(crate) interval: Interval,
    /// How often each subject meets each scenario.
    pub(crate) rounds: usize,
    /// Names of the scenarios; empty for all.
    only: Vec<String>,
    /// Names of the peers; `None` for all that are installed.
    peers: Option<Vec<String>>,
    /// Definitions of further peers.
    pub(crate) files: Vec<PathBuf>,
    /// The peer that ratios are to, where it takes part; else squid or
    /// haproxy.
    pub(crate) against: Option<String>,
}

/// How the command line is used.
pub const USAGE: &str = "[--only SCENARIO,...] [--peers NAME,...|none] [--peer-file FILE]... \
                         [--against NAME] [--rounds N] [--seconds S] [--quick] [--write]";

impl Options {
    /// For figures.
    #[must_use]
    pub fn full() -> Self {
        Self {
            extent: Extent::full(),
            interval: Interval {
                warm_up: Duration::from_millis(300),
                measured: Duration::from_millis(1_200),
            },
            rounds: 5,
            only: Vec::new(),
            peers: None,
            files: Vec::new(),
            against: None,
        }
    }

    /// For showing that it works: a few seconds. The figures mean nothing.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            extent: Extent::quick(),
            interval: Interval {
                warm_up: Duration::from_millis(20),
                measured: Duration::from_millis(150),
            },
            rounds: 1,
            ..Self::full()
        }
    }

    /// Reads a flag of the command line and, from `rest`, its value. `false`
    /// when the flag is not one of these.
    ///
    /// # Errors
    /// When the value is missing or makes no sense.
    pub fn read_flag(
        &mut self,
        flag: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<bool> {
        let mut value = || rest.next().with_context(|| format!("{flag} needs a value"));
        match flag {
            "--only" => {
                self.only = list(&value()?);
                self.check_names()?;
            }
            "--peers" => {
                let names = list(&value()?);
                self.peers = Some(if names == ["none"] { Vec::new() } else { names });
            }
            "--peer-file" => self.files.push(value()?.into()),
            "--against" => self.against = Some(value()?),
            "--rounds" => {
                self.rounds = value()?.parse().context("--rounds needs a number")?;
                ensure!(self.rounds > 0, "--rounds needs at least 1");
            }
            "--seconds" => {
                let seconds = value()?.parse().context("--seconds needs a number")?;
                self.interval.measured =
                    Duration::try_from_secs_f64(seconds).context("--seconds makes no sense")?;
            }
            "--quick" => {
                let quick = Self::quick();
                self.extent = quick.extent;
                self.interval = quick.interval;
                self.rounds = quick.rounds;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Measures only these scenarios.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn only(mut self, names: &[&str]) -> Result<Self> {
        self.only = names.iter().map(|name| (*name).to_owned()).collect();
        self.check_names()?;
        Ok(self)
    }

    /// Measures no peers.
    #[must_use]
    pub fn without_peers(mut self) -> Self {
        self.peers = Some(Vec::new());
        self
    }

    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut all = Scenario::all(&self.extent);
        all.retain(|scenario| self.only.is_empty() || self.only.contains(&scenario.name));
        all
    }

    pub(crate) fn wants_peer(&self, name: &str) -> bool {
        let wanted = self.peers.as_ref();
        wanted.is_none_or(|names| names.iter().any(|one| one == name))
    }

    fn check_names(&self) -> Result<()> {
        let all = [Extent::full(), Extent::quick(), self.extent.clone()]
            .iter()
            .flat_map(Scenario::all)
            .map(|scenario| scenario.name)
            .collect::<Vec<_>>();
        for name in &self.only {
            if !all.contains(name) {
                bail!("no scenario {name:?}; there are {}", all.join(", "));
            }
        }
        Ok(())
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        let mut words = line.split(' ').map(str::to_owned);
        let mut options = Options::full();
        while let Some(flag) = words.next() {
            ensure!(options.read_flag(&flag, &mut words)?, "unknown {flag}");
        }
        Ok(options)
    }

    #[test]
    fn a_command_line() {
        let options = read("--only forward,connect --rounds 7 --peers squid").unwrap();
        let names: Vec<_> = options
            .scenarios()
            .into_iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["forward", "connect"]);
        assert_eq!(options.rounds, 7);
        assert!(options.wants_peer("squid") && !options.wants_peer("haproxy"));
        assert!(!read("--peers none").unwrap().wants_peer("squid"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--only nap",
            "--rounds",
            "--rounds 0",
            "--seconds -1",
            "--nap",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
