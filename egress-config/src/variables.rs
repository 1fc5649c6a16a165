//! The one table of variables: what `--help`, the README, the defaults and the
//! check for unknown names are made from.

/// A program of the project.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Program {
    /// `egress-router-init`.
    RouterInit,
    /// `egress-http-proxy`.
    HttpProxy,
    /// `egress-dns-proxy`.
    DnsProxy,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 3] = [Self::RouterInit, Self::HttpProxy, Self::DnsProxy];

    /// The name of the program's binary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RouterInit => "egress-router-init",
            Self::HttpProxy => "egress-http-proxy",
            Self::DnsProxy => "egress-dns-proxy",
        }
    }

    /// What the names of the variables begin with that only this program
    /// reads.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::RouterInit => "EGRESS_ROUTER_",
            Self::HttpProxy => "EGRESS_HTTP_PROXY_",
            Self::DnsProxy => "EGRESS_DNS_PROXY_",
        }
    }
}

/// What holds when a variable is not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultValue {
    /// The program does not start.
    Required,
    /// The same as if the variable were set to this text.
    Value(&'static str),
    /// What cannot be written as a value.
    Described(&'static str),
}

/// Whether a variable holds one value or a multi-line list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VariableKind {
    /// One value.
    Value,
    /// A multi-line list, which has a twin `X_FILE`.
    List,
}

/// One variable of one or more programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VariableSpec {
    name: &'static str,
    kind: VariableKind,
    default: DefaultValue,
    meaning: &'static str,
    programs: &'static [Program],
}

impl VariableSpec {
    /// The name of the variable.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// One value or a list.
    #[must_use]
    pub const fn kind(&self) -> VariableKind {
        self.kind
    }

    /// What holds when it is not set.
    #[must_use]
    pub const fn default(&self) -> DefaultValue {
        self.default
    }

    /// What it means, as a sentence.
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        self.meaning
    }

    /// Whether `program` reads it.
    #[must_use]
    pub fn is_read_by(&self, program: Program) -> bool {
        self.programs.contains(&program)
    }

    /// Whether `name` is the variable or its twin.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        match (name.strip_prefix(self.name), self.kind) {
            (Some(""), _) | (Some("_FILE"), VariableKind::List) => true,
            (Some(_), _) | (None, _) => false,
        }
    }
}

/// Makes a constant of each variable, and [`TABLE`] of all of them, so that a
/// variable that is read cannot be missing from the table.
macro_rules! table {
    ($($constant:ident $kind:ident of $programs:ident, $name:literal, $default:expr, $meaning:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $meaning)]
            pub const $constant: &VariableSpec = &VariableSpec {
                name: $name,
                kind: VariableKind::$kind,
                default: $default,
                meaning: $meaning,
                programs: $programs,
            };
        )*

        /// Every variable, in the order in which a reader wants them.
        pub const TABLE: &[&VariableSpec] = &[$($constant),*];
    };
}

const ROUTER: &[Program] = &[Program::RouterInit];
const HTTP: &[Program] = &[Program::HttpProxy];
const DNS: &[Program] = &[Program::DnsProxy];
const PROXIES: &[Program] = &[Program::HttpProxy, Program::DnsProxy];
const ALL: &[Program] = &Program::ALL;

use DefaultValue::{Described, Required, Value};

table! {
    SOURCE Value of ALL, "EGRESS_SOURCE", Described("required by the router; a proxy binds to the addresses of the egress interface"),
        "Reserved address on the physical network, `IP[/LEN]`, at most one per family, separated by blanks or commas. Without a length: /32, /128. A proxy binds its outgoing connections to it, and makes none when it is gone.";
    GATEWAY Value of ROUTER, "EGRESS_GATEWAY", Required,
        "Next hop on the physical network, one for each family of `EGRESS_SOURCE`. It may lie outside the source's subnet.";
    DESTINATION List of ROUTER, "EGRESS_DESTINATION", Described("none, but required in the modes `init` and `legacy`"),
        "Redirect lines: `PORT PROTO IP [REMOTE_PORT]` with `tcp` or `udp`, and at the end at most one `IP` per family that takes every other port.";
    ROUTER_MODE Value of ROUTER, "EGRESS_ROUTER_MODE", Value("legacy"),
        "`init`: set up the redirects and exit. `legacy`: set them up and stay, with live reload, metrics and re-announcement. `http-proxy`, `dns-proxy`: set up the network only and exit.";
    INTERFACE Value of ALL, "EGRESS_INTERFACE", Described("`macvlan0`; for the router else the one unused interface of the pod, else one is created on `EGRESS_MACVLAN_PARENT`"),
        "Interface of the physical network.";
    MACVLAN_PARENT Value of ROUTER, "EGRESS_MACVLAN_PARENT", Described("the node interface whose subnet holds the gateway"),
        "Node interface to create the macvlan on when the pod has no egress interface. `off` never creates one.";
    POD_INTERFACE Value of ROUTER, "EGRESS_POD_INTERFACE", Described("the interface of the pod's default route"),
        "Interface of the pod network.";
    CLUSTER_CIDRS Value of ROUTER, "EGRESS_CLUSTER_CIDRS", Described("none"),
        "Networks that local processes of the pod reach through the pod network (service and pod CIDRs), separated by blanks or commas.";
    LOCAL_PORTS Value of ROUTER, "EGRESS_LOCAL_PORTS", Described("the port of `EGRESS_ADMIN_LISTEN` in the mode `legacy`, else none"),
        "TCP ports of the pod itself that are never redirected, separated by blanks or commas: admin endpoint and health checks.";
    FIREWALL Value of ROUTER, "EGRESS_FIREWALL", Value("nftables"),
        "`nftables` (netlink only) or `iptables` (through the iptables binary, for small lists).";
    ADDRESS_PROBE Value of ROUTER, "EGRESS_ADDRESS_PROBE", Value("400ms"),
        "How long to ask the network whether another host has the source address before it is claimed (RFC 5227). `off` does not ask.";
    ROUTER_DEBUG Value of ROUTER, "EGRESS_ROUTER_DEBUG", Described("not set"),
        "Old form of `EGRESS_LOG=debug`: any value. `EGRESS_LOG` decides when both are set.";
    HTTP_PROXY_DESTINATION List of HTTP, "EGRESS_HTTP_PROXY_DESTINATION", Required,
        "Rules, first match wins: `NAME`, `*.DOMAIN` (with all subdomains), globs such as `api-*.example.com`, `IP` or `CIDR`, each with an optional `:PORT` or `:PORT-PORT`; `!` in front denies; `*` as the last line allows the rest, which is denied otherwise. Or an `EgressNetworkPolicy` document in JSON or YAML.";
    HTTP_PROXY_LISTEN Value of HTTP, "EGRESS_HTTP_PROXY_LISTEN", Value(":8080"),
        "Address of the proxy: `:PORT`, `IPV4:PORT`, `[IPV6]:PORT`, or `off` when it is served over TLS only.";
    HTTP_PROXY_TLS_LISTEN Value of HTTP, "EGRESS_HTTP_PROXY_TLS_LISTEN", Value("off"),
        "Address of the proxy over TLS, with HTTP/1.1 and HTTP/2.";
    HTTP_PROXY_TLS_CERTIFICATE Value of HTTP, "EGRESS_HTTP_PROXY_TLS_CERTIFICATE", Described("none, but required with `EGRESS_HTTP_PROXY_TLS_LISTEN`"),
        "Path of the certificate chain (PEM). Read again when it changes.";
    HTTP_PROXY_TLS_KEY Value of HTTP, "EGRESS_HTTP_PROXY_TLS_KEY", Described("none, but required with `EGRESS_HTTP_PROXY_TLS_LISTEN`"),
        "Path of the private key (PEM). Read again when it changes.";
    HTTP_PROXY_TLS_CLIENT_CA Value of HTTP, "EGRESS_HTTP_PROXY_TLS_CLIENT_CA", Described("none: clients need no certificate"),
        "Path of the certificates (PEM) that must have signed a client's.";
    HTTP_PROXY_MODE Value of HTTP, "EGRESS_HTTP_PROXY_MODE", Value("enforce"),
        "`enforce` the rules, or `audit`: allow everything but what the guard refuses, and log and count what would have been denied.";
    HTTP_PROXY_GUARD Value of HTTP, "EGRESS_HTTP_PROXY_GUARD", Value("local"),
        "Addresses that are refused whatever name led there: `local` (loopback, link-local with cloud metadata, multicast, the pod's own), `private` (RFC 1918, CGNAT, ULA and every special-purpose range as well) or `off`. A rule that names the address or its network overrides it.";
    HTTP_PROXY_IP_LITERALS Value of HTTP, "EGRESS_HTTP_PROXY_IP_LITERALS", Value("allow"),
        "`deny` refuses requests that name an address instead of a host, so that no name rule can be dodged.";
    HTTP_PROXY_SNI Value of HTTP, "EGRESS_HTTP_PROXY_SNI", Value("off"),
        "`match`: in a tunnel to port 443 the server name of the TLS ClientHello must be the CONNECT host or one that the rules allow.";
    HTTP_PROXY_X_FORWARDED_FOR Value of HTTP, "EGRESS_HTTP_PROXY_X_FORWARDED_FOR", Value("off"),
        "`on` appends the client's address to `X-Forwarded-For`.";
    HTTP_PROXY_HEADER_BYTES Value of HTTP, "EGRESS_HTTP_PROXY_HEADER_BYTES", Value("65536"),
        "Longest request or response header, in bytes.";
    HTTP_PROXY_HEADER_TIME Value of HTTP, "EGRESS_HTTP_PROXY_HEADER_TIME", Value("10s"),
        "How long a client may take to send a header or to finish the TLS handshake.";
    HTTP_PROXY_IDLE_TIME Value of HTTP, "EGRESS_HTTP_PROXY_IDLE_TIME", Value("15m"),
        "How long a tunnel or a request may move no byte.";
    DNS_PROXY_DESTINATION List of DNS, "EGRESS_DNS_PROXY_DESTINATION", Required,
        "One listener a line: `PORT HOST [REMOTE_PORT]`, or `PORT/udp HOST [REMOTE_PORT]` for datagrams. HOST is a name or an address.";
    DNS_PROXY_IDLE_TIME Value of DNS, "EGRESS_DNS_PROXY_IDLE_TIME", Value("1h"),
        "How long a connection may move no byte.";
    DNS_PROXY_UDP_IDLE_TIME Value of DNS, "EGRESS_DNS_PROXY_UDP_IDLE_TIME", Value("1m"),
        "How long the session of a client's datagrams lives without one.";
    DNS_PROXY_UDP_SESSIONS Value of DNS, "EGRESS_DNS_PROXY_UDP_SESSIONS", Value("4096"),
        "Most sessions of datagrams at a time.";
    DNS_PROXY_HEALTH_CHECK Value of DNS, "EGRESS_DNS_PROXY_HEALTH_CHECK", Value("10s"),
        "How often an address that could not be reached is tried again in the background.";
    DNS_PROXY_DEBUG Value of DNS, "EGRESS_DNS_PROXY_DEBUG", Described("not set"),
        "Old form of `EGRESS_LOG=debug`: any value. `EGRESS_LOG` decides when both are set.";
    CONNECT_TIME Value of PROXIES, "EGRESS_CONNECT_TIME", Value("10s"),
        "How long connecting to an outside host may take, all its addresses together.";
    MAX_CONNECTIONS Value of PROXIES, "EGRESS_MAX_CONNECTIONS", Described("what the limit of open files allows"),
        "Most client connections at a time.";
    MAX_CONNECTIONS_PER_CLIENT Value of PROXIES, "EGRESS_MAX_CONNECTIONS_PER_CLIENT", Value("off"),
        "Most connections of one client address at a time, or `off`: behind a Service many pods may show one address.";
    ADMIN_LISTEN Value of ALL, "EGRESS_ADMIN_LISTEN", Value(":9090"),
        "Address of the admin endpoint (`/metrics`, `/healthz`, `/readyz`, `/config`) of a program that stays: `:PORT`, `IPV4:PORT`, `[IPV6]:PORT` or `off`.";
    DRAIN_SECONDS Value of ALL, "EGRESS_DRAIN_SECONDS", Value("25"),
        "How long a program that stays lets work in flight finish after SIGTERM: seconds, or a number with the unit `ms`, `s`, `m` or `h`.";
    LOG Value of ALL, "EGRESS_LOG", Value("info"),
        "Least severe messages that are logged: `debug`, `info`, `warn` or `error`.";
    LOG_FORMAT Value of ALL, "EGRESS_LOG_FORMAT", Value("auto"),
        "`text`, `json` (one object per line) or `auto`: text on a terminal, else JSON.";
    ACCESS_LOG Value of PROXIES, "EGRESS_ACCESS_LOG", Value("on"),
        "One line per request or tunnel: `on` or `off`.";
    THREADS Value of PROXIES, "EGRESS_THREADS", Described("the CPU quota of the cgroup, at least 1"),
        "Worker threads.";
    RELOAD_EXISTING Value of PROXIES, "EGRESS_RELOAD_EXISTING", Described("not set"),
        "`close` ends existing connections that newly loaded rules forbid, `keep` lets them run on as when it is not set.";
    KUBERNETES_SERVICE_HOST Value of ROUTER, "KUBERNETES_SERVICE_HOST", Described("set by Kubernetes"),
        "Address of the API server, which local processes of the pod reach through the pod network.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_well_formed() {
        let names: BTreeSet<&str> = TABLE.iter().map(|spec| spec.name()).collect();
        assert_eq!(names.len(), TABLE.len());
        for spec in TABLE {
            assert!(!spec.name().ends_with("_FILE"), "{}", spec.name());
            assert!(spec.meaning().ends_with('.'), "{}", spec.name());
            assert!(
                Program::ALL.iter().any(|&program| spec.is_read_by(program)),
                "{}",
                spec.name()
            );
        }
    }

    #[test]
    fn only_lists_have_a_twin() {
        assert!(DESTINATION.answers_to("EGRESS_DESTINATION"));
        assert!(DESTINATION.answers_to("EGRESS_DESTINATION_FILE"));
        assert!(!DESTINATION.answers_to("EGRESS_DESTINATIONS"));
        assert!(!SOURCE.answers_to("EGRESS_SOURCE_FILE"));
        assert_eq!(DESTINATION.kind(), VariableKind::List);
    }
}
