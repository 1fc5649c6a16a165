//! The lab, kept for a visitor.

use std::io;
use std::net::IpAddr;

use egress_lab::{Host, NetNs, Node};
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

use crate::narration::title;
use crate::stage::Stage;

/// Says how to enter each namespace, and waits for the end of the visit.
pub(crate) fn keep(stage: &Stage) -> io::Result<()> {
    let lab = &stage.lab;
    title("the lab stays up; press ctrl-c to end it");
    let hosts: Vec<(&NetNs, Vec<IpAddr>)> = [
        &*stage.pod,
        &*stage.near,
        &*stage.far,
        lab.node(Node::One),
        lab.node(Node::Two),
        lab.gateway(),
        lab.lan_host(),
        lab.outside(0),
        lab.outside(1),
        lab.outside(2),
    ]
    .map(|host: &Host| (host.netns(), host.addresses().to_vec()))
    .into();
    for (netns, addresses) in hosts {
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        println!(
            "{:<14} {:<32} {} sh",
            netns.name(),
            addresses.join(" "),
            netns.enter_command()
        );
    }
    await_end()
}

fn await_end() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        Ok(())
    })
}
