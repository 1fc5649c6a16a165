//! The program: reads the environment, does the command, names the exit code.
//! The one place where everything is wired.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use egress_config::{
    AddressFamily, LogFormat, LogLevel, ReloadExisting, Switch, Warning, format_duration,
};
use egress_runtime::access_log::AccessLog;
use egress_runtime::admin::{Admin, Pages};
use egress_runtime::command_line;
use egress_runtime::dial::Dialer;
use egress_runtime::drain::{Connections, Drain};
use egress_runtime::egress_address::{EgressAddress, own_addresses};
use egress_runtime::environment::ProcessEnvironment;
use egress_runtime::limits::{Limits, connections_within, raise_open_files};
use egress_runtime::listener::{AcceptPauses, Bound, ListenError, Listener, LocalGuard};
use egress_runtime::logging;
use egress_runtime::metrics::{self, ConfigReloads};
use egress_runtime::outcome::{Failure, complain, say};
use egress_runtime::readiness::Readiness;
use egress_runtime::resolver::{Resolver, ResolverMetrics};
use egress_runtime::signals::{Request, Signals};
use egress_runtime::watch::FileWatch;
use egress_runtime::workers::{Workers, count};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tracing::{error, info, warn};

use crate::acl::{Host, Judgement, Policy, Rules};
use crate::check_url::{self, Verdict};
use crate::cli::{self, Command, Output};
use crate::config::{Config, TlsConfig};
use crate::enforced::Enforced;
use crate::http1::Via;
use crate::metrics::Metrics;
use crate::pool::{self, Pool};
use crate::server::{self, Doors};
use crate::shared::{Live, Settings, Shared, Worker};
use crate::tls;

/// Rules logged one by one at the start; of a longer list the log says how to
/// see the rest.
const MAX_LOGGED: usize = 100;
/// How long the last lines of the access log may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the program and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    command_line::perform(cli::parse(arguments), perform)
}

fn perform(command: Command) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Run => runtime.block_on(run()),
        Command::Check => {
            let config = configuration_for_people()?;
            if let Some(tls) = config.tls() {
                tls::load(tls).map_err(|error| Failure::Failed(error.to_string()))?;
            }
            let rules = config.rules().len();
            Ok(say(&format!(
                "the configuration is good: {rules} rules, mode {}\n",
                config.mode()
            ))?)
        }
        Command::Rules(output) => {
            let config = configuration_for_people()?;
            Ok(say(&match output {
                Output::Text => rules_text(config.rules()),
                Output::Json => format!("{:#}\n", rules_json(config.rules())),
            })?)
        }
        Command::CheckUrl { url, output } => runtime.block_on(check_url(&url, output)),
    }
}

fn configuration() -> Result<(Config, Vec<Warning>), Failure> {
    Ok(Config::read(&ProcessEnvironment)?)
}

/// For a command that answers on standard output and does not log.
fn configuration_for_people() -> Result<Config, Failure> {
    let (config, warnings) = configuration()?;
    for warning in &warnings {
        complain(&format!("warning: {warning}\n"));
    }
    Ok(config)
}

fn rules_text(rules: &Rules) -> String {
    let mut text = String::from("line  rule\n");
    for entry in rules.entries() {
        let line = entry.line().map_or("-".to_owned(), |line| line.to_string());
        text.push_str(&format!("{line:>4}  {entry}\n"));
    }
    text
}

fn rules_json(rules: &Rules) -> serde_json::Value {
    json!(rules.entries().collect::<Vec<_>>())
}

/// The policy of a configuration in this pod.
fn policy(config: Config) -> Result<Policy, Failure> {
    let own = own_addresses().map_err(failed)?;
    let (guard, literals, mode) = (config.guard(), config.literals(), config.mode());
    Ok(Policy::new(config.into_rules())
        .guard(guard, own)
        .literals(literals)
        .mode(mode))
}

async fn check_url(url: &str, output: Output) -> Result<(), Failure> {
    let config = configuration_for_people()?;
    let target =
        check_url::target(url).map_err(|error| Failure::Failed(format!("'{url}': {error}")))?;
    let policy = policy(config)?;
    let early = match policy.judge(&target) {
        Judgement::Decided(decision) if !decision.passes() => Some(decision),
        Judgement::Decided(_) | Judgement::NeedsAddresses => None,
    };
    let mut resolved = None;
    let (decision, dialled) = match (early, target.host()) {
        (Some(decision), _) => (decision, Vec::new()),
        (None, Host::Address(address)) => {
            let admission = policy.judge_addresses(&target, std::slice::from_ref(address));
            (
                admission.decision(),
                admission.into_addresses().into_owned(),
            )
        }
        (None, Host::Name(name)) => {
            let metrics = ResolverMetrics::register(&mut Registry::default());
            let resolver = Resolver::from_system(Handle::current(), metrics).map_err(failed)?;
            let answer = resolver.resolve(name).await;
            let addresses = answer
                .as_ref()
                .map_or(Vec::new(), |addresses| addresses.as_slice().to_vec());
            let admission = policy.judge_addresses(&target, &addresses);
            let judged = (
                admission.decision(),
                admission.into_addresses().into_owned(),
            );
            resolved = Some(answer.map(|_| addresses).map_err(|error| error.to_string()));
            judged
        }
    };
    let verdict = Verdict {
        policy: &policy,
        target,
        decision,
        resolved,
        dialled,
    };
    say(&match output {
        Output::Text => verdict.text(),
        Output::Json => format!("{:#}\n", verdict.json()),
    })?;
    if verdict.decision.passes() {
        Ok(())
    } else {
        Err(Failure::Failed(format!("{} is denied", verdict.target)))
    }
}

fn start_logging(level: LogLevel, format: LogFormat) {
    if let Err(error) = logging::init(level, format) {
        complain(&format!("{error}\n"));
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn cannot_listen(error: &ListenError) -> Failure {
    if error.is_permission() {
        Failure::NoPermission(error.to_string())
    } else {
        Failure::Failed(error.to_string())
    }
}

/// Ports that are ours, not yet open.
struct Ports {
    plain: Option<Bound>,
    tls: Option<Bound>,
    admin: Option<Admin>,
}

impl Ports {
    fn bind(config: &Config, workers: usize) -> Result<Self, Failure> {
        let bind = |address| Bound::bind(address, workers).map_err(|error| cannot_listen(&error));
        Ok(Self {
            plain: config.listen().map(bind).transpose()?,
            tls: config.tls().map(TlsConfig::listen).map(bind).transpose()?,
            admin: config
                .proxy()
                .admin_listen()
                .map(Admin::bind)
                .transpose()
                .map_err(failed)?,
        })
    }
}

/// The TLS settings and how they are renewed.
struct Renewal {
    config: TlsConfig,
    send: watch::Sender<Arc<ServerConfig>>,
    files: Vec<FileWatch>,
}

impl Renewal {
    /// Watches the files, then reads them, so that no change falls in between.
    fn start(config: &TlsConfig) -> Result<Self, Failure> {
        let paths = [
            Some(config.certificate()),
            Some(config.key()),
            config.client_ca(),
        ];
        let files = paths.into_iter().flatten().map(FileWatch::new).collect();
        let (send, _) = watch::channel(tls::load(config).map_err(failed)?);
        Ok(Self {
            config: config.clone(),
            send,
            files,
        })
    }

    async fn changed(&mut self) {
        let mut changes: Vec<_> = self
            .files
            .iter_mut()
            .map(|file| Box::pin(file.changed()))
            .collect();
        std::future::poll_fn(|cx| {
            let changed = changes
                .iter_mut()
                .any(|change| change.as_mut().poll(cx).is_ready());
            if changed {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

async fn run() -> Result<(), Failure> {
    let started = SystemTime::now();
    let (config, warnings) = configuration()?;
    start_logging(config.proxy().log_level(), config.proxy().log_format());
    for warning in &warnings {
        warn!("{warning}");
    }
    let mut signals = Signals::install().map_err(failed)?;
    // Read again once the file is watched, so that no change falls in between.
    let rules_file = config.rules_file().map(FileWatch::new);
    let config = match rules_file {
        Some(_) => configuration()?.0,
        None => config,
    };
    let proxy = config.proxy().clone();
    let open_files = raise_open_files();
    let threads = count(proxy.threads()).get();
    let connections = match proxy.max_connections() {
        Some(wanted) => wanted.get(),
        None => connections_within(open_files, threads),
    };
    let limits = Limits::new(
        connections,
        proxy
            .max_connections_per_client()
            .map(std::num::NonZeroUsize::get),
    );
    let egress = EgressAddress::find(proxy.sources(), proxy.interface()).map_err(failed)?;
    let renewal = config.tls().map(Renewal::start).transpose()?;
    let ports = Ports::bind(&config, threads)?;
    let guard = (egress != EgressAddress::none())
        .then(|| LocalGuard::new(move |address| egress.is_ours(address)));

    let mut registry = metrics::registry(env!("CARGO_PKG_VERSION"), started);
    let reloads = ConfigReloads::register(&mut registry, started);
    let pauses = AcceptPauses::register(&mut registry);
    let access_log = match proxy.access_log() {
        Switch::On => AccessLog::start(proxy.log_format(), &mut registry).map_err(failed)?,
        Switch::Off => AccessLog::off(),
    };
    let resolver_metrics = ResolverMetrics::register(&mut registry);
    let resolver = Resolver::from_system(Handle::current(), resolver_metrics).map_err(failed)?;

    let settings = Settings {
        header_bytes: config.header_bytes(),
        header_time: config.header_time(),
        idle: config.idle(),
        sni: config.sni(),
        forwarded_for: config.forwarded_for(),
    };
    let shown = shown(&config, connections, threads);
    log_configuration(&config, connections, threads, egress);
    let (enforce, enforced) = watch::channel(Arc::new(Enforced::new(policy(config)?)));
    let metrics = Metrics::register(&mut registry, limits.clone(), enforced.clone());
    let drain = Drain::new();
    let shared = Arc::new(Shared {
        settings,
        enforced: enforced.clone(),
        resolver,
        dialer: Dialer::new(egress, proxy.connect_time()),
        limits,
        drain: drain.clone(),
        // Random keys are what the standard library has of randomness.
        via: Via::new(RandomState::new().hash_one(started)),
        metrics,
    });
    // A connection that waits takes a file descriptor from clients to come.
    let waiting = (connections / 2 / threads).min(pool::MAX_WAITING);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            Arc::new(Worker {
                shared: Arc::clone(&shared),
                pool: Pool::new(waiting),
                connections: Connections::new(),
                access_log: access_log.worker(),
            })
        })
        .collect();

    let (readiness, hold) = Readiness::held_by("the ports");
    let rows = enforced.clone();
    let pages = Pages::new(Arc::new(registry), readiness.clone(), move || {
        let mut shown = shown.clone();
        if let Some(object) = shown.as_object_mut() {
            let enforced = Arc::clone(&rows.borrow());
            object.insert("rules".to_owned(), rules_json(enforced.policy().rules()));
        }
        format!("{shown:#}\n")
    });
    let admin = ports.admin.map(|admin| match &guard {
        Some(guard) => admin.guarded_by(guard.clone()),
        None => admin,
    });
    let plain = ports
        .plain
        .map(Bound::listen)
        .transpose()
        .map_err(|error| cannot_listen(&error))?;
    let tls = ports
        .tls
        .map(Bound::listen)
        .transpose()
        .map_err(|error| cannot_listen(&error))?;
    let seats = Seats {
        plain: Mutex::new(plain.unwrap_or_default()),
        tls: Mutex::new(tls.unwrap_or_default()),
    };
    let certificates = renewal.as_ref().map(|renewal| renewal.send.subscribe());
    let at_work = workers.clone();
    let mut threads = Workers::start(workers.len(), move |number| {
        let worker = at_work.get(number).cloned();
        let take = |listeners: &Mutex<Vec<Listener>>| {
            listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        };
        let (plain, tls) = (take(&seats.plain), take(&seats.tls));
        let certificates = certificates.clone();
        let (guard, pauses) = (guard.clone(), pauses.clone());
        async move {
            let Some(worker) = worker else { return };
            let limits = &worker.shared.limits;
            let serve =
                |listener: Listener| listener.serve(limits.clone(), guard.clone(), pauses.clone());
            let doors = plain
                .map(serve)
                .transpose()
                .and_then(|plain| Ok((plain, tls.map(serve).transpose()?)));
            match doors {
                Ok((plain, tls)) => {
                    let tls = tls.zip(certificates);
                    server::run(worker, Doors { plain, tls }).await;
                }
                Err(cause) => error!("{cause}"),
            }
        }
    })
    .map_err(failed)?;
    drop(hold);

    let admin = tokio::spawn(async move {
        if let Some(admin) = admin
            && let Err(error) = admin.serve(pages).await
        {
            error!("{error}");
        }
    });
    let mut control = Control {
        reload_existing: proxy.reload_existing(),
        reloads,
        enforce,
        workers: &workers,
        renewal,
        rules_file,
    };
    tokio::select! {
        () = control.run(&mut signals) => {}
        ended = threads.ended() => {
            // A worker ends only when the program does.
            let why = match ended.map(|ended| ended.result) {
                Some(Err(error)) => error.to_string(),
                Some(Ok(())) | None => "a worker ended early; the log above says why".to_owned(),
            };
            return Err(Failure::Failed(why));
        }
    }
    info!(connections = drain.in_flight(), "draining");
    readiness.drain();
    drain.begin();
    tokio::select! {
        finished = timeout(proxy.drain(), drain.finished()) => {
            if finished.is_err() {
                info!(connections = drain.in_flight(), "EGRESS_DRAIN_SECONDS are over; closing");
            }
        }
        _ = signals.next() => {
            info!(connections = drain.in_flight(), "asked again to end; closing");
        }
    }
    for worker in &workers {
        worker.connections.abort_all();
    }
    while threads.ended().await.is_some() {}
    threads.join();
    admin.abort();
    access_log.finish(LOG_PATIENCE);
    info!("ended");
    Ok(())
}

/// The listening sockets that workers take when they start.
struct Seats {
    plain: Mutex<Vec<Listener>>,
    tls: Mutex<Vec<Listener>>,
}

/// What happens while the workers work.
struct Control<'a> {
    reload_existing: ReloadExisting,
    reloads: ConfigReloads,
    enforce: watch::Sender<Arc<Enforced>>,
    workers: &'a [Arc<Worker>],
    renewal: Option<Renewal>,
    rules_file: Option<FileWatch>,
}

impl Control<'_> {
    /// Reloads what changes until the program is asked to end.
    async fn run(&mut self, signals: &mut Signals) {
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
        match tls::load(&renewal.config) {
            Ok(loaded) => {
                renewal.send.send_replace(loaded);
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

/// The effective configuration, but for the rules, which change.
fn shown(config: &Config, connections: usize, threads: usize) -> serde_json::Value {
    json!({
        "listen": config.listen().map(|listen| listen.to_string()),
        "tls_listen": config.tls().map(|tls| tls.listen().to_string()),
        "mode": config.mode(),
        "guard": config.guard(),
        "ip_literals": config.literals(),
        "sni": config.sni(),
        "x_forwarded_for": config.forwarded_for(),
        "header_bytes": config.header_bytes(),
        "header_time": format_duration(config.header_time()),
        "idle_time": format_duration(config.idle()),
        "connections": connections,
        "threads": threads,
        "proxy": config.proxy(),
    })
}

/// The effective configuration, once, as log lines.
fn log_configuration(config: &Config, connections: usize, threads: usize, egress: EgressAddress) {
    let address = |family| match egress.source_for(family) {
        Some(address) => address.to_string(),
        None if egress.family_allowed(family) => "any".to_owned(),
        None => "none".to_owned(),
    };
    info!(
        mode = %config.mode(),
        guard = %config.guard(),
        connections,
        threads,
        egress_ipv4 = address(AddressFamily::Ipv4),
        egress_ipv6 = address(AddressFamily::Ipv6),
        "egress HTTP proxy"
    );
    for entry in config.rules().entries().take(MAX_LOGGED) {
        match entry.line() {
            Some(line) => info!(line, "{entry}"),
            None => info!("otherwise {entry}"),
        }
    }
    let unlogged = config.rules().len().saturating_sub(MAX_LOGGED);
    if unlogged > 0 {
        info!("and {unlogged} more rules; `egress-http-proxy rules` lists all of them");
    }
}
