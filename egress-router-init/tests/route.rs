//! Steps against the real kernel: what plans rely on, and what the simulated
//! kernel of their tests claims of it.
//!
//! Each test has a network namespace of its own; without root they belong to a
//! user namespace, which only a process without threads can enter: hence a
//! `main` of our own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support outside of #[test] functions: a failure ends the test"
)]

use std::fs;
use std::process::ExitCode;

use egress_config::AddressFamily;
use egress_router_init::netlink::route::{Changes, RouteSocket};
use egress_router_init::originals::{Originals, Setting};
use egress_router_init::plan::Step;
use egress_router_init::state::{
    MAIN_TABLE, POD_TABLE, Route, RouteKind, RoutingRule, RuleMatch, SHELF_TABLE, State,
    everything, scope,
};
use ipnet::IpNet;
use libtest_mimic::{Arguments, Trial};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use rtnetlink::LinkVeth;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    leave_the_machine();
    let trials = vec![
        trial("a_step_may_be_repeated", a_step_may_be_repeated()),
        trial(
            "a_rule_of_an_earlier_version_goes_alone",
            a_rule_of_an_earlier_version_goes_alone(),
        ),
        trial(
            "what_is_on_a_link_that_is_gone",
            what_is_on_a_link_that_is_gone(),
        ),
        trial(
            "a_route_stands_beside_the_kernels",
            a_route_stands_beside_the_kernels(),
        ),
        trial(
            "the_last_address_takes_the_routes",
            the_last_address_takes_the_routes(),
        ),
        trial(
            "an_ipv6_route_loses_its_source",
            an_ipv6_route_loses_its_source(),
        ),
        trial(
            "ours_takes_the_place_of_the_default",
            ours_takes_the_place_of_the_default(),
        ),
        trial("the_last_resort", the_last_resort()),
        trial(
            "a_link_down_keeps_ipv4_addresses",
            a_link_down_keeps_ipv4_addresses(),
        ),
        trial("a_note_is_kept_and_cleared", a_note_is_kept_and_cleared()),
        trial(
            "settings_are_changed_and_seen",
            settings_are_changed_and_seen(),
        ),
        trial("a_refusal_names_the_step", a_refusal_names_the_step()),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test, in a namespace of its own, on the runtime that the router has.
fn trial(name: &str, test: impl Future<Output = ()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test);
        Ok(())
    })
}

/// A pod with `eth0` in 10.244.1.0/24 and an empty `net1`, both up, each at the
/// other's end.
struct Pod {
    socket: RouteSocket,
}

impl Pod {
    async fn new() -> Self {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let connection = tokio::spawn(connection);
        let pair = LinkVeth::new("eth0", "net1").build();
        handle.link().add(pair).execute().await.unwrap();
        connection.abort();
        let pod = Self {
            socket: RouteSocket::open().unwrap(),
        };
        let mut changes = Changes::subscribe().unwrap();
        for name in ["lo", "eth0", "net1"] {
            pod.done(Step::LinkUp {
                link: name.to_owned(),
            })
            .await;
        }
        pod.done(add("eth0", "10.244.1.5/24")).await;
        pod.done(Step::AddRoute(via("0.0.0.0/0", "10.244.1.1", "eth0")))
            .await;
        // The kernel gives link-local addresses in its own time.
        while !pod.has_link_locals().await {
            changes.next().await;
        }
        pod
    }

    async fn has_link_locals(&self) -> bool {
        let state = self.state().await;
        let link_local = net("fe80::/64");
        ["eth0", "net1"].into_iter().all(|link| {
            let is_own = |route: &Route| route.destination == link_local && route.is_by(link);
            let mut addresses = state.addresses_of(link);
            addresses.any(|a| link_local.contains(&a.address)) && state.routes.iter().any(is_own)
        })
    }

    #[track_caller]
    fn done(&self, step: Step) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            if let Err(error) = self.socket.change(&step).await {
                panic!("{error} at {caller}");
            }
        }
    }

    async fn state(&self) -> State {
        self.socket.observe().await.unwrap()
    }

    /// Routes of a table by a link, of IPv4 or to where the text says.
    async fn routes(&self, table: u32, family: AddressFamily) -> Vec<String> {
        let state = self.state().await;
        let is_wanted = |route: &&Route| {
            let is_the_kernels_own = route.destination == net("fe80::/64");
            route.table == table && route.family() == family && !is_the_kernels_own
        };
        let mut routes: Vec<String> = state
            .routes
            .iter()
            .filter(is_wanted)
            .map(ToString::to_string)
            .collect();
        routes.sort();
        routes
    }

    async fn addresses(&self, link: &str) -> Vec<String> {
        let state = self.state().await;
        let own = state.addresses_of(link).filter(|address| address.global);
        own.map(|address| address.address.to_string()).collect()
    }
}

use AddressFamily::{Ipv4, Ipv6};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn add(link: &str, address: &str) -> Step {
    Step::AddAddress {
        link: link.to_owned(),
        address: net(address),
    }
}

fn delete(link: &str, address: &str) -> Step {
    Step::DeleteAddress {
        link: link.to_owned(),
        address: net(address),
    }
}

/// A route of others.
fn via(destination: &str, gateway: &str, link: &str) -> Route {
    Route {
        protocol: 3,
        gateway: Some(gateway.parse().unwrap()),
        ..Route::ours(net(destination), link)
    }
}

fn on_link(destination: &str, link: &str) -> Route {
    Route {
        protocol: 3,
        scope: scope::LINK,
        ..Route::ours(net(destination), link)
    }
}

async fn a_step_may_be_repeated() {
    let pod = Pod::new().await;
    let rule = |matches| RoutingRule {
        family: Ipv6,
        priority: 6900,
        matches,
        table: POD_TABLE,
    };
    let by_link = rule(RuleMatch::Iif("net1".to_owned()));
    let local = rule(RuleMatch::LocalTo(net("2001:db8:2::/48")));
    let v4 = Route {
        table: SHELF_TABLE,
        ..on_link("198.51.100.0/24", "net1")
    };
    let v6 = Route {
        metric: 1024,
        ..via("2001:db8:1::/48", "fe80::1", "net1")
    };
    let steps = [
        (add("net1", "192.0.2.9/24"), delete("net1", "192.0.2.9/24")),
        (
            add("net1", "2001:db8::9/64"),
            delete("net1", "2001:db8::9/64"),
        ),
        (Step::AddRoute(v4.clone()), Step::DeleteRoute(v4)),
        (Step::AddRoute(v6.clone()), Step::DeleteRoute(v6)),
        (Step::AddRule(by_link.clone()), Step::DeleteRule(by_link)),
        (Step::AddRule(local.clone()), Step::DeleteRule(local)),
    ];
    let before = pod.state().await;
    for (make, _) in &steps {
        pod.done(make.clone()).await;
        let once = pod.state().await;
        pod.done(make.clone()).await;
        let twice = pod.state().await;
        assert_eq!(once.routes.len(), twice.routes.len(), "{make}");
        assert_eq!(
            (once.addresses, once.rules),
            (twice.addresses, twice.rules),
            "{make}"
        );
    }
    for (_, unmake) in steps.iter().rev() {
        pod.done(unmake.clone()).await;
        pod.done(unmake.clone()).await;
    }
    let after = pod.state().await;
    assert_eq!(
        (before.addresses, before.rules),
        (after.addresses, after.rules)
    );
    assert_eq!(before.routes, after.routes);
}

/// A rule without an interface matches, when it is deleted, one that has one:
/// the kernel takes the first, which is the older.
async fn a_rule_of_an_earlier_version_goes_alone() {
    let pod = Pod::new().await;
    for (family, network) in [(Ipv4, "10.96.0.10/32"), (Ipv6, "fd00:10:96::a/128")] {
        let rule = |matches| RoutingRule {
            family,
            priority: 6902,
            matches,
            table: POD_TABLE,
        };
        let old = rule(RuleMatch::To(net(network)));
        let new = rule(RuleMatch::LocalTo(net(network)));
        pod.done(Step::AddRule(old.clone())).await;
        pod.done(Step::AddRule(new.clone())).await;
        pod.done(Step::DeleteRule(old)).await;
        assert_eq!(pod.state().await.rules, std::slice::from_ref(&new));
        pod.done(Step::DeleteRule(new)).await;
        assert_eq!(pod.state().await.rules, []);
    }
}

async fn what_is_on_a_link_that_is_gone() {
    let pod = Pod::new().await;
    let gone = || Step::DeleteLink {
        name: "net1".to_owned(),
    };
    pod.done(gone()).await;
    pod.done(gone()).await;
    pod.done(Step::DeleteRoute(on_link("198.51.100.0/24", "net1")))
        .await;
    pod.done(delete("net1", "192.0.2.9/24")).await;
}

async fn a_route_stands_beside_the_kernels() {
    let pod = Pod::new().await;
    let lan = "192.168.12.0/24 dev net1 scope link";
    pod.done(Step::AddRoute(on_link("192.168.12.0/24", "net1")))
        .await;
    pod.done(add("net1", "192.168.12.99/24")).await;
    let of_kernel = format!("{lan} src 192.168.12.99 proto 2");
    let in_lan = async || -> Vec<String> {
        let routes = pod.routes(MAIN_TABLE, Ipv4).await;
        routes
            .into_iter()
            .filter(|route| route.starts_with("192.168.12"))
            .collect()
    };
    let both = [format!("{lan} proto 3"), of_kernel.clone()];
    assert_eq!(in_lan().await, both);
    pod.done(Step::DeleteRoute(on_link("192.168.12.0/24", "net1")))
        .await;
    assert_eq!(in_lan().await, [of_kernel]);
    pod.done(Step::AddRoute(on_link("192.168.12.0/24", "net1")))
        .await;
    assert_eq!(in_lan().await, both);

    // IPv6: by two interfaces, but not by two gateways.
    for link in ["eth0", "net1"] {
        let route = Route {
            scope: 0,
            metric: 256,
            ..on_link("2001:db8:5::/64", link)
        };
        pod.done(Step::AddRoute(route)).await;
    }
    for gateway in ["fe80::1", "fe80::2"] {
        let route = Route {
            metric: 1024,
            ..via("2001:db8:6::/64", gateway, "net1")
        };
        pod.done(Step::AddRoute(route)).await;
    }
    assert_eq!(
        pod.routes(MAIN_TABLE, Ipv6).await,
        [
            "2001:db8:5::/64 dev eth0 metric 256 proto 3",
            "2001:db8:5::/64 dev net1 metric 256 proto 3",
            "2001:db8:6::/64 via fe80::1 dev net1 metric 1024 proto 3",
        ]
    );
}

async fn the_last_address_takes_the_routes() {
    let pod = Pod::new().await;
    let shelved = Route {
        table: SHELF_TABLE,
        ..on_link("198.51.100.0/24", "net1")
    };
    for step in [
        add("net1", "192.168.12.99/24"),
        add("net1", "192.168.12.98/24"),
        Step::AddRoute(shelved),
        Step::AddRoute(on_link("203.0.113.0/24", "net1")),
    ] {
        pod.done(step).await;
    }
    // The first of a network takes the later ones along.
    pod.done(delete("net1", "192.168.12.99/24")).await;
    assert_eq!(pod.addresses("net1").await, Vec::<String>::new());
    assert_eq!(pod.routes(SHELF_TABLE, Ipv4).await, Vec::<String>::new());
    assert_eq!(
        pod.routes(MAIN_TABLE, Ipv4).await,
        [
            "10.244.1.0/24 dev eth0 scope link src 10.244.1.5 proto 2",
            "default via 10.244.1.1 dev eth0 proto 3",
        ]
    );
}

async fn an_ipv6_route_loses_its_source() {
    let pod = Pod::new().await;
    let route = Route {
        source: Some("2001:db8:12::99".parse().unwrap()),
        metric: 1024,
        ..via("::/0", "fe80::1", "net1")
    };
    pod.done(add("net1", "2001:db8:12::99/64")).await;
    pod.done(Step::AddRoute(route.clone())).await;
    pod.done(delete("net1", "2001:db8:12::99/64")).await;
    assert_eq!(
        pod.routes(MAIN_TABLE, Ipv6).await,
        ["::/0 via fe80::1 dev net1 metric 1024 proto 3"]
    );
    pod.done(Step::DeleteRoute(route)).await;
    assert_eq!(pod.routes(MAIN_TABLE, Ipv6).await, Vec::<String>::new());
}

async fn ours_takes_the_place_of_the_default() {
    let pod = Pod::new().await;
    pod.done(add("net1", "192.168.12.99/24")).await;
    let ours = Route {
        gateway: Some("192.168.12.1".parse().unwrap()),
        source: Some("192.168.12.99".parse().unwrap()),
        ..Route::ours(everything(Ipv4), "net1")
    };
    pod.done(Step::ReplaceRoute(ours.clone())).await;
    pod.done(Step::ReplaceRoute(ours.clone())).await;
    let state = pod.state().await;
    let is_default =
        |route: &&Route| route.is_default() && route.table == MAIN_TABLE && route.family() == Ipv4;
    let defaults: Vec<&Route> = state.routes.iter().filter(is_default).collect();
    assert!(
        matches!(defaults[..], [only] if only.matches(&ours)),
        "{defaults:?}"
    );
    // What it replaced is not there to be deleted, and ours is not taken for
    // it.
    pod.done(Step::DeleteRoute(via("0.0.0.0/0", "10.244.1.1", "eth0")))
        .await;
    assert!(
        pod.state()
            .await
            .routes
            .iter()
            .any(|route| route.matches(&ours))
    );
}

async fn the_last_resort() {
    let pod = Pod::new().await;
    for family in AddressFamily::ALL {
        let route = Route {
            kind: RouteKind::Unreachable,
            link: None,
            metric: u32::MAX - 1,
            ..Route::ours(everything(family), "net1")
        };
        pod.done(Step::ReplaceRoute(route.clone())).await;
        assert!(
            pod.state()
                .await
                .routes
                .iter()
                .any(|known| known.matches(&route)),
            "{family}"
        );
        pod.done(Step::DeleteRoute(route.clone())).await;
        assert!(
            !pod.state()
                .await
                .routes
                .iter()
                .any(|known| known.matches(&route)),
            "{family}"
        );
    }
}

async fn a_link_down_keeps_ipv4_addresses() {
    let pod = Pod::new().await;
    pod.done(add("net1", "192.168.12.99/24")).await;
    pod.done(add("net1", "2001:db8:12::99/64")).await;
    pod.done(Step::LinkDown {
        link: "net1".to_owned(),
    })
    .await;
    assert_eq!(pod.addresses("net1").await, ["192.168.12.99/24"]);
    let by_net1 = async || {
        let state = pod.state().await;
        state
            .routes
            .iter()
            .filter(|route| route.is_by("net1"))
            .map(ToString::to_string)
            .collect()
    };
    let routes: Vec<String> = by_net1().await;
    assert_eq!(routes, Vec::<String>::new());
    // Without a link-local address, when told so before.
    let set = Step::Set {
        setting: Setting::AddrGenMode,
        link: "net1".to_owned(),
        value: 1,
    };
    pod.done(set).await;
    pod.done(Step::LinkUp {
        link: "net1".to_owned(),
    })
    .await;
    let routes: Vec<String> = by_net1().await;
    assert_eq!(
        routes,
        ["192.168.12.0/24 dev net1 scope link src 192.168.12.99 proto 2"]
    );
    let state = pod.state().await;
    assert_eq!(state.addresses_of("net1").count(), 1);
}

async fn a_note_is_kept_and_cleared() {
    let pod = Pod::new().await;
    let long = Originals {
        alias: Some("x".repeat(400)),
        ..Originals::default()
    };
    let fits = Originals {
        alias: Some("x".repeat(200)),
        ..Originals::default()
    };
    let alias = async || pod.state().await.link("net1").unwrap().alias.clone();
    for note in [long, fits] {
        let step = Step::Note {
            link: "net1".to_owned(),
            note: note.clone(),
        };
        pod.done(step).await;
        assert_eq!(alias().await.as_deref(), Some(note.to_string().as_str()));
    }
    let clear = |alias: &str| Step::ClearNote {
        link: "net1".to_owned(),
        alias: alias.to_owned(),
    };
    pod.done(clear("lan")).await;
    assert_eq!(alias().await.as_deref(), Some("lan"));
    pod.done(clear("")).await;
    assert_eq!(alias().await, None);
}

async fn settings_are_changed_and_seen() {
    let pod = Pod::new().await;
    let before = pod.state().await;
    assert!(before.sysctl_writable);
    for (setting, value) in [
        (Setting::PodForwarding, 1),
        (Setting::ArpIgnore, 1),
        (Setting::ArpAnnounce, 2),
        (Setting::AddrGenMode, 1),
        (Setting::AcceptRa, 0),
        (Setting::Autoconf, 0),
        (Setting::Ipv6Forwarding, 1),
        (Setting::UnprivilegedPorts, 0),
    ] {
        let link = setting.interface("net1", "net1").to_owned();
        pod.done(Step::Set {
            setting,
            link,
            value,
        })
        .await;
    }
    let state = pod.state().await;
    let link = state.link("net1").unwrap();
    let ipv4 = (
        link.ipv4.forwarding,
        link.ipv4.arp_ignore,
        link.ipv4.arp_announce,
    );
    assert_eq!(ipv4, (1, 1, 2));
    let ipv6 = link.ipv6.unwrap();
    assert_eq!(
        (ipv6.addr_gen_mode, ipv6.accept_ra, ipv6.autoconf),
        (1, 0, 0)
    );
    assert_eq!(state.ipv6_forwarding, Some(true));
    assert_eq!(state.unprivileged_ports, Some(0));
    let eth0 = |state: &State| state.link("eth0").unwrap().ipv4;
    assert_eq!(eth0(&before), eth0(&state), "of another interface");
    // What a new interface would get is what this one had.
    let before_link = before.link("net1").unwrap();
    assert_eq!(state.ipv4_default, before_link.ipv4);
    assert_eq!(Some(state.ipv6_default), before_link.ipv6);
}

async fn a_refusal_names_the_step() {
    let pod = Pod::new().await;
    let route = Route {
        protocol: 69,
        ..via("0.0.0.0/0", "192.0.2.1", "net1")
    };
    let error = pod.socket.change(&Step::ReplaceRoute(route)).await;
    let text = error.unwrap_err().to_string();
    let refusal = "ip route replace default via 192.0.2.1 dev net1 proto 69: Network is \
                   unreachable (os error 101); ";
    assert!(text.starts_with(refusal), "{text}");
    assert!(text.contains("correct EGRESS_GATEWAY"), "{text}");
    let error = pod
        .socket
        .change(&add("net9", "192.0.2.9/24"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "ip address add 192.0.2.9/24 dev net9: No such device (os error 19)"
    );
}

/// Gives this process a network namespace of its own and, when it may not have
/// one as it is, a user namespace in which it is root.
fn leave_the_machine() {
    let (uid, gid) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER).unwrap();
            fs::write("/proc/self/setgroups", "deny").unwrap();
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        }
        Err(errno) => panic!("entering a network namespace: {errno}"),
    }
}
