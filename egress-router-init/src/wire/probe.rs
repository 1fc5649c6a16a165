//! Is the address free?

use std::future::poll_fn;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::carrier::wait_for_carrier;
use super::error::Error;
use super::socket::join_solicited_node;
use super::station::{Place, Station};

/// RFC 5227 section 1.1 sends as many.
const PROBES: u32 = 3;

impl Station {
    /// Asks the LAN behind the place's link whether another host holds or wants
    /// the address, which the link must not have yet.
    ///
    /// Three probes are spread evenly over `wait`, and answers are listened for
    /// all the while; the first conflict ends it. RFC 5227 spreads them over
    /// five to seven seconds for links of unknown kind; on an Ethernet LAN that
    /// forwards already, an answer takes milliseconds.
    ///
    /// A link that was set up a moment ago gets up to `wait` more to find its
    /// carrier. Probes for several addresses may run at the same time.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when another host has the address,
    /// [`Error::LinkDown`] or [`Error::NoCarrier`] when nobody could be asked,
    /// and what the kernel refuses.
    pub async fn probe(place: Place, wait: Duration) -> Result<Self, Error> {
        wait_for_carrier(place.link, wait).await?;
        let station = Self::open(place)?;
        let _group = match place.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(join_solicited_node(place.link, address)?),
        };
        let mut schedule = Schedule::new(Instant::now(), wait);
        while let Some(step) = schedule.next(Instant::now()) {
            match step {
                Step::Probe => station.probe_once()?,
                Step::Listen { until } => {
                    let rival = poll_fn(|cx| station.poll_rival(cx));
                    if let Ok(heard) = tokio::time::timeout_at(until.into(), rival).await {
                        return Err(heard?.into());
                    }
                }
            }
        }
        Ok(station)
    }
}

/// What to do next while probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Probe,
    Listen { until: Instant },
}

/// When to probe and how long to listen.
#[derive(Debug)]
struct Schedule {
    start: Instant,
    wait: Duration,
    sent: u32,
}

impl Schedule {
    fn new(start: Instant, wait: Duration) -> Self {
        Self {
            start,
            wait,
            sent: 0,
        }
    }

    /// The step that is due at `now`; none when the address is free.
    fn next(&mut self, now: Instant) -> Option<Step> {
        let next_probe = self.start + self.wait / PROBES * self.sent;
        if self.sent < PROBES && now >= next_probe {
            self.sent += 1;
            return Some(Step::Probe);
        }
        // After the last probe this is the end of the wait.
        (now < next_probe).then_some(Step::Listen { until: next_probe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_probes_then_the_rest_of_the_wait() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::new(start, Duration::from_millis(300));
        for (now, step) in [
            (0, Some(Step::Probe)),
            (0, Some(Step::Listen { until: at(100) })),
            (40, Some(Step::Listen { until: at(100) })),
            (100, Some(Step::Probe)),
            (100, Some(Step::Listen { until: at(200) })),
            (201, Some(Step::Probe)),
            (201, Some(Step::Listen { until: at(300) })),
            (299, Some(Step::Listen { until: at(300) })),
            (300, None),
            (900, None),
        ] {
            assert_eq!(schedule.next(at(now)), step, "at {now} ms");
        }
    }

    #[test]
    fn probes_that_are_late_are_not_left_out() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_millis(300));
        let late = start + Duration::from_secs(5);
        let steps: Vec<_> = std::iter::from_fn(|| schedule.next(late)).collect();
        assert_eq!(steps, [Step::Probe; 3]);
    }
}
