//! What the user wants.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egress_config::{
    Diagnostic, Diagnostics, Environment, List, Program, ProxySettings, Reader, Switch, Warning,
    parse_count, parse_listen, parse_time, variables,
};

use crate::acl::{Guard, Literals, Mode, Rules, Sni};

/// The least that a header limit may be: a request with a cookie or two.
const MIN_HEADER_BYTES: usize = 1024;
/// The most: what a client sends before it is judged is kept in memory.
const MAX_HEADER_BYTES: usize = 1024 * 1024;

/// The configuration of the proxy.
#[derive(Debug)]
pub struct Config {
    proxy: ProxySettings,
    listen: Option<SocketAddr>,
    tls: Option<TlsConfig>,
    rules: Rules,
    rules_file: Option<PathBuf>,
    mode: Mode,
    guard: Guard,
    literals: Literals,
    sni: Sni,
    forwarded_for: bool,
    header_bytes: usize,
    header_time: Duration,
    idle: Duration,
}

/// The proxy over TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsConfig {
    listen: SocketAddr,
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Config {
    /// Reads and checks every variable.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn read(environment: &dyn Environment) -> Result<(Self, Vec<Warning>), Diagnostics> {
        let mut reader = Reader::new(environment, Program::HttpProxy);
        let config = read(&mut reader);
        reader.finish(config)
    }

    /// What both proxies have.
    #[must_use]
    pub fn proxy(&self) -> &ProxySettings {
        &self.proxy
    }

    /// Where to serve in the clear.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// How to serve over TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsConfig> {
        self.tls.as_ref()
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The rules, alone.
    #[must_use]
    pub fn into_rules(self) -> Rules {
        self.rules
    }

    /// The file that the rules came from.
    #[must_use]
    pub fn rules_file(&self) -> Option<&Path> {
        self.rules_file.as_deref()
    }

    /// Whether denials are carried out.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Which addresses are refused whatever the rules say.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// What happens to hosts that are addresses.
    #[must_use]
    pub fn literals(&self) -> Literals {
        self.literals
    }

    /// Whether the server name of a tunnel is judged.
    #[must_use]
    pub fn sni(&self) -> Sni {
        self.sni
    }

    /// Whether the upstream is told the client's address.
    #[must_use]
    pub fn forwarded_for(&self) -> bool {
        self.forwarded_for
    }

    /// Longest head, in bytes.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// How long a client may take to send a head.
    #[must_use]
    pub fn header_time(&self) -> Duration {
        self.header_time
    }

    /// How long nothing may move.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.idle
    }
}

impl TlsConfig {
    /// Where to serve.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The certificate chain, PEM.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Its private key, PEM.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// The certificates that sign clients', PEM.
    #[must_use]
    pub fn client_ca(&self) -> Option<&Path> {
        self.client_ca.as_deref()
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let proxy = ProxySettings::read(reader, None);
    let listen = reader.value(variables::HTTP_PROXY_LISTEN, parse_listen);
    let tls = read_tls(reader);
    let mode = reader.value(variables::HTTP_PROXY_MODE, str::parse);
    let guard = reader.value(variables::HTTP_PROXY_GUARD, str::parse);
    let literals = reader.value(variables::HTTP_PROXY_IP_LITERALS, str::parse);
    let sni = reader.value(variables::HTTP_PROXY_SNI, str::parse);
    let forwarded_for = reader.value(variables::HTTP_PROXY_X_FORWARDED_FOR, str::parse::<Switch>);
    let header_bytes = reader.value(variables::HTTP_PROXY_HEADER_BYTES, parse_header_bytes);
    let header_time = reader.value(variables::HTTP_PROXY_HEADER_TIME, parse_time);
    let idle = reader.value(variables::HTTP_PROXY_IDLE_TIME, parse_time);
    check_ports(reader, proxy.as_ref(), listen.flatten(), tls.as_ref());
    // Last, because the last line on stderr is about the list where it can be.
    let list = read_rules(reader);
    let (rules, rules_file) = list?;
    Some(Config {
        proxy: proxy?,
        listen: listen?,
        tls: tls?,
        rules,
        rules_file,
        mode: mode?,
        guard: guard?,
        literals: literals?,
        sni: sni?,
        forwarded_for: forwarded_for? == Switch::On,
        header_bytes: header_bytes?,
        header_time: header_time?,
        idle: idle?,
    })
}

fn read_rules(reader: &mut Reader<'_>) -> Option<(Rules, Option<PathBuf>)> {
    let variable = variables::HTTP_PROXY_DESTINATION;
    let list: List = match reader.list(variable) {
        Ok(Some(list)) => list,
        Ok(None) => {
            let missing = Diagnostic::new(
                variable.name(),
                "is not set; write one rule per line, or * to allow everything",
            );
            reader.error(missing.legacy("No EGRESS_HTTP_PROXY_DESTINATION specified"));
            return None;
        }
        Err(_) => return None,
    };
    let rules = Rules::parse(&list, reader.diagnostics());
    Some((rules, list.path().map(Path::to_path_buf)))
}

fn read_tls(reader: &mut Reader<'_>) -> Option<Option<TlsConfig>> {
    let listen = reader.value(variables::HTTP_PROXY_TLS_LISTEN, parse_listen)?;
    let certificate = reader.text(variables::HTTP_PROXY_TLS_CERTIFICATE);
    let key = reader.text(variables::HTTP_PROXY_TLS_KEY);
    let client_ca = reader.text(variables::HTTP_PROXY_TLS_CLIENT_CA);
    let Some(listen) = listen else {
        for (variable, value) in [
            (variables::HTTP_PROXY_TLS_CERTIFICATE, &certificate),
            (variables::HTTP_PROXY_TLS_KEY, &key),
            (variables::HTTP_PROXY_TLS_CLIENT_CA, &client_ca),
        ] {
            if value.is_some() {
                reader.warn(Warning::new(
                    variable.name(),
                    "has no effect; set EGRESS_HTTP_PROXY_TLS_LISTEN as well",
                ));
            }
        }
        return Some(None);
    };
    let mut required = |variable: &egress_config::VariableSpec, value: Option<String>| {
        if value.is_none() {
            reader.error(Diagnostic::new(
                variable.name(),
                "is not set, but EGRESS_HTTP_PROXY_TLS_LISTEN is; write the path of a PEM file",
            ));
        }
        value.map(PathBuf::from)
    };
    let certificate = required(variables::HTTP_PROXY_TLS_CERTIFICATE, certificate);
    let key = required(variables::HTTP_PROXY_TLS_KEY, key);
    Some(Some(TlsConfig {
        listen,
        certificate: certificate?,
        key: key?,
        client_ca: client_ca.map(PathBuf::from),
    }))
}

/// Two endpoints cannot have one port, and there must be one to serve on.
fn check_ports(
    reader: &mut Reader<'_>,
    proxy: Option<&ProxySettings>,
    listen: Option<SocketAddr>,
    tls: Option<&Option<TlsConfig>>,
) {
    let (Some(proxy), Some(tls)) = (proxy, tls) else {
        return;
    };
    let tls = tls.as_ref().map(TlsConfig::listen);
    if listen.is_none() && tls.is_none() {
        reader.error(Diagnostic::new(
            variables::HTTP_PROXY_LISTEN.name(),
            "is off, and so is EGRESS_HTTP_PROXY_TLS_LISTEN; set one of them",
        ));
    }
    let used = [
        (variables::ADMIN_LISTEN, proxy.admin_listen()),
        (variables::HTTP_PROXY_LISTEN, listen),
        (variables::HTTP_PROXY_TLS_LISTEN, tls),
    ];
    for (index, (variable, address)) in used.iter().enumerate() {
        let earlier = used.iter().take(index).find(|(_, other)| {
            // Port 0 is another one each time.
            address.is_some_and(|address| {
                address.port() != 0 && other.is_some_and(|other| clash(address, other))
            })
        });
        if let Some((other, _)) = earlier {
            reader.error(Diagnostic::new(
                variable.name(),
                format_args!("has the port of {}; choose another one", other.name()),
            ));
        }
    }
}

fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn parse_header_bytes(text: &str) -> Result<usize, String> {
    parse_count(text)
        .ok()
        .map(std::num::NonZeroUsize::get)
        .filter(|bytes| (MIN_HEADER_BYTES..=MAX_HEADER_BYTES).contains(bytes))
        .ok_or_else(|| {
            format!("is not a number of bytes; write {MIN_HEADER_BYTES} to {MAX_HEADER_BYTES}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_config::MapEnvironment;

    fn environment() -> MapEnvironment {
        MapEnvironment::new().with("EGRESS_HTTP_PROXY_DESTINATION", "example.com\n*")
    }

    fn refused(environment: &MapEnvironment) -> Vec<String> {
        let diagnostics = Config::read(environment).unwrap_err();
        diagnostics.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let (config, warnings) = Config::read(&environment()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.listen().unwrap().port(), 8080);
        assert_eq!(config.tls(), None);
        assert_eq!(
            (config.mode(), config.guard()),
            (Mode::Enforce, Guard::Local)
        );
        assert_eq!(config.literals(), Literals::Allow);
        assert_eq!(config.sni(), Sni::Off);
        assert!(!config.forwarded_for());
        assert_eq!(config.header_bytes(), 65_536);
        assert_eq!(config.header_time(), Duration::from_secs(10));
        assert_eq!(config.idle(), Duration::from_secs(900));
        assert_eq!(config.rules().len(), 2);
    }

    #[test]
    fn every_mistake_is_named_and_the_list_comes_last() {
        let environment = MapEnvironment::new()
            .with("EGRESS_HTTP_PROXY_MODE", "strict")
            .with("EGRESS_HTTP_PROXY_HEADER_BYTES", "10")
            .with("EGRESS_HTTP_PROXY_TLS_LISTEN", ":8443");
        assert_eq!(
            refused(&environment),
            [
                "EGRESS_HTTP_PROXY_TLS_CERTIFICATE: is not set, but EGRESS_HTTP_PROXY_TLS_LISTEN is; write the path of a PEM file",
                "EGRESS_HTTP_PROXY_TLS_KEY: is not set, but EGRESS_HTTP_PROXY_TLS_LISTEN is; write the path of a PEM file",
                "EGRESS_HTTP_PROXY_MODE: 'strict': is not a mode; write enforce or audit",
                "EGRESS_HTTP_PROXY_HEADER_BYTES: '10': is not a number of bytes; write 1024 to 1048576",
                "EGRESS_HTTP_PROXY_DESTINATION: is not set; write one rule per line, or * to allow everything",
                "No EGRESS_HTTP_PROXY_DESTINATION specified",
            ]
        );
    }

    #[test]
    fn ports_are_used_once() {
        let clash = environment().with("EGRESS_HTTP_PROXY_LISTEN", "127.0.0.1:9090");
        assert_eq!(
            refused(&clash),
            ["EGRESS_HTTP_PROXY_LISTEN: has the port of EGRESS_ADMIN_LISTEN; choose another one"]
        );
        let none = environment().with("EGRESS_HTTP_PROXY_LISTEN", "off");
        assert_eq!(
            refused(&none),
            [
                "EGRESS_HTTP_PROXY_LISTEN: is off, and so is EGRESS_HTTP_PROXY_TLS_LISTEN; set one of them"
            ]
        );
    }

    #[test]
    fn tls_files_without_tls_are_warned_of() {
        let environment = environment().with("EGRESS_HTTP_PROXY_TLS_KEY", "/key.pem");
        let (_, warnings) = Config::read(&environment).unwrap();
        assert_eq!(
            warnings[0].to_string(),
            "EGRESS_HTTP_PROXY_TLS_KEY: has no effect; set EGRESS_HTTP_PROXY_TLS_LISTEN as well"
        );
    }
}
