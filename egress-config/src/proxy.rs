//! What both proxies let their user set.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::address::{AddressFamily, NetworkError, parse_interface_address};
use crate::decimal::plain_decimal;
use crate::duration::{DurationError, format_duration, parse_duration, serialize_duration};
use crate::interface_name::{InterfaceName, parse_link};
use crate::listen::parse_listen;
use crate::log::{LogFormat, LogLevel};
use crate::reader::Reader;
use crate::special::SpecialAddress;
use crate::switch::Switch;
use crate::variables::{self, VariableSpec};

/// The longest time that can be set: what is longer is meant as "never", and
/// a sum with the clock must not overflow.
const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// More threads than any node has processors.
const MAX_THREADS: usize = 1024;

/// The settings that the proxies share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProxySettings {
    sources: Vec<IpAddr>,
    interface: Option<InterfaceName>,
    #[serde(serialize_with = "serialize_duration")]
    connect_time: Duration,
    max_connections: Option<NonZeroUsize>,
    max_connections_per_client: Option<NonZeroUsize>,
    admin_listen: Option<SocketAddr>,
    #[serde(serialize_with = "serialize_duration")]
    drain: Duration,
    log_level: LogLevel,
    log_format: LogFormat,
    access_log: Switch,
    threads: Option<NonZeroUsize>,
    reload_existing: ReloadExisting,
}

impl ProxySettings {
    /// Reads and checks every shared variable. `old_debug` is the variable
    /// that meant `EGRESS_LOG=debug` in the image that the program replaces.
    /// `None` when something was bad, which has been reported.
    pub fn read(reader: &mut Reader<'_>, old_debug: Option<&VariableSpec>) -> Option<Self> {
        let sources = read_sources(reader);
        let interface = reader.value(variables::INTERFACE, parse_link);
        let connect_time = reader.value(variables::CONNECT_TIME, parse_time);
        let max_connections = reader.value(variables::MAX_CONNECTIONS, parse_count);
        let per_client = reader.value(variables::MAX_CONNECTIONS_PER_CLIENT, parse_limit);
        let admin_listen = reader.value(variables::ADMIN_LISTEN, parse_listen);
        let drain = reader.value(variables::DRAIN_SECONDS, parse_wait);
        let log_level = LogLevel::read(reader, old_debug);
        let log_format = reader.value(variables::LOG_FORMAT, str::parse);
        let access_log = reader.value(variables::ACCESS_LOG, str::parse);
        let threads = reader.value(variables::THREADS, parse_threads);
        let reload_existing = reader.value(variables::RELOAD_EXISTING, str::parse);
        Some(Self {
            sources,
            interface,
            connect_time: connect_time?,
            max_connections,
            max_connections_per_client: per_client?,
            admin_listen: admin_listen?,
            drain: drain?,
            log_level: log_level?,
            log_format: log_format?,
            access_log: access_log?,
            threads,
            reload_existing: reload_existing.unwrap_or(ReloadExisting::Keep),
        })
    }

    /// What connections to the outside are bound to, at most one address per
    /// family; empty to use those of the egress interface.
    #[must_use]
    pub fn sources(&self) -> &[IpAddr] {
        &self.sources
    }

    /// The interface of the physical network, `None` for the usual one.
    #[must_use]
    pub fn interface(&self) -> Option<&InterfaceName> {
        self.interface.as_ref()
    }

    /// How long connecting to an outside host may take, all its addresses
    /// together.
    #[must_use]
    pub fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// The most client connections at a time, `None` for what the limit of
    /// open files allows.
    #[must_use]
    pub fn max_connections(&self) -> Option<NonZeroUsize> {
        self.max_connections
    }

    /// The most connections of one client address at a time, `None` without a
    /// limit.
    #[must_use]
    pub fn max_connections_per_client(&self) -> Option<NonZeroUsize> {
        self.max_connections_per_client
    }

    /// Where to serve the admin endpoint, `None` not to.
    #[must_use]
    pub fn admin_listen(&self) -> Option<SocketAddr> {
        self.admin_listen
    }

    /// The same settings without an admin endpoint.
    #[must_use]
    pub fn without_admin(self) -> Self {
        Self {
            admin_listen: None,
            ..self
        }
    }

    /// How long work in flight may take to finish after SIGTERM.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// The least severe messages to log.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.log_level
    }

    /// The form of log messages.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Whether to log every request, tunnel or connection.
    #[must_use]
    pub fn access_log(&self) -> Switch {
        self.access_log
    }

    /// Worker threads, `None` for as many as the processors allow.
    #[must_use]
    pub fn threads(&self) -> Option<NonZeroUsize> {
        self.threads
    }

    /// What becomes of connections that newly loaded rules forbid.
    #[must_use]
    pub fn reload_existing(&self) -> ReloadExisting {
        self.reload_existing
    }
}

/// What becomes of existing connections that newly loaded rules forbid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadExisting {
    /// They run on until they end by themselves.
    Keep,
    /// They are closed at once.
    Close,
}

impl fmt::Display for ReloadExisting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Close => "close",
        })
    }
}

/// A text that is neither `keep` nor `close`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("says nothing about existing connections; write keep or close")]
pub struct ReloadExistingError;

impl FromStr for ReloadExisting {
    type Err = ReloadExistingError;

    fn from_str(text: &str) -> Result<Self, ReloadExistingError> {
        match text {
            "keep" => Ok(Self::Keep),
            "close" => Ok(Self::Close),
            _ => Err(ReloadExistingError),
        }
    }
}

/// A text that is no time limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TimeError {
    /// No duration at all.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// Nothing can be done in no time.
    #[error("is no time at all; write from 1ms to {}", format_duration(MAX_TIME))]
    Zero,
    /// More than 30 days.
    #[error("is too long; write at most {}", format_duration(MAX_TIME))]
    TooLong,
}

/// Reads a time limit, 1 ms to 30 days, in the form of [`parse_duration`].
///
/// # Errors
/// [`TimeError`] names what is wrong.
pub fn parse_time(text: &str) -> Result<Duration, TimeError> {
    match parse_wait(text)? {
        Duration::ZERO => Err(TimeError::Zero),
        time => Ok(time),
    }
}

/// Reads a time that may be nothing.
fn parse_wait(text: &str) -> Result<Duration, TimeError> {
    let time = parse_duration(text)?;
    if time > MAX_TIME {
        Err(TimeError::TooLong)
    } else {
        Ok(time)
    }
}

/// A text that is no count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("is not a count; write a number from 1 on in decimal")]
pub struct CountError;

/// Reads a decimal number from 1 on without leading zeros.
///
/// # Errors
/// [`CountError`] for anything else, and for what no memory could hold.
pub fn parse_count(text: &str) -> Result<NonZeroUsize, CountError> {
    plain_decimal(text)
        .and_then(|number| usize::try_from(number).ok())
        .and_then(NonZeroUsize::new)
        .ok_or(CountError)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("is not a limit; write a number from 1 on in decimal, or off")]
struct LimitError;

fn parse_limit(text: &str) -> Result<Option<NonZeroUsize>, LimitError> {
    match text {
        "off" => Ok(None),
        number => parse_count(number).map(Some).map_err(|_| LimitError),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("is not a number of threads; write 1 to {MAX_THREADS}")]
struct ThreadsError;

fn parse_threads(text: &str) -> Result<NonZeroUsize, ThreadsError> {
    parse_count(text)
        .ok()
        .filter(|threads| threads.get() <= MAX_THREADS)
        .ok_or(ThreadsError)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
enum SourceError {
    #[error(transparent)]
    Address(#[from] NetworkError),
    #[error("is {0}; write an address of the physical network")]
    Special(SpecialAddress),
    #[error("is a second {0} address; write one per family")]
    Second(AddressFamily),
}

/// The length of a prefix is the router's business, which shares the
/// variable.
fn read_sources(reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let mut families = Vec::new();
    reader.words(variables::SOURCE, |word| {
        let source = parse_interface_address(word)?.addr();
        if let Some(special) = SpecialAddress::of(source) {
            return Err(SourceError::Special(special));
        }
        let family = AddressFamily::of(source);
        if families.contains(&family) {
            return Err(SourceError::Second(family));
        }
        families.push(family);
        Ok(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MapEnvironment, Program};

    fn read(environment: &MapEnvironment) -> Result<ProxySettings, Vec<String>> {
        let mut reader = Reader::new(environment, Program::DnsProxy);
        let settings = ProxySettings::read(&mut reader, Some(variables::DNS_PROXY_DEBUG));
        match reader.finish(settings) {
            Ok((settings, warnings)) => {
                assert_eq!(warnings, []);
                Ok(settings)
            }
            Err(diagnostics) => Err(diagnostics.to_string().lines().map(str::to_owned).collect()),
        }
    }

    fn count(number: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(number)
    }

    #[test]
    fn nothing_need_be_set() {
        let settings = read(&MapEnvironment::new()).unwrap();
        assert!(settings.sources().is_empty());
        assert_eq!(settings.interface(), None);
        assert_eq!(settings.connect_time(), Duration::from_secs(10));
        assert_eq!(settings.max_connections(), None);
        assert_eq!(settings.max_connections_per_client(), None);
        assert_eq!(settings.admin_listen(), "[::]:9090".parse().ok());
        assert_eq!(settings.drain(), Duration::from_secs(25));
        assert_eq!(settings.log_level(), LogLevel::Info);
        assert_eq!(settings.log_format(), LogFormat::Auto);
        assert_eq!(settings.access_log(), Switch::On);
        assert_eq!(settings.threads(), None);
        assert_eq!(settings.reload_existing(), ReloadExisting::Keep);
        assert_eq!(settings.without_admin().admin_listen(), None);
    }

    #[test]
    fn every_setting() {
        let environment = MapEnvironment::new()
            .with("EGRESS_SOURCE", "192.168.12.99/24,2001:db8::9")
            .with("EGRESS_INTERFACE", "net1")
            .with("EGRESS_CONNECT_TIME", "1500ms")
            .with("EGRESS_MAX_CONNECTIONS", "9000")
            .with("EGRESS_MAX_CONNECTIONS_PER_CLIENT", "100")
            .with("EGRESS_ADMIN_LISTEN", "off")
            .with("EGRESS_DRAIN_SECONDS", "0")
            .with("EGRESS_LOG", "warn")
            .with("EGRESS_LOG_FORMAT", "json")
            .with("EGRESS_ACCESS_LOG", "off")
            .with("EGRESS_THREADS", "4")
            .with("EGRESS_RELOAD_EXISTING", "close");
        let settings = read(&environment).unwrap();
        let sources: Vec<String> = settings.sources().iter().map(IpAddr::to_string).collect();
        assert_eq!(sources, ["192.168.12.99", "2001:db8::9"]);
        assert_eq!(
            settings.interface().map(InterfaceName::as_str),
            Some("net1")
        );
        assert_eq!(settings.connect_time(), Duration::from_millis(1500));
        assert_eq!(settings.max_connections(), count(9000));
        assert_eq!(settings.max_connections_per_client(), count(100));
        assert_eq!(settings.admin_listen(), None);
        assert_eq!(settings.drain(), Duration::ZERO);
        assert_eq!(settings.log_level(), LogLevel::Warn);
        assert_eq!(settings.log_format(), LogFormat::Json);
        assert_eq!(settings.access_log(), Switch::Off);
        assert_eq!(settings.threads(), count(4));
        assert_eq!(settings.reload_existing(), ReloadExisting::Close);
        assert_eq!(
            serde_json::to_value(settings).unwrap(),
            serde_json::json!({
                "sources": ["192.168.12.99", "2001:db8::9"],
                "interface": "net1",
                "connect_time": "1500ms",
                "max_connections": 9000,
                "max_connections_per_client": 100,
                "admin_listen": null,
                "drain": "0ms",
                "log_level": "warn",
                "log_format": "json",
                "access_log": "off",
                "threads": 4,
                "reload_existing": "close",
            })
        );
    }

    #[test]
    fn the_old_debug_variable_means_debug_unless_the_new_one_is_set() {
        let old = MapEnvironment::new().with("EGRESS_DNS_PROXY_DEBUG", "0");
        assert_eq!(read(&old).unwrap().log_level(), LogLevel::Debug);
        let both = old.with("EGRESS_LOG", "error");
        assert_eq!(read(&both).unwrap().log_level(), LogLevel::Error);
        let empty = MapEnvironment::new().with("EGRESS_DNS_PROXY_DEBUG", " ");
        assert_eq!(read(&empty).unwrap().log_level(), LogLevel::Info);
    }

    #[test]
    fn each_refusal_says_why() {
        for (name, text, reason) in [
            (
                "EGRESS_SOURCE",
                "egress",
                "is not an IP address; write one such as 192.0.2.7 or 2001:db8::7",
            ),
            (
                "EGRESS_SOURCE",
                "127.0.0.1",
                "is a loopback address; write an address of the physical network",
            ),
            (
                "EGRESS_INTERFACE",
                "lo",
                "the loopback interface leads nowhere; write the name of another one",
            ),
            (
                "EGRESS_CONNECT_TIME",
                "0s",
                "is no time at all; write from 1ms to 720h",
            ),
            (
                "EGRESS_DRAIN_SECONDS",
                "721h",
                "is too long; write at most 720h",
            ),
            (
                "EGRESS_MAX_CONNECTIONS",
                "0",
                "is not a count; write a number from 1 on in decimal",
            ),
            (
                "EGRESS_MAX_CONNECTIONS",
                "off",
                "is not a count; write a number from 1 on in decimal",
            ),
            (
                "EGRESS_MAX_CONNECTIONS_PER_CLIENT",
                "0",
                "is not a limit; write a number from 1 on in decimal, or off",
            ),
            (
                "EGRESS_THREADS",
                "1025",
                "is not a number of threads; write 1 to 1024",
            ),
            (
                "EGRESS_ACCESS_LOG",
                "yes",
                "is neither on nor off; write on or off",
            ),
            (
                "EGRESS_RELOAD_EXISTING",
                "kill",
                "says nothing about existing connections; write keep or close",
            ),
        ] {
            let environment = MapEnvironment::new().with(name, text);
            let expected = vec![format!("{name}: '{text}': {reason}")];
            assert_eq!(read(&environment), Err(expected));
        }
    }

    #[test]
    fn one_source_per_family() {
        let environment = MapEnvironment::new().with("EGRESS_SOURCE", "192.0.2.1 192.0.2.2");
        assert_eq!(
            read(&environment),
            Err(vec![
                "EGRESS_SOURCE: '192.0.2.2': is a second IPv4 address; write one per family"
                    .to_owned()
            ])
        );
    }
}
