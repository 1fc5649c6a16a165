//! The resolver as others use it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use egress_config::DomainName;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::addresses::{Addresses, Looked};
use super::cache::{Cache, Known};
use super::error::{LookupError, ResolverError};
use super::look_up::{LookUps, Names};
use super::metrics::ResolverMetrics;
use super::system::System;

/// How many names are remembered.
const CAPACITY: usize = 10_000;
/// How long a look-up may take before a stale answer is given instead (the
/// client response timer of RFC 8767 section 5).
const PATIENCE: Duration = Duration::from_millis(1800);

/// Resolves names. Clones share everything.
///
/// Look-ups run on one runtime, whoever asks: who stops waiting ends no
/// look-up that others wait for.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    look_ups: LookUps,
    cache: Mutex<Cache<Flight>>,
    runtime: Handle,
    metrics: ResolverMetrics,
}

/// Turns from `None` to the result when a look-up is over.
type Flight = watch::Receiver<Option<Result<Arc<Addresses>, LookupError>>>;

impl Resolver {
    /// Asks the name servers of `/etc/resolv.conf`, after `/etc/hosts`, which
    /// are read now. Look-ups run on `runtime`.
    ///
    /// # Errors
    /// When there is no usable `/etc/resolv.conf`.
    pub fn from_system(runtime: Handle, metrics: ResolverMetrics) -> Result<Self, ResolverError> {
        let look_ups = LookUps::new(System::read()?, metrics.clone());
        Ok(Self::new(look_ups, runtime, metrics))
    }

    /// Asks `servers`, and completes names with the domains of `search`.
    #[must_use]
    pub fn with_servers(
        servers: &[SocketAddr],
        search: &[DomainName],
        runtime: Handle,
        metrics: ResolverMetrics,
    ) -> Self {
        let look_ups = LookUps::of_servers(servers, search, metrics.clone());
        Self::new(look_ups, runtime, metrics)
    }

    fn new(look_ups: LookUps, runtime: Handle, metrics: ResolverMetrics) -> Self {
        Self(Arc::new(Shared {
            look_ups,
            cache: Mutex::new(Cache::new(CAPACITY)),
            runtime,
            metrics,
        }))
    }

    /// The addresses of an absolute name where they are known and hold.
    #[must_use]
    pub fn cached(&self, name: &DomainName) -> Option<Arc<Addresses>> {
        let addresses = self.0.cache().fresh(name, Instant::now())?;
        self.0.metrics.hits.inc();
        Some(addresses)
    }

    /// The addresses of an absolute name: from the cache, or by a look-up that
    /// all who want the name share. While name servers fail, addresses whose
    /// time to live is over are given for a day.
    ///
    /// # Errors
    /// When the name is absent, or cannot be looked up.
    pub async fn resolve(&self, name: &DomainName) -> Result<Arc<Addresses>, LookupError> {
        let metrics = &self.0.metrics;
        let mut begun_here = None;
        let known = self.0.cache().known_or_begin(name, Instant::now(), || {
            let (done, flight) = watch::channel(None);
            begun_here = Some(done);
            flight
        });
        let result = match known {
            Known::Fresh(addresses) => {
                metrics.hits.inc();
                return Ok(addresses);
            }
            Known::Refused(error) => {
                metrics.refusals.inc();
                return Err(error);
            }
            Known::Stale(addresses) => Ok(addresses),
            Known::UnderWay {
                flight,
                begun,
                stale,
            } => {
                match begun_here {
                    Some(done) => {
                        metrics.misses.inc();
                        self.look_up_for_all(name.clone(), done);
                    }
                    None => {
                        metrics.joined.inc();
                    }
                }
                landed(flight, begun, stale).await
            }
        };
        if result.as_ref().is_ok_and(|addresses| addresses.is_stale()) {
            metrics.stale.inc();
        }
        result
    }

    /// Looks a name up, whatever the cache knows, which does not hear of it:
    /// for who has a cache of his own.
    ///
    /// # Errors
    /// When the name is absent, or cannot be looked up.
    pub async fn lookup(&self, name: &DomainName, names: Names) -> Result<Looked, LookupError> {
        let shared = self.0.clone();
        let name = name.clone();
        let look_up = async move { shared.look_ups.look_up(&name, names).await.into_result() };
        let task = self.0.runtime.spawn(look_up);
        task.await.unwrap_or_else(|_| Err(cut_short()))
    }

    fn look_up_for_all(
        &self,
        name: DomainName,
        done: watch::Sender<Option<Result<Arc<Addresses>, LookupError>>>,
    ) {
        let shared = self.0.clone();
        self.0.runtime.spawn(async move {
            let finding = shared.look_ups.look_up(&name, Names::Absolute).await;
            let result = shared.cache().finish(&name, finding, Instant::now());
            done.send_replace(Some(result));
        });
    }
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache<Flight>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a look-up under way, not too long where something stale will do.
async fn landed(
    mut flight: Flight,
    begun: Instant,
    stale: Option<Arc<Addresses>>,
) -> Result<Arc<Addresses>, LookupError> {
    let over = flight.wait_for(Option::is_some);
    let landed = match stale {
        None => over.await,
        Some(stale) => match timeout(PATIENCE.saturating_sub(begun.elapsed()), over).await {
            Ok(landed) => landed,
            Err(_) => return Ok(stale),
        },
    };
    match landed.as_deref() {
        Ok(Some(result)) => result.clone(),
        Ok(None) | Err(_) => Err(cut_short()),
    }
}

fn cut_short() -> LookupError {
    LookupError::Other("the look-up was cut short".into())
}
