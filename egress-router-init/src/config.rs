//! What the user wants, as types.

mod firewall;
mod interface;
mod leg;
mod local_ports;
mod mode;

pub use firewall::{FirewallDriver, FirewallDriverError};
pub use interface::MacvlanParent;
pub use leg::Leg;
pub use mode::{Mode, ModeError};

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use egress_config::{
    AddressFamily, Diagnostic, Diagnostics, DurationError, Environment, InterfaceName, LogFormat,
    LogLevel, NetworkError, Port, Program, Reader, Warning, format_duration, parse_address,
    parse_duration, parse_listen, parse_network, serialize_duration, variables,
};
use ipnet::IpNet;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::redirect::Redirects;

/// The longest address probe; a router that asks for longer looks dead.
const MAX_PROBE: Duration = Duration::from_secs(60);

/// The whole configuration of the router, checked as far as that is possible
/// without looking at the pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Config {
    mode: Mode,
    legs: Vec<Leg>,
    interface: Option<InterfaceName>,
    macvlan_parent: MacvlanParent,
    pod_interface: Option<InterfaceName>,
    cluster_cidrs: Vec<IpNet>,
    kubernetes_service_host: Option<IpAddr>,
    local_ports: Vec<Port>,
    firewall: FirewallDriver,
    #[serde(serialize_with = "optional_duration")]
    address_probe: Option<Duration>,
    admin_listen: Option<SocketAddr>,
    #[serde(serialize_with = "serialize_duration")]
    drain: Duration,
    log_level: LogLevel,
    log_format: LogFormat,
    destination_file: Option<PathBuf>,
    redirects: Redirects,
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
        let mut reader = Reader::new(environment, Program::RouterInit);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    /// Reads in the order in which the image we replace looked at the
    /// variables, so that the first bad entry is where it would have stopped.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mode = read_mode(reader);
        let legs = leg::read(reader);
        let destination = read_destination(reader, mode, legs.as_deref());
        let interfaces = interface::read(reader);
        let cluster_cidrs = reader.words(variables::CLUSTER_CIDRS, parse_cluster_cidr);
        let admin_listen = reader.value(variables::ADMIN_LISTEN, parse_listen);
        let admin_listen = if mode.is_some_and(Mode::stays) {
            admin_listen
        } else {
            Some(None)
        };
        let admin_port = admin_listen
            .flatten()
            .and_then(|address| Port::new(address.port()));
        let local_ports = local_ports::read(reader, admin_port, &destination.redirects);
        let firewall = reader.value(variables::FIREWALL, str::parse);
        let address_probe = reader.value(variables::ADDRESS_PROBE, parse_probe);
        let drain = reader.value(variables::DRAIN_SECONDS, parse_duration);
        let log_level = LogLevel::read(reader, Some(variables::ROUTER_DEBUG));
        let log_format = reader.value(variables::LOG_FORMAT, str::parse);
        let kubernetes_service_host = read_kubernetes_service_host(reader);
        Some(Self {
            mode: mode?,
            legs: legs?,
            interface: interfaces.egress,
            macvlan_parent: interfaces.macvlan_parent,
            pod_interface: interfaces.pod,
            cluster_cidrs,
            kubernetes_service_host,
            local_ports,
            firewall: firewall?,
            address_probe: address_probe?,
            admin_listen: admin_listen?,
            drain: drain?,
            log_level: log_level?,
            log_format: log_format?,
            destination_file: destination.file,
            redirects: destination.redirects,
        })
    }

    /// What to do after the pod is set up.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Source and gateway, IPv4 first, each family at most once; never empty.
    #[must_use]
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// Source and gateway of one family.
    #[must_use]
    pub fn leg(&self, family: AddressFamily) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.family() == family)
    }

    /// Where the ports of the pod lead. Empty in the proxy modes.
    #[must_use]
    pub fn redirects(&self) -> &Redirects {
        &self.redirects
    }

    /// The file the redirects came from, to be watched for changes.
    #[must_use]
    pub fn destination_file(&self) -> Option<&Path> {
        self.destination_file.as_deref()
    }

    /// The egress interface, `None` to find one.
    #[must_use]
    pub fn interface(&self) -> Option<&InterfaceName> {
        self.interface.as_ref()
    }

    /// Where to create the egress interface when the pod has none.
    #[must_use]
    pub fn macvlan_parent(&self) -> &MacvlanParent {
        &self.macvlan_parent
    }

    /// The interface of the pod network, `None` to find it.
    #[must_use]
    pub fn pod_interface(&self) -> Option<&InterfaceName> {
        self.pod_interface.as_ref()
    }

    /// Networks that local processes reach through the pod network.
    #[must_use]
    pub fn cluster_cidrs(&self) -> &[IpNet] {
        &self.cluster_cidrs
    }

    /// The API server's Service address, reached through the pod network.
    #[must_use]
    pub fn kubernetes_service_host(&self) -> Option<IpAddr> {
        self.kubernetes_service_host
    }

    /// TCP ports of the pod itself that are never redirected, sorted.
    #[must_use]
    pub fn local_ports(&self) -> &[Port] {
        &self.local_ports
    }

    /// What applies the packet rules.
    #[must_use]
    pub fn firewall(&self) -> FirewallDriver {
        self.firewall
    }

    /// How long to ask whether the source address is taken, `None` not to.
    #[must_use]
    pub fn address_probe(&self) -> Option<Duration> {
        self.address_probe
    }

    /// Where to serve the admin endpoint; `None` when it is off or the
    /// program does not stay.
    #[must_use]
    pub fn admin_listen(&self) -> Option<SocketAddr> {
        self.admin_listen
    }

    /// How long the program that stays lets open connections end after
    /// SIGTERM.
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
}

fn read_mode(reader: &mut Reader<'_>) -> Option<Mode> {
    reader.legacy_value(variables::ROUTER_MODE, str::parse, |text| {
        format!("Unrecognized EGRESS_ROUTER_MODE '{text}'")
    })
}

#[derive(Default)]
struct Destination {
    redirects: Redirects,
    file: Option<PathBuf>,
}

/// Reads `EGRESS_DESTINATION` where `mode` uses it. Targets are judged only
/// when the legs are known, so that a bad `EGRESS_SOURCE` is reported once.
fn read_destination(
    reader: &mut Reader<'_>,
    mode: Option<Mode>,
    legs: Option<&[Leg]>,
) -> Destination {
    let unused = Destination::default();
    if mode.is_some_and(|mode| !mode.redirects()) {
        return unused;
    }
    let Ok(list) = reader.list(variables::DESTINATION) else {
        return unused;
    };
    let Some(list) = list else {
        // A mode that is not known may not need it.
        if mode.is_some() {
            reader.error(
                Diagnostic::new(
                    variables::DESTINATION.name(),
                    "is not set; write redirect lines, or name their file in EGRESS_DESTINATION_FILE",
                )
                .legacy("EGRESS_DESTINATION unspecified"),
            );
        }
        return unused;
    };
    if list.lines().next().is_none() {
        reader.warn(Warning::new(
            list.variable().to_owned(),
            "has only comments, so every port is answered as closed; add a redirect line",
        ));
    }
    let judge = |target| legs.map_or(Ok(()), |legs| leg::judge_target(legs, target));
    Destination {
        redirects: Redirects::parse(&list, judge, reader.diagnostics()),
        file: list.path().map(Path::to_owned),
    }
}

fn parse_cluster_cidr(text: &str) -> Result<IpNet, ClusterCidrError> {
    let network = parse_network(text)?;
    if network.prefix_len() == 0 {
        Err(ClusterCidrError::Everything)
    } else {
        Ok(network)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
enum ClusterCidrError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(
        "would send everything to the pod network and nothing through the router; write the service and pod networks"
    )]
    Everything,
}

fn parse_probe(text: &str) -> Result<Option<Duration>, ProbeError> {
    if text == "off" {
        return Ok(None);
    }
    let probe = parse_duration(text)?;
    if probe.is_zero() || probe > MAX_PROBE {
        Err(ProbeError::OutOfRange)
    } else {
        Ok(Some(probe))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
enum ProbeError {
    #[error(transparent)]
    Duration(#[from] DurationError),
    #[error(
        "an address probe takes from 1ms to {}; write such a duration, or off",
        format_duration(MAX_PROBE)
    )]
    OutOfRange,
}

/// Some distributions put a name there, which says nothing about routes.
fn read_kubernetes_service_host(reader: &mut Reader<'_>) -> Option<IpAddr> {
    let variable = variables::KUBERNETES_SERVICE_HOST;
    let text = reader.text(variable)?;
    let address = parse_address(&text);
    if address.is_err() {
        reader.warn(
            Warning::new(
                variable.name(),
                "is not an IP address; if a process of this pod uses the API server, add its network to EGRESS_CLUSTER_CIDRS",
            )
            .text(&text),
        );
    }
    address.ok()
}

#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
fn optional_duration<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(format_duration).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_config::{AddressFamily, MapEnvironment};

    fn minimal() -> MapEnvironment {
        MapEnvironment::new()
            .with("EGRESS_SOURCE", "192.168.12.99/24")
            .with("EGRESS_GATEWAY", "192.168.12.1")
            .with("EGRESS_DESTINATION", "80 tcp 203.0.113.25")
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

    /// The report of the minimal environment with one other value.
    fn refused_with(name: &str, value: &str) -> Vec<String> {
        refused(&minimal().with(name, value))
    }

    fn ports(config: &Config) -> Vec<u16> {
        config.local_ports().iter().map(|port| port.get()).collect()
    }

    #[test]
    fn defaults() {
        let (config, warnings) = read(&minimal());
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            serde_json::to_value(config).unwrap(),
            serde_json::json!({
                "mode": "legacy",
                "legs": [{"source": "192.168.12.99/24", "gateway": "192.168.12.1"}],
                "interface": null,
                "macvlan_parent": "auto",
                "pod_interface": null,
                "cluster_cidrs": [],
                "kubernetes_service_host": null,
                "local_ports": [9090],
                "firewall": "nftables",
                "address_probe": "400ms",
                "admin_listen": "[::]:9090",
                "drain": "25s",
                "log_level": "info",
                "log_format": "auto",
                "destination_file": null,
                "redirects": {
                    "mappings": [{
                        "line": 1, "protocol": "tcp", "port": 80,
                        "target": "203.0.113.25", "target_port": 80,
                    }],
                    "fallbacks": [],
                },
            })
        );
    }

    #[test]
    fn every_variable_set() {
        let environment = MapEnvironment::new()
            .with("EGRESS_SOURCE", "2001:db8:12::99/64, 192.168.12.99")
            .with("EGRESS_GATEWAY", "192.168.12.1 fe80::1")
            .with("EGRESS_DESTINATION_FILE", "/etc/egress/destination")
            .with_file("/etc/egress/destination", "2001:db8::1\n")
            .with("EGRESS_ROUTER_MODE", "init")
            .with("EGRESS_INTERFACE", "net1")
            .with("EGRESS_MACVLAN_PARENT", "ens3")
            .with("EGRESS_POD_INTERFACE", "eth0")
            .with(
                "EGRESS_CLUSTER_CIDRS",
                "10.96.0.0/12,10.244.0.0/16 fd00::/108",
            )
            .with("EGRESS_LOCAL_PORTS", "8081, 8080 8081")
            .with("EGRESS_FIREWALL", "iptables")
            .with("EGRESS_ADDRESS_PROBE", "off")
            .with("EGRESS_ADMIN_LISTEN", "127.0.0.1:9100")
            .with("EGRESS_DRAIN_SECONDS", "90")
            .with("EGRESS_LOG", "warn")
            .with("EGRESS_LOG_FORMAT", "json")
            .with("EGRESS_ROUTER_DEBUG", "1")
            .with("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        let (config, warnings) = read(&environment);
        assert_eq!(warnings, Vec::<String>::new());
        let families: Vec<_> = config.legs().iter().map(Leg::family).collect();
        assert_eq!(families, AddressFamily::ALL);
        assert_eq!(config.legs()[0].source().to_string(), "192.168.12.99/32");
        assert_eq!(config.legs()[1].gateway().to_string(), "fe80::1");
        assert_eq!(config.mode(), Mode::Init);
        assert_eq!(config.interface().unwrap().as_str(), "net1");
        assert_eq!(config.pod_interface().unwrap().as_str(), "eth0");
        assert_eq!(
            *config.macvlan_parent(),
            MacvlanParent::Named("ens3".parse().unwrap())
        );
        assert_eq!(config.cluster_cidrs().len(), 3);
        assert_eq!(ports(&config), [8080, 8081]);
        assert_eq!(config.firewall(), FirewallDriver::Iptables);
        assert_eq!(config.address_probe(), None);
        assert_eq!(config.drain(), Duration::from_secs(90));
        assert_eq!(config.admin_listen(), None);
        assert_eq!(config.log_level(), LogLevel::Warn);
        assert_eq!(config.log_format(), LogFormat::Json);
        assert_eq!(
            config.destination_file(),
            Some(Path::new("/etc/egress/destination"))
        );
        assert_eq!(config.redirects().fallbacks().len(), 1);
        assert_eq!(config.kubernetes_service_host(), "10.96.0.1".parse().ok());
    }

    #[test]
    fn the_old_debug_variable_means_debug_unless_the_new_one_is_set() {
        let old = minimal().with("EGRESS_ROUTER_DEBUG", "0");
        assert_eq!(read(&old).0.log_level(), LogLevel::Debug);
        let both = old.with("EGRESS_LOG", "error");
        assert_eq!(read(&both).0.log_level(), LogLevel::Error);
        let empty = minimal().with("EGRESS_ROUTER_DEBUG", "");
        assert_eq!(read(&empty).0.log_level(), LogLevel::Info);
    }

    #[test]
    fn sources_that_no_host_can_have() {
        for (source, reason) in [
            (
                "0.0.0.0",
                "is the unspecified address; write an address of the physical network",
            ),
            (
                "127.0.0.1/8",
                "is a loopback address; write an address of the physical network",
            ),
            (
                "224.0.0.1",
                "is a multicast address; write an address of the physical network",
            ),
            (
                "169.254.0.9/16",
                "is a link-local address; write an address of the physical network",
            ),
            (
                "255.255.255.255",
                "is the broadcast address; write an address of the physical network",
            ),
            (
                "192.168.12.0/24",
                "is the network address of 192.168.12.0/24; write the address of a host",
            ),
            (
                "192.168.12.255/24",
                "is the broadcast address of 192.168.12.0/24; write the address of a host",
            ),
            (
                "192.168.12.99/0",
                "the prefix length 0 makes every address a neighbour; write that of the subnet",
            ),
            (
                "192.168.12.99/33",
                "bad prefix length; write a decimal number from 0 to 32",
            ),
            (
                "2001:db8::/64",
                "is the subnet-router anycast address of 2001:db8::/64; write the address of a host",
            ),
            (
                "example",
                "is not an IP address; write one such as 192.0.2.7 or 2001:db8::7",
            ),
        ] {
            assert_eq!(
                refused_with("EGRESS_SOURCE", source),
                [
                    format!("EGRESS_SOURCE: '{source}': {reason}"),
                    "EGRESS_SOURCE unspecified or invalid".to_owned()
                ]
            );
        }
        assert_eq!(
            refused_with("EGRESS_SOURCE", "192.168.12.99/24 192.168.12.98/24"),
            [
                "EGRESS_SOURCE: '192.168.12.98/24': is a second IPv4 address; write one per family",
                "EGRESS_SOURCE unspecified or invalid"
            ]
        );
        assert_eq!(
            refused_with("EGRESS_SOURCE", ","),
            [
                "EGRESS_SOURCE: ',': is not set; write an address of the physical network",
                "EGRESS_SOURCE unspecified or invalid"
            ]
        );
    }

    #[test]
    fn the_ends_of_a_point_to_point_subnet_are_hosts() {
        for (source, gateway) in [
            ("192.0.2.0/31", "192.0.2.1"),
            ("192.0.2.1/31", "192.0.2.0"),
            ("192.0.2.7/32", "198.51.100.1"),
            ("2001:db8::/127", "2001:db8::1"),
            // The subnet's routers answer at its anycast address.
            ("2001:db8::9/64", "2001:db8::"),
        ] {
            let environment = minimal()
                .with("EGRESS_SOURCE", source)
                .with("EGRESS_GATEWAY", gateway)
                .with("EGRESS_ROUTER_MODE", "http-proxy");
            assert_eq!(read(&environment).0.legs().len(), 1, "{source}");
        }
    }

    #[test]
    fn each_source_has_a_gateway_and_each_gateway_a_source() {
        let sentence = "EGRESS_GATEWAY unspecified or invalid";
        for (gateway, reason) in [
            (
                "192.168.12.99",
                "the gateway 192.168.12.99 is EGRESS_SOURCE itself; write the address of the next hop",
            ),
            (
                "192.168.12.0",
                "the gateway 192.168.12.0 is the network address of 192.168.12.0/24; write the address of the next hop",
            ),
            (
                "192.168.12.255",
                "the gateway 192.168.12.255 is the broadcast address of 192.168.12.0/24; write the address of the next hop",
            ),
            (
                "192.168.12.1 fe80::1",
                "the gateway fe80::1 has no IPv6 EGRESS_SOURCE; add one, or remove the gateway",
            ),
        ] {
            assert_eq!(
                refused_with("EGRESS_GATEWAY", gateway),
                [format!("EGRESS_GATEWAY: {reason}"), sentence.to_owned()]
            );
        }
        assert_eq!(
            refused_with("EGRESS_SOURCE", "192.168.12.99/24 2001:db8::9"),
            [
                "EGRESS_GATEWAY: the source 2001:db8::9 has no IPv6 gateway; add one",
                sentence
            ]
        );
        assert_eq!(
            refused_with("EGRESS_GATEWAY", "192.168.12.1/24"),
            [
                "EGRESS_GATEWAY: '192.168.12.1/24': has a prefix length; write the address alone",
                sentence
            ]
        );
        assert_eq!(
            refused_with("EGRESS_GATEWAY", "127.0.0.1"),
            [
                "EGRESS_GATEWAY: '127.0.0.1': is a loopback address; write an address of the physical network",
                sentence
            ]
        );
    }

    #[test]
    fn targets_that_the_router_cannot_reach() {
        for (line, reason) in [
            (
                "80 tcp 2001:db8::1",
                "the target is IPv6, but there is no IPv6 EGRESS_SOURCE; add one with its EGRESS_GATEWAY, or remove the line",
            ),
            (
                "80 tcp 192.168.12.99",
                "192.168.12.99 is EGRESS_SOURCE, the router itself; write the address of a server",
            ),
            (
                "192.168.12.255",
                "192.168.12.255 is the broadcast address of 192.168.12.0/24; write the address of a server",
            ),
            (
                "192.168.12.0",
                "192.168.12.0 is the network address of 192.168.12.0/24; write the address of a server",
            ),
        ] {
            assert_eq!(
                refused_with("EGRESS_DESTINATION", line),
                [
                    format!("EGRESS_DESTINATION line 1: '{line}': {reason}"),
                    format!("EGRESS_DESTINATION value '{line}' is invalid")
                ]
            );
        }
        let (config, _) = read(&minimal().with("EGRESS_DESTINATION", "192.168.12.1"));
        assert_eq!(
            config.redirects().fallbacks().len(),
            1,
            "the gateway is a host"
        );
    }

    #[test]
    fn a_bad_source_is_reported_once() {
        let environment = minimal().with("EGRESS_SOURCE", "here").with(
            "EGRESS_DESTINATION",
            "80 tcp 203.0.113.1\n0 tcp 203.0.113.1\n2001:db8::1",
        );
        assert_eq!(
            refused(&environment),
            [
                "EGRESS_SOURCE: 'here': is not an IP address; write one such as 192.0.2.7 or 2001:db8::7",
                "EGRESS_DESTINATION line 2: '0 tcp 203.0.113.1': '0': port is out of range; write 1 to 65535",
                "EGRESS_SOURCE unspecified or invalid"
            ]
        );
    }

    #[test]
    fn an_unknown_mode_is_not_asked_for_more() {
        assert_eq!(
            refused(
                &minimal()
                    .with("EGRESS_ROUTER_MODE", "proxy")
                    .without("EGRESS_DESTINATION")
            ),
            [
                "EGRESS_ROUTER_MODE: 'proxy': unknown mode; write init, legacy, http-proxy or dns-proxy",
                "Unrecognized EGRESS_ROUTER_MODE 'proxy'"
            ]
        );
    }

    #[test]
    fn the_proxy_modes_use_no_destination() {
        for mode in ["http-proxy", "dns-proxy"] {
            let environment = minimal()
                .with("EGRESS_ROUTER_MODE", mode)
                .with("EGRESS_DESTINATION", "garbage")
                .with("EGRESS_DESTINATION_FILE", "/nowhere");
            let (config, warnings) = read(&environment);
            assert!(config.redirects().is_empty());
            assert_eq!(config.destination_file(), None);
            assert_eq!(ports(&config), Vec::<u16>::new());
            assert_eq!(warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn a_list_of_comments_is_usable_but_odd() {
        let (config, warnings) = read(&minimal().with("EGRESS_DESTINATION", "# none yet"));
        assert!(config.redirects().is_empty());
        assert_eq!(
            warnings,
            [
                "EGRESS_DESTINATION: has only comments, so every port is answered as closed; add a redirect line"
            ]
        );
    }

    #[test]
    fn a_redirect_of_the_default_local_port_wins_with_a_warning() {
        let text = "#\n9090 tcp 203.0.113.25\n9090 udp 203.0.113.25";
        let (config, warnings) = read(&minimal().with("EGRESS_DESTINATION", text));
        assert_eq!(ports(&config), Vec::<u16>::new());
        assert_eq!(
            warnings,
            [
                "EGRESS_DESTINATION line 2: port 9090/tcp is redirected, so the admin endpoint cannot be reached there; set EGRESS_ADMIN_LISTEN to another port, or to off"
            ]
        );
        let other = [
            ("EGRESS_ADMIN_LISTEN", ":9100", vec![9100]),
            ("EGRESS_ADMIN_LISTEN", "off", vec![]),
            ("EGRESS_ROUTER_MODE", "init", vec![]),
        ];
        for (name, value, local) in other {
            let (config, warnings) =
                read(&minimal().with("EGRESS_DESTINATION", text).with(name, value));
            assert_eq!(ports(&config), local);
            assert_eq!(warnings, Vec::<String>::new());
        }
        let udp_only = minimal().with("EGRESS_DESTINATION", "9090 udp 203.0.113.25");
        assert_eq!(ports(&read(&udp_only).0), [9090]);
    }

    #[test]
    fn a_redirect_of_an_explicit_local_port_is_an_error() {
        let environment = minimal()
            .with(
                "EGRESS_DESTINATION",
                "8080 udp 203.0.113.25\n9090 tcp 203.0.113.25",
            )
            .with("EGRESS_LOCAL_PORTS", "8080 9090");
        assert_eq!(
            refused(&environment),
            [
                "EGRESS_LOCAL_PORTS: '9090': EGRESS_DESTINATION line 2 redirects that port; remove it there or here"
            ]
        );
    }

    #[test]
    fn an_explicit_list_without_the_admin_port_is_warned_of() {
        let (config, warnings) = read(&minimal().with("EGRESS_LOCAL_PORTS", "8080"));
        assert_eq!(ports(&config), [8080]);
        assert_eq!(
            warnings,
            [
                "EGRESS_LOCAL_PORTS: the port 9090 of EGRESS_ADMIN_LISTEN is not among them, so health checks may not reach it; add it"
            ]
        );
    }

    #[test]
    fn interfaces() {
        for (name, value, reason) in [
            (
                "EGRESS_INTERFACE",
                "lo",
                "the loopback interface leads nowhere; write the name of another one",
            ),
            (
                "EGRESS_POD_INTERFACE",
                "eth0:1",
                "an interface name cannot have the character ':'",
            ),
            (
                "EGRESS_MACVLAN_PARENT",
                "a-very-long-name",
                "an interface name has at most 15 bytes",
            ),
        ] {
            assert_eq!(
                refused_with(name, value),
                [format!("{name}: '{value}': {reason}")]
            );
        }
        assert_eq!(
            refused(
                &minimal()
                    .with("EGRESS_INTERFACE", "eth0")
                    .with("EGRESS_POD_INTERFACE", "eth0")
            ),
            [
                "EGRESS_INTERFACE: 'eth0': is EGRESS_POD_INTERFACE as well; the pod network and the physical network need one interface each"
            ]
        );
        let (config, _) = read(&minimal().with("EGRESS_MACVLAN_PARENT", "off"));
        assert_eq!(*config.macvlan_parent(), MacvlanParent::Off);
        assert_eq!(
            serde_json::to_value(MacvlanParent::Named("ens3".parse().unwrap())).unwrap(),
            serde_json::json!({"named": "ens3"})
        );
    }

    #[test]
    fn the_other_variables_refuse_what_they_do_not_know() {
        let probe = "an address probe takes from 1ms to 1m; write such a duration, or off";
        for (name, value, reason) in [
            (
                "EGRESS_CLUSTER_CIDRS",
                "10.96.0.1/12",
                "has bits set behind its prefix; write 10.96.0.0/12",
            ),
            (
                "EGRESS_CLUSTER_CIDRS",
                "0.0.0.0/0",
                "would send everything to the pod network and nothing through the router; write the service and pod networks",
            ),
            (
                "EGRESS_FIREWALL",
                "ipfw",
                "unknown firewall; write nftables or iptables",
            ),
            ("EGRESS_ADDRESS_PROBE", "0ms", probe),
            ("EGRESS_ADDRESS_PROBE", "61s", probe),
            (
                "EGRESS_LOG",
                "trace",
                "unknown log level; write debug, info, warn or error",
            ),
            (
                "EGRESS_LOG_FORMAT",
                "xml",
                "unknown log format; write auto, text or json",
            ),
            (
                "EGRESS_ADMIN_LISTEN",
                "9090",
                "is not a listen address; write :PORT, IPV4:PORT, [IPV6]:PORT or off",
            ),
        ] {
            assert_eq!(
                refused_with(name, value),
                [format!("{name}: '{value}': {reason}")]
            );
        }
    }

    #[test]
    fn a_name_as_service_host_is_only_warned_of() {
        let (config, warnings) = read(&minimal().with("KUBERNETES_SERVICE_HOST", "api.example"));
        assert_eq!(config.kubernetes_service_host(), None);
        assert_eq!(
            warnings,
            [
                "KUBERNETES_SERVICE_HOST: 'api.example': is not an IP address; if a process of this pod uses the API server, add its network to EGRESS_CLUSTER_CIDRS"
            ]
        );
    }
}
