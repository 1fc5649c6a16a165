//! Whatever is found, whatever ran before, wherever it was killed: the end is
//! that of a fresh run, and `undo` leads back to where the first run started.

use proptest::prelude::*;
use proptest::sample::select;

use super::fixture::{Pod, config, net};
use super::kernel::Kernel;
use super::run::{Guard, View, roll_back, run, run_until, undo_until, unwatched};
use crate::config::Config;
use crate::plan::{egress_interface, pod_interface};
use crate::state::MacvlanMode;

/// How the pod network looks before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A prefix and a default route.
    Plain,
    /// A default route that is not the best there could be.
    Metric,
    /// A route to the cluster beside.
    Cluster,
    /// /32, link-local gateway.
    LinkLocal,
    /// An `onlink` gateway, without a route to it.
    OnLink,
    /// OpenShift's SDN.
    Sdn,
    /// Two ways out.
    TwoDefaults,
    /// No way out.
    NoDefault,
    /// A route to the LAN by the pod network.
    Lan,
    /// A pod network that is the LAN.
    Flat,
}

/// What of IPv6 the pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    /// Nothing, not even in the kernel.
    Off,
    /// What the kernel makes of itself.
    Idle,
    /// An address and a default route.
    Static,
    /// The same, with a better metric.
    StaticBetter,
    /// A default route from a router advertisement.
    Advertised,
}

/// The egress interface that is there before us.
#[derive(Debug, Clone, Copy)]
struct Found {
    name: &'static str,
    mode: MacvlanMode,
    up: bool,
    alias: bool,
    /// Address, set before us.
    address: Option<&'static str>,
    /// Routes that somebody set on it.
    routes: FoundRoutes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FoundRoutes {
    None,
    /// The LAN's prefix, by hand.
    Prefix,
    /// A default route.
    Default,
    /// The gateway alone.
    Gateway,
}

fn found() -> impl Strategy<Value = Found> {
    let routes = vec![
        FoundRoutes::None,
        FoundRoutes::None,
        FoundRoutes::Prefix,
        FoundRoutes::Default,
        FoundRoutes::Gateway,
    ];
    (
        select(&["macvlan0", "net1"]),
        select(&[MacvlanMode::Private, MacvlanMode::Bridge]),
        any::<bool>(),
        any::<bool>(),
        select(&[
            None,
            Some("192.168.12.99/24"),
            Some("192.168.12.99/32"),
            Some("2001:db8:12::99/64"),
        ]),
        select(routes),
    )
        .prop_map(|(name, mode, up, alias, address, routes)| Found {
            name,
            mode,
            up,
            alias,
            address,
            routes,
        })
}

#[derive(Debug, Clone)]
struct Start {
    style: Style,
    ipv6: Ipv6,
    found: Option<Found>,
    privileged: bool,
    forwarding: bool,
}

fn start() -> impl Strategy<Value = Start> {
    (
        select(&[
            Style::Plain,
            Style::Metric,
            Style::Cluster,
            Style::LinkLocal,
            Style::OnLink,
            Style::Sdn,
            Style::TwoDefaults,
            Style::NoDefault,
            Style::Lan,
            Style::Flat,
        ]),
        select(&[
            Ipv6::Off,
            Ipv6::Idle,
            Ipv6::Static,
            Ipv6::StaticBetter,
            Ipv6::Advertised,
        ]),
        proptest::option::of(found()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(style, ipv6, found, privileged, forwarding)| Start {
            style,
            ipv6,
            found,
            privileged,
            forwarding,
        })
}

impl Start {
    fn kernel(&self) -> Kernel {
        let mut pod = if self.ipv6 == Ipv6::Off {
            Pod::bare_ipv4()
        } else {
            Pod::bare()
        };
        pod.eth0();
        if self.privileged {
            pod.privileged();
        }
        if self.forwarding {
            pod.kernel.state.ipv4_default.forwarding = 1;
            pod.link("eth0").ipv4.forwarding = 1;
        }
        self.pod_network(&mut pod);
        match self.ipv6 {
            Ipv6::Off | Ipv6::Idle => {}
            Ipv6::Static => drop(pod.dual_stack()),
            Ipv6::StaticBetter => drop(pod.dual_stack().metric(512)),
            Ipv6::Advertised => drop(pod.dual_stack().protocol(9)),
        }
        if let Some(found) = self.found {
            found.add_to(&mut pod, self.ipv6 != Ipv6::Off);
        }
        pod.kernel
    }

    fn pod_network(&self, pod: &mut Pod) {
        match self.style {
            Style::Plain => {
                pod.address("eth0", "10.244.1.5/24")
                    .route("default", "10.244.1.1", "eth0")
            }
            Style::Metric => pod
                .address("eth0", "10.244.1.5/24")
                .route("default", "10.244.1.1", "eth0")
                .metric(100),
            Style::Cluster => pod
                .address("eth0", "10.244.1.5/24")
                .route("10.244.0.0/16", "10.244.1.1", "eth0")
                .route("default", "10.244.1.1", "eth0"),
            Style::LinkLocal => pod
                .address("eth0", "10.0.37.21/32")
                .route("169.254.1.1/32", "-", "eth0")
                .route("default", "169.254.1.1", "eth0"),
            Style::OnLink => {
                pod.address("eth0", "10.0.37.21/32")
                    .route("default", "10.0.0.1", "eth0");
                pod.kernel.state.routes.last_mut().unwrap().onlink = true;
                pod
            }
            Style::Sdn => pod
                .address("eth0", "10.128.0.5/23")
                .route("default", "10.128.0.1", "eth0")
                .route("10.128.0.0/14", "-", "eth0")
                .route("172.30.0.0/16", "10.128.0.1", "eth0"),
            Style::TwoDefaults => pod
                .address("eth0", "10.244.1.5/24")
                .route("default", "10.244.1.1", "eth0")
                .route("default", "10.244.1.2", "eth0")
                .metric(50),
            Style::NoDefault => pod.address("eth0", "10.244.1.5/24"),
            Style::Lan => pod
                .address("eth0", "10.244.1.5/24")
                .route("192.168.12.0/24", "10.244.1.1", "eth0")
                .route("default", "10.244.1.1", "eth0"),
            Style::Flat => {
                pod.address("eth0", "192.168.12.50/24")
                    .route("default", "192.168.12.1", "eth0")
            }
        };
    }
}

impl Found {
    fn add_to(self, pod: &mut Pod, has_ipv6: bool) {
        let name = self.name;
        pod.macvlan(name, self.mode);
        if self.alias {
            pod.link(name).alias = Some("somebody's own".to_owned());
        }
        if self.up {
            pod.up(name);
        }
        // An interface that is down keeps no IPv6 address.
        let is_kept = |address: &&str| !address.contains("::") || has_ipv6 && self.up;
        if let Some(address) = self.address.filter(is_kept) {
            pod.address(name, address);
        }
        if !self.up {
            return;
        }
        match self.routes {
            FoundRoutes::None => {}
            // One that is there already is not added.
            FoundRoutes::Prefix if has_route_to_lan(pod) => {}
            FoundRoutes::Prefix => drop(pod.route("192.168.12.0/24", "-", name)),
            FoundRoutes::Default => {
                pod.route("default", "192.168.12.254", name).metric(77);
                let is_on_lan = self.address == Some("192.168.12.99/24");
                pod.kernel.state.routes.last_mut().unwrap().onlink = !is_on_lan;
            }
            FoundRoutes::Gateway => drop(pod.route("192.168.12.1/32", "-", name)),
        }
    }
}

fn has_route_to_lan(pod: &Pod) -> bool {
    let lan = net("192.168.12.0/24");
    pod.kernel
        .state
        .routes
        .iter()
        .any(|route| route.destination == lan)
}

/// A configuration, as what differs from another.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    legs: Legs,
    redirects: bool,
    interface: Option<&'static str>,
    cluster: bool,
}

#[derive(Debug, Clone, Copy)]
enum Legs {
    Ipv4,
    /// Without a subnet: the gateway needs a route of its own.
    Ipv4Alone,
    Ipv4Another,
    /// In the network of the node's other interface.
    Ipv4OtherLan,
    Ipv6,
    Ipv6LinkLocalGateway,
    Dual,
    DualAnother,
}

impl Legs {
    const ALL: [Self; 8] = [
        Self::Ipv4,
        Self::Ipv4Alone,
        Self::Ipv4Another,
        Self::Ipv4OtherLan,
        Self::Ipv6,
        Self::Ipv6LinkLocalGateway,
        Self::Dual,
        Self::DualAnother,
    ];

    fn source_and_gateway(self) -> [&'static str; 2] {
        match self {
            Self::Ipv4 => ["192.168.12.99/24", "192.168.12.1"],
            Self::Ipv4Alone => ["192.168.12.99", "192.168.12.1"],
            Self::Ipv4Another => ["192.168.12.98/24", "192.168.12.254"],
            Self::Ipv4OtherLan => ["172.20.0.99/16", "172.20.0.1"],
            Self::Ipv6 => ["2001:db8:12::99/64", "2001:db8:12::1"],
            Self::Ipv6LinkLocalGateway => ["2001:db8:12::99/128", "fe80::1"],
            Self::Dual => [
                "192.168.12.99/24 2001:db8:12::99/64",
                "192.168.12.1 2001:db8:12::1",
            ],
            Self::DualAnother => [
                "192.168.12.98/28 2001:db8:12::98/128",
                "192.168.12.1 2001:db8:12::2",
            ],
        }
    }

    fn targets(self) -> &'static str {
        match self {
            Self::Ipv4 | Self::Ipv4Alone | Self::Ipv4Another | Self::Ipv4OtherLan => {
                "80 tcp 203.0.113.25"
            }
            Self::Ipv6 | Self::Ipv6LinkLocalGateway => "80 tcp 2001:db8:113::25",
            Self::Dual => "80 tcp 203.0.113.25\n80 tcp 2001:db8:113::25",
            Self::DualAnother => "2001:db8:113::27",
        }
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (
        select(&Legs::ALL),
        any::<bool>(),
        select(&[None, None, Some("macvlan0"), Some("net1"), Some("net9")]),
        any::<bool>(),
    )
        .prop_map(|(legs, redirects, interface, cluster)| Wanted {
            legs,
            redirects,
            interface,
            cluster,
        })
}

impl Wanted {
    fn config(self) -> Config {
        let [source, gateway] = self.legs.source_and_gateway();
        let mut variables = vec![("EGRESS_SOURCE", source), ("EGRESS_GATEWAY", gateway)];
        if self.redirects {
            variables.push(("EGRESS_ROUTER_MODE", "init"));
            variables.push(("EGRESS_DESTINATION", self.legs.targets()));
        } else {
            variables.push(("EGRESS_ROUTER_MODE", "dns-proxy"));
        }
        variables.extend(self.interface.map(|name| ("EGRESS_INTERFACE", name)));
        if self.cluster {
            variables.push(("EGRESS_CLUSTER_CIDRS", "10.96.0.0/12 fd00:10:96::/108"));
        }
        config(&variables)
    }
}

/// A run, and after how many steps it was killed.
type Attempt = (Wanted, Option<usize>);

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    proptest::collection::vec((wanted(), proptest::option::of(0..40usize)), 0..4)
}

/// A run that is not told its interfaces stays with those that an earlier run
/// found or made, whatever else it could have found.
fn finds_the_same(start: &Start, earlier: &[Attempt], last: Wanted) -> bool {
    let kernel = start.kernel();
    let finds = |wanted: Wanted| {
        let config = wanted.config();
        let pod = pod_interface(&config, &kernel.state).ok()?;
        let egress = egress_interface(&config, &kernel.state, &pod).ok()?;
        Some((pod, egress.name().to_owned()))
    };
    let takes_eth0 = |wanted: Wanted| finds(wanted).is_none_or(|(pod, _)| pod == "eth0");
    takes_eth0(last)
        && earlier.iter().all(|(wanted, _)| {
            let is_told = last.interface.is_some();
            takes_eth0(*wanted) && (is_told || finds(*wanted) == finds(last))
        })
}

/// Routes that somebody set on an interface without an address go with our
/// last address there; when a run that exchanges addresses is killed in that
/// very moment, nothing remembers them.
fn is_forgotten(start: &Start) -> bool {
    start.found.is_some_and(|found| {
        found.routes != FoundRoutes::None
            && found.address.is_none_or(|address| address.contains("::"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_as_a_fresh_one(
        start in start(),
        earlier in attempts(),
        last in wanted(),
    ) {
        prop_assume!(finds_the_same(&start, &earlier, last));
        let is_killed = earlier.iter().any(|(_, steps)| steps.is_some());
        prop_assume!(!is_killed || !is_forgotten(&start));
        let mut fresh = start.kernel();
        let mut kernel = fresh.clone();
        let mut guard = Guard::default();
        for (wanted, steps) in &earlier {
            // A configuration that does not fit changes nothing.
            let watch = &mut |kernel: &Kernel, step: &_| guard.running(kernel, step);
            let _ = run_until(&mut kernel, &wanted.config(), *steps, watch);
        }
        let config = last.config();
        let watch = &mut |kernel: &Kernel, step: &_| guard.running(kernel, step);
        let again = run(&mut kernel, &config, watch);
        let first = run(&mut fresh, &config, &mut unwatched);
        prop_assert_eq!(first.is_ok(), again.is_ok(), "{:?} and {:?}", first, again);
        if again.is_ok() {
            let expected = View::without_notes(&fresh.state);
            let difference = View::without_notes(&kernel.state).difference(&expected);
            prop_assert!(difference.is_empty(), "another end:\n{}", difference);
            prop_assert_eq!(&kernel.guarded, &fresh.guarded);
        }
        undo_until(&mut kernel, None, &mut |kernel, step| guard.guarded(kernel, step));
        let difference = View::of(&kernel.state).difference(&View::of(&start.kernel().state));
        prop_assert!(difference.is_empty(), "not as before:\n{}", difference);
    }

    #[test]
    fn undo_may_be_killed_too(
        start in start(),
        wanted in wanted(),
        steps in 0..40usize,
    ) {
        prop_assume!(!is_forgotten(&start));
        let before = start.kernel();
        let mut kernel = before.clone();
        if run(&mut kernel, &wanted.config(), &mut unwatched).is_err() {
            return Ok(());
        }
        undo_until(&mut kernel, Some(steps), &mut unwatched);
        undo_until(&mut kernel, None, &mut unwatched);
        let difference = View::of(&kernel.state).difference(&View::of(&before.state));
        prop_assert!(difference.is_empty(), "not as before:\n{}", difference);
    }

    #[test]
    fn a_failed_run_leaves_what_it_found(
        start in start(),
        earlier in proptest::option::of(wanted()),
        wanted in wanted(),
        steps in 0..60usize,
    ) {
        let mut kernel = start.kernel();
        if let Some(earlier) = earlier {
            let _ = run(&mut kernel, &earlier.config(), &mut unwatched);
        }
        let before = kernel.clone();
        let _ = run_until(&mut kernel, &wanted.config(), Some(steps), &mut unwatched);
        roll_back(&mut kernel, &before.state);
        let difference = View::of(&kernel.state).difference(&View::of(&before.state));
        prop_assert!(difference.is_empty(), "not as before:\n{}", difference);
    }

    #[test]
    fn a_settled_network_needs_nothing(start in start(), wanted in wanted()) {
        let mut kernel = start.kernel();
        let config = wanted.config();
        if run(&mut kernel, &config, &mut unwatched).is_ok() {
            let settled = View::of(&kernel.state);
            prop_assert_eq!(run(&mut kernel, &config, &mut unwatched).unwrap(), 1);
            let difference = View::of(&kernel.state).difference(&settled);
        prop_assert!(difference.is_empty(), "not as before:\n{}", difference);
        }
    }
}
