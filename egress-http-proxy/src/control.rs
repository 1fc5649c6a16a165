//! What changes while the program runs: the rules, and the certificate.

use std::sync::Arc;
use std::time::SystemTime;

use egress_config::ReloadExisting;
use egress_runtime::metrics::ConfigReloads;
use egress_runtime::outcome::Failure;
use egress_runtime::signals::{Request, Signals};
use egress_runtime::watch::FileWatch;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::enforced::Enforced;
use crate::program::{configuration, policy};
use crate::renewal::Renewal;
use crate::shared::{Live, Worker};

/// What happens while the workers work.
pub(crate) struct Control<'a> {
    pub(crate) reload_existing: ReloadExisting,
    pub(crate) reloads: ConfigReloads,
    pub(crate) enforce: watch::Sender<Arc<Enforced>>,
    pub(crate) workers: &'a [Arc<Worker>],
    pub(crate) renewal: Option<Renewal>,
    pub(crate) rules_file: Option<FileWatch>,
}

impl Control<'_> {
    /// Reloads what changes until the program is asked to end.
    pub(crate) async fn run(&mut self, signals: &mut Signals) {
        loop {
            tokio::select! {
                biased;
                request = signals.next() => match request {
                    Request::Reload => {
                        self.reload();
                        self.renew();
                    }
                    Request::Drain | Request::Stop => return,
                },
                () = changed(self.rules_file.as_mut()) => self.reload(),
                () = renewed(self.renewal.as_mut()) => self.renew(),
            }
        }
    }

    fn reload(&mut self) {
        let policy = configuration().and_then(|(config, warnings)| {
            for warning in &warnings {
                warn!("{warning}");
            }
            policy(config)
        });
        let policy = match policy {
            Ok(policy) => policy,
            Err(failure) => {
                let text = match failure {
                    Failure::Config(diagnostics) => diagnostics.to_string(),
                    Failure::NoPermission(text) | Failure::Failed(text) => text,
                };
                for line in text.lines() {
                    error!("{line}");
                }
                error!("the rules were not reloaded; the old ones stay in force");
                self.reloads.failed();
                return;
            }
        };
        let rules = policy.rules().len();
        self.enforce.send_replace(Arc::new(Enforced::new(policy)));
        self.reloads.succeeded(SystemTime::now());
        let closed = match self.reload_existing {
            ReloadExisting::Keep => 0,
            ReloadExisting::Close => self.close_forbidden(),
        };
        info!(rules, closed, "the rules were reloaded");
    }

    /// Ends the tunnels that the rules in force forbid.
    fn close_forbidden(&self) -> usize {
        let enforced = Arc::clone(&self.enforce.borrow());
        let forbidden = |live: &Live| match live {
            Live::Tunnel(flow) => enforced.forbids(flow),
            // Each request is judged by itself.
            Live::Requests => false,
        };
        let workers = self.workers.iter();
        workers
            .map(|worker| worker.connections.abort_where(forbidden))
            .sum()
    }

    fn renew(&mut self) {
        let Some(renewal) = &self.renewal else { return };
        match renewal.load() {
            Ok(()) => {
                self.reloads.succeeded(SystemTime::now());
                info!("the TLS certificate was reloaded");
            }
            Err(error) => {
                error!("{error}");
                error!("the TLS certificate was not reloaded; the old one stays in use");
                self.reloads.failed();
            }
        }
    }
}

/// Waits for a change of the file, for ever when there is none.
async fn changed(file: Option<&mut FileWatch>) {
    match file {
        Some(file) => file.changed().await,
        None => std::future::pending().await,
    }
}

async fn renewed(renewal: Option<&mut Renewal>) {
    match renewal {
        Some(renewal) => renewal.changed().await,
        None => std::future::pending().await,
    }
}
