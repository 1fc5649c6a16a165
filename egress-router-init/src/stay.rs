//! `legacy` mode: set up, then stay.
//!
//! While it stays it reloads a changed list of redirects, puts back what
//! somebody else undid, tells the physical network again where the address is,
//! defends it, and serves the admin endpoint.

mod metrics;
mod schedule;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use egress_config::Diagnostics;
use egress_runtime::admin::{Admin, Pages};
use egress_runtime::environment::ProcessEnvironment;
use egress_runtime::metrics::ConfigReloads;
use egress_runtime::readiness::{Hold, Readiness};
use egress_runtime::signals::{Request, Signals};
use egress_runtime::watch::FileWatch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error, info, warn};

use self::metrics::Metrics;
use self::schedule::Schedule;
use crate::config::Config;
use crate::netlink::route::Changes;
use crate::program::log_outcome;
use crate::router::{Claim, Egress, Event, Outcome, Router, RunError};

/// How long to wait before asking again for an address that another host has:
/// mostly the router of the pod that this one replaces, on its way out.
const RETRY: Duration = Duration::from_secs(1);

/// The kernel sends no word of changed packet rules that we would want to
/// receive, so they are looked at this often.
const RULES_INTERVAL: Duration = Duration::from_secs(1);

/// How often is asked, while draining, whether connections are still open.
const DRAIN_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until SIGTERM.
///
/// # Errors
/// When the network cannot be set up at the start for a reason that does not
/// pass by itself.
pub(crate) async fn run(config: Config, file: Option<FileWatch>) -> Result<(), RunError> {
    let mut signals = Signals::install().map_err(|e| RunError::Stay(e.to_string()))?;
    let admin = match config.admin_listen() {
        Some(address) => Some(Admin::bind(address).map_err(|e| RunError::Stay(e.to_string()))?),
        None => None,
    };
    let started = SystemTime::now();
    let mut registry = egress_runtime::metrics::registry(env!("CARGO_PKG_VERSION"), started);
    let reloads = ConfigReloads::register(&mut registry, started);
    let metrics = Metrics::register(&mut registry);
    let (readiness, hold) = Readiness::held_by("the network to be set up");
    let config = Arc::new(config);
    let shown = Arc::new(Mutex::new(Arc::clone(&config)));
    let pages = Pages::new(Arc::new(registry), readiness.clone(), {
        let shown = Arc::clone(&shown);
        move || {
            let config = Arc::clone(&shown.lock().unwrap_or_else(PoisonError::into_inner));
            json(&config)
        }
    });
    let serving = async {
        match admin {
            Some(admin) => admin.serve(pages).await.map(|never| match never {}),
            None => std::future::pending().await,
        }
    };
    let router = Router::open(config.firewall())?;
    let trouble = Some(Trouble {
        reason: String::new(),
        _hold: hold,
    });
    let mut stay = Stay {
        config,
        router,
        metrics,
        reloads,
        shown,
        readiness,
        trouble,
    };
    let work = async {
        let outcome = tokio::select! {
            outcome = stay.set_up() => outcome?,
            () = drained(&mut signals) => return Ok(()),
        };
        stay.keep(outcome, file, &mut signals).await?;
        stay.drain(&mut signals).await;
        Ok(())
    };
    tokio::select! {
        result = work => result,
        result = serving => match result {
            Ok(()) => Ok(()),
            Err(error) => Err(RunError::Stay(error.to_string())),
        },
    }
}

/// Waits for the signal to end.
async fn drained(signals: &mut Signals) {
    while signals.next().await == Request::Reload {
        debug!("nothing to reload yet");
    }
}

fn json(config: &Config) -> String {
    serde_json::to_string_pretty(config).unwrap_or_else(|error| {
        // Every key is a string and every number finite.
        serde_json::Value::String(error.to_string()).to_string()
    })
}

struct Stay {
    config: Arc<Config>,
    router: Router,
    metrics: Metrics,
    reloads: ConfigReloads,
    shown: Arc<Mutex<Arc<Config>>>,
    readiness: Readiness,
    trouble: Option<Trouble>,
}

/// The network is not set up: why is said once, and shown while it lasts.
struct Trouble {
    reason: String,
    _hold: Hold,
}

impl Stay {
    /// Sets up, for as long as it takes: another router may still be giving
    /// the address back.
    async fn set_up(&mut self) -> Result<Outcome, RunError> {
        loop {
            let started = Instant::now();
            match self.router.converge(&self.config).await {
                Ok(outcome) => {
                    log_outcome(&outcome, started.elapsed());
                    self.trouble = None;
                    return Ok(outcome);
                }
                Err(error) if error.may_pass() => {
                    self.failed("the network cannot be set up yet", &error);
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn keep(
        &mut self,
        mut outcome: Outcome,
        mut file: Option<FileWatch>,
        signals: &mut Signals,
    ) -> Result<(), RunError> {
        let mut claim = self.router.claim();
        self.hold(&mut claim, &outcome.egress);
        self.metrics.applied(&self.config);
        let mut changes = Changes::subscribe().map_err(RunError::Socket)?;
        let mut look = Schedule::default();
        // What changed before we were told of changes.
        look.soon(Instant::now());
        let mut counting = every(metrics::INTERVAL);
        let mut watching_rules = every(RULES_INTERVAL);
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    Request::Reload => {
                        self.reload(&outcome);
                        // The new list may take more than packet rules, such
                        // as forwarding for a family that had no redirect.
                        look.soon(Instant::now());
                    }
                    Request::Drain | Request::Stop => return Ok(()),
                },
                () = changed(file.as_mut()) => {
                    self.reload(&outcome);
                    look.soon(Instant::now());
                }
                () = changes.next() => look.soon(Instant::now()),
                () = until(look.next()) => {
                    look.looked(Instant::now());
                    match self.repair().await {
                        Ok(repaired) => {
                            self.trouble = None;
                            if repaired.is_some() || !claim.is_held() {
                                outcome = repaired.unwrap_or(outcome);
                                self.hold(&mut claim, &outcome.egress);
                            }
                            if !claim.is_held() {
                                look.later(Instant::now());
                            }
                        }
                        Err(error) => {
                            self.failed(
                                "the pod's network was changed and cannot be set up again yet",
                                &error,
                            );
                            look.later(Instant::now());
                        }
                    }
                }
                event = claim.next() => match event {
                    Event::Announced(Ok(())) => {}
                    Event::Announced(Err(error)) => {
                        warn!("EGRESS_SOURCE cannot be announced: {error}");
                    }
                    Event::Conflict => self.metrics.conflict(),
                    Event::Gateway { address, answers } => self.metrics.gateway(address, answers),
                    Event::Lost(_) => look.soon(Instant::now()),
                },
                _ = watching_rules.tick() => if !self.rules_are_intact() {
                    look.soon(Instant::now());
                },
                _ = counting.tick() => if !self.count() {
                    look.soon(Instant::now());
                },
            }
        }
    }

    /// Claims the addresses on the interface as it is now.
    fn hold(&self, claim: &mut Claim, egress: &Egress) {
        if let Err(error) = claim.hold(&self.config, egress) {
            warn!("EGRESS_SOURCE cannot be defended: {error}");
        }
    }

    /// Lets open connections end. New ones are redirected all the while: no
    /// other router has the address before this pod is gone.
    async fn drain(&mut self, signals: &mut Signals) {
        self.readiness.drain();
        let deadline = Instant::now() + self.config.drain();
        let mut asking = every(DRAIN_INTERVAL);
        let mut told = false;
        loop {
            tokio::select! {
                request = signals.next() => if request == Request::Stop { return },
                () = sleep_until(deadline.into()) => {
                    warn!("connections are still open; EGRESS_DRAIN_SECONDS is over");
                    return;
                }
                _ = asking.tick() => match self.router.open_connections() {
                    Ok(0) => return,
                    Ok(open) if !told => {
                        told = true;
                        info!(open, "waiting for connections to end");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        warn!("not waiting for connections to end: {error}");
                        return;
                    }
                },
            }
        }
    }

    /// The same failure again and again is one line of the log.
    fn failed(&mut self, what: &str, error: &RunError) {
        self.metrics.failed();
        let reason = error.to_string();
        if self
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.reason == reason)
        {
            debug!("{what}: {reason}");
            return;
        }
        error!("{what}: {reason}; trying again until it works");
        let hold = self
            .readiness
            .hold(format!("the network to be set up: {reason}"));
        self.trouble = Some(Trouble {
            reason,
            _hold: hold,
        });
    }

    /// Reads the list again; a bad one keeps the rules in force.
    fn reload(&mut self, outcome: &Outcome) {
        let config = match Config::from_environment(&ProcessEnvironment) {
            Ok((config, warnings)) => {
                for warning in &warnings {
                    warn!("{warning}");
                }
                config
            }
            Err(diagnostics) => return self.refuse(&diagnostics),
        };
        let replaced = self
            .router
            .reload(&config, &outcome.pod_interface, &outcome.egress.name);
        match replaced {
            Ok(replaced) => {
                info!(
                    redirects = config.redirects().mappings().len(),
                    added = replaced.added,
                    removed = replaced.removed,
                    kept = replaced.kept,
                    "the redirects were reloaded"
                );
                self.metrics.applied(&config);
                self.reloads.succeeded(SystemTime::now());
                self.config = Arc::new(config);
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) =
                    Arc::clone(&self.config);
            }
            Err(error) => {
                error!("{error}; the old redirects stay in force");
                self.reloads.failed();
            }
        }
    }

    fn refuse(&self, diagnostics: &Diagnostics) {
        for line in diagnostics.to_string().lines() {
            error!("{line}");
        }
        error!("the list was not reloaded; the old redirects stay in force");
        self.reloads.failed();
    }

    /// Looks whether the network is still as configured and makes it so. Its
    /// own changes are looked at once more, and found to be right.
    async fn repair(&mut self) -> Result<Option<Outcome>, RunError> {
        if self.router.is_converged(&self.config).await? {
            return Ok(None);
        }
        let started = Instant::now();
        let outcome = self.router.repair(&self.config).await?;
        warn!("the pod's network was not as configured; it was set up again");
        log_outcome(&outcome, started.elapsed());
        self.metrics.repaired();
        Ok(Some(outcome))
    }

    /// A kernel that does not say is asked again the next time.
    fn rules_are_intact(&mut self) -> bool {
        self.router.rules_are_intact().unwrap_or_else(|error| {
            debug!("{error}");
            true
        })
    }

    /// `false` when there is nothing to count, which rules of ours have.
    fn count(&mut self) -> bool {
        match self.router.counters() {
            Ok(counters) => {
                self.metrics.counted(&counters);
                true
            }
            Err(error) => {
                debug!("{error}");
                false
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn changed(file: Option<&mut FileWatch>) {
    match file {
        Some(file) => file.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
