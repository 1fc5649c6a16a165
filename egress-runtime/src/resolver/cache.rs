//! What is known of each name, and until when.
//!
//! A name is *fresh* until its time to live is over. Then a look-up is due, and
//! what was known is *stale*: it is given for a day while name servers fail
//! (RFC 8767), and forgotten at once when they say that the name is gone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egress_config::DomainName;

use super::addresses::Addresses;
use super::error::LookupError;
use super::finding::Finding;

/// Answers hold at least this long, so that a name in use costs at most one
/// look-up per second.
const MIN_TTL: Duration = Duration::from_secs(1);
/// And at most this long.
const MAX_TTL: Duration = Duration::from_secs(3600);
/// The longest that an absent name is remembered: a client that created it
/// will not wait for long.
const MAX_ABSENT_TTL: Duration = Duration::from_secs(30);
/// How long a failure is remembered where there is nothing stale.
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// How long after a failure the stale answer is given without a new look-up
/// (the failure recheck timer of RFC 8767 section 5).
const RECHECK: Duration = Duration::from_secs(30);
/// How old the stale may be (the maximum stale timer of RFC 8767 section 5).
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);
/// How many names in a row are asked whether they were used lately before
/// room is made all the same.
const CHANCES: usize = 16;

/// What is known of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Known<F> {
    /// Addresses that hold.
    Fresh(Arc<Addresses>),
    /// Addresses that held; name servers failed a moment ago.
    Stale(Arc<Addresses>),
    /// It is absent, or could not be looked up a moment ago.
    Refused(LookupError),
    /// It is being looked up since `begun`, perhaps since now.
    UnderWay {
        flight: F,
        begun: Instant,
        stale: Option<Arc<Addresses>>,
    },
}

/// The cache. `F` is what others wait on while a look-up is under way.
#[derive(Debug)]
pub(super) struct Cache<F> {
    entries: HashMap<Arc<DomainName>, Entry<F>>,
    /// The names from the oldest to the newest. One that was used since it
    /// was last seen at the front gets another round (the CLOCK algorithm).
    rounds: VecDeque<Arc<DomainName>>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<F> {
    good: Option<Good>,
    refusal: Option<Refusal>,
    flight: Option<(F, Instant)>,
    used: bool,
}

#[derive(Debug)]
struct Good {
    addresses: Arc<Addresses>,
    until: Instant,
}

#[derive(Debug)]
struct Refusal {
    error: LookupError,
    until: Instant,
}

impl<F: Clone> Cache<F> {
    /// Remembers `capacity` names, and those being looked up.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            rounds: VecDeque::new(),
            capacity,
        }
    }

    /// The addresses of a name that hold.
    pub(super) fn fresh(&mut self, name: &DomainName, now: Instant) -> Option<Arc<Addresses>> {
        let entry = self.entries.get_mut(name)?;
        let addresses = entry.good.as_ref()?.fresh(now)?;
        entry.used = true;
        Some(addresses)
    }

    /// What is known of a name. Where that is nothing that holds, and nobody
    /// looks it up, the caller must: `begin` makes what others wait on.
    pub(super) fn known_or_begin(
        &mut self,
        name: &DomainName,
        now: Instant,
        begin: impl FnOnce() -> F,
    ) -> Known<F> {
        let entry = match self.entries.get_mut(name) {
            Some(entry) => entry,
            None => self.add(name),
        };
        entry.used = true;
        if let Some(addresses) = entry.good.as_ref().and_then(|good| good.fresh(now)) {
            return Known::Fresh(addresses);
        }
        let stale = entry.good.as_mut().and_then(|good| good.stale(now));
        if let Some(refusal) = entry.refusal.as_ref().filter(|refusal| now < refusal.until) {
            return match stale {
                Some(addresses) => Known::Stale(addresses),
                None => Known::Refused(refusal.error.clone()),
            };
        }
        let (flight, begun) = entry.flight.get_or_insert_with(|| (begin(), now));
        Known::UnderWay {
            flight: flight.clone(),
            begun: *begun,
            stale,
        }
    }

    fn add(&mut self, name: &DomainName) -> &mut Entry<F> {
        // More than one, after many were under way at once.
        while self.entries.len() >= self.capacity && self.make_room() {}
        let name = Arc::new(name.clone());
        self.rounds.push_back(name.clone());
        self.entries.entry(name).or_insert(Entry {
            good: None,
            refusal: None,
            flight: None,
            used: false,
        })
    }

    /// The look-up of `name` is over: what those get who waited.
    pub(super) fn finish(
        &mut self,
        name: &DomainName,
        finding: Finding,
        now: Instant,
    ) -> Result<Arc<Addresses>, LookupError> {
        let Some(entry) = self.entries.get_mut(name) else {
            // Names under way are not evicted.
            return Err(LookupError::NoNameServer);
        };
        entry.flight = None;
        match finding {
            Finding::Found(looked) => {
                let until = now + looked.ttl().clamp(MIN_TTL, MAX_TTL);
                let addresses = Arc::new(looked.into_addresses());
                entry.refusal = None;
                entry.good = Some(Good {
                    addresses: addresses.clone(),
                    until,
                });
                Ok(addresses)
            }
            Finding::Absent { error, ttl } => {
                let ttl = ttl.unwrap_or(MIN_TTL).clamp(MIN_TTL, MAX_ABSENT_TTL);
                entry.good = None;
                entry.refuse(&error, now + ttl);
                Err(error)
            }
            Finding::Failed(error) => match entry.good.as_mut().and_then(|good| good.stale(now)) {
                Some(addresses) => {
                    entry.refuse(&error, now + RECHECK);
                    Ok(addresses)
                }
                None => {
                    entry.refuse(&error, now + FAILURE_TTL);
                    Err(error)
                }
            },
        }
    }

    /// Forgets the oldest name that was not used lately.
    fn make_room(&mut self) -> bool {
        for chance in 0..=CHANCES {
            let Some(name) = self.rounds.pop_front() else {
                return false;
            };
            if let Some(entry) = self.entries.get_mut(&name) {
                let used = std::mem::take(&mut entry.used) && chance < CHANCES;
                if used || entry.flight.is_some() {
                    self.rounds.push_back(name);
                    continue;
                }
                self.entries.remove(&name);
            }
            return true;
        }
        false
    }
}

impl<F> Entry<F> {
    fn refuse(&mut self, error: &LookupError, until: Instant) {
        self.refusal = Some(Refusal {
            error: error.clone(),
            until,
        });
    }
}

impl Good {
    fn fresh(&self, now: Instant) -> Option<Arc<Addresses>> {
        (now < self.until).then(|| self.addresses.clone())
    }

    /// Marks the addresses, once; nobody wants them unmarked again.
    fn stale(&mut self, now: Instant) -> Option<Arc<Addresses>> {
        if now.saturating_duration_since(self.until) > MAX_STALE {
            return None;
        }
        if !self.addresses.is_stale() {
            self.addresses = Arc::new(self.addresses.to_stale());
        }
        Some(self.addresses.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::resolver::Looked;

    /// A cache, a clock, and whom the cache told to look a name up.
    struct Bench {
        cache: Cache<u32>,
        now: Instant,
        flights: u32,
    }

    impl Bench {
        fn new(capacity: usize) -> Self {
            Self {
                cache: Cache::new(capacity),
                now: Instant::now(),
                flights: 0,
            }
        }

        fn known(&mut self, name: &str) -> Known<u32> {
            let flights = &mut self.flights;
            self.cache
                .known_or_begin(&name.parse().unwrap(), self.now, || {
                    *flights += 1;
                    *flights
                })
        }

        fn finish(&mut self, name: &str, finding: Finding) -> Result<Arc<Addresses>, LookupError> {
            self.cache.finish(&name.parse().unwrap(), finding, self.now)
        }

        fn after(&mut self, seconds: f64) -> &mut Self {
            self.now += Duration::from_secs_f64(seconds);
            self
        }

        /// Looks a name up, whatever is known.
        fn put(&mut self, name: &str, finding: Finding) {
            self.known(name);
            let _ = self.finish(name, finding);
        }
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn found(last: u8, ttl: u64) -> Finding {
        Finding::Found(Looked::new(
            [address(last)].into(),
            Duration::from_secs(ttl),
        ))
    }

    fn absent(ttl: Option<u64>) -> Finding {
        Finding::Absent {
            error: LookupError::NoSuchName,
            ttl: ttl.map(Duration::from_secs),
        }
    }

    fn failed() -> Finding {
        Finding::Failed(LookupError::ServerFailure)
    }

    fn fresh(last: u8) -> Known<u32> {
        Known::Fresh(Arc::new(Addresses::fresh([address(last)].into())))
    }

    fn stale(last: u8) -> Arc<Addresses> {
        Arc::new(Addresses::fresh([address(last)].into()).to_stale())
    }

    fn is_under_way(known: &Known<u32>) -> bool {
        matches!(known, Known::UnderWay { .. })
    }

    #[test]
    fn answers_hold_for_their_ttl_between_a_second_and_an_hour() {
        for (ttl, holds) in [(0, 1.0), (1, 1.0), (30, 30.0), (86_400, 3600.0)] {
            let mut bench = Bench::new(10);
            bench.put("a.example", found(1, ttl));
            assert_eq!(bench.after(holds - 0.1).known("a.example"), fresh(1));
            let over = bench.after(0.1).known("a.example");
            assert!(is_under_way(&over), "{ttl} {over:?}");
            assert_eq!(
                bench.cache.fresh(&"a.example".parse().unwrap(), bench.now),
                None
            );
        }
    }

    #[test]
    fn absence_holds_for_its_ttl_between_one_second_and_thirty() {
        for (ttl, holds) in [
            (None, 1.0),
            (Some(0), 1.0),
            (Some(9), 9.0),
            (Some(900), 30.0),
        ] {
            let mut bench = Bench::new(10);
            bench.put("a.example", absent(ttl));
            let refused = Known::Refused(LookupError::NoSuchName);
            assert_eq!(bench.after(holds - 0.1).known("a.example"), refused);
            assert!(is_under_way(&bench.after(0.1).known("a.example")));
        }
    }

    #[test]
    fn a_failure_holds_for_a_second() {
        let mut bench = Bench::new(10);
        bench.put("a.example", failed());
        let refused = Known::Refused(LookupError::ServerFailure);
        assert_eq!(bench.after(0.9).known("a.example"), refused);
        assert!(is_under_way(&bench.after(0.1).known("a.example")));
    }

    #[test]
    fn look_ups_of_a_name_are_merged() {
        let mut bench = Bench::new(10);
        let begun = bench.now;
        let under_way = Known::UnderWay {
            flight: 1,
            begun,
            stale: None,
        };
        assert_eq!(bench.known("a.example"), under_way);
        assert_eq!(bench.after(2.0).known("A.example."), under_way);
        assert_eq!(bench.flights, 1);
    }

    #[test]
    fn while_name_servers_fail_the_stale_serves_for_a_day() {
        let mut bench = Bench::new(10);
        bench.put("a.example", found(1, 60));
        let mut look_ups = 0;
        bench.after(60.0);
        for _ in 0..(24 * 3600 / 10) {
            match bench.known("a.example") {
                Known::UnderWay { stale: old, .. } => {
                    look_ups += 1;
                    assert_eq!(old, Some(stale(1)));
                    assert_eq!(bench.finish("a.example", failed()), Ok(stale(1)));
                }
                known => assert_eq!(known, Known::Stale(stale(1))),
            }
            bench.after(10.0);
        }
        assert_eq!(look_ups, 24 * 3600 / 30, "one every thirty seconds");
        bench.after(30.0);
        let gone = bench.known("a.example");
        assert!(
            matches!(gone, Known::UnderWay { stale: None, .. }),
            "{gone:?}"
        );
        let error = Err(LookupError::ServerFailure);
        assert_eq!(bench.finish("a.example", failed()), error);
    }

    #[test]
    fn the_first_answer_after_failures_counts() {
        let mut bench = Bench::new(10);
        bench.put("a.example", found(1, 1));
        bench.after(1.0).put("a.example", failed());
        assert_eq!(bench.known("a.example"), Known::Stale(stale(1)));
        bench.after(30.0).put("a.example", found(2, 60));
        assert_eq!(bench.known("a.example"), fresh(2));
    }

    #[test]
    fn a_name_that_is_gone_is_not_served_stale() {
        let mut bench = Bench::new(10);
        bench.put("a.example", found(1, 1));
        bench.after(1.0).put("a.example", absent(None));
        let refused = Known::Refused(LookupError::NoSuchName);
        assert_eq!(bench.known("a.example"), refused);
        bench.after(1.0).put("a.example", failed());
        let refused = Known::Refused(LookupError::ServerFailure);
        assert_eq!(bench.known("a.example"), refused);
    }

    #[test]
    fn the_oldest_name_that_nobody_uses_makes_room() {
        let mut bench = Bench::new(3);
        for name in ["a.example", "b.example", "c.example"] {
            bench.put(name, found(1, 3600));
        }
        // All were used when they were put: the first round clears that.
        bench.put("d.example", found(1, 3600));
        let name = |text: &str| text.parse::<DomainName>().unwrap();
        let now = bench.now;
        assert_eq!(bench.cache.fresh(&name("a.example"), now), None);
        assert!(bench.cache.fresh(&name("b.example"), now).is_some());
        bench.put("e.example", found(1, 3600));
        assert!(bench.cache.fresh(&name("b.example"), now).is_some());
        assert_eq!(bench.cache.fresh(&name("c.example"), now), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(u8),
        Finish(u8, Finding),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let finding = prop_oneof![
            (any::<u8>(), prop_oneof![0..5_u64, 3000..9000_u64])
                .prop_map(|(last, ttl)| found(last, ttl)),
            proptest::option::of(0..100_u64).prop_map(absent),
            Just(failed()),
        ];
        let step = prop_oneof![
            4 => (0..8_u8).prop_map(Step::Ask),
            3 => (0..8_u8, finding).prop_map(|(name, finding)| Step::Finish(name, finding)),
            2 => prop_oneof![0..40_u64, 1000..100_000_u64].prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// The last answer about a name, and when it came.
    #[derive(Clone, Default)]
    struct Model {
        good: Option<(u8, Instant, Duration)>,
        absent: bool,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_cache_never_lies(steps in steps()) {
            let capacity = 4;
            let mut bench = Bench::new(capacity);
            let mut models = vec![Model::default(); 8];
            let mut under_way = HashSet::new();
            for step in steps {
                match step {
                    Step::Wait(seconds) => {
                        bench.after(seconds as f64);
                    }
                    Step::Ask(number) => {
                        let flights = bench.flights;
                        let text = format!("n{number}.example");
                        let new = !bench.cache.entries.contains_key(&text.parse::<DomainName>().unwrap());
                        let known = bench.known(&text);
                        let began = bench.flights > flights;
                        let model = &models[usize::from(number)];
                        let age = model.good.map(|(_, at, ttl)| {
                            (bench.now - at).saturating_sub(ttl)
                        });
                        match &known {
                            Known::Fresh(given) => {
                                let (last, _, _) = model.good.unwrap();
                                prop_assert_eq!(given.as_slice(), &[address(last)]);
                                prop_assert!(!given.is_stale());
                                prop_assert_eq!(age, Some(Duration::ZERO));
                            }
                            Known::Stale(given)
                            | Known::UnderWay { stale: Some(given), .. } => {
                                let (last, _, _) = model.good.unwrap();
                                prop_assert_eq!(given.as_slice(), &[address(last)]);
                                prop_assert!(given.is_stale());
                                prop_assert!(age.unwrap() <= MAX_STALE);
                            }
                            Known::Refused(error) => {
                                prop_assert!(!error.is_dns_answer() || model.absent);
                            }
                            Known::UnderWay { stale: None, .. } => {}
                        }
                        let flying = matches!(known, Known::UnderWay { .. });
                        prop_assert_eq!(began, flying && under_way.insert(number));
                        let bound = capacity.max(under_way.len());
                        prop_assert!(!new || bench.cache.entries.len() <= bound);
                    }
                    Step::Finish(number, finding) => {
                        // Only who was told to look up reports.
                        if !under_way.remove(&number) {
                            continue;
                        }
                        let model = &mut models[usize::from(number)];
                        let result = bench.finish(&format!("n{number}.example"), finding.clone());
                        match finding {
                            Finding::Found(looked) => {
                                let IpAddr::V4(ip) = looked.addresses()[0] else { unreachable!() };
                                let ttl = looked.ttl().clamp(MIN_TTL, MAX_TTL);
                                *model = Model { good: Some((ip.octets()[3], bench.now, ttl)), absent: false };
                                prop_assert!(!result.unwrap().is_stale());
                            }
                            Finding::Absent { error, .. } => {
                                *model = Model { good: None, absent: true };
                                prop_assert_eq!(result, Err(error));
                            }
                            Finding::Failed(error) => match result {
                                Ok(given) => {
                                    let (last, _, _) = model.good.unwrap();
                                    prop_assert_eq!(given.as_slice(), &[address(last)]);
                                    prop_assert!(given.is_stale());
                                }
                                Err(other) => prop_assert_eq!(other, error),
                            },
                        }
                    }
                }
                prop_assert_eq!(bench.cache.entries.len(), bench.cache.rounds.len());
            }
        }
    }
}
