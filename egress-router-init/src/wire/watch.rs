//! Who else claims the address that we hold?

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::Stream;

use super::claim::{Claim, Conflict, Phase};
use super::error::Error;
use super::mac::MacAddr;
use super::socket::{Listener, PacketSocket};

/// RFC 5227 section 1.1: announcing more often would make two stubborn hosts
/// flood the LAN.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// What was done about a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defence {
    /// The address was announced again.
    Announced,
    /// The address was announced less than ten seconds ago.
    HeldBack,
}

/// A frame in which another host claimed our address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The address and the other host.
    pub conflict: Conflict,
    /// Our answer.
    pub defence: Defence,
}

/// A stream of the frames in which another host claims an address that we hold.
///
/// Each conflict is answered with one announcement, at most every ten seconds.
/// The address is never given up: the operator reserved it for this router, and
/// connections that work half of the time with a warning in the log are mended
/// sooner than an egress that has gone silent (RFC 5227 section 2.4 (c)).
///
/// The stream never ends. An error is an item like any other; after the link
/// was deleted, a new one must be opened on its successor.
#[derive(Debug)]
pub struct Conflicts {
    listener: Listener,
    pacing: Pacing,
}

impl Conflicts {
    /// Watches `address`, held at `mac`, on the link with index `link`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLink`], [`Error::NotPermitted`], and what else the kernel
    /// refuses.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open(link: u32, mac: MacAddr, address: IpAddr) -> Result<Self, Error> {
        Ok(Self {
            listener: PacketSocket::open(link, Claim::new(mac, address))?.listen()?,
            pacing: Pacing::default(),
        })
    }
}

impl Stream for Conflicts {
    type Item = Result<Sighting, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let conflict = ready!(self.listener.poll_conflict(cx, Phase::Holding));
        let sighting = conflict.and_then(|conflict| {
            let defence = self.pacing.on_conflict(Instant::now());
            if defence == Defence::Announced {
                self.listener.announce()?;
            }
            Ok(Sighting { conflict, defence })
        });
        Poll::Ready(Some(sighting))
    }
}

/// Keeps the interval between our announcements.
#[derive(Debug, Default)]
struct Pacing {
    last: Option<Instant>,
}

impl Pacing {
    fn on_conflict(&mut self, now: Instant) -> Defence {
        match self.last {
            Some(last) if now.saturating_duration_since(last) < DEFEND_INTERVAL => {
                Defence::HeldBack
            }
            _ => {
                self.last = Some(now);
                Defence::Announced
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_announcement_in_ten_seconds() {
        let start = Instant::now();
        let mut pacing = Pacing::default();
        let answers = [0, 1, 9_999, 10_000, 10_001, 19_999, 25_000]
            .map(|ms| pacing.on_conflict(start + Duration::from_millis(ms)));
        use Defence::{Announced, HeldBack};
        assert_eq!(
            answers,
            [
                Announced, HeldBack, HeldBack, Announced, HeldBack, HeldBack, Announced
            ]
        );
    }
}
