//! Holding the source addresses on the wire: announced again a little later,
//! defended from then on.

use std::net::IpAddr;

use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use crate::router::Egress;
use crate::wire::{self, ANNOUNCEMENTS, Conflicts, Defence};

/// The claim of all source addresses on one interface.
pub(super) struct Claim {
    sources: Vec<IpAddr>,
    egress: Egress,
    started: Instant,
    announced: usize,
    conflicts: SelectAll<Conflicts>,
    whole: bool,
}

impl Claim {
    /// Watches every address, as far as the link allows it:
    /// [`is_whole`](Self::is_whole) tells.
    pub(super) fn new(sources: &[IpAddr], egress: &Egress) -> Self {
        let watches = sources
            .iter()
            .map(|source| Conflicts::open(egress.index, egress.mac, *source));
        let (conflicts, whole) = match watches.collect::<Result<Vec<_>, _>>() {
            Ok(conflicts) => (conflicts, true),
            Err(error) => {
                warn!("EGRESS_SOURCE cannot be defended: {error}");
                (Vec::new(), false)
            }
        };
        Self {
            sources: sources.to_vec(),
            egress: egress.clone(),
            started: Instant::now(),
            announced: 0,
            conflicts: select_all(conflicts),
            whole,
        }
    }

    /// Whether every address is watched.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Makes the next announcement that is due, or answers the next conflict.
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        let due = ANNOUNCEMENTS
            .get(self.announced)
            .map(|after| self.started + *after);
        tokio::select! {
            () = sleep_until(due.unwrap_or(self.started)), if due.is_some() => {
                self.announced += 1;
                self.announce();
                Event::Announced
            }
            Some(sighting) = self.conflicts.next() => match sighting {
                Ok(sighting) => {
                    match sighting.defence {
                        Defence::Announced => error!(
                            "EGRESS_SOURCE: {}; announced again, and not given up",
                            sighting.conflict
                        ),
                        // A host that insists must not fill the log.
                        Defence::HeldBack => debug!("EGRESS_SOURCE: {}", sighting.conflict),
                    }
                    Event::Conflict
                }
                Err(error) => {
                    debug!("EGRESS_SOURCE is no longer watched: {error}");
                    self.conflicts.clear();
                    self.whole = false;
                    Event::Lost
                }
            },
            else => std::future::pending().await,
        }
    }

    fn announce(&self) {
        for source in &self.sources {
            if let Err(error) = wire::announce(self.egress.index, self.egress.mac, *source) {
                warn!("EGRESS_SOURCE {source} cannot be announced: {error}");
            }
        }
    }
}

/// What happened to a claim.
pub(super) enum Event {
    /// The addresses were announced.
    Announced,
    /// Another host claims an address.
    Conflict,
    /// The link went down or away: the claim is to be made anew.
    Lost,
}
