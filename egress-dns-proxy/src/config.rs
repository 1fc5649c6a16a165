//! What the user wants, as types.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egress_config::{
    Diagnostic, Diagnostics, Environment, Port, Program, Protocol, ProxySettings, Reader,
    TimeError, Warning, format_duration, parse_count, parse_time, serialize_duration, variables,
};
use serde::Serialize;
use thiserror::Error;

use crate::mapping::{Mapping, Mappings};

/// Trying a dead address more often than that helps nobody.
const MIN_HEALTH_CHECK: Duration = Duration::from_millis(100);

/// The whole configuration of the proxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Config {
    destination_file: Option<PathBuf>,
    mappings: Mappings,
    #[serde(serialize_with = "serialize_duration")]
    idle_time: Duration,
    #[serde(serialize_with = "serialize_duration")]
    udp_idle_time: Duration,
    udp_sessions: NonZeroUsize,
    #[serde(serialize_with = "serialize_duration")]
    health_check: Duration,
    #[serde(flatten)]
    proxy: ProxySettings,
}

impl Config {
    /// Reads and checks every variable, with the warnings for what is usable
    /// but probably not meant.
    ///
    /// # Errors
    /// Every bad entry at once, with its remedy.
    pub fn from_environment(
        environment: &dyn Environment,
    ) -> Result<(Self, Vec<Warning>), Diagnostics> {
        let mut reader = Reader::new(environment, Program::DnsProxy);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let destination = read_destination(reader);
        let idle_time = reader.value(variables::DNS_PROXY_IDLE_TIME, parse_time);
        let udp_idle_time = reader.value(variables::DNS_PROXY_UDP_IDLE_TIME, parse_time);
        let udp_sessions = reader.value(variables::DNS_PROXY_UDP_SESSIONS, parse_count);
        let health_check = reader.value(variables::DNS_PROXY_HEALTH_CHECK, parse_health_check);
        let proxy = ProxySettings::read(reader, Some(variables::DNS_PROXY_DEBUG));
        let Destination { mappings, file } = destination?;
        let proxy = clear_of_admin(reader, proxy?, &mappings);
        Some(Self {
            destination_file: file,
            mappings,
            idle_time: idle_time?,
            udp_idle_time: udp_idle_time?,
            udp_sessions: udp_sessions?,
            health_check: health_check?,
            proxy,
        })
    }

    /// Where the ports of the pod lead.
    #[must_use]
    pub fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// The file the mappings came from, to be watched for changes.
    #[must_use]
    pub fn destination_file(&self) -> Option<&Path> {
        self.destination_file.as_deref()
    }

    /// How long a connection may move no byte.
    #[must_use]
    pub fn idle_time(&self) -> Duration {
        self.idle_time
    }

    /// How long the session of a client's datagrams lives without one.
    #[must_use]
    pub fn udp_idle_time(&self) -> Duration {
        self.udp_idle_time
    }

    /// The most sessions of datagrams at a time.
    #[must_use]
    pub fn udp_sessions(&self) -> NonZeroUsize {
        self.udp_sessions
    }

    /// How often an address that could not be reached is tried again.
    #[must_use]
    pub fn health_check(&self) -> Duration {
        self.health_check
    }

    /// What is set as for the other proxy.
    #[must_use]
    pub fn proxy(&self) -> &ProxySettings {
        &self.proxy
    }
}

struct Destination {
    mappings: Mappings,
    file: Option<PathBuf>,
}

fn read_destination(reader: &mut Reader<'_>) -> Option<Destination> {
    let Some(list) = reader.list(variables::DNS_PROXY_DESTINATION).ok()? else {
        reader.error(
            Diagnostic::new(
                variables::DNS_PROXY_DESTINATION.name(),
                "is not set; write lines of PORT HOST [REMOTE_PORT], or name their file in EGRESS_DNS_PROXY_DESTINATION_FILE",
            )
            .legacy("Must specify EGRESS_DNS_PROXY_DESTINATION"),
        );
        return None;
    };
    if list.lines().next().is_none() {
        reader.warn(Warning::new(
            list.variable().to_owned(),
            "has only comments, so no port is served; add a line of PORT HOST [REMOTE_PORT]",
        ));
    }
    Some(Destination {
        mappings: Mappings::parse(&list, reader.diagnostics()),
        file: list.path().map(Path::to_owned),
    })
}

/// The image we replace had no admin endpoint: a line of old that uses its
/// port wins over the default, but not over an address that is set.
fn clear_of_admin(
    reader: &mut Reader<'_>,
    proxy: ProxySettings,
    mappings: &Mappings,
) -> ProxySettings {
    let admin = proxy
        .admin_listen()
        .and_then(|address| Port::new(address.port()));
    let taken =
        |mapping: &&Mapping| mapping.protocol() == Protocol::Tcp && Some(mapping.port()) == admin;
    let Some(mapping) = mappings.iter().find(taken) else {
        return proxy;
    };
    let (port, line) = (mapping.port(), mapping.line());
    match reader.text(variables::ADMIN_LISTEN) {
        Some(text) => {
            reader.error(
                Diagnostic::new(
                    variables::ADMIN_LISTEN.name(),
                    format!(
                        "line {line} of the destinations uses port {port}; change it there or here"
                    ),
                )
                .text(&text),
            );
            proxy
        }
        None => {
            reader.warn(
                Warning::new(
                    variables::DNS_PROXY_DESTINATION.name(),
                    format!("port {port} is that of the admin endpoint, which is off now; set EGRESS_ADMIN_LISTEN to another port, or to off"),
                )
                .line(line),
            );
            proxy.without_admin()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
enum HealthCheckError {
    #[error(transparent)]
    Time(#[from] TimeError),
    #[error("is too often; write {} or more", format_duration(MIN_HEALTH_CHECK))]
    TooOften,
}

fn parse_health_check(text: &str) -> Result<Duration, HealthCheckError> {
    let interval = parse_time(text)?;
    if interval < MIN_HEALTH_CHECK {
        Err(HealthCheckError::TooOften)
    } else {
        Ok(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_config::{LogLevel, MapEnvironment};

    const LIST: &str = "EGRESS_DNS_PROXY_DESTINATION";

    fn minimal() -> MapEnvironment {
        MapEnvironment::new().with(LIST, "5432 db.example.com")
    }

    fn read(environment: &MapEnvironment) -> (Config, Vec<String>) {
        let (config, warnings) = Config::from_environment(environment)
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let warnings = warnings.iter().map(ToString::to_string).collect();
        (config, warnings)
    }

    fn refused(environment: &MapEnvironment) -> Vec<String> {
        let report = Config::from_environment(environment)
            .unwrap_err()
            .to_string();
        report.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_list_is_all_that_must_be_set() {
        let (config, warnings) = read(&minimal());
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.mappings().len(), 1);
        assert_eq!(config.destination_file(), None);
        assert_eq!(config.idle_time(), Duration::from_secs(3600));
        assert_eq!(config.udp_idle_time(), Duration::from_secs(60));
        assert_eq!(config.udp_sessions().get(), 4096);
        assert_eq!(config.health_check(), Duration::from_secs(10));
        assert_eq!(config.proxy().admin_listen(), "[::]:9090".parse().ok());
        let json = serde_json::to_value(config).unwrap();
        assert_eq!(json["mappings"][0]["host"], "db.example.com");
        assert_eq!(json["idle_time"], "1h");
        assert_eq!(json["drain"], "25s");
    }

    #[test]
    fn every_variable() {
        let environment = MapEnvironment::new()
            .with(
                "EGRESS_DNS_PROXY_DESTINATION_FILE",
                "/etc/egress/destination",
            )
            .with_file("/etc/egress/destination", "80 a\n443 b\n")
            .with("EGRESS_DNS_PROXY_IDLE_TIME", "90s")
            .with("EGRESS_DNS_PROXY_UDP_IDLE_TIME", "5s")
            .with("EGRESS_DNS_PROXY_UDP_SESSIONS", "16")
            .with("EGRESS_DNS_PROXY_HEALTH_CHECK", "100ms")
            .with("EGRESS_DNS_PROXY_DEBUG", "1");
        let (config, warnings) = read(&environment);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.mappings().len(), 2);
        assert_eq!(
            config.destination_file(),
            Some(Path::new("/etc/egress/destination"))
        );
        assert_eq!(config.idle_time(), Duration::from_secs(90));
        assert_eq!(config.udp_idle_time(), Duration::from_secs(5));
        assert_eq!(config.udp_sessions().get(), 16);
        assert_eq!(config.health_check(), Duration::from_millis(100));
        assert_eq!(config.proxy().log_level(), LogLevel::Debug);
    }

    #[test]
    fn all_that_is_bad_is_reported_and_the_sentence_of_the_list_is_last() {
        let environment = MapEnvironment::new()
            .with(LIST, "80 a\ninvalid\n81 b 0")
            .with("EGRESS_DNS_PROXY_IDLE_TIME", "0")
            .with("EGRESS_DNS_PROXY_UDP_SESSIONS", "off")
            .with("EGRESS_DNS_PROXY_HEALTH_CHECK", "99ms")
            .with("EGRESS_THREADS", "many");
        assert_eq!(
            refused(&environment),
            [
                "EGRESS_DNS_PROXY_DESTINATION line 2: 'invalid': is no destination; write PORT HOST [REMOTE_PORT], or PORT/udp HOST [REMOTE_PORT]",
                "EGRESS_DNS_PROXY_DESTINATION line 3: '81 b 0': '0': port is out of range; write 1 to 65535",
                "EGRESS_DNS_PROXY_IDLE_TIME: '0': is no time at all; write from 1ms to 720h",
                "EGRESS_DNS_PROXY_UDP_SESSIONS: 'off': is not a count; write a number from 1 on in decimal",
                "EGRESS_DNS_PROXY_HEALTH_CHECK: '99ms': is too often; write 100ms or more",
                "EGRESS_THREADS: 'many': is not a number of threads; write 1 to 1024",
                "Bad destination 'invalid'",
            ]
        );
    }

    #[test]
    fn a_list_must_be_set_and_may_be_comments() {
        assert_eq!(
            refused(&MapEnvironment::new()),
            [
                "EGRESS_DNS_PROXY_DESTINATION: is not set; write lines of PORT HOST [REMOTE_PORT], or name their file in EGRESS_DNS_PROXY_DESTINATION_FILE",
                "Must specify EGRESS_DNS_PROXY_DESTINATION"
            ]
        );
        let (config, warnings) = read(&minimal().with(LIST, "# none yet"));
        assert!(config.mappings().is_empty());
        assert_eq!(
            warnings,
            [
                "EGRESS_DNS_PROXY_DESTINATION: has only comments, so no port is served; add a line of PORT HOST [REMOTE_PORT]"
            ]
        );
    }

    #[test]
    fn a_line_wins_over_the_default_admin_port_only() {
        let taken = minimal().with(LIST, "#\n9090 a");
        let (config, warnings) = read(&taken);
        assert_eq!(config.proxy().admin_listen(), None);
        assert_eq!(
            warnings,
            [
                "EGRESS_DNS_PROXY_DESTINATION line 2: port 9090 is that of the admin endpoint, which is off now; set EGRESS_ADMIN_LISTEN to another port, or to off"
            ]
        );
        assert_eq!(
            refused(&taken.clone().with("EGRESS_ADMIN_LISTEN", "127.0.0.1:9090")),
            [
                "EGRESS_ADMIN_LISTEN: '127.0.0.1:9090': line 2 of the destinations uses port 9090; change it there or here"
            ]
        );
        for other in [
            taken.with("EGRESS_ADMIN_LISTEN", ":9100"),
            minimal().with(LIST, "9090/udp a"),
        ] {
            let (config, warnings) = read(&other);
            assert!(config.proxy().admin_listen().is_some());
            assert_eq!(warnings, Vec::<String>::new());
        }
    }
}
