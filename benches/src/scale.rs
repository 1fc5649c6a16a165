//! The measurements in their order.

use anyhow::Result;

use crate::bed::Bed;
use crate::machine::Machine;
use crate::peer::{Kind, Peer};
use crate::report::{Figures, Report};
use crate::settings::Settings;
use crate::{apply, connect};

/// Measures all of it. `progress` hears what is being done.
///
/// # Errors
/// When the lab cannot be built, or the router does not do what is measured.
/// A peer that fails is a line in the report.
pub fn run(settings: &Settings, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::here();
    let (peers, absent) = find_peers();
    let mut bed = Bed::new()?;
    progress("setting pods up by the whole program");
    let own_work = apply::own_work(&mut bed, &settings.sizes, settings.apply_rounds)?;
    progress("applying and reloading lists");
    let apply = apply::measure(&bed, &peers, &settings.sizes, settings.apply_rounds)?;
    progress("opening connections");
    let connect = connect::measure(&mut bed, &peers, settings)?;
    let figures = Figures {
        absent,
        own_work,
        apply,
        connect,
    };
    Ok(Report::new(settings, &machine, &peers, &figures))
}

fn find_peers() -> (Vec<Peer>, Vec<Kind>) {
    let mut absent = Vec::new();
    let mut peers = Vec::new();
    for kind in Kind::ALL {
        match Peer::find(kind) {
            Some(peer) => peers.push(peer),
            None => absent.push(kind),
        }
    }
    (peers, absent)
}
