//! Time to apply a list, and to reload it with one mapping changed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use egress_config::{Diagnostics, List};
use egress_lab::{NetNs, Process};
use egress_router_init::config::FirewallDriver;
use egress_router_init::firewall::{self, rules::Firewall};
use egress_router_init::redirect::Redirects;
use egress_router_init::router::LAST_ANNOUNCEMENT_OF_INIT;

use crate::bed::{Bed, EGRESS_INTERFACE, POD_INTERFACE, RouterPod, server_socket};
use crate::cost::{Cost, Costs, cpu_of_children, cpu_of_children_since, succeeded};
use crate::mappings::{DOCUMENTED_EXAMPLE, Mappings};
use crate::peer::{Kind, Peer};
use crate::samples::Samples;

/// What applying and reloading took, for one length of list.
pub(crate) struct Apply {
    pub(crate) size: usize,
    /// Text to mappings.
    pub(crate) read: Costs,
    /// Mappings to rules in force: what the program does between reading its
    /// list and announcing its address, links and routes left out.
    pub(crate) driver: Costs,
    /// Text with one mapping changed to rules in force.
    pub(crate) driver_reload: Costs,
    pub(crate) peers: Vec<PeerApply>,
}

/// A peer's part in [`Apply`].
pub(crate) struct PeerApply {
    pub(crate) kind: Kind,
    pub(crate) apply: Costs,
    pub(crate) reload: Costs,
}

/// What the whole program took to set a pod up.
pub(crate) struct OwnWork {
    /// What it was given.
    pub(crate) list: ListName,
    /// Without the wait before the last announcement.
    pub(crate) costs: Costs,
    /// Largest resident set, in bytes.
    pub(crate) memory: Samples,
}

/// A list by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListName {
    DocumentedExample,
    Mappings(usize),
}

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 12, 99);

/// One length of list and the namespaces where each applies it.
struct Lane {
    netns: NetNs,
    text: String,
    changed: String,
    scripts: Vec<Scripts>,
    apply: Apply,
}

/// A peer's rule sets, and where it loads them.
struct Scripts {
    netns: NetNs,
    first: PathBuf,
    changed: PathBuf,
}

/// Everybody in turn, as often as `rounds` says.
pub(crate) fn measure(
    bed: &Bed,
    peers: &[Peer],
    sizes: &[usize],
    rounds: usize,
) -> Result<Vec<Apply>> {
    let mut lanes = sizes
        .iter()
        .map(|size| Lane::new(bed, peers, *size))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for lane in &mut lanes {
            lane.round(bed, peers);
        }
    }
    Ok(lanes.into_iter().map(|lane| lane.apply).collect())
}

impl Lane {
    fn new(bed: &Bed, peers: &[Peer], size: usize) -> Result<Self> {
        let mappings = Mappings::new(size, server_socket()?).context("no such length of list")?;
        let changed = mappings.with_one_changed();
        let scripts = peers
            .iter()
            .map(|peer| {
                let name = peer.kind().to_string().replace(' ', "");
                let file = |what| bed.folder().join(format!("{name}-{size}-{what}"));
                Ok(Scripts {
                    netns: NetNs::create(&name)?,
                    first: peer.write(&mappings, SOURCE, file("first"))?,
                    changed: peer.write(&changed, SOURCE, file("changed"))?,
                })
            })
            .collect::<Result<_>>()?;
        let costs = |peer: &Peer| PeerApply {
            kind: peer.kind(),
            apply: Costs::new(),
            reload: Costs::new(),
        };
        Ok(Self {
            netns: NetNs::create("driver")?,
            text: mappings.lines(),
            changed: changed.lines(),
            scripts,
            apply: Apply {
                size,
                read: Costs::new(),
                driver: Costs::new(),
                driver_reload: Costs::new(),
                peers: peers.iter().map(costs).collect(),
            },
        })
    }

    fn round(&mut self, bed: &Bed, peers: &[Peer]) {
        let apply = &mut self.apply;
        match self.netns.run(|| with_driver(&self.text, &self.changed)) {
            Ok([read, driver, reload]) => {
                apply.read.push(Ok(read));
                apply.driver.push(Ok(driver));
                apply.driver_reload.push(Ok(reload));
            }
            Err(error) => apply.driver.push(Err(error)),
        }
        for ((peer, scripts), costs) in peers.iter().zip(&self.scripts).zip(&mut apply.peers) {
            if costs.apply.has_failed() || costs.reload.has_failed() {
                continue;
            }
            costs.apply.push(peer.load(&scripts.netns, &scripts.first));
            if !costs.apply.has_failed() {
                let reload = peer.load(&scripts.netns, &scripts.changed);
                let cleared = peer.clear(&scripts.netns, bed.folder());
                costs
                    .reload
                    .push(reload.and_then(|cost| cleared.map(|()| cost)));
            }
        }
    }
}

/// What the program does with its list at its start, and after a change of
/// one line; the rules are gone afterwards.
fn with_driver(text: &str, changed: &str) -> Result<[Cost; 3]> {
    let mut driver = firewall::open(FirewallDriver::Nftables)?;
    let mut replace = |redirects: &Redirects| {
        driver.replace(&Firewall {
            pod_interface: POD_INTERFACE,
            egress_interface: EGRESS_INTERFACE,
            sources: &[IpAddr::V4(SOURCE)],
            redirects,
            local_ports: &[],
            pod_networks: &[],
        })
    };
    let (redirects, reading) = Cost::of_call(|| read(text))?;
    let redirects = redirects?;
    let count = redirects.mappings().len();
    let (replaced, applying) = Cost::of_call(|| replace(&redirects))?;
    anyhow::ensure!(replaced?.added == count, "not all mappings were added");
    let (replaced, reloading) = Cost::of_call(|| anyhow::Ok(replace(&read(changed)?)?))?;
    let replaced = replaced?;
    anyhow::ensure!(
        (replaced.added, replaced.removed, replaced.kept) == (1, 1, count - 1),
        "a reload changed {replaced:?}"
    );
    anyhow::ensure!(driver.remove()?, "the rules were gone");
    Ok([reading, applying, reloading])
}

fn read(text: &str) -> Result<Redirects> {
    let mut diagnostics = Diagnostics::new();
    let list = List::new("EGRESS_DESTINATION", text);
    let redirects = Redirects::parse(&list, |_| Ok(()), &mut diagnostics);
    anyhow::ensure!(diagnostics.errors().is_empty(), "{diagnostics}");
    Ok(redirects)
}

/// The whole program on a fresh pod: the documented example, and each length
/// of list, as often as `rounds` says.
pub(crate) fn own_work(bed: &mut Bed, sizes: &[usize], rounds: usize) -> Result<Vec<OwnWork>> {
    let router = bed.add_router_pod("program")?;
    let server = server_socket()?;
    let mut lists = vec![(
        bed.write("documented", DOCUMENTED_EXAMPLE)?,
        OwnWork::new(ListName::DocumentedExample),
    )];
    for size in sizes {
        let mappings = Mappings::new(*size, server).context("no such length of list")?;
        let file = bed.write(&format!("list-{size}"), &mappings.lines())?;
        lists.push((file, OwnWork::new(ListName::Mappings(*size))));
    }
    for _ in 0..rounds {
        for (file, work) in &mut lists {
            let (cost, memory) = set_up(&router, file)?;
            work.costs.push(Ok(cost));
            work.memory.push(memory);
            router.undo()?;
        }
    }
    Ok(lists.into_iter().map(|(_, work)| work).collect())
}

impl OwnWork {
    fn new(list: ListName) -> Self {
        Self {
            list,
            costs: Costs::new(),
            memory: Samples::default(),
        }
    }
}

/// Cost and memory of one run.
fn set_up(router: &RouterPod, list: &std::path::Path) -> Result<(Cost, f64)> {
    let before = cpu_of_children()?;
    let process = router.init(list).spawn()?;
    // It waits now, with all its work but one frame behind it.
    process.await_stderr("the network is set up", Duration::from_secs(60))?;
    let memory = largest_resident_set(&process)?;
    let output = succeeded(process.wait()?)?;
    let wall = output.elapsed.saturating_sub(LAST_ANNOUNCEMENT_OF_INIT);
    Ok((
        Cost {
            wall,
            cpu: cpu_of_children_since(before)?,
        },
        memory,
    ))
}

/// In bytes. Not what wait4(2) says: that has the largest of the forking
/// process in it.
fn largest_resident_set(process: &Process) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))
        .context("reading the program's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    Ok(f64::from(kibibytes.context("the program has no resident set")?) * 1024.0)
}
