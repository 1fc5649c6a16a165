//! What a container's program makes of what it is given.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress_config::{Diagnostics, MapEnvironment, Program, Protocol, Warning};
use egress_house_rules::manifest::Container;
use egress_router_init::config::Mode;

use crate::unit::Pod;

/// What a container's program is to do, by its own parser.
#[derive(Debug, PartialEq)]
pub(crate) enum Given {
    /// No program of ours.
    Stranger,
    /// `egress-router-init wait`.
    Wait,
    /// `egress-router-init`.
    Router(Router),
    /// A proxy.
    Proxy(Proxy),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Router {
    pub(crate) mode: Mode,
    pub(crate) sources: Vec<IpAddr>,
    /// Ports that are redirected.
    pub(crate) ports: BTreeSet<(Protocol, u16)>,
    pub(crate) lines: usize,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Proxy {
    pub(crate) program: Program,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) interface: Option<String>,
    /// Ports that are served, but for the admin endpoint.
    pub(crate) ports: BTreeSet<(Protocol, u16)>,
    pub(crate) lines: usize,
    pub(crate) follows_a_file: bool,
    pub(crate) admin_port: u16,
    pub(crate) drain_seconds: u64,
}

/// Gives the container's program what it would find in the pod.
pub(crate) fn given(pod: &Pod<'_>, container: &Container<'_>) -> Given {
    let image = container.at("/image").and_then(|image| image.as_str());
    let image = image.unwrap().split(':').next().unwrap();
    let Some(program) = Program::ALL
        .into_iter()
        .find(|program| program.name() == image)
    else {
        return Given::Stranger;
    };
    if container.strings("/args") == ["wait"] {
        assert_eq!(program, Program::RouterInit, "{}", pod.place());
        assert_eq!(container.at("/env"), None, "wait reads no variable");
        return Given::Wait;
    }
    assert_eq!(container.at("/args"), None, "{}", pod.place());
    let found = container.surroundings(&pod.unit.objects).unwrap();
    let environment = found
        .variables
        .iter()
        .fold(MapEnvironment::new(), |environment, (name, value)| {
            environment.with(name, value)
        });
    let environment = found
        .files
        .into_iter()
        .fold(environment, |environment, (path, content)| {
            environment.with_file(path, content)
        });
    match program {
        Program::RouterInit => router(pod, &environment),
        Program::HttpProxy => http(pod, &environment),
        Program::DnsProxy => dns(pod, &environment),
    }
}

fn accepted<T>(pod: &Pod<'_>, read: Result<(T, Vec<Warning>), Diagnostics>) -> T {
    let place = pod.place();
    let (config, warnings) = read.unwrap_or_else(|diagnostics| panic!("{place}: {diagnostics}"));
    assert!(warnings.is_empty(), "{place}: {warnings:?}");
    config
}

fn router(pod: &Pod<'_>, environment: &MapEnvironment) -> Given {
    let read = egress_router_init::config::Config::from_environment(environment);
    let config = accepted(pod, read);
    let redirects = config.redirects();
    Given::Router(Router {
        mode: config.mode(),
        sources: config
            .legs()
            .iter()
            .map(|leg| leg.source().addr())
            .collect(),
        ports: redirects
            .mappings()
            .iter()
            .map(|mapping| (mapping.protocol(), mapping.port().get()))
            .collect(),
        lines: redirects.mappings().len() + redirects.fallbacks().len(),
    })
}

fn http(pod: &Pod<'_>, environment: &MapEnvironment) -> Given {
    let config = accepted(pod, egress_http_proxy::config::Config::read(environment));
    let port = config.listen().unwrap().port();
    let lines = config.rules().len();
    let is_file = config.rules_file().is_some();
    proxy(
        Program::HttpProxy,
        config.proxy(),
        [(Protocol::Tcp, port)].into(),
        lines,
        is_file,
    )
}

fn dns(pod: &Pod<'_>, environment: &MapEnvironment) -> Given {
    let read = egress_dns_proxy::config::Config::from_environment(environment);
    let config = accepted(pod, read);
    let ports = config
        .mappings()
        .iter()
        .map(|mapping| (mapping.protocol(), mapping.port().get()))
        .collect();
    let lines = config.mappings().len();
    let is_file = config.destination_file().is_some();
    proxy(Program::DnsProxy, config.proxy(), ports, lines, is_file)
}

fn proxy(
    program: Program,
    settings: &egress_config::ProxySettings,
    ports: BTreeSet<(Protocol, u16)>,
    lines: usize,
    follows_a_file: bool,
) -> Given {
    Given::Proxy(Proxy {
        program,
        sources: settings.sources().to_vec(),
        interface: settings.interface().map(ToString::to_string),
        ports,
        lines,
        follows_a_file,
        admin_port: settings.admin_listen().unwrap().port(),
        drain_seconds: settings.drain().as_secs(),
    })
}
