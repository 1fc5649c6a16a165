//! The program: reads the environment, does the command, names the exit code.
//! The one place where everything is wired.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use egress_config::{Diagnostics, Protocol, Switch, Warning};
use egress_runtime::access_log::AccessLog;
use egress_runtime::admin::{Admin, Pages};
use egress_runtime::command_line::{self, Output};
use egress_runtime::dial::Dialer;
use egress_runtime::drain::{Connections, Drain};
use egress_runtime::egress_address::EgressAddress;
use egress_runtime::environment::ProcessEnvironment;
use egress_runtime::limits::{Limits, connections_within, raise_open_files};
use egress_runtime::listener::{AcceptPauses, LocalGuard};
use egress_runtime::logging;
use egress_runtime::metrics::ConfigReloads;
use egress_runtime::outcome::{Failure, complain, complain_of, say};
use egress_runtime::readiness::Readiness;
use egress_runtime::resolver::ResolverMetrics;
use egress_runtime::signals::{Request, Signals};
use egress_runtime::watch::FileWatch;
use egress_runtime::workers::{self, Workers};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::cli::{self, Command};
use crate::config::Config;
use crate::destinations::Destinations;
use crate::mapping::Mapping;
use crate::metrics::Metrics;
use crate::report;
use crate::server::{Shared, Worker};
use crate::service::{Service, ServiceError};
use crate::udp::UdpWorker;

/// How long the last lines of the access log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs the program and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    command_line::perform(cli::parse(arguments), perform)
}

fn perform(command: Command) -> Result<(), Failure> {
    let (config, warnings) = configuration()?;
    match command {
        Command::Run => {
            // Everything but connections waits for the network or for the
            // kernel: one thread.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(run(config, &warnings))
        }
        Command::Check => {
            complain_of(&warnings);
            Ok(say(&report::checked(&config))?)
        }
        Command::Rules(output) => {
            complain_of(&warnings);
            let rules = match output {
                Output::Text => report::rules_text(config.mappings()),
                Output::Json => report::rules_json(config.mappings())
                    .map_err(|error| Failure::Failed(error.to_string()))?,
            };
            Ok(say(&rules)?)
        }
    }
}

fn configuration() -> Result<(Config, Vec<Warning>), Diagnostics> {
    Config::from_environment(&ProcessEnvironment)
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        if error.is_permission() {
            Self::NoPermission(error.to_string())
        } else {
            Self::of(error)
        }
    }
}

async fn run(config: Config, warnings: &[Warning]) -> Result<(), Failure> {
    let proxy = config.proxy();
    if let Err(error) = logging::init(proxy.log_level(), proxy.log_format()) {
        complain(&format!("{error}\n"));
    }
    for warning in warnings {
        warn!("{warning}");
    }
    let mut signals = Signals::install().map_err(Failure::of)?;
    // Read again once the file is watched, so that no change falls in between.
    let file = config.destination_file().map(FileWatch::new);
    let config = match file {
        Some(_) => configuration()?.0,
        None => config,
    };
    let source = egress_address(&config)?;
    let started = SystemTime::now();
    let mut registry = egress_runtime::metrics::registry(env!("CARGO_PKG_VERSION"), started);
    let reloads = ConfigReloads::register(&mut registry, started);
    let access_log = access_log(&config, &mut registry)?;
    let (readiness, starting) = Readiness::held_by("the ports to be served");
    let drain = Drain::new();
    let guard = LocalGuard::new(move |address| source.is_ours(address));

    // Workers end when this is dropped.
    let (alive, ended) = watch::channel(());
    let mut workers = Workers::start(workers::count(config.proxy().threads()).get(), move |_| {
        let mut ended = ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    })
    .map_err(Failure::of)?;
    let mut service = service(
        &config,
        source,
        &workers,
        &access_log,
        &drain,
        guard.clone(),
        &mut registry,
    );
    let ports = service.take_ports(config.mappings())?;
    let admin = match config.proxy().admin_listen() {
        Some(address) => Some(Admin::bind(address).map_err(Failure::of)?.guarded_by(guard)),
        None => None,
    };
    report::log_mappings(config.mappings());
    service
        .apply(config.mappings(), ports, Some(&readiness))
        .await?;
    info!(
        ports = config.mappings().len(),
        workers = workers.handles().len(),
        "serving"
    );
    drop(starting);

    let shown = Shown::new(&config);
    let pages = Pages::new(Arc::new(registry), readiness.clone(), shown.page());
    let serving = async {
        match admin {
            Some(admin) => admin.serve(pages).await.map(|never| match never {}),
            None => future::pending().await,
        }
    };
    let mut running = Running {
        time_to_drain: config.proxy().drain(),
        service,
        readiness,
        drain,
        reloads,
        shown,
    };
    let work = async {
        running.keep(file, &mut signals).await;
        running.drain(&mut signals).await;
    };
    let result = tokio::select! {
        () = work => Ok(()),
        result = serving => result.map_err(Failure::of),
        ended = workers.ended() => Err(match ended.map(|ended| ended.result) {
            Some(Err(error)) => Failure::of(error),
            Some(Ok(())) | None => Failure::of("a worker ended by itself"),
        }),
    };
    drop(alive);
    workers.join();
    access_log.finish(LAST_LINES);
    result
}

fn egress_address(config: &Config) -> Result<EgressAddress, Failure> {
    let proxy = config.proxy();
    let source = EgressAddress::find(proxy.sources(), proxy.interface()).map_err(Failure::of)?;
    let addresses: Vec<String> = egress_config::AddressFamily::ALL
        .into_iter()
        .filter_map(|family| source.source_for(family))
        .map(|address| address.to_string())
        .collect();
    if addresses.is_empty() {
        info!("no egress interface: connections leave with the address that the kernel chooses");
    } else {
        info!(
            addresses = addresses.join(" "),
            "connections leave with the egress address"
        );
    }
    Ok(source)
}

fn access_log(config: &Config, registry: &mut Registry) -> Result<AccessLog, Failure> {
    match config.proxy().access_log() {
        Switch::On => AccessLog::start(config.proxy().log_format(), registry).map_err(Failure::of),
        Switch::Off => Ok(AccessLog::off()),
    }
}

fn service(
    config: &Config,
    source: EgressAddress,
    workers: &Workers,
    access_log: &AccessLog,
    drain: &Drain,
    guard: LocalGuard,
    registry: &mut Registry,
) -> Service {
    let proxy = config.proxy();
    let dialer = Dialer::new(source, proxy.connect_time());
    let metrics = Metrics::register(registry);
    let most = Most::of(config, workers.handles().len());
    let shared = Arc::new(Shared {
        dialer,
        idle: config.idle_time(),
        limits: Limits::new(
            most.connections,
            proxy.max_connections_per_client().map(Into::into),
        ),
        drain: drain.clone(),
        metrics: metrics.clone(),
    });
    let sessions = Limits::new(most.sessions, None);
    let worker = |handle: &tokio::runtime::Handle| {
        let worker = Worker {
            shared: Arc::clone(&shared),
            connections: Connections::new(),
            log: access_log.worker(),
        };
        let worker = UdpWorker {
            worker,
            source,
            idle: config.udp_idle_time(),
            sessions: sessions.clone(),
        };
        (handle.clone(), worker)
    };
    Service {
        workers: workers.handles().iter().map(worker).collect(),
        guard,
        pauses: AcceptPauses::register(registry),
        metrics,
        existing: proxy.reload_existing(),
        destinations: Destinations::new(
            ResolverMetrics::register(registry),
            dialer,
            config.health_check(),
        ),
        listeners: HashMap::new(),
    }
}

/// What there may be at a time.
struct Most {
    connections: usize,
    sessions: usize,
}

impl Most {
    /// The limit of open files is for listening sockets, one per port and
    /// worker; where datagrams are relayed for a session each, but not for
    /// more than a quarter of it; and for connections.
    fn of(config: &Config, workers: usize) -> Self {
        let files = raise_open_files();
        let listening = u64::try_from(config.mappings().len() * workers).unwrap_or(u64::MAX);
        let udp = |mapping: &Mapping| mapping.protocol() == Protocol::Udp;
        let sessions = config
            .udp_sessions()
            .get()
            .min(usize::try_from(files / 4).unwrap_or(usize::MAX));
        let for_sessions = if config.mappings().iter().any(udp) {
            u64::try_from(sessions).unwrap_or(u64::MAX)
        } else {
            0
        };
        let rest = files.saturating_sub(listening).saturating_sub(for_sessions);
        let connections = match config.proxy().max_connections() {
            Some(connections) => connections.get(),
            None => connections_within(rest, workers),
        };
        Self {
            connections,
            sessions,
        }
    }
}

/// The configuration in force, for the admin endpoint.
#[derive(Clone)]
struct Shown(Arc<Mutex<String>>);

impl Shown {
    fn new(config: &Config) -> Self {
        Self(Arc::new(Mutex::new(json(config))))
    }

    fn set(&self, config: &Config) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = json(config);
    }

    fn page(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let shown = Arc::clone(&self.0);
        move || shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn json(config: &Config) -> String {
    serde_json::to_string_pretty(config).unwrap_or_else(|error| {
        // Every key is a string and every number finite.
        serde_json::Value::String(error.to_string()).to_string()
    })
}

/// The program once it serves.
struct Running {
    time_to_drain: Duration,
    service: Service,
    readiness: Readiness,
    drain: Drain,
    reloads: ConfigReloads,
    shown: Shown,
}

impl Running {
    /// Reloads on request until the program is to end.
    async fn keep(&mut self, mut file: Option<FileWatch>, signals: &mut Signals) {
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    Request::Reload => self.reload().await,
                    Request::Drain | Request::Stop => return,
                },
                () = changed(file.as_mut()) => self.reload().await,
            }
        }
    }

    /// Reads the list again; a bad one keeps the old one in force.
    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => self.reloads.succeeded(SystemTime::now()),
            Err(lines) => {
                for line in lines.lines() {
                    error!("{line}");
                }
                error!("the list was not reloaded; the old one stays in force");
                self.reloads.failed();
            }
        }
    }

    async fn try_reload(&mut self) -> Result<(), String> {
        let (config, warnings) = configuration().map_err(|diagnostics| diagnostics.to_string())?;
        let text = |error: ServiceError| error.to_string();
        let ports = self.service.take_ports(config.mappings()).map_err(text)?;
        // A name that does not resolve must not take the ports that work out
        // of service.
        let applied = self.service.apply(config.mappings(), ports, None).await;
        let applied = applied.map_err(text)?;
        for warning in &warnings {
            warn!("{warning}");
        }
        info!(
            added = applied.added,
            changed = applied.changed,
            removed = applied.removed,
            kept = applied.kept,
            closed = applied.closed,
            "the list was reloaded"
        );
        self.shown.set(&config);
        Ok(())
    }

    /// Lets what is open end.
    async fn drain(&mut self, signals: &mut Signals) {
        self.readiness.drain();
        self.drain.begin();
        self.service.stop_accepting().await;
        let open = self.drain.in_flight();
        info!(open, "draining");
        tokio::select! {
            () = self.drain.finished() => return,
            () = sleep(self.time_to_drain) => {}
            () = stopped(signals) => {}
        }
        let closed = self.service.cut_off();
        if closed > 0 {
            warn!(closed, "what was still open is cut off");
        }
    }
}

async fn changed(file: Option<&mut FileWatch>) {
    match file {
        Some(file) => file.changed().await,
        None => future::pending().await,
    }
}

/// Waits for the second signal to end.
async fn stopped(signals: &mut Signals) {
    while signals.next().await != Request::Stop {}
}
