//! Programs accept what they are given, and it is what the manifest is for.

use egress_config::Program;
use egress_house_rules::manifest::Role;
use egress_router_init::config::Mode;

use crate::given::Given;
use crate::unit::each_router;

/// Parsing is done for every container, so a value that is refused or warned
/// about fails here with its place.
#[test]
fn the_programs_accept_what_they_would_be_given() {
    let mut modes = [0; 4];
    each_router(|pod| {
        let place = pod.place();
        let containers = pod.containers();
        let [mode] = containers
            .iter()
            .filter_map(|(_, given)| match given {
                Given::Router(router) => {
                    let lines = match router.mode {
                        Mode::Init | Mode::Legacy => 4,
                        Mode::HttpProxy | Mode::DnsProxy => 0,
                    };
                    assert_eq!(router.lines, lines, "{place}");
                    Some(router.mode)
                }
                _ => None,
            })
            .collect::<Vec<_>>()[..]
        else {
            panic!("{place}: not one router");
        };
        let mains: Vec<_> = containers
            .iter()
            .filter(|(container, _)| container.role == Role::Main)
            .map(|(_, given)| given)
            .collect();
        match (mode, &mains[..]) {
            (Mode::Init, [Given::Wait]) => modes[0] += 1,
            (Mode::Legacy, [Given::Router(_)]) => modes[1] += 1,
            (Mode::HttpProxy, [Given::Proxy(proxy)]) => {
                assert_eq!(proxy.program, Program::HttpProxy, "{place}");
                assert_eq!(proxy.lines, 4, "{place}");
                modes[2] += 1;
            }
            (Mode::DnsProxy, [Given::Proxy(proxy)]) => {
                assert_eq!(proxy.program, Program::DnsProxy, "{place}");
                assert_eq!(proxy.lines, 4, "{place}");
                modes[3] += 1;
            }
            (mode, mains) => panic!("{place}: {mode:?} with {mains:?}"),
        }
    });
    assert_eq!(modes, [9, 5, 9, 9], "pods of each mode");
}

/// A proxy that finds no egress interface lets the kernel choose the address;
/// one that is told which to use does not start without it.
#[test]
fn a_proxy_is_told_what_its_connections_leave_with() {
    let mut seen = 0;
    each_router(|pod| {
        let place = pod.place();
        let containers = pod.containers();
        let multus = pod
            .at("/metadata/annotations/k8s.v1.cni.cncf.io~1networks")
            .is_some();
        let interface = if multus { "net1" } else { "macvlan0" };
        let sources = containers.iter().find_map(|(_, given)| match given {
            Given::Router(router) => Some(&router.sources),
            _ => None,
        });
        for (_, given) in &containers {
            if let Given::Proxy(proxy) = given {
                match &proxy.interface {
                    Some(found) => assert_eq!(found, interface, "{place}"),
                    None => assert_eq!(Some(&proxy.sources), sources, "{place}"),
                }
                seen += 1;
            }
        }
    });
    assert_eq!(seen, 18, "proxies");
}

/// What controllers keep running follows its list; a subPath mount would keep
/// the file of the day it was made.
#[test]
fn a_list_in_a_config_map_is_followed() {
    let mut seen = 0;
    each_router(|pod| {
        let place = pod.place();
        for (container, given) in pod.containers() {
            let mounts = container.at("/volumeMounts");
            for mount in mounts
                .and_then(|mounts| mounts.as_array())
                .into_iter()
                .flatten()
            {
                assert_eq!(mount.pointer("/subPath"), None, "{place}");
                assert_eq!(mount["readOnly"], true, "{place}");
            }
            if let Given::Proxy(proxy) = given {
                assert_eq!(proxy.follows_a_file, pod.object.kind() != "Pod", "{place}");
                assert_eq!(proxy.follows_a_file, mounts.is_some(), "{place}");
                seen += usize::from(proxy.follows_a_file);
            }
        }
    });
    assert_eq!(seen, 12, "lists");
}
