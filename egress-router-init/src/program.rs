//! The program: reads the environment, does the command, names the exit code.
//! The one place where everything is wired.

use std::ffi::OsString;
use std::str::FromStr;

use egress_config::{Environment, LogFormat, LogLevel, VariableSpec, Warning, variables};
use egress_runtime::command_line;
use egress_runtime::environment::ProcessEnvironment;
use egress_runtime::logging;
use egress_runtime::outcome::{Failure, complain, complain_of, say};
use egress_runtime::signals::{Request, Signals};
use egress_runtime::watch::FileWatch;
use tracing::{debug, info, warn};

use crate::capabilities;
use crate::cli::{self, Command, Output};
use crate::config::{Config, Mode};
use crate::report;
use crate::router::{Outcome, Router, RunError};
use crate::status;
use crate::stay;

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let text = error.to_string();
        if error.is_permission() {
            Self::NoPermission(text)
        } else {
            Self::Failed(text)
        }
    }
}

/// Runs the program and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    command_line::perform(cli::parse(arguments), |command| {
        // Everything waits for the kernel or for the network: one thread.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(perform(command))
    })
}

async fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run => run().await,
        Command::Plan(output) => {
            let (config, warnings) = configuration()?;
            complain_of(&warnings);
            plan(&config, output).await
        }
        Command::Check => {
            let (config, warnings) = configuration()?;
            complain_of(&warnings);
            Ok(say(&report::checked(&config))?)
        }
        Command::Status(output) => {
            logging_before_configuration();
            let status = status::gather().await?;
            Ok(say(&match output {
                Output::Json => status::json(&status)?,
                Output::Text | Output::Nft => status.to_string(),
            })?)
        }
        Command::Wait => wait().await,
        Command::Undo => {
            logging_before_configuration();
            require_capabilities()?;
            let steps = undo().await?;
            info!(steps, "the router is gone from this network namespace");
            Ok(())
        }
    }
}

fn configuration() -> Result<(Config, Vec<Warning>), Failure> {
    Ok(Config::from_environment(&ProcessEnvironment)?)
}

/// For commands that work without the router's variables.
fn logging_before_configuration() {
    fn setting<T: FromStr>(variable: &VariableSpec) -> Option<T> {
        ProcessEnvironment.var(variable.name()).ok()??.parse().ok()
    }
    start_logging(
        setting(variables::LOG).unwrap_or(LogLevel::Info),
        setting(variables::LOG_FORMAT).unwrap_or(LogFormat::Auto),
    );
}

fn start_logging(level: LogLevel, format: LogFormat) {
    if let Err(error) = logging::init(level, format) {
        complain(&format!("{error}\n"));
    }
}

fn require_capabilities() -> Result<(), Failure> {
    let missing = capabilities::missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|capability| capability.name()).collect();
    Err(Failure::NoPermission(format!(
        "the container lacks the capability {0}; add it to the manifest: \
         securityContext: {{ capabilities: {{ add: [{0}] }} }}",
        names.join(", ")
    )))
}

async fn run() -> Result<(), Failure> {
    let (config, warnings) = configuration()?;
    start_logging(config.log_level(), config.log_format());
    for warning in &warnings {
        warn!("{warning}");
    }
    require_capabilities()?;
    report::log_configuration(&config);
    if config.mode() == Mode::Legacy {
        // Read again once the file is watched, so that no change falls in
        // between.
        let file = config.destination_file().map(FileWatch::new);
        let config = if file.is_some() {
            configuration()?.0
        } else {
            config
        };
        return Ok(stay::run(config, file).await?);
    }
    let started = std::time::Instant::now();
    let mut router = Router::open(config.firewall())?;
    let outcome = router.converge(&config).await?;
    let mut claim = router.claim();
    let claimed = async {
        claim.hold(&config, &outcome.egress)?;
        claim.announce()?;
        log_outcome(&outcome, started.elapsed());
        claim.settle().await
    };
    let claimed = claimed.await;
    claim.close();
    Ok(claimed.map_err(RunError::from)?)
}

pub(crate) fn log_outcome(outcome: &Outcome, took: std::time::Duration) {
    info!(
        pod_interface = %outcome.pod_interface,
        egress_interface = %outcome.egress.name,
        mac = %outcome.egress.mac,
        changes = outcome.changes,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "the network is set up",
    );
}

async fn plan(config: &Config, output: Output) -> Result<(), Failure> {
    let mut router = Router::open(config.firewall())?;
    let state = router.observe().await?;
    let plan = crate::plan::converge(config, &state).map_err(RunError::from)?;
    Ok(say(&match output {
        Output::Text => report::plan_text(config, &plan),
        Output::Json => report::plan_json(config, &plan)?,
        Output::Nft => plan.table(config).to_string(),
    })?)
}

async fn undo() -> Result<usize, Failure> {
    // Whichever driver made rules here, both are asked.
    let mut router = Router::open(crate::config::FirewallDriver::Nftables)?;
    Ok(router.undo().await?)
}

/// The main container of a redirect pod: the packet rules do the work.
async fn wait() -> Result<(), Failure> {
    logging_before_configuration();
    let mut signals = Signals::install().map_err(|error| Failure::Failed(error.to_string()))?;
    info!("waiting for SIGTERM; the network was set up by the init container");
    loop {
        match signals.next().await {
            Request::Reload => debug!("nothing to reload"),
            Request::Drain | Request::Stop => return Ok(()),
        }
    }
}
