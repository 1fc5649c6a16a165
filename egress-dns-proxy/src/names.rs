//! Follows the addresses of a name.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use egress_runtime::readiness::Hold;
use egress_runtime::resolver::{Looked, LookupError, Names, Resolver};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::backends::Schedule;
use crate::mapping::{HostName, Search, undialable};
use crate::target::Target;

/// While a name has no address at all, its look-up is begun anew beside the
/// one that waits for a silent name server, so that it is asked often.
const ASK_ANEW: Duration = Duration::from_secs(2);
/// Look-ups of one name at a time.
const LOOK_UPS: usize = 4;

/// A name, what it resolves to, and who wants to know.
#[derive(Debug)]
pub(crate) struct Name {
    host: HostName,
    state: Mutex<State>,
    /// Whether the first look-up is over.
    looked_up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    addresses: Vec<IpAddr>,
    targets: Vec<Weak<Target>>,
}

impl Name {
    pub(crate) fn new(host: HostName) -> Self {
        Self {
            host,
            state: Mutex::default(),
            looked_up: watch::Sender::new(false),
        }
    }

    /// Tells `target` of every answer, and of the last one at once.
    pub(crate) fn tell(&self, target: &Arc<Target>) {
        let mut state = self.lock();
        if !state.addresses.is_empty() {
            target.answered(&state.addresses);
        }
        state.targets.retain(|known| known.strong_count() > 0);
        state.targets.push(Arc::downgrade(target));
    }

    /// Keeps the addresses up to date until it is dropped. `hold` is released
    /// with the first answer.
    pub(crate) async fn follow(self: Arc<Self>, resolver: Resolver, mut hold: Option<Hold>) {
        let mut schedule = Schedule::new(Instant::now());
        let mut trouble: Option<LookupError> = None;
        loop {
            sleep_until(schedule.next().into()).await;
            let looked = if schedule.is_resolved() {
                self.look_up(&resolver).await
            } else {
                self.first_answer(&resolver).await
            };
            match looked.and_then(|looked| self.dialable(&looked)) {
                Ok((addresses, ttl)) => {
                    schedule.answered(ttl, Instant::now());
                    if trouble.take().is_some() && self.is_resolved() {
                        info!(host = %self.host, "the name resolves again");
                    }
                    self.answered(addresses);
                    drop(hold.take());
                }
                Err(error) => {
                    schedule.failed(Instant::now());
                    if trouble.as_ref() != Some(&error) {
                        self.complain(&error);
                        trouble = Some(error);
                    }
                }
            }
            self.looked_up.send_replace(true);
        }
    }

    /// Waits until the first look-up is over, whatever came of it.
    pub(crate) async fn looked_up(&self) {
        // The sender is ours, so it is there.
        let _ = self.looked_up.subscribe().wait_for(|over| *over).await;
    }

    async fn look_up(&self, resolver: &Resolver) -> Result<Looked, LookupError> {
        let names = match self.host.search() {
            Search::Listed => Names::Search,
            Search::Absolute => Names::Absolute,
        };
        resolver.lookup(self.host.name(), names).await
    }

    /// Looks up again and again beside look-ups that take long; the first
    /// that is over decides.
    async fn first_answer(&self, resolver: &Resolver) -> Result<Looked, LookupError> {
        let mut running = FuturesUnordered::new();
        running.push(self.look_up(resolver));
        loop {
            tokio::select! {
                Some(looked) = running.next() => match looked {
                    Err(_) if !running.is_empty() => {}
                    looked => return looked,
                },
                () = sleep(ASK_ANEW), if running.len() < LOOK_UPS => {
                    running.push(self.look_up(resolver));
                }
            }
        }
    }

    /// The addresses of an answer that can be dialled, and how long they hold.
    fn dialable(&self, looked: &Looked) -> Result<(Vec<IpAddr>, Duration), LookupError> {
        let canonical = looked.addresses().iter().map(IpAddr::to_canonical);
        let mut addresses: Vec<IpAddr> = canonical
            .filter(|&address| undialable(address).is_none())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            Err(LookupError::NoAddress)
        } else {
            Ok((addresses, looked.ttl()))
        }
    }

    fn answered(&self, addresses: Vec<IpAddr>) {
        let mut state = self.lock();
        if state.addresses == addresses {
            return;
        }
        let host = &self.host;
        let list = List(&addresses);
        if state.addresses.is_empty() {
            info!(%host, addresses = %list, "the name resolves");
        } else {
            // Often, where a resolver gives some of many addresses in turn.
            debug!(%host, addresses = %list, "the name has other addresses");
        }
        for target in state.targets.iter().filter_map(Weak::upgrade) {
            target.answered(&addresses);
        }
        state.addresses = addresses;
    }

    fn complain(&self, error: &LookupError) {
        let host = &self.host;
        if self.lock().addresses.is_empty() {
            warn!(%host, "the name does not resolve: {error}; its connections are closed at once until it does");
        } else {
            warn!(%host, "the name cannot be resolved anew: {error}; its last addresses stay in use");
        }
    }

    /// Whether there was an answer.
    pub(crate) fn is_resolved(&self) -> bool {
        !self.lock().addresses.is_empty()
    }

    pub(crate) fn host(&self) -> &HostName {
        &self.host
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses with blanks between them.
struct List<'a>(&'a [IpAddr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for address in self.0 {
            write!(f, "{separator}{address}")?;
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use egress_config::{Diagnostics, List};
    use egress_runtime::readiness::Readiness;
    use egress_runtime::resolver::ResolverMetrics;
    use prometheus_client::registry::Registry;
    use tokio::net::UdpSocket;
    use tokio::runtime::Handle;
    use tokio::time::timeout;

    use super::*;
    use crate::mapping::Mappings;
    use crate::target::TargetKey;

    const SOON: Duration = Duration::from_secs(20);
    /// Questions of one look-up, for both families.
    const A_LOOK_UP: usize = 2;

    /// What the name server says about every name.
    #[derive(Clone, Debug)]
    enum Says {
        Silence,
        Code(u8),
        Addresses(Vec<Ipv4Addr>),
    }

    /// A name server whose answers hold for a second.
    struct NameServer {
        says: Arc<Mutex<Says>>,
        asked: Arc<AtomicUsize>,
        resolver: Resolver,
    }

    impl NameServer {
        async fn start(says: Says) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let says = Arc::new(Mutex::new(says));
            let asked = Arc::new(AtomicUsize::new(0));
            let (saying, counting) = (Arc::clone(&says), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut question = [0; 512];
                while let Ok((length, client)) = socket.recv_from(&mut question).await {
                    counting.fetch_add(1, Ordering::SeqCst);
                    let says = saying.lock().unwrap().clone();
                    if let Some(answer) = answer(&question[..length], &says) {
                        socket.send_to(&answer, client).await.unwrap();
                    }
                }
            });
            let metrics = ResolverMetrics::register(&mut Registry::default());
            let resolver = Resolver::with_servers(&[address], &[], Handle::current(), metrics);
            Self {
                says,
                asked,
                resolver,
            }
        }

        fn say(&self, says: Says) {
            *self.says.lock().unwrap() = says;
        }

        /// Waits for as many questions.
        async fn asked(&self, questions: usize) {
            let enough = self.asked.load(Ordering::SeqCst) + questions;
            let asked = async {
                while self.asked.load(Ordering::SeqCst) < enough {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, asked).await.unwrap();
        }
    }

    /// The answer to one question (RFC 1035 section 4).
    fn answer(question: &[u8], says: &Says) -> Option<Vec<u8>> {
        let name = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap();
        let end = name + 5;
        let is_a = question[name + 1..name + 3] == [0, 1];
        let (code, addresses): (u8, &[Ipv4Addr]) = match says {
            Says::Silence => return None,
            Says::Code(code) => (*code, &[]),
            Says::Addresses(addresses) if is_a => (0, addresses),
            Says::Addresses(_) => (0, &[]),
        };
        let count = u8::try_from(addresses.len()).unwrap();
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend(&question[12..end]);
        for address in addresses {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }

    fn db(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, last)
    }

    fn unresolved() -> Arc<Target> {
        let mut diagnostics = Diagnostics::new();
        let mappings = Mappings::parse(&List::new("X", "80 db.example."), &mut diagnostics);
        let key = TargetKey::of(mappings.iter().next().unwrap());
        Arc::new(Target::new(key, Duration::from_secs(10)))
    }

    fn name_of(target: &Target) -> Arc<Name> {
        Arc::new(Name::new(target.key().host.name().unwrap().clone()))
    }

    fn addresses(target: &Target) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = target.rotation().pick(0).collect();
        addresses.sort_unstable();
        addresses
    }

    async fn becomes(target: &Target, last: &[u8]) {
        let expected: Vec<SocketAddr> = last
            .iter()
            .map(|&last| SocketAddr::from((db(last), 80)))
            .collect();
        let reached = async {
            while addresses(target) != expected {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, reached).await.unwrap();
    }

    #[tokio::test]
    async fn addresses_follow_answers_and_outlive_failures() {
        let server = NameServer::start(Says::Code(3)).await;
        let target = unresolved();
        let name = name_of(&target);
        name.tell(&target);
        let (readiness, hold) = Readiness::held_by("an address of db.example.");
        let following = Arc::clone(&name).follow(server.resolver.clone(), Some(hold));
        let following = tokio::spawn(following);
        assert!(!name.is_resolved());
        assert!(!readiness.is_ready());
        server.say(Says::Addresses(vec![db(1), db(2)]));
        becomes(&target, &[1, 2]).await;
        assert!(readiness.is_ready());
        // Nobody can be reached at 0.0.0.0 but ourselves.
        server.say(Says::Addresses(vec![db(3), Ipv4Addr::UNSPECIFIED]));
        becomes(&target, &[3]).await;
        for failure in [Says::Code(2), Says::Code(3)] {
            server.say(failure);
            server.asked(A_LOOK_UP).await;
            server.say(Says::Addresses(vec![db(3)]));
            // The next look-up begins when that one has failed.
            server.asked(1).await;
            assert_eq!(addresses(&target), [SocketAddr::from((db(3), 80))]);
        }
        // Whoever asks later is told what is known.
        let late = unresolved();
        name.tell(&late);
        assert_eq!(addresses(&late), addresses(&target));
        server.say(Says::Addresses(vec![db(4)]));
        becomes(&target, &[4]).await;
        becomes(&late, &[4]).await;
        following.abort();
    }

    #[tokio::test]
    async fn a_name_server_that_was_silent_is_heard_at_once() {
        let server = NameServer::start(Says::Silence).await;
        let target = unresolved();
        let name = name_of(&target);
        name.tell(&target);
        let following = Arc::clone(&name).follow(server.resolver.clone(), None);
        let following = tokio::spawn(following);
        // All datagrams of the first look-up, which goes on waiting.
        server.asked(4 * A_LOOK_UP).await;
        let spoken = Instant::now();
        server.say(Says::Addresses(vec![db(1)]));
        becomes(&target, &[1]).await;
        let took = spoken.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        following.abort();
    }
}
