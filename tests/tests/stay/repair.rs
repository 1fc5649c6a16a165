//! What somebody undid is done again, and then there is rest.

use std::{
    thread,
    time::{Duration, Instant},
};

use egress_lab::{
    Host, Lab, MacvlanMode, Snapshot, eventually,
    harness::{TestResult, libtest_mimic::Trial},
};

use crate::damage::{self, LINK};
use crate::fixture::{Stayer, legacy, same};

/// From the damage until everything works again; the program looks at most
/// once a second.
const REPAIRED: Duration = Duration::from_millis(2500);

/// Long enough for the look that follows a repair, and for one more.
const REST: Duration = Duration::from_millis(2500);

/// Redirects for who wants to know them.
const LIST: &str = "80 tcp 203.0.113.25\n53 udp 2001:db8:25::25";

type Damage = fn(&Host);

/// One test for each damage.
pub(crate) fn every_damage() -> Vec<Trial> {
    let damages: [(&str, Damage); 10] = [
        ("link_down", damage::link_down),
        ("link_flapped", damage::link_flapped),
        ("link_deleted", damage::link_deleted),
        ("ipv4_address_deleted", damage::ipv4_address_deleted),
        ("ipv6_address_deleted", damage::ipv6_address_deleted),
        ("default_routes_deleted", damage::default_routes_deleted),
        ("default_routes_replaced", damage::default_routes_replaced),
        ("rules_deleted", damage::rules_deleted),
        ("table_deleted", damage::table_deleted),
        ("table_gutted", damage::table_gutted),
    ];
    let trial = |(name, damage): (&str, Damage)| {
        Trial::test(format!("repair::{name}"), move || is_repaired(damage))
    };
    damages.into_iter().map(trial).collect()
}

/// All but the note of what was there before us, which goes with the link.
fn network(router: &Stayer) -> Snapshot {
    router.snapshot().without(|line| line.starts_with("alias "))
}

fn is_repaired(damage: Damage) -> TestResult {
    let router = Stayer::start(&legacy())?;
    router.traffic();
    let before = network(&router);
    let start = Instant::now();
    damage(router.lab.router_pod());
    let told = eventually(REPAIRED, || {
        let told = router
            .process
            .await_stderr("it was set up again", Duration::ZERO);
        same(&before, &network(&router))?;
        told.map_err(|error| error.to_string())
    });
    assert!(
        told.contains("the pod's network was not as configured"),
        "{told}"
    );
    router.traffic();
    let took = start.elapsed();

    assert_eq!(router.metric("egress_router_repairs_total"), 1.0);
    thread::sleep(REST);
    assert_eq!(
        router.metric("egress_router_repairs_total"),
        1.0,
        "repaired after {took:?}"
    );
    assert_eq!(router.metric("egress_router_setup_failures_total"), 0.0);
    before.assert_same(&network(&router));
    assert_eq!(router.page("/readyz").status, 200);
    router.traffic();
    Ok(())
}

/// Asking whether the address is free would leave the pod without a way out
/// for as long.
pub(crate) fn a_flapped_link_is_back_without_asking() -> TestResult {
    let probe = Duration::from_secs(3);
    let router = Stayer::start(&legacy().with("EGRESS_ADDRESS_PROBE", "3s"))?;
    let before = router.snapshot();
    let start = Instant::now();
    damage::link_flapped(router.lab.router_pod());
    eventually(probe, || same(&before, &router.snapshot()));
    assert!(start.elapsed() < probe / 2, "{:?}", start.elapsed());
    router.traffic();
    Ok(())
}

pub(crate) fn a_link_that_cannot_be_made_is_waited_for() -> TestResult {
    let lab = Lab::builder().macvlan(LINK, MacvlanMode::Bridge).build()?;
    let router = Stayer::start_in(lab, &legacy().with("EGRESS_MACVLAN_PARENT", "off"))?;
    router.traffic();
    let before = network(&router);
    let pod = router.lab.router_pod();
    pod.netns().delete_link(LINK)?;
    let page = router.await_page("/readyz", |page| page.status == 503);
    assert!(page.body.contains("EGRESS_MACVLAN_PARENT"), "{page:?}");
    assert!(router.try_traffic().is_err());

    // The CNI comes back with it.
    router.lab.add_macvlan(pod, LINK, MacvlanMode::Bridge)?;
    eventually(REPAIRED, || same(&before, &network(&router)));
    router.await_page("/readyz", |page| page.status == 200);
    router.traffic();
    assert_eq!(router.metric("egress_router_repairs_total"), 1.0);
    Ok(())
}

pub(crate) fn operators_rules_are_no_damage() -> TestResult {
    let router = Stayer::start(&legacy().with("EGRESS_DESTINATION", LIST))?;
    let before = router.snapshot();
    damage::add_operators_rule(router.lab.router_pod(), LIST);
    damage::add_operators_table(router.lab.router_pod());
    let after = router.snapshot();
    thread::sleep(REST);
    assert_eq!(router.metric("egress_router_repairs_total"), 0.0);
    after.assert_same(&router.snapshot());
    let difference = before.difference(&after);
    assert!(
        difference.lines().all(|line| line.starts_with("+ nft ")),
        "{difference}"
    );
    assert!(
        difference.contains("admin") && difference.contains("theirs"),
        "{difference}"
    );
    Ok(())
}
