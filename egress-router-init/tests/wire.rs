//! `wire` against the real kernel: two hosts, each a network namespace, joined
//! by a veth pair.
//!
//! The namespaces belong to this process alone, so the tests run in parallel
//! with anything and leave nothing behind. Without root they run in a user
//! namespace, which only a process without threads can enter: hence a `main` of
//! our own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support outside of #[test] functions: a failure ends the test"
)]

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use egress_router_init::wire::{
    ANNOUNCEMENTS, Conflict, Defence, Error, Heard, MacAddr, Place, Sighting, Station,
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use libtest_mimic::{Arguments, Trial};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{LinkAttribute, LinkMessage, MacVlanMode, State};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourState};
use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};
use rtnetlink::{Handle, LinkMacVlan, LinkUnspec, LinkVeth, MulticastGroup};
use tokio::time::timeout;

/// The address that both hosts want, in both families.
const WANTED: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// An address of the other host.
const GATEWAY: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

const SHORT: Duration = Duration::from_millis(150);
/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);
/// By when something has happened that does happen.
const SOON: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    leave_the_machine();
    let mut trials = vec![
        trial("no_carrier", no_carrier()),
        trial("carrier_comes_late", carrier_comes_late()),
        trial("link_down", link_down()),
        trial("no_such_link", no_such_link()),
        trial(
            "dad_of_another_host_through_a_macvlan",
            dad_of_another_host(),
        ),
        trial("both_families_at_once", both_families_at_once()),
    ];
    for family in [0, 1] {
        let name = |case| format!("{case}_{}", ["ipv4", "ipv6"][family]);
        trials.extend([
            trial(name("free"), free(family)),
            trial(name("held"), held(family)),
            trial(name("claimed_while_probing"), claimed_while_probing(family)),
            trial(name("never_both"), never_both(family)),
            trial(name("announcement_moves_a_neighbour"), announcement(family)),
            trial(name("conflict_is_seen_and_answered"), defended(family)),
            trial(name("gateway_is_heard"), gateway(family)),
        ]);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test on the runtime that the router has.
fn trial(name: impl Into<String>, test: impl Future<Output = ()> + Send + 'static) -> Trial {
    Trial::test(name, || {
        block_on(test);
        Ok(())
    })
}

async fn free(family: usize) {
    let lan = Lan::new().await;
    let started = Instant::now();
    lan.ours.probe(family, SHORT).await.unwrap();
    assert!(started.elapsed() >= SHORT, "listened all the while");
}

async fn held(family: usize) {
    let lan = Lan::new().await;
    lan.theirs.hold(WANTED[family]).await;
    assert_conflict(lan.ours.probe(family, LONG).await, &lan.theirs, family);
}

async fn claimed_while_probing(family: usize) {
    let lan = Lan::new().await;
    let (found, ()) = tokio::join!(lan.ours.probe(family, LONG), async {
        lan.theirs.announce(family);
        lan.ours.enter();
    });
    assert_conflict(found, &lan.theirs, family);
}

/// Of two hosts that probe at the same time the one that hears the other gives
/// up; then it is silent, so that the other may win.
async fn never_both(family: usize) {
    let lan = Lan::new().await;
    let started = Barrier::new(2);
    let probe = |host: &Host| {
        let place = host.place(family);
        host.enter();
        started.wait();
        block_on(Station::probe(place, SHORT * 4)).map(drop)
    };
    let [ours, theirs] = thread::scope(|scope| {
        [&lan.ours, &lan.theirs]
            .map(|host| scope.spawn(|| probe(host)))
            .map(|probe| probe.join().unwrap())
    });
    assert!(ours.is_err() || theirs.is_err());
    for (found, other) in [(ours, &lan.theirs), (theirs, &lan.ours)] {
        if found.is_err() {
            assert_conflict(found, other, family);
        }
    }
}

/// The kernel of another host performs Duplicate Address Detection. The frames
/// go to the solicited-node group, which a macvlan lets in only when asked to.
async fn dad_of_another_host() {
    let lan = Lan::new().await;
    let mut ours = lan.ours;
    let macvlan = LinkMacVlan::new("macvlan0", ours.link, MacVlanMode::Bridge).up();
    ours.netlink
        .link()
        .add(macvlan.build())
        .execute()
        .await
        .unwrap();
    ours.find_link("macvlan0").await;
    let claim = lan.theirs.netlink.address();
    let claim = claim.add(lan.theirs.link, ip(WANTED[1]), 64).execute();
    let (found, claimed) = tokio::join!(ours.probe(1, LONG), claim);
    claimed.unwrap();
    assert_conflict(found, &lan.theirs, 1);
}

async fn both_families_at_once() {
    let lan = Lan::new().await;
    lan.theirs.hold(WANTED[1]).await;
    let started = Instant::now();
    let (v4, v6) = tokio::join!(lan.ours.probe(0, SHORT * 4), lan.ours.probe(1, SHORT * 4));
    assert!(started.elapsed() < SHORT * 8, "one after the other");
    v4.unwrap();
    assert_conflict(v6, &lan.theirs, 1);
}

async fn announcement(family: usize) {
    let lan = Lan::new().await;
    let neighbour = ip(WANTED[family]);
    let old = [2, 0, 0, 0, 0, 0x99];
    lan.theirs.hold(GATEWAY[family]).await;
    let entry = lan
        .theirs
        .netlink
        .neighbours()
        .add(lan.theirs.link, neighbour);
    let entry = entry
        .link_layer_address(&old)
        .state(NeighbourState::Reachable);
    entry.execute().await.unwrap();
    assert_eq!(lan.theirs.neighbour(neighbour).await, Some(old.into()));

    let mut changes = lan.theirs.monitor(MulticastGroup::Neigh);
    lan.ours.announce(family);
    let moved = async {
        while lan.theirs.neighbour(neighbour).await != Some(lan.ours.mac) {
            changes.next().await.unwrap();
        }
    };
    timeout(SOON, moved).await.unwrap();
    assert_eq!(ANNOUNCEMENTS[0], Duration::ZERO);
}

async fn defended(family: usize) {
    let lan = Lan::new().await;
    let mut ours = lan.ours.watch(family);
    let mut theirs = lan.theirs.watch(family);
    let sighting = async |station: &mut Station| match heard(station).await {
        Heard::Conflict(sighting) => sighting,
        other => panic!("{other:?}"),
    };
    lan.theirs.announce(family);

    let first = sighting(&mut ours).await;
    assert_eq!(first.conflict.address, ip(WANTED[family]));
    assert_eq!(first.conflict.holder, lan.theirs.mac);
    assert_eq!(first.defence, Defence::Announced);
    // The other host hears our defence and takes it for a conflict as well; its
    // defence is more than we answer within ten seconds.
    let answer = sighting(&mut theirs).await;
    assert_eq!(answer.conflict.holder, lan.ours.mac);
    assert_eq!(answer.defence, Defence::Announced);
    let Sighting { defence, .. } = sighting(&mut ours).await;
    assert_eq!(defence, Defence::HeldBack);
}

async fn gateway(family: usize) {
    let lan = Lan::new().await;
    let mut ours = lan.ours.watch(family);
    // Nobody is there yet.
    ours.ask_for_gateway(None).unwrap();
    assert!(timeout(SHORT, ours.next()).await.is_err());
    lan.theirs.hold(GATEWAY[family]).await;
    let known = lan.theirs.mac;
    for asked in [None, Some(known)] {
        ours.ask_for_gateway(asked).unwrap();
        let gateway = ip(GATEWAY[family]);
        let answer = Heard::Gateway {
            gateway,
            mac: known,
        };
        assert_eq!(heard(&mut ours).await, answer);
    }
    // Another host's address is no gateway's.
    ours.ask_for_gateway(Some(MacAddr::from([2, 0, 0, 0, 0, 0x99])))
        .unwrap();
    assert!(timeout(SHORT, ours.next()).await.is_err());
}

async fn heard(station: &mut Station) -> Heard {
    let next = timeout(SOON, station.next()).await;
    next.unwrap().unwrap().unwrap()
}

async fn no_carrier() {
    let lan = Lan::new().await;
    lan.theirs.set_down().await;
    let started = Instant::now();
    let error = lan.ours.probe(0, SHORT).await.unwrap_err();
    assert!(started.elapsed() >= SHORT);
    assert_eq!(
        error.to_string(),
        "link lan0 has no carrier; set its parent or peer interface up, and check the cable and \
         the switch port behind it"
    );
    let error = lan.ours.watch(0).announce().unwrap_err();
    assert!(matches!(error, Error::NoCarrier { .. }), "{error}");
}

async fn carrier_comes_late() {
    let lan = Lan::new().await;
    lan.theirs.hold(WANTED[0]).await;
    lan.theirs.set_down().await;
    let (found, ()) = tokio::join!(lan.ours.probe(0, LONG), lan.theirs.set_up());
    assert_conflict(found, &lan.theirs, 0);
}

async fn link_down() {
    let lan = Lan::new().await;
    lan.ours.set_down().await;
    let error = lan.ours.probe(0, SHORT).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "link lan0 is down; set it up first (ip link set lan0 up)"
    );
    let error = lan.ours.watch(0).announce().unwrap_err();
    assert!(matches!(error, Error::LinkDown { .. }), "{error}");
}

async fn no_such_link() {
    let lan = Lan::new().await;
    lan.ours.enter();
    for link in [4_000, u32::MAX] {
        let missing = |error| matches!(error, Error::NoSuchLink { link: l } if l == link);
        let place = Place {
            link,
            ..lan.ours.place(0)
        };
        assert!(missing(Station::probe(place, LONG).await.unwrap_err()));
        assert!(missing(Station::open(place).unwrap_err()));
    }
}

#[track_caller]
fn assert_conflict(found: Result<(), Error>, holder: &Host, family: usize) {
    let expected = Conflict {
        address: ip(WANTED[family]),
        holder: holder.mac,
    };
    match found {
        Err(Error::Conflict(conflict)) => assert_eq!(conflict, expected),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// Two hosts on one wire.
struct Lan {
    ours: Host,
    theirs: Host,
}

impl Lan {
    /// Both links are up and carry frames, without addresses.
    async fn new() -> Self {
        let [mut ours, mut theirs] = [Host::new(), Host::new()];
        let veth = LinkVeth::new("lan0", "peer0").build();
        ours.netlink.link().add(veth).execute().await.unwrap();
        let peer = ours.link_named("peer0").await.header.index;
        let moved = LinkUnspec::new_with_index(peer)
            .setns_by_fd(theirs.netns.as_raw_fd())
            .build();
        ours.netlink.link().set(moved).execute().await.unwrap();
        ours.find_link("lan0").await;
        theirs.find_link("peer0").await;
        theirs.set_up().await;
        ours.set_up().await;
        for host in [&theirs, &ours] {
            host.operational().await;
        }
        Self { ours, theirs }
    }
}

type Change = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// A network namespace with one link to the LAN.
struct Host {
    netns: File,
    netlink: Handle,
    link: u32,
    mac: MacAddr,
}

impl Host {
    fn new() -> Self {
        // Namespaces belong to threads: the test's own moves between them.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        Self {
            netns,
            netlink,
            link: 0,
            mac: MacAddr::BROADCAST,
        }
    }

    /// From now on this thread opens its sockets in the namespace.
    fn enter(&self) {
        setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
    }

    async fn probe(&self, family: usize, wait: Duration) -> Result<(), Error> {
        self.enter();
        let probed = Station::probe(self.place(family), wait);
        timeout(SOON, probed).await.unwrap().map(drop)
    }

    /// Where it would have the address that both want.
    fn place(&self, family: usize) -> Place {
        Place {
            link: self.link,
            mac: self.mac,
            address: ip(WANTED[family]),
            gateway: ip(GATEWAY[family]),
        }
    }

    fn announce(&self, family: usize) {
        self.watch(family).announce().unwrap();
    }

    fn watch(&self, family: usize) -> Station {
        self.enter();
        Station::open(self.place(family)).unwrap()
    }

    /// What the kernel tells about changes from now on.
    fn monitor(&self, group: MulticastGroup) -> impl Stream<Item = Change> + Unpin + use<> {
        self.enter();
        let (monitor, _, changes) = rtnetlink::new_multicast_connection(&[group]).unwrap();
        tokio::spawn(monitor);
        changes
    }

    async fn link_named(&self, name: &str) -> LinkMessage {
        let mut links = self.netlink.link().get().match_name(name).execute();
        links.try_next().await.unwrap().unwrap()
    }

    async fn link(&self, index: u32) -> LinkMessage {
        let mut links = self.netlink.link().get().match_index(index).execute();
        links.try_next().await.unwrap().unwrap()
    }

    /// Takes the named link for the host's link to the LAN.
    async fn find_link(&mut self, name: &str) {
        let message = self.link_named(name).await;
        self.link = message.header.index;
        self.mac = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => MacAddr::try_from(bytes.as_slice()).ok(),
                _ => None,
            })
            .unwrap();
    }

    async fn set_up(&self) {
        let up = LinkUnspec::new_with_index(self.link).up();
        self.netlink.link().set(up.build()).execute().await.unwrap();
    }

    /// Waits until the kernel of the host sends as well.
    async fn operational(&self) {
        let mut changes = self.monitor(MulticastGroup::Link);
        let up = LinkAttribute::OperState(State::Up);
        while !self.link(self.link).await.attributes.contains(&up) {
            timeout(SOON, changes.next()).await.unwrap().unwrap();
        }
    }

    async fn set_down(&self) {
        let down = LinkUnspec::new_with_index(self.link).down();
        self.netlink
            .link()
            .set(down.build())
            .execute()
            .await
            .unwrap();
    }

    /// Adds an address and waits until the kernel answers for it, which for
    /// IPv6 a worker arranges later.
    async fn hold(&self, address: &str) {
        let address = ip(address);
        let (prefix, group) = match address {
            IpAddr::V4(_) => (24, MulticastGroup::Ipv4Ifaddr),
            IpAddr::V6(_) => (64, MulticastGroup::Ipv6Ifaddr),
        };
        let mut changes = self.monitor(group);
        let mut request = self.netlink.address().add(self.link, address, prefix);
        request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
        let local = AddressAttribute::Address(address);
        let valid = async {
            loop {
                let (message, _) = changes.next().await.unwrap();
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(new)) =
                    message.payload
                    && new.attributes.contains(&local)
                {
                    break;
                }
            }
        };
        timeout(SOON, valid).await.unwrap();
    }

    /// What the kernel's neighbour cache says.
    async fn neighbour(&self, address: IpAddr) -> Option<MacAddr> {
        let entries: Vec<_> = self
            .netlink
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .unwrap();
        let entry = entries.into_iter().find(|entry| {
            entry.attributes.iter().any(|attribute| {
                matches!(attribute, NeighbourAttribute::Destination(to) if *to == address.into())
            })
        })?;
        entry
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    MacAddr::try_from(bytes.as_slice()).ok()
                }
                _ => None,
            })
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
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
