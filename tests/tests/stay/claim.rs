//! The source address and who else wants it.

use egress_lab::{Family, Host, Lab, address, eventually, harness::TestResult};
use egress_router_init::wire::{MacAddr, Place, Station};

use crate::fixture::{PATIENCE, Stayer, legacy};

/// Claims the router's address from another host, once.
fn claim(host: &Host, family: Family) {
    let place = Place {
        link: host.netns().link_index("eth0").unwrap(),
        mac: mac_of(host),
        address: address::source(family),
        gateway: address::gateway(family),
    };
    host.netns().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .unwrap()
            .block_on(async { Station::open(place).unwrap().announce().unwrap() });
    });
}

fn mac_of(host: &Host) -> MacAddr {
    let text = host.netns().mac_address("eth0").unwrap();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddr::try_from(bytes.as_slice()).unwrap()
}

pub(crate) fn a_taken_address_is_waited_for() -> TestResult {
    for family in Family::ALL {
        let mut lab = Lab::builder().build()?;
        let holder = lab.add_lan_host("holder", &[address::source(family)])?;
        let config = legacy().with("EGRESS_ADDRESS_PROBE", "60ms");
        let router = Stayer::launch_in(lab, &config)?;
        router.await_log(&mac_of(&holder).to_string())?;
        assert!(router.try_traffic().is_err());
        holder.netns().set_down("eth0")?;
        router.await_log("the network is set up")?;
        router.traffic();
        // Told once, although it was asked for more than once.
        router.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        let output = router.process.wait()?.expect(0);
        assert_eq!(
            output.stderr.matches("in use by another host").count(),
            1,
            "{}",
            output.stderr
        );
    }
    Ok(())
}

pub(crate) fn a_later_claim_is_told_counted_and_fought() -> TestResult {
    let router = Stayer::start(&legacy())?;
    let rival = router.lab.lan_host();
    let theirs = mac_of(rival).to_string();
    let ours = router.lab.router_pod().netns().mac_address("macvlan0")?;
    let gateway = router.lab.gateway().netns();
    let mut conflicts = 0.0;
    for family in Family::ALL {
        let source = address::source(family);
        router.traffic();
        assert_eq!(gateway.neighbour(source)?.as_deref(), Some(ours.as_str()));
        claim(rival, family);
        conflicts += 1.0;
        let log = router.await_log(&format!("{source} is in use by another host"))?;
        assert!(log.contains(&theirs), "{log}");
        router.await_metric("egress_router_address_conflicts_total", conflicts);
        eventually(PATIENCE, || match gateway.neighbour(source) {
            Ok(Some(mac)) if mac == ours => Ok(()),
            other => Err(other),
        });
        router.traffic();
    }
    // A host that insists is counted, and neither answered nor told again for
    // ten seconds: two stubborn hosts would flood the network.
    claim(rival, Family::Ipv4);
    router.await_metric("egress_router_address_conflicts_total", conflicts + 1.0);
    let told = router.await_log("in use by another host")?;
    assert_eq!(told.matches("in use by another host").count(), 2, "{told}");
    let source = address::source(Family::Ipv4);
    assert_eq!(gateway.neighbour(source)?.as_deref(), Some(theirs.as_str()));
    Ok(())
}
