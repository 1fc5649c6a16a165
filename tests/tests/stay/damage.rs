//! What others do to the pod's network.

use egress_config::MapEnvironment;
use egress_lab::{Family, Host, address};
use egress_router_init::{
    config::Config,
    firewall::{
        rules::{ADMIN_CHAIN, FORWARD_CHAIN, TABLE},
        table::{Chain, Hook, Policy, Rule, Statement, Table},
    },
    netlink::{nft::NftSocket, route::RouteSocket},
    plan::{self, Step},
    state::{MAIN_TABLE, POD_TABLE, PROTOCOL, Route, State},
};
use ipnet::IpNet;

/// Name of the egress interface.
pub(crate) const LINK: &str = "macvlan0";

/// Carries out steps that are made from what is there.
fn change(pod: &Host, steps: impl FnOnce(&State) -> Vec<Step>) {
    let steps = steps(&observe(pod));
    assert!(!steps.is_empty(), "nothing to damage");
    with_socket(pod, async |socket| {
        for step in &steps {
            socket.change(step).await.unwrap();
        }
    });
}

fn observe(pod: &Host) -> State {
    with_socket(pod, async |socket| socket.observe().await.unwrap())
}

fn with_socket<T: Send>(pod: &Host, action: impl AsyncFnOnce(&RouteSocket) -> T + Send) -> T {
    pod.netns().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .unwrap()
            .block_on(async { action(&RouteSocket::open().unwrap()).await })
    })
}

pub(crate) fn link_down(pod: &Host) {
    pod.netns().set_down(LINK).unwrap();
}

pub(crate) fn link_flapped(pod: &Host) {
    pod.netns().set_down(LINK).unwrap();
    pod.netns().set_up(LINK).unwrap();
}

pub(crate) fn link_deleted(pod: &Host) {
    pod.netns().delete_link(LINK).unwrap();
}

fn address_deleted(pod: &Host, family: Family) {
    let address = IpNet::new(address::source(family), address::lan(family).prefix_len()).unwrap();
    pod.netns().delete_address(LINK, address).unwrap();
}

pub(crate) fn ipv4_address_deleted(pod: &Host) {
    address_deleted(pod, Family::Ipv4);
}

pub(crate) fn ipv6_address_deleted(pod: &Host) {
    address_deleted(pod, Family::Ipv6);
}

/// Our default routes, the way out and what stands behind it.
fn defaults(state: &State) -> impl Iterator<Item = Route> {
    let ours = |route: &&Route| {
        route.table == MAIN_TABLE && route.protocol == PROTOCOL && route.is_default()
    };
    state.routes.iter().filter(ours).cloned()
}

pub(crate) fn default_routes_deleted(pod: &Host) {
    change(pod, |state| {
        defaults(state).map(Step::DeleteRoute).collect()
    });
}

/// Back to the pod network, as a CNI that repairs its own routes would.
pub(crate) fn default_routes_replaced(pod: &Host) {
    change(pod, |state| {
        let pods = state
            .routes
            .iter()
            .filter(|r| r.table == POD_TABLE && r.is_default());
        pods.map(|route| {
            Step::ReplaceRoute(Route {
                table: MAIN_TABLE,
                ..route.clone()
            })
        })
        .collect()
    });
}

pub(crate) fn rules_deleted(pod: &Host) {
    change(pod, |state| {
        state.rules.iter().cloned().map(Step::DeleteRule).collect()
    });
}

pub(crate) fn table_deleted(pod: &Host) {
    let deleted = pod.netns().run(|| NftSocket::open()?.delete_table(TABLE));
    assert!(deleted.unwrap());
}

/// `nft flush table inet egress_router`, and worse: nothing may pass.
pub(crate) fn table_gutted(pod: &Host) {
    let table = Table {
        name: TABLE.to_owned(),
        sets: Vec::new(),
        chains: vec![Chain::base(
            FORWARD_CHAIN,
            Hook::FilterForward(Policy::Drop),
            Vec::new(),
        )],
    };
    replace(pod, &table);
}

/// `nft add rule inet egress_router admin counter`: the table as a router with
/// the redirects of `list` makes it, and this rule.
pub(crate) fn add_operators_rule(pod: &Host, list: &str) {
    let environment = MapEnvironment::new()
        .with("EGRESS_SOURCE", "192.168.12.99 2001:db8:12::99")
        .with("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1")
        .with("EGRESS_DESTINATION", list);
    let (config, _) = Config::from_environment(&environment).unwrap();
    let state = observe(pod);
    let mut table = plan::converge(&config, &state).unwrap().table(&config);
    let admin = table
        .chains
        .iter_mut()
        .find(|chain| chain.name == ADMIN_CHAIN)
        .unwrap();
    admin.operator_owned = false;
    admin.rules = vec![Rule::new(vec![Statement::Counter])];
    replace(pod, &table);
}

/// `nft add table inet theirs`
pub(crate) fn add_operators_table(pod: &Host) {
    let rules = vec![Rule::new(vec![Statement::Counter])];
    replace(
        pod,
        &Table {
            name: "theirs".to_owned(),
            sets: Vec::new(),
            chains: vec![Chain::regular("any", rules)],
        },
    );
}

fn replace(pod: &Host, table: &Table) {
    pod.netns()
        .run(|| NftSocket::open()?.replace(table))
        .unwrap();
}
