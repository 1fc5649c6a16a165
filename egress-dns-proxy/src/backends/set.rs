//! The addresses of a destination and their health.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rotation::Rotation;

/// The addresses that a destination has at the moment.
///
/// An address is healthy until a dial fails or is slow; from then on it is
/// checked in the background until a check or a dial succeeds.
#[derive(Clone, Debug)]
pub struct Backends {
    port: u16,
    interval: Duration,
    /// By address, each once.
    backends: Vec<Backend>,
    rotation: Arc<Rotation>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Backend {
    address: SocketAddr,
    health: Health,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Health {
    Healthy {
        /// A check found it alive, so until then being slow says nothing.
        trusted_until: Option<Instant>,
    },
    Unhealthy(Check),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Check {
    Due(Instant),
    Running,
}

impl Check {
    fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::Due(at) => *at <= now,
            Self::Running => false,
        }
    }
}

const HEALTHY: Health = Health::Healthy {
    trusted_until: None,
};

impl Backends {
    /// No address yet. All will have `port`; an unhealthy one is checked every
    /// `interval`.
    #[must_use]
    pub fn new(port: u16, interval: Duration) -> Self {
        Self {
            port,
            interval,
            backends: Vec::new(),
            rotation: Arc::default(),
        }
    }

    /// The addresses as they stand, best first. They stay as they are in the
    /// hand of whoever took them; take them anew for each connection.
    #[must_use]
    pub fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// A fresh answer: these addresses and no others. Those that stay keep
    /// their health.
    pub fn answered(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut backends: Vec<Backend> = addresses
            .into_iter()
            .map(|address| Backend {
                address: SocketAddr::new(address, self.port),
                health: HEALTHY,
            })
            .collect();
        backends.sort_unstable_by_key(|backend| backend.address);
        backends.dedup_by_key(|backend| backend.address);
        for backend in &mut backends {
            if let Some(known) = self.backend(backend.address) {
                backend.health = known.health.clone();
            }
        }
        self.backends = backends;
        self.rank();
    }

    /// A connection could not be made.
    pub fn dial_failed(&mut self, address: SocketAddr, now: Instant) {
        let check = Check::Due(now + self.interval);
        self.demote(address, |_| Some(check));
    }

    /// A connection took so long that another address was tried. It may be
    /// dead or far away; a check at once will tell.
    pub fn dial_slow(&mut self, address: SocketAddr, now: Instant) {
        self.demote(address, |trusted_until| {
            let trusted = trusted_until.is_some_and(|until| now < until);
            (!trusted).then_some(Check::Due(now))
        });
    }

    /// A connection was made.
    pub fn dial_succeeded(&mut self, address: SocketAddr) {
        self.promote(address, None);
    }

    /// When the next check is due, if any is.
    #[must_use]
    pub fn next_check(&self) -> Option<Instant> {
        let due = |backend: &Backend| match backend.health {
            Health::Unhealthy(Check::Due(at)) => Some(at),
            Health::Unhealthy(Check::Running) | Health::Healthy { .. } => None,
        };
        self.backends.iter().filter_map(due).min()
    }

    /// An address whose check is due, and which is running from now on. Ask
    /// until there is none.
    pub fn begin_check(&mut self, now: Instant) -> Option<SocketAddr> {
        self.backends.iter_mut().find_map(|backend| {
            let Health::Unhealthy(check) = &mut backend.health else {
                return None;
            };
            if !check.is_due(now) {
                return None;
            }
            *check = Check::Running;
            Some(backend.address)
        })
    }

    /// A check found the address alive.
    pub fn check_succeeded(&mut self, address: SocketAddr, now: Instant) {
        self.promote(address, Some(now + self.interval));
    }

    /// A check failed.
    pub fn check_failed(&mut self, address: SocketAddr, now: Instant) {
        let next = now + self.interval;
        if let Some(backend) = self.backend_mut(address)
            && let Health::Unhealthy(check) = &mut backend.health
        {
            *check = Check::Due(next);
        }
    }

    fn backend(&self, address: SocketAddr) -> Option<&Backend> {
        let found = self
            .backends
            .binary_search_by_key(&address, |backend| backend.address);
        self.backends.get(found.ok()?)
    }

    fn backend_mut(&mut self, address: SocketAddr) -> Option<&mut Backend> {
        let found = self
            .backends
            .binary_search_by_key(&address, |backend| backend.address);
        self.backends.get_mut(found.ok()?)
    }

    /// Makes a healthy address unhealthy when `check` says when to check it;
    /// it is told until when the address is trusted.
    fn demote(
        &mut self,
        address: SocketAddr,
        check: impl FnOnce(Option<Instant>) -> Option<Check>,
    ) {
        if let Some(backend) = self.backend_mut(address)
            && let Health::Healthy { trusted_until } = backend.health
            && let Some(check) = check(trusted_until)
        {
            backend.health = Health::Unhealthy(check);
            self.rank();
        }
    }

    fn promote(&mut self, address: SocketAddr, trusted_until: Option<Instant>) {
        if let Some(backend) = self.backend_mut(address)
            && let Health::Unhealthy(_) = backend.health
        {
            backend.health = Health::Healthy { trusted_until };
            self.rank();
        }
    }

    fn rank(&mut self) {
        let ranked = self.backends.iter().map(|backend| {
            let healthy = matches!(backend.health, Health::Healthy { .. });
            (backend.address, healthy)
        });
        self.rotation = Arc::new(Rotation::new(&ranked));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn at(last: u8) -> SocketAddr {
        SocketAddr::new(ip(last), 80)
    }

    fn backends(last: impl IntoIterator<Item = u8>) -> Backends {
        let mut backends = Backends::new(80, INTERVAL);
        backends.answered(last.into_iter().map(ip));
        backends
    }

    fn picked(backends: &Backends, turn: usize) -> Vec<SocketAddr> {
        backends.rotation().pick(turn).collect()
    }

    #[test]
    fn sixty_addresses_all_take_traffic() {
        let backends = backends(1..=60);
        let first: BTreeSet<SocketAddr> = (0..60)
            .filter_map(|turn| backends.rotation().pick(turn).next())
            .collect();
        assert_eq!(first, (1..=60).map(at).collect());
        for turn in 0..60 {
            assert_eq!(picked(&backends, turn).len(), 60);
        }
    }

    #[test]
    fn a_dead_address_stands_last_until_a_check_succeeds() {
        let start = Instant::now();
        let mut backends = backends([1, 2]);
        backends.dial_failed(at(1), start);
        assert_eq!(picked(&backends, 0), [at(2), at(1)]);
        assert_eq!(picked(&backends, 1), [at(2), at(1)]);
        assert_eq!(backends.next_check(), Some(start + INTERVAL));
        assert_eq!(backends.begin_check(start + INTERVAL - SECOND), None);
        let now = start + INTERVAL;
        assert_eq!(backends.begin_check(now), Some(at(1)));
        assert_eq!(backends.begin_check(now), None);
        assert_eq!(backends.next_check(), None);
        backends.check_failed(at(1), now + SECOND);
        assert_eq!(backends.next_check(), Some(now + SECOND + INTERVAL));
        let now = now + SECOND + INTERVAL;
        assert_eq!(backends.begin_check(now), Some(at(1)));
        backends.check_succeeded(at(1), now);
        assert_eq!(picked(&backends, 0), [at(1), at(2)]);
        assert_eq!(backends.next_check(), None);
    }

    #[test]
    fn when_all_are_dead_all_are_dialled_and_success_heals() {
        let start = Instant::now();
        let mut backends = backends([1, 2]);
        backends.dial_failed(at(1), start);
        backends.dial_failed(at(2), start + SECOND);
        assert_eq!(backends.rotation().healthy(), 0);
        assert_eq!(picked(&backends, 0), [at(1), at(2)]);
        assert_eq!(picked(&backends, 1), [at(2), at(1)]);
        backends.dial_succeeded(at(2));
        assert_eq!(picked(&backends, 0), [at(2), at(1)]);
        assert_eq!(backends.rotation().healthy(), 1);
    }

    #[test]
    fn a_slow_address_is_checked_at_once_and_trusted_for_a_while() {
        let start = Instant::now();
        let mut backends = backends([1, 2]);
        backends.dial_slow(at(1), start);
        assert_eq!(picked(&backends, 0), [at(2), at(1)]);
        assert_eq!(backends.begin_check(start), Some(at(1)));
        backends.check_succeeded(at(1), start + SECOND);
        backends.dial_slow(at(1), start + INTERVAL);
        assert_eq!(backends.next_check(), None);
        assert_eq!(backends.rotation().healthy(), 2);
        backends.dial_slow(at(1), start + INTERVAL + SECOND);
        assert_eq!(backends.next_check(), Some(start + INTERVAL + SECOND));
    }

    #[test]
    fn an_answer_replaces_the_addresses_and_keeps_their_health() {
        let start = Instant::now();
        let mut backends = backends([1, 2, 2, 3]);
        assert_eq!(picked(&backends, 0), [at(1), at(2), at(3)]);
        backends.dial_failed(at(2), start);
        backends.answered([ip(4), ip(2)]);
        assert_eq!(picked(&backends, 0), [at(4), at(2)]);
        // What is not in the answer is nobody's business any more.
        backends.dial_failed(at(1), start);
        assert_eq!(picked(&backends, 0), [at(4), at(2)]);
        backends.answered([ip(4)]);
        backends.answered([ip(4), ip(2)]);
        assert_eq!(picked(&backends, 0), [at(2), at(4)]);
        backends.check_failed(at(2), start);
        assert_eq!(backends.next_check(), None);
    }

    #[test]
    fn who_took_the_addresses_keeps_them() {
        let mut backends = backends([1]);
        let taken = Arc::clone(backends.rotation());
        backends.answered([ip(2)]);
        assert_eq!(taken.pick(0).collect::<Vec<_>>(), [at(1)]);
        assert_eq!(picked(&backends, 0), [at(2)]);
    }

    /// What may happen to the addresses of one destination.
    #[derive(Clone, Debug)]
    enum Event {
        Answer(Vec<IpAddr>),
        Failed(SocketAddr),
        Slow(SocketAddr),
        Succeeded(SocketAddr),
        Wait(Duration),
        /// Runs the checks that are due; the bits say which of them succeed.
        Checks(u8),
    }

    fn some_ip() -> impl Strategy<Value = IpAddr> {
        (0..8_u8, any::<bool>()).prop_map(|(last, ipv4)| {
            if ipv4 {
                ip(last)
            } else {
                IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
            }
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        let address = || some_ip().prop_map(|address| SocketAddr::new(address, 80));
        prop_oneof![
            proptest::collection::vec(some_ip(), 1..10).prop_map(Event::Answer),
            address().prop_map(Event::Failed),
            address().prop_map(Event::Slow),
            address().prop_map(Event::Succeeded),
            (0..20_000_u64).prop_map(|wait| Event::Wait(Duration::from_millis(wait))),
            any::<u8>().prop_map(Event::Checks),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens(events in proptest::collection::vec(event(), 1..120)) {
            let mut now = Instant::now();
            let mut backends = Backends::new(80, INTERVAL);
            let mut answer: BTreeSet<SocketAddr> = BTreeSet::new();
            for event in events {
                let healthy = backends.rotation().healthy();
                match event {
                    Event::Answer(addresses) => {
                        answer = addresses.iter().map(|&ip| SocketAddr::new(ip, 80)).collect();
                        backends.answered(addresses);
                    }
                    Event::Failed(address) => {
                        backends.dial_failed(address, now);
                        // A failure takes one address out at most, and what
                        // is in use stands before it.
                        prop_assert!(backends.rotation().healthy() + 1 >= healthy);
                        let first = backends.rotation().pick(0).next();
                        let others = backends.rotation().healthy() > 0;
                        prop_assert!(!others || first != Some(address));
                    }
                    Event::Slow(address) => {
                        backends.dial_slow(address, now);
                        prop_assert!(backends.rotation().healthy() + 1 >= healthy);
                    }
                    Event::Succeeded(address) => {
                        backends.dial_succeeded(address);
                        prop_assert!(backends.rotation().healthy() >= healthy);
                        if answer.contains(&address) {
                            // It serves: within one round it is first.
                            let rotation = backends.rotation();
                            let ipv4_healthy = rotation
                                .pick(0)
                                .take(rotation.healthy())
                                .any(|address| address.is_ipv4());
                            let first = (0..answer.len())
                                .any(|turn| rotation.pick(turn).next() == Some(address));
                            prop_assert!(first || (ipv4_healthy && !address.is_ipv4()));
                        }
                    }
                    Event::Wait(wait) => now += wait,
                    Event::Checks(outcomes) => {
                        let due = backends.next_check().is_some_and(|at| at <= now);
                        let mut begun = BTreeSet::new();
                        while let Some(address) = backends.begin_check(now) {
                            // Never of an address that is gone, and one check
                            // at a time of each.
                            prop_assert!(answer.contains(&address));
                            prop_assert!(begun.insert(address));
                        }
                        prop_assert_eq!(due, !begun.is_empty());
                        prop_assert!(backends.next_check().is_none_or(|at| at > now));
                        for (bit, &address) in begun.iter().enumerate() {
                            if outcomes >> (bit % 8) & 1 == 1 {
                                backends.check_succeeded(address, now);
                            } else {
                                backends.check_failed(address, now);
                            }
                        }
                        // Never spinning: what was checked now is not checked
                        // again before its time.
                        let next = backends.next_check();
                        let unchecked = answer.iter().any(|address| !begun.contains(address));
                        prop_assert!(unchecked || next.is_none_or(|at| at >= now + INTERVAL));
                    }
                }
                let rotation = backends.rotation();
                for turn in [0, 1, usize::MAX] {
                    let picked: Vec<SocketAddr> = rotation.pick(turn).collect();
                    // All addresses of the last answer, each once, and no
                    // other: there is one while one is healthy, and even when
                    // none is.
                    prop_assert_eq!(picked.len(), answer.len());
                    prop_assert_eq!(picked.iter().copied().collect::<BTreeSet<_>>(), answer.clone());
                }
                let ipv4 = answer.iter().filter(|address| address.is_ipv4()).count();
                if rotation.healthy() == answer.len() && ipv4 > 0 {
                    // All IPv4 addresses take their turns.
                    let first: BTreeSet<_> =
                        (0..ipv4).filter_map(|turn| rotation.pick(turn).next()).collect();
                    prop_assert_eq!(first.len(), ipv4);
                }
            }
            // Whatever happened, a round of good checks heals everything.
            now += INTERVAL;
            while let Some(address) = backends.begin_check(now) {
                backends.check_succeeded(address, now);
            }
            prop_assert_eq!(backends.rotation().healthy(), answer.len());
            prop_assert_eq!(backends.next_check(), None);
        }
    }
}
