//! The command line of `egress-bench-load`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::builder::{PossibleValue, TypedValueParser as _};
use clap::{Arg, ArgMatches, value_parser};

use super::scenario::{LoadRole, LoadScenario};

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Command {
    /// To be client and origin.
    Load(LoadArguments),
    /// To be a bare relay.
    Relay(RelayArguments),
}

/// What client and origin do.
#[derive(Debug, Clone)]
pub struct LoadArguments {
    /// What the clients connect to.
    pub proxy: SocketAddr,
    /// What that is.
    pub role: LoadRole,
    /// What is done.
    pub scenario: LoadScenario,
    /// How many clients there are.
    pub connections: usize,
    /// What is done before anything counts.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
    /// Operations offered each second; without it, the next begins when one
    /// ends.
    pub rate: Option<u32>,
    /// Bytes of a body.
    pub size: u64,
    /// The origin's names as the proxy is asked for them, in turn; those
    /// without a port get the origin's.
    pub hosts: Vec<String>,
    /// Where the origin listens, on 127.0.0.1; 0 is any port that is free.
    pub origin_port: u16,
    /// Certificates that are trusted, and the proxy's name: clients speak TLS.
    pub tls: Option<(PathBuf, String)>,
}

/// What the relay does.
#[derive(Debug, Clone)]
pub struct RelayArguments {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it connects to.
    pub to: SocketAddr,
}

impl Command {
    /// Reads the command line, program name first.
    ///
    /// # Errors
    /// When it is not understood, with a text for the user; help is such a
    /// text.
    pub fn parse<I, T>(arguments: I) -> Result<Self>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = command_line().try_get_matches_from(arguments)?;
        match matches.subcommand() {
            Some(("relay", relay)) => Ok(Self::Relay(RelayArguments {
                listen: required(relay, "listen")?,
                to: required(relay, "to")?,
            })),
            Some((_, load)) => Ok(Self::Load(LoadArguments::from_matches(load)?)),
            None => anyhow::bail!("no subcommand; known are load and relay"),
        }
    }
}

impl LoadArguments {
    fn from_matches(matches: &ArgMatches) -> Result<Self> {
        let hosts = match matches.get_one::<PathBuf>("hosts") {
            None => vec![required(matches, "host")?],
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("reading hosts from {}", path.display()))?;
                let hosts: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
                anyhow::ensure!(!hosts.is_empty(), "no host in {}", path.display());
                hosts
            }
        };
        let scenario: LoadScenario = required(matches, "scenario")?;
        let tls = matches
            .get_one::<PathBuf>("tls-ca")
            .map(|authority| {
                Ok::<_, anyhow::Error>((authority.clone(), required(matches, "tls-name")?))
            })
            .transpose()?;
        anyhow::ensure!(
            tls.is_some() || !scenario.is_tls(),
            "{} needs --tls-ca",
            scenario.name()
        );
        Ok(Self {
            proxy: required(matches, "proxy")?,
            role: required(matches, "role")?,
            scenario,
            connections: required(matches, "connections")?,
            warm_up: required(matches, "warm-up")?,
            measured: required(matches, "seconds")?,
            rate: matches.get_one("rate").copied(),
            size: required(matches, "size")?,
            hosts,
            origin_port: required(matches, "origin-port")?,
            tls,
        })
    }
}

fn required<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Result<T> {
    let value = matches.get_one::<T>(name).cloned();
    value.with_context(|| format!("--{name} is missing"))
}

fn option(name: &'static str, placeholder: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(placeholder).help(help)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn one_of<T: Copy + Send + Sync + 'static>(
    all: &[T],
    name: fn(T) -> &'static str,
) -> impl clap::builder::TypedValueParser<Value = T> + use<T> {
    let known: Vec<_> = all.iter().map(|one| (name(*one), *one)).collect();
    let names = known.iter().map(|(name, _)| PossibleValue::new(*name));
    clap::builder::PossibleValuesParser::new(names).try_map(move |given| {
        let found = known.iter().find(|(name, _)| *name == given);
        found.map(|(_, one)| *one).ok_or("not one of these")
    })
}

fn command_line() -> clap::Command {
    let address = || value_parser!(SocketAddr);
    let load = clap::Command::new("load")
        .about("clients and origin; prints {\"start\":true} and {\"stop\":true,...}")
        .args([
            option("proxy", "IP:PORT", "what the clients connect to")
                .value_parser(address())
                .required(true),
            option("role", "ROLE", "what that is")
                .value_parser(one_of(&LoadRole::ALL, LoadRole::name))
                .default_value("http"),
            option("scenario", "NAME", "what is done")
                .value_parser(one_of(&LoadScenario::ALL, LoadScenario::name))
                .required(true),
            option("connections", "N", "how many clients there are")
                .value_parser(value_parser!(usize))
                .default_value("1"),
            option("warm-up", "S", "seconds before anything counts")
                .value_parser(seconds)
                .default_value("0.5"),
            option("seconds", "S", "seconds that are measured")
                .value_parser(seconds)
                .default_value("2"),
            option("rate", "N", "operations offered each second")
                .value_parser(value_parser!(u32).range(1..)),
            option("size", "BYTES", "length of a body")
                .value_parser(value_parser!(u64))
                .default_value("1024"),
            option("host", "NAME", "the origin as the proxy is asked for it")
                .default_value("127.0.0.1"),
            option("hosts", "FILE", "names that are used in turn, one a line")
                .value_parser(value_parser!(PathBuf)),
            option(
                "origin-port",
                "PORT",
                "where the origin listens, on 127.0.0.1",
            )
            .value_parser(value_parser!(u16))
            .required(true),
            option(
                "tls-ca",
                "PEM",
                "speak TLS to the proxy, and trust these certificates",
            )
            .value_parser(value_parser!(PathBuf)),
            option("tls-name", "NAME", "the proxy's name in its certificate")
                .default_value("localhost"),
        ]);
    let relay = clap::Command::new("relay")
        .about("a bare relay: epoll and splice, no rules, no names, no HTTP")
        .args([
            option("listen", "IP:PORT", "where it listens")
                .value_parser(address())
                .required(true),
            option("to", "IP:PORT", "where it connects to")
                .value_parser(address())
                .required(true),
        ]);
    clap::Command::new("egress-bench-load")
        .subcommand_required(true)
        .subcommands([load, relay])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command> {
        Command::parse(line.split(' '))
    }

    #[test]
    fn a_line_says_what_is_done() -> Result<()> {
        let line = "x load --proxy 127.0.0.1:1 --role tcp --scenario bulk-up --connections 16 \
                    --seconds 1.5 --rate 10 --size 7 --host a.example --origin-port 2";
        let Command::Load(load) = parse(line)? else {
            anyhow::bail!("not load");
        };
        assert_eq!(load.proxy, SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(
            (load.role, load.scenario),
            (LoadRole::Tcp, LoadScenario::BulkUp)
        );
        assert_eq!((load.connections, load.rate, load.size), (16, Some(10), 7));
        assert_eq!(load.measured, Duration::from_millis(1_500));
        assert_eq!(load.warm_up, Duration::from_millis(500));
        assert_eq!(load.hosts, ["a.example"]);
        assert!(load.tls.is_none());

        let Command::Relay(relay) = parse("x relay --listen 127.0.0.1:1 --to [::1]:2")? else {
            anyhow::bail!("not relay");
        };
        assert_eq!((relay.listen.port(), relay.to.port()), (1, 2));
        Ok(())
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused() {
        for line in [
            "x",
            "x load",
            "x load --proxy 127.0.0.1:1 --scenario nap --origin-port 2",
            "x load --proxy 127.0.0.1:1 --scenario tls-bulk --origin-port 2",
            "x load --proxy 127.0.0.1:1 --scenario idle --origin-port 2 --seconds -1",
            "x load --proxy 127.0.0.1:1 --scenario idle --origin-port 2 --hosts /nowhere",
            "x relay --listen 127.0.0.1:1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
