//! Somebody else has the address.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use egress_lab::{
    Family, Host, Lab, MacvlanMode, Node, RouterConfig, address, harness::TestResult,
};
use egress_router_init::wire::{MacAddr, Place, Station};
use ipnet::IpNet;

/// Long enough for an answer on a busy machine.
const PROBE: &str = "300ms";

fn mac_of(host: &Host) -> MacAddr {
    let text = host.netns().mac_address("eth0").unwrap();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddr::try_from(bytes.as_slice()).unwrap()
}

/// Runs the router, which must refuse for the sake of `holder`, and change
/// nothing.
fn is_refused(lab: &Lab, config: &RouterConfig, family: Family, holder: &Host) -> TestResult {
    let pod = lab.router_pod();
    let before = pod.snapshot()?;
    let start = Instant::now();
    let output = config.run(pod)?.expect(1);
    assert_eq!(
        output.last_error_line(),
        format!(
            "EGRESS_SOURCE: {} is in use by another host, MAC address {}; stop that host or use \
             another EGRESS_SOURCE",
            address::source(family),
            mac_of(holder)
        )
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    before.assert_same(&pod.snapshot()?);
    Ok(())
}

pub(crate) fn another_hosts_address_is_refused() -> TestResult {
    for family in Family::ALL {
        let mut lab = Lab::builder().build()?;
        let holder = lab.add_lan_host("holder", &[address::source(family)])?;
        let config = RouterConfig::new(&[family]).with("EGRESS_ADDRESS_PROBE", PROBE);
        is_refused(&lab, &config, family, &holder)?;
        // Once it is gone, the address is there to be taken.
        holder.netns().set_down("eth0")?;
        let _ = config.run(lab.router_pod())?.expect(0);
    }
    Ok(())
}

pub(crate) fn another_hosts_address_is_refused_on_the_interface_of_a_cni() -> TestResult {
    for family in Family::ALL {
        for mode in [MacvlanMode::Private, MacvlanMode::Bridge] {
            let mut lab = Lab::builder().macvlan("macvlan0", mode).build()?;
            let holder = lab.add_lan_host("holder", &[address::source(family)])?;
            let config = RouterConfig::new(&[family]).with("EGRESS_ADDRESS_PROBE", PROBE);
            is_refused(&lab, &config, family, &holder)?;
        }
    }
    Ok(())
}

pub(crate) fn one_taken_address_of_two_is_enough() -> TestResult {
    for family in Family::ALL {
        let mut lab = Lab::builder().build()?;
        let holder = lab.add_lan_host("holder", &[address::source(family)])?;
        let config = RouterConfig::new(&Family::ALL).with("EGRESS_ADDRESS_PROBE", PROBE);
        is_refused(&lab, &config, family, &holder)?;
    }
    Ok(())
}

/// A host that asks for the address as we do is about to take it (RFC 5227
/// section 2.1.1).
pub(crate) fn a_prober_is_a_rival() -> TestResult {
    for family in Family::ALL {
        let lab = Lab::builder().build()?;
        let rival = lab.lan_host().clone();
        let (link, mac) = (rival.netns().link_index("eth0")?, mac_of(&rival));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                rival.netns().run(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    runtime.unwrap().block_on(async {
                        let place = Place {
                            link,
                            mac,
                            address: address::source(family),
                            gateway: address::gateway(family),
                        };
                        while !done.load(Ordering::Relaxed) {
                            // That we are a rival too is no news.
                            let wait = Duration::from_millis(30);
                            let _ = Station::probe(place, wait).await;
                        }
                    });
                });
            });
            let config = RouterConfig::new(&[family]).with("EGRESS_ADDRESS_PROBE", PROBE);
            let refused = is_refused(&lab, &config, family, &rival);
            done.store(true, Ordering::Relaxed);
            refused
        })?;
    }
    Ok(())
}

pub(crate) fn the_probe_may_be_off() -> TestResult {
    for family in Family::ALL {
        let mut lab = Lab::builder().build()?;
        let _holder = lab.add_lan_host("holder", &[address::source(family)])?;
        let config = RouterConfig::new(&[family]).with("EGRESS_ADDRESS_PROBE", "off");
        let _ = config.run(lab.router_pod())?.expect(0);
        let addresses = lab.router_pod().netns().addresses("macvlan0")?;
        assert!(
            addresses.contains(&address::source(family)),
            "{addresses:?}"
        );
    }
    Ok(())
}

pub(crate) fn the_nodes_own_address_is_refused() -> TestResult {
    for family in Family::ALL {
        let lab = Lab::builder().build()?;
        let node = lab.node(Node::One);
        let source = IpNet::new(node.address(family), address::lan(family).prefix_len())?;
        let pod = lab.router_pod();
        // Nobody answers a probe from below the node's own interface.
        for probe in ["off", "50ms"] {
            let before = pod.snapshot()?;
            let config = RouterConfig::new(&[family])
                .with("EGRESS_SOURCE", source.to_string())
                .with("EGRESS_ADDRESS_PROBE", probe);
            let output = config.run(pod)?.expect(1);
            let last = output.last_error_line();
            for part in [node.address(family).to_string(), mac_of(node).to_string()] {
                assert!(last.contains(&part), "no {part} in {last:?}");
            }
            assert!(last.contains("node") && last.contains("eth0"), "{last:?}");
            before.assert_same(&pod.snapshot()?);
        }
    }
    Ok(())
}
