//! Holding the source addresses on the wire: announced at once and again a
//! little later, defended from then on; and whether their gateways answer.

use std::net::IpAddr;
use std::thread;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

use super::gateway::{Due, Gateway};
use super::{Egress, LAST_ANNOUNCEMENT_OF_INIT, places};
use crate::config::Config;
use crate::wire::{self, ANNOUNCEMENTS, Defence, Heard, Station};

/// The claim of all source addresses on one interface.
pub(crate) struct Claim {
    link: String,
    stations: SelectAll<Station>,
    gateways: Vec<Gateway>,
    started: Instant,
    announced: usize,
}

/// What happened to a claim.
pub(crate) enum Event {
    /// The addresses were announced, or could not be.
    Announced(Result<(), wire::Error>),
    /// Another host claims an address.
    Conflict,
    /// A gateway was heard, or turned out to be silent.
    Gateway {
        /// Its address.
        address: IpAddr,
        /// Whether it answers.
        answers: bool,
    },
    /// The link went down or away: the addresses are to be claimed anew.
    Lost(wire::Error),
}

impl Claim {
    /// Of nothing, with the stations that stand already.
    pub(super) fn new(stations: Vec<Station>) -> Self {
        Self {
            link: String::new(),
            stations: stations.into_iter().collect(),
            gateways: Vec::new(),
            started: Instant::now(),
            announced: 0,
        }
    }

    /// Claims the addresses of `config` on `egress`, from the beginning. What
    /// stands at its place stays.
    ///
    /// # Errors
    /// When the kernel refuses a socket; nothing is claimed then.
    pub(crate) fn hold(&mut self, config: &Config, egress: &Egress) -> Result<(), wire::Error> {
        let mut standing: Vec<Station> = std::mem::take(&mut self.stations).into_iter().collect();
        let mut known = std::mem::take(&mut self.gateways);
        self.link.clone_from(&egress.name);
        (self.started, self.announced) = (Instant::now(), 0);
        let (mut stations, mut gateways) = (Vec::new(), Vec::new());
        for place in places(config, egress) {
            let is_there = |station: &Station| station.place() == place;
            stations.push(match standing.iter().position(is_there) {
                Some(position) => standing.swap_remove(position),
                None => Station::open(place)?,
            });
            let is_known = |gateway: &Gateway| gateway.address() == place.gateway;
            gateways.push(match known.iter().position(is_known) {
                Some(position) => known.swap_remove(position),
                None => Gateway::new(place.gateway, self.started),
            });
        }
        (self.stations, self.gateways) = (stations.into_iter().collect(), gateways);
        Ok(())
    }

    /// Whether the addresses are watched.
    pub(crate) fn is_held(&self) -> bool {
        !self.stations.is_empty()
    }

    /// Tells the physical network where the addresses are.
    ///
    /// # Errors
    /// When the link is down or gone; the other addresses are announced all the
    /// same.
    pub(crate) fn announce(&mut self) -> Result<(), wire::Error> {
        self.announced += 1;
        self.stations
            .iter()
            .map(Station::announce)
            .fold(Ok(()), Result::and)
    }

    /// The bounded end of a run: until the announcement was repeated, for a
    /// gateway that missed the first (it would send replies to the old
    /// interface until its entry ages), and every gateway was heard or missed.
    ///
    /// # Errors
    /// When the link goes down or away meanwhile.
    pub(crate) async fn settle(&mut self) -> Result<(), wire::Error> {
        let is_early = |after| after <= LAST_ANNOUNCEMENT_OF_INIT;
        let early = ANNOUNCEMENTS.into_iter().filter(|after| is_early(*after));
        let announcements = early.count();
        while self.announced < announcements || self.gateways.iter().any(|g| g.answers().is_none())
        {
            match self.next().await {
                Event::Announced(result) => result?,
                Event::Lost(error) => return Err(error),
                Event::Conflict | Event::Gateway { .. } => {}
            }
        }
        Ok(())
    }

    /// Gives the sockets back. The kernel waits whenever it closes one of
    /// these, so it waits for all of them at once.
    pub(crate) fn close(self) {
        let mut stations = self.stations.into_iter();
        let last = stations.next();
        thread::scope(|scope| {
            for station in stations {
                scope.spawn(|| drop(station));
            }
            drop(last);
        });
    }

    /// Does what is due next, or hears what comes before. Cancel safe.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let announcement = ANNOUNCEMENTS.get(self.announced);
            let announcement = announcement.map(|after| self.started + *after);
            let question = self.gateways.iter().map(Gateway::next).min();
            let question = question.filter(|_| !self.stations.is_empty());
            tokio::select! {
                biased;
                Some(heard) = self.stations.next() => if let Some(event) = self.heard(heard) {
                    return event;
                },
                () = until(announcement) => return Event::Announced(self.announce()),
                () = until(question) => if let Some(event) = self.ask() {
                    return event;
                },
            }
        }
    }

    fn heard(&mut self, heard: Result<Heard, wire::Error>) -> Option<Event> {
        match heard {
            Ok(Heard::Conflict(sighting)) => {
                match sighting.defence {
                    Defence::Announced => error!(
                        "EGRESS_SOURCE: {}; announced again, and not given up",
                        sighting.conflict
                    ),
                    // A host that insists must not fill the log.
                    Defence::HeldBack => debug!("EGRESS_SOURCE: {}", sighting.conflict),
                }
                Some(Event::Conflict)
            }
            Ok(Heard::Gateway { gateway, mac }) => {
                let mut known = self.gateways.iter_mut();
                let known = known.find(|known| known.address() == gateway)?;
                let was_silent = known.answers() == Some(false);
                if !known.heard(mac, Instant::now()) {
                    return None;
                }
                if was_silent {
                    info!("EGRESS_GATEWAY: {gateway} answers again, at {mac}");
                } else {
                    debug!("EGRESS_GATEWAY: {gateway} is at {mac}");
                }
                Some(Event::Gateway {
                    address: gateway,
                    answers: true,
                })
            }
            Err(error) => {
                debug!("EGRESS_SOURCE is no longer watched: {error}");
                self.stations.clear();
                Some(Event::Lost(error))
            }
        }
    }

    /// Asks for the gateways that are to be asked for.
    fn ask(&mut self) -> Option<Event> {
        let now = Instant::now();
        for gateway in self.gateways.iter_mut().filter(|g| g.next() <= now) {
            let address = gateway.address();
            let known = match gateway.take(now) {
                Due::Question(known) => known,
                Due::Verdict => {
                    warn!("EGRESS_GATEWAY: {}", silence(address, &self.link));
                    return Some(Event::Gateway {
                        address,
                        answers: false,
                    });
                }
            };
            let mut stations = self.stations.iter();
            let station = stations.find(|station| station.place().gateway == address);
            if let Some(Err(error)) = station.map(|station| station.ask_for_gateway(known)) {
                debug!("EGRESS_GATEWAY {address} cannot be asked for: {error}");
            }
        }
        None
    }
}

/// That a gateway is silent, and what to do about it.
pub(crate) fn silence(gateway: IpAddr, link: &str) -> String {
    format!(
        "{gateway} does not answer on {link}, and until it does nothing reaches the outside; check \
         that EGRESS_GATEWAY is right and up, that {link} is in its network (the VLAN, the \
         annotation or NetworkAttachmentDefinition), and the node's interface under {link} \
         (EGRESS_MACVLAN_PARENT)"
    )
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
