//! The program: reads the environment, does the command, names the exit code.
//! The one place where everything is wired.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use egress_config::{LogFormat, LogLevel, Switch, Warning};
use egress_runtime::access_log::AccessLog;
use egress_runtime::admin::{Admin, Pages};
use egress_runtime::command_line::{self, Output};
use egress_runtime::dial::Dialer;
use egress_runtime::drain::{Connections, Drain};
use egress_runtime::egress_address::{EgressAddress, own_addresses};
use egress_runtime::environment::ProcessEnvironment;
use egress_runtime::limits::{Limits, connections_within, raise_open_files};
use egress_runtime::listener::{AcceptPauses, Bound, ListenError, Listener, LocalGuard};
use egress_runtime::logging;
use egress_runtime::metrics::{self, ConfigReloads};
use egress_runtime::outcome::{Failure, complain, complain_of, say};
use egress_runtime::readiness::Readiness;
use egress_runtime::resolver::{Resolver, ResolverMetrics};
use egress_runtime::signals::Signals;
use egress_runtime::watch::FileWatch;
use egress_runtime::workers::{Workers, count};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::acl::{Host, Judgement, Policy};
use crate::check_url::{self, Verdict};
use crate::cli::{self, Command};
use crate::config::{Config, TlsConfig};
use crate::control::Control;
use crate::enforced::Enforced;
use crate::http1::Via;
use crate::metrics::Metrics;
use crate::pool::{self, Pool};
use crate::renewal::Renewal;
use crate::report;
use crate::server::{self, Doors};
use crate::shared::{Settings, Shared, Worker};
use crate::tls;

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
                Output::Text => format!("{}\n", config.rules()),
                Output::Json => format!("{:#}\n", json!(config.rules())),
            })?)
        }
        Command::CheckUrl { url, output } => runtime.block_on(check_url(&url, output)),
    }
}

pub(crate) fn configuration() -> Result<(Config, Vec<Warning>), Failure> {
    Ok(Config::read(&ProcessEnvironment)?)
}

fn configuration_for_people() -> Result<Config, Failure> {
    let (config, warnings) = configuration()?;
    complain_of(&warnings);
    Ok(config)
}

/// The policy of a configuration in this pod.
pub(crate) fn policy(config: Config) -> Result<Policy, Failure> {
    let own = own_addresses().map_err(Failure::of)?;
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
            let resolver =
                Resolver::from_system(Handle::current(), metrics).map_err(Failure::of)?;
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
                .map_err(Failure::of)?,
        })
    }
}

async fn run() -> Result<(), Failure> {
    let started = SystemTime::now();
    let (config, warnings) = configuration()?;
    start_logging(config.proxy().log_level(), config.proxy().log_format());
    for warning in &warnings {
        warn!("{warning}");
    }
    let mut signals = Signals::install().map_err(Failure::of)?;
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
    let egress = EgressAddress::find(proxy.sources(), proxy.interface()).map_err(Failure::of)?;
    let renewal = config
        .tls()
        .map(Renewal::start)
        .transpose()
        .map_err(Failure::of)?;
    let ports = Ports::bind(&config, threads)?;
    let guard = (egress != EgressAddress::none())
        .then(|| LocalGuard::new(move |address| egress.is_ours(address)));

    let mut registry = metrics::registry(env!("CARGO_PKG_VERSION"), started);
    let reloads = ConfigReloads::register(&mut registry, started);
    let pauses = AcceptPauses::register(&mut registry);
    let access_log = match proxy.access_log() {
        Switch::On => AccessLog::start(proxy.log_format(), &mut registry).map_err(Failure::of)?,
        Switch::Off => AccessLog::off(),
    };
    let resolver_metrics = ResolverMetrics::register(&mut registry);
    let resolver =
        Resolver::from_system(Handle::current(), resolver_metrics).map_err(Failure::of)?;

    let settings = Settings {
        header_bytes: config.header_bytes(),
        header_time: config.header_time(),
        idle: config.idle(),
        sni: config.sni(),
        forwarded_for: config.forwarded_for(),
    };
    let shown = report::shown(&config, connections, threads);
    report::log_configuration(&config, connections, threads, egress);
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
            object.insert("rules".to_owned(), json!(enforced.policy().rules()));
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
    let certificates = renewal.as_ref().map(Renewal::subscribe);
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
    .map_err(Failure::of)?;
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
