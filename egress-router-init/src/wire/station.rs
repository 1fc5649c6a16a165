//! A source address at its place on the LAN.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::Stream;

use super::claim::{Claim, Phase};
use super::defence::{Defence, Pacing, Sighting};
use super::error::Error;
use super::filter;
use super::mac::MacAddr;
use super::question::Question;
use super::socket::PacketSocket;

/// When to announce, counted from the moment the address is on the link: at
/// once, and twice more in case a frame is lost or a switch port is still
/// learning.
pub const ANNOUNCEMENTS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Where an address is, and by which gateway it leads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the link.
    pub link: u32,
    /// Ethernet address of the link.
    pub mac: MacAddr,
    /// The address, which others may hold still.
    pub address: IpAddr,
    /// The next hop, of the same family.
    pub gateway: IpAddr,
}

/// What was heard about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Another host claims it.
    Conflict(Sighting),
    /// Its gateway answers.
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// Where it is.
        mac: MacAddr,
    },
}

/// Speaks and listens for an address at its place.
///
/// As a stream it is what others say about the address and its gateway. Each
/// claim to the address is answered with one announcement, at most every ten
/// seconds. The address is never given up: the operator reserved it for this
/// router, and connections that work half of the time with a warning in the log
/// are mended sooner than an egress that has gone silent (RFC 5227 section 2.4
/// (c)). The stream never ends. An error is an item like any other; after the
/// link was deleted, a new one must be opened on its successor.
///
/// Keep it as long as it is of use: the kernel takes its time to close a packet
/// socket (`synchronize_net`, ten milliseconds and more).
#[derive(Debug)]
pub struct Station {
    place: Place,
    claim: Claim,
    question: Option<Question>,
    socket: PacketSocket,
    pacing: Pacing,
}

impl Station {
    /// Listens at a place from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLink`], [`Error::NotPermitted`], and what else the kernel
    /// refuses.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open(place: Place) -> Result<Self, Error> {
        let claim = Claim::new(place.mac, place.address);
        let filter = filter::about(place.address, place.gateway);
        Ok(Self {
            place,
            claim,
            question: Question::new(place.mac, place.address, place.gateway),
            socket: PacketSocket::open(place.link, claim.ether_type(), &filter)?,
            pacing: Pacing::default(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Tells every host behind the link, once, that the address is here: an ARP
    /// announcement (RFC 5227 section 2.3) or an unsolicited Neighbour
    /// Advertisement (RFC 4861 section 7.2.6). Switches learn the port from it,
    /// and a gateway that knows the address replaces the Ethernet address it
    /// had.
    ///
    /// Does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::LinkDown`], [`Error::NoCarrier`], [`Error::NoSuchLink`], and
    /// what else the kernel refuses.
    pub fn announce(&self) -> Result<(), Error> {
        self.socket.send("announce", &self.claim.announcement())
    }

    /// Asks where the gateway is; the answer is heard later. With the place
    /// where it was `known` to be nobody else is troubled.
    ///
    /// # Errors
    ///
    /// As for [`Station::announce`].
    pub fn ask_for_gateway(&self, known: Option<MacAddr>) -> Result<(), Error> {
        match self.question {
            Some(question) => self.socket.send("ask", &question.frame(known)),
            None => Ok(()),
        }
    }

    /// Asks whether the address is free.
    pub(super) fn probe_once(&self) -> Result<(), Error> {
        self.socket.send("probe", &self.claim.probe())
    }

    /// Waits for a frame that contests the address before it is held.
    pub(super) fn poll_rival(&self, cx: &mut Context<'_>) -> Poll<Result<super::Conflict, Error>> {
        let judge = |frame: &[u8]| self.claim.conflict(frame, Phase::Probing);
        self.socket.poll_frame(cx, judge)
    }
}

impl Stream for Station {
    type Item = Result<Heard, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        enum Said {
            Rival(super::Conflict),
            Gateway(MacAddr),
        }
        let (claim, question) = (self.claim, self.question);
        let judge = |frame: &[u8]| {
            let rival = claim.conflict(frame, Phase::Holding).map(Said::Rival);
            rival.or_else(|| question?.answer(frame).map(Said::Gateway))
        };
        let heard = match ready!(self.socket.poll_frame(cx, judge)) {
            Ok(Said::Gateway(mac)) => Ok(Heard::Gateway {
                gateway: self.place.gateway,
                mac,
            }),
            Ok(Said::Rival(conflict)) => {
                let defence = self.pacing.on_conflict(Instant::now());
                let announced = match defence {
                    Defence::Announced => self.announce(),
                    Defence::HeldBack => Ok(()),
                };
                announced.map(|()| Heard::Conflict(Sighting { conflict, defence }))
            }
            Err(error) => Err(error),
        };
        Poll::Ready(Some(heard))
    }
}
