//! Brings a network namespace to the configured state, and back.

mod claim;
mod gateway;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use ipnet::IpNet;
use nix::errno::Errno;
use tracing::{debug, info, warn};

use crate::config::{Config, FirewallDriver};
use crate::firewall::rules::Firewall;
use crate::firewall::{self, Counters, Driver, DriverError, Replaced};
use crate::netlink::nft::{NftError, NftSocket};
use crate::netlink::route::{ChangeError, ObserveError, RouteSocket};
use crate::plan::{self, Plan, PlanError, Step};
use crate::state::{Link, State};
use crate::wire::{self, MacAddr, Place, Station};

pub(crate) use self::claim::{Claim, Event, silence};

/// How often a plan is made and carried out before we say that somebody works
/// against us. Two rounds are usual, three when an address changed.
const ROUNDS: usize = 6;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No netlink socket.
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The namespace could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The configuration does not fit the namespace or the node.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused a change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The packet rules were refused.
    #[error(transparent)]
    Firewall(#[from] DriverError),
    /// Another host has the address, or the physical network cannot be asked.
    #[error("EGRESS_SOURCE: {0}")]
    Wire(#[from] wire::Error),
    /// What the long-running mode needs is not to be had.
    #[error("{0}")]
    Stay(String),
    /// The egress interface cannot carry an address of the physical network.
    #[error("egress interface: {0}")]
    NotEthernet(#[from] wire::NotEthernet),
    /// The namespace does not become what we make it.
    #[error("the network of the pod does not settle; something else keeps undoing: {step}")]
    Unsettled {
        /// The next step that would be repeated.
        step: String,
    },
    /// The interface is gone.
    #[error("interface \"{link}\" vanished during the set-up; is another program managing it?")]
    LinkGone {
        /// Its name.
        link: String,
    },
}

impl RunError {
    /// Whether waiting can help: the address may be released, the network
    /// come back.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Wire(_)) && !self.is_permission()
    }

    /// Whether the container lacks a privilege.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let mut source: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && error.raw_os_error() == Some(Errno::EPERM as i32)
            {
                return true;
            }
            if matches!(error.downcast_ref(), Some(NftError::NotPermitted { .. })) {
                return true;
            }
            source = error.source();
        }
        false
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Changes made.
    pub changes: usize,
    /// What the packet rules' replacement changed.
    pub rules: Replaced,
    /// Interface of the pod network.
    pub pod_interface: String,
    /// Interface of the physical network.
    pub egress: Egress,
}

/// The egress interface once it is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Name.
    pub name: String,
    /// `ifindex`
    pub index: u32,
    /// Hardware address.
    pub mac: MacAddr,
}

/// Whether the physical network is asked for an address before it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// As configured.
    First,
    /// The address is ours already.
    Never,
}

/// The router of one network namespace, that of the thread that made it.
pub struct Router {
    route: RouteSocket,
    driver: Box<dyn Driver>,
    kind: FirewallDriver,
    /// Those of the packet rules in force.
    pod_networks: Vec<IpNet>,
    /// Where was asked whether an address is free, until it is claimed.
    stations: Vec<Station>,
}

impl Router {
    /// Opens the sockets. Needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// When the kernel has none for us.
    pub fn open(kind: FirewallDriver) -> Result<Self, RunError> {
        let route = RouteSocket::open().map_err(RunError::Socket)?;
        Ok(Self {
            route,
            driver: firewall::open(kind)?,
            kind,
            pod_networks: Vec::new(),
            stations: Vec::new(),
        })
    }

    /// Reads the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn observe(&mut self) -> Result<State, RunError> {
        let mut state = self.route.observe().await?;
        // `plan` needs no privilege: without one the rules cannot be listed.
        state.firewall_present = self.driver.is_present().ok();
        Ok(state)
    }

    /// Makes the namespace what `config` asks for. What a failed run changed
    /// is undone.
    ///
    /// # Errors
    /// When the namespace cannot be made so.
    pub async fn converge(&mut self, config: &Config) -> Result<Outcome, RunError> {
        let before = self.observe().await?;
        match self.try_converge(config, &before, Asking::First).await {
            Ok(outcome) => {
                if before.firewall_present != Some(true) {
                    self.remove_other_rules();
                }
                Ok(outcome)
            }
            Err(error) => {
                self.stations.clear();
                self.roll_back(&before).await;
                Err(error)
            }
        }
    }

    /// Makes the namespace, which was as `config` asks for, so again.
    ///
    /// The addresses were ours a moment ago: nobody is asked whether they are
    /// free, because until the answer the pod would have no way out. What a
    /// failed attempt has done stays, for it is nearer to the goal than what
    /// was found.
    ///
    /// # Errors
    /// When the namespace cannot be made so.
    pub async fn repair(&mut self, config: &Config) -> Result<Outcome, RunError> {
        let found = self.observe().await?;
        self.try_converge(config, &found, Asking::Never).await
    }

    /// Whether the namespace is as `config` asks for.
    ///
    /// # Errors
    /// When it cannot be read, or cannot carry the configuration.
    pub async fn is_converged(&mut self, config: &Config) -> Result<bool, RunError> {
        let state = self.observe().await?;
        let rules_stand = state.firewall_present != Some(false) && self.driver.is_intact()?;
        Ok(rules_stand && plan::converge(config, &state)?.is_converged())
    }

    /// Whether the packet rules are still what we made of them; cheap.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn rules_are_intact(&mut self) -> Result<bool, RunError> {
        Ok(self.driver.is_intact()?)
    }

    /// How many redirected TCP connections are open.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn open_connections(&self) -> Result<usize, RunError> {
        NftSocket::open()
            .and_then(|mut socket| socket.open_connections())
            .map_err(|error| DriverError::from(error).into())
    }

    /// An earlier run may have had the other driver. What is left of it does
    /// no harm that would be worth failing for.
    fn remove_other_rules(&self) {
        match firewall::remove_other(self.kind) {
            Ok(true) => info!("packet rules of the other EGRESS_FIREWALL were removed"),
            Ok(false) => {}
            Err(error) => warn!("packet rules of the other EGRESS_FIREWALL: {error}"),
        }
    }

    async fn try_converge(
        &mut self,
        config: &Config,
        before: &State,
        asking: Asking,
    ) -> Result<Outcome, RunError> {
        let mut plan = plan::converge(config, before)?;
        let (mut changes, mut rules) = (0, None);
        for round in 0..ROUNDS {
            let is_last = plan.is_converged();
            // Rules that are in force go once all else has worked: nothing
            // would bring them back.
            let rules_wait = !is_last && plan.steps.last() == Some(&Step::ReplaceFirewall);
            for step in &plan.steps {
                match step {
                    Step::ReplaceFirewall if rules_wait => continue,
                    Step::ReplaceFirewall => {
                        if rules.is_none() || self.pod_networks != plan.pod_networks {
                            debug!(round, "{step}");
                            rules = Some(self.replace_rules(config, &plan)?);
                        }
                        continue;
                    }
                    _ => debug!(round, "{step}"),
                }
                match step {
                    Step::DeleteFirewall => drop(self.driver.remove()?),
                    Step::Probe { link, addresses } => match asking {
                        Asking::First => self.probe(config, link, addresses).await?,
                        Asking::Never => {}
                    },
                    step => self.route.change(step).await?,
                }
                changes += usize::from(!step.is_repeatable());
            }
            if is_last {
                return self.outcome(plan, changes, rules.unwrap_or_default()).await;
            }
            plan = plan::converge(config, &self.observe().await?)?;
        }
        let step = plan.steps.iter().find(|step| !step.is_repeatable());
        Err(RunError::Unsettled {
            step: step.map(Step::to_string).unwrap_or_default(),
        })
    }

    async fn outcome(
        &mut self,
        plan: Plan,
        changes: usize,
        rules: Replaced,
    ) -> Result<Outcome, RunError> {
        let state = self.observe().await?;
        let name = plan.egress.name();
        let link = state.link(name).ok_or_else(|| gone(name))?;
        Ok(Outcome {
            changes,
            rules,
            pod_interface: plan.pod_interface,
            egress: egress(link)?,
        })
    }

    /// Puts the plan's packet rules in force.
    fn replace_rules(&mut self, config: &Config, plan: &Plan) -> Result<Replaced, RunError> {
        let sources = sources(config);
        let replaced = self.driver.replace(&firewall_of(config, plan, &sources))?;
        self.pod_networks.clone_from(&plan.pod_networks);
        Ok(replaced)
    }

    /// Replaces the packet rules alone: all that a changed list of redirects
    /// takes.
    ///
    /// # Errors
    /// When the kernel refuses; the old rules are in force then.
    pub fn reload(
        &mut self,
        config: &Config,
        pod_interface: &str,
        egress_interface: &str,
    ) -> Result<Replaced, RunError> {
        let sources = sources(config);
        Ok(self.driver.replace(&Firewall {
            pod_interface,
            egress_interface,
            sources: &sources,
            redirects: config.redirects(),
            local_ports: config.local_ports(),
            pod_networks: &self.pod_networks,
        })?)
    }

    /// What the packet rules counted.
    ///
    /// # Errors
    /// When the kernel does not say, mostly for want of `NET_ADMIN`.
    pub fn counters(&mut self) -> Result<Counters, RunError> {
        Ok(self.driver.counters()?)
    }

    async fn probe(
        &mut self,
        config: &Config,
        link: &str,
        addresses: &[IpAddr],
    ) -> Result<(), RunError> {
        let Some(wait) = config.address_probe() else {
            return Ok(());
        };
        let state = self.route.observe().await?;
        let egress = egress(state.link(link).ok_or_else(|| gone(link))?)?;
        let probes = places(config, &egress)
            .filter(|place| addresses.contains(&place.address))
            .map(|place| Station::probe(place, wait));
        self.stations = try_join_all(probes).await?;
        Ok(())
    }

    /// What claims the source addresses once they are on the link, by the
    /// sockets that were opened to ask whether they are free.
    pub(crate) fn claim(&mut self) -> Claim {
        Claim::new(std::mem::take(&mut self.stations))
    }

    /// Takes the router away again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn undo(&mut self) -> Result<usize, RunError> {
        let steps = plan::undo(&self.observe().await?);
        for step in &steps {
            debug!("{step}");
            match step {
                Step::DeleteFirewall => drop(self.driver.remove()?),
                step => self.route.change(step).await?,
            }
        }
        firewall::remove_other(self.kind)?;
        Ok(steps.len())
    }

    /// Best effort: what cannot be undone is told, and the run's own error is
    /// what counts.
    async fn roll_back(&mut self, before: &State) {
        let now = match self.observe().await {
            Ok(now) => now,
            Err(error) => {
                warn!("cannot undo what this run did: {error}");
                return;
            }
        };
        for step in plan::restore(before, &now) {
            debug!("undo: {step}");
            let result = match &step {
                Step::DeleteFirewall => self.driver.remove().map(drop).map_err(RunError::from),
                step => self.route.change(step).await.map_err(RunError::from),
            };
            if let Err(error) = result {
                warn!("cannot undo what this run did: {error}");
            }
        }
    }
}

/// When `init` repeats its announcement, for a gateway that missed the first;
/// later ones are for whoever stays.
pub const LAST_ANNOUNCEMENT_OF_INIT: Duration = Duration::from_millis(200);

/// Where the source addresses are to be.
fn places(config: &Config, egress: &Egress) -> impl Iterator<Item = Place> {
    let (link, mac) = (egress.index, egress.mac);
    config.legs().iter().map(move |leg| Place {
        link,
        mac,
        address: leg.source().addr(),
        gateway: leg.gateway(),
    })
}

fn sources(config: &Config) -> Vec<IpAddr> {
    config
        .legs()
        .iter()
        .map(|leg| leg.source().addr())
        .collect()
}

fn firewall_of<'a>(config: &'a Config, plan: &'a Plan, sources: &'a [IpAddr]) -> Firewall<'a> {
    Firewall {
        pod_interface: &plan.pod_interface,
        egress_interface: plan.egress.name(),
        sources,
        redirects: config.redirects(),
        local_ports: config.local_ports(),
        pod_networks: &plan.pod_networks,
    }
}

fn egress(link: &Link) -> Result<Egress, RunError> {
    let mac = MacAddr::try_from(link.mac.as_slice())?;
    Ok(Egress {
        name: link.name.clone(),
        index: link.index,
        mac,
    })
}

fn gone(link: &str) -> RunError {
    RunError::LinkGone {
        link: link.to_owned(),
    }
}
