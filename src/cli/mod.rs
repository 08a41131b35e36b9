//! Arguments and exit codes; one short function per subcommand.

mod ad_hoc;
mod archive;
mod backup;
mod chart;
mod check;
mod config_check;
mod dead_letters;
mod demo;
mod devices;
mod devices_read;
mod events;
mod hand;
mod host_key;
mod login;
mod output;
mod progress;
mod prune;
mod reading;
mod shell;
mod snapshots;
mod status;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::app::{self, AppError};
use crate::config::{Config, Environment, Mode, Need};
use crate::domain::failure::chain;
use crate::report::printable;
use crate::sim::cli::SimulateArgs;
use crate::{http, lifecycle, sim, telemetry};

/// Exit codes of the contract.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const CONFIGURATION: u8 = 3;
}

/// Backs up the configuration of a fleet of MikroTik routers.
///
/// Without a subcommand it runs the service.
#[derive(Debug, Parser)]
#[command(
    name = "mikrotik-backup",
    version,
    after_help = "Exit codes: 0 done, 1 something failed, 2 usage, 3 configuration.\n\
                  --help lists every environment variable.",
    after_long_help = long_help()
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The end of `--help`.
fn long_help() -> String {
    let settings = crate::config::settings_help();
    format!("{settings}\nExit codes: 0 done, 1 something failed, 2 usage, 3 configuration.")
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (the default): back up every device of the inventory when it is due
    ///
    /// With DATABASE_URL, REDIS_URL, NATS_URL and CREDENTIAL_ENCRYPTION_KEY it publishes exports to
    /// JetStream; a dependency that is away is waited for. With none of the three URLs it keeps
    /// everything in DATA_DIR: devices, journal, a key that is made at first start, and every
    /// version of every configuration, sealed. GET /readyz on HTTP_ADDR names what is missing. SIGTERM or SIGINT lets running
    /// exports finish; a second one ends them at once.
    #[command(after_help = VARIABLES)]
    Run,
    /// See it work: simulated routers, an embedded service, changes and faults, in under a minute
    Demo(demo::DemoArgs),
    /// Store what arrives in JetStream as versions in PostgreSQL: a service beside `run`
    ///
    /// Reads config.snapshot.create.> with a durable consumer that any number of these share, and
    /// acknowledges a message once its version is in the database. What is no snapshot is set aside
    /// with its reason. GET /readyz on HTTP_ADDR names what is missing. SIGTERM or SIGINT lets what
    /// is being stored finish.
    Archive(archive::ArchiveArgs),
    /// Bring the database schema up to date, as its owner, and exit
    ///
    /// Needs DATABASE_URL with a role that may create schema mikrotik_backup and, where the tables
    /// devices and credential_profiles are not there yet, create those. Doing it twice, or at the
    /// same time as others, does no harm.
    #[command(after_help = VARIABLES)]
    Migrate,
    /// List and export the devices; add, edit, remove and import those of embedded mode
    #[command(subcommand)]
    Devices(devices::Devices),
    /// Back up routers now, wait, and tell what changed
    Backup(backup::BackupArgs),
    /// Try failed and blocked routers again now
    Retry(backup::RetryArgs),
    /// Show, accept and reset the trusted host key of a router
    #[command(subcommand)]
    HostKey(host_key::HostKey),
    /// Examine one router step by step: name, TCP, algorithms, host key, login, version, export
    Check(check::CheckArgs),
    /// Show the fleet on one screen: how many devices are backed up, stale, failing, blocked, and why
    Status(status::StatusArgs),
    /// List what failed or is blocked, newest first, with what comes next or what unblocks it
    #[command(alias = "list-failed")]
    Failed(status::FailedArgs),
    /// List, show, compare, export and search the archived versions of configurations
    #[command(subcommand)]
    Snapshots(snapshots::Snapshots),
    /// Delete old versions by a retention, and old rows of the journal
    Prune(prune::PruneArgs),
    /// Check the configuration
    #[command(subcommand)]
    Config(config_check::ConfigCommand),
    /// Print the completions for a shell
    Completions(shell::CompletionsArgs),
    /// Print a manual page, or write all of them
    Man(shell::ManArgs),
    /// Start simulated routers on loopback addresses, to try a cluster without hardware
    Simulate(SimulateArgs),
    /// Print the snapshots in JetStream, one line each, without their text
    Events(events::EventsArgs),
    /// Ask the service on this machine whether it lives; for a container's HEALTHCHECK
    ///
    /// Asks GET /livez at HTTP_ADDR, over loopback where that is a wildcard. Exit code 0 if the
    /// answer is 200, 1 if not.
    #[command(after_help = VARIABLES)]
    Healthcheck,
}

const VARIABLES: &str = "`mikrotik-backup --help` lists every environment variable.";

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("failed to start the async runtime: {error}"));
            return ExitCode::from(exit::FAILED);
        }
    };
    let code = runtime.block_on(dispatch(cli.command.unwrap_or(Command::Run)));
    // A blocking DNS look-up must not hold up the exit.
    runtime.shutdown_background();
    code
}

async fn dispatch(command: Command) -> ExitCode {
    match command {
        Command::Run => with_config(Need::Run, run).await,
        Command::Demo(args) => finish(demo::demo(&args).await),
        Command::Archive(args) => archive::archive(args).await,
        Command::Migrate => with_config(Need::Migrate, migrate).await,
        Command::Devices(devices::Devices::Read(command)) => {
            with_config(Need::Read, async |config| {
                devices_read::devices(&config, &command).await
            })
            .await
        }
        Command::Devices(command) => {
            with_config(Need::Act, async |config| {
                devices::devices(&config, command).await
            })
            .await
        }
        Command::Backup(args) => {
            with_config(Need::Act, async |config| {
                backup::backup(&config, &args).await
            })
            .await
        }
        Command::Retry(args) => {
            with_config(Need::Act, async |config| {
                backup::retry(&config, &args).await
            })
            .await
        }
        Command::HostKey(command) => {
            with_config(Need::Act, async |config| {
                host_key::host_key(&config, command).await
            })
            .await
        }
        Command::Check(args) => {
            with_config(Need::Check, async |config| {
                check::check(&config, &args).await
            })
            .await
        }
        Command::Events(args) => {
            with_config(Need::Nats, async |config| {
                events::events(&config, &args).await
            })
            .await
        }
        Command::Status(args) => {
            with_config(Need::Read, async |config| {
                status::status(&config, &args).await
            })
            .await
        }
        Command::Failed(args) => {
            with_config(Need::Read, async |config| {
                status::failed(&config, &args).await
            })
            .await
        }
        Command::Snapshots(command) => {
            with_config(Need::Read, async |config| {
                snapshots::snapshots(&config, &command).await
            })
            .await
        }
        Command::Prune(args) => {
            with_config(Need::Read, async |config| {
                prune::prune(&config, &args).await
            })
            .await
        }
        Command::Config(command) => config_check::config(&command).await,
        Command::Completions(args) => shell::completions(Cli::command(), &args),
        Command::Man(args) => shell::man(Cli::command(), &args),
        Command::Simulate(args) => {
            with_config(Need::Nothing, async |config| simulate(&config, args).await).await
        }
        Command::Healthcheck => with_config(Need::Nothing, healthcheck).await,
    }
}

/// Runs a command that reads, as if it had been typed, on a configuration that is there already.
async fn read(config: &Config, words: &[&str]) -> Result<ExitCode, AppError> {
    let typed = std::iter::once("mikrotik-backup").chain(words.iter().copied());
    let cli = Cli::try_parse_from(typed).map_err(|error| AppError::Failed(error.into()))?;
    match cli.command {
        Some(Command::Status(args)) => status::status(config, &args).await,
        Some(Command::Failed(args)) => status::failed(config, &args).await,
        Some(Command::Snapshots(command)) => snapshots::snapshots(config, &command).await,
        other => Err(AppError::Failed(anyhow::anyhow!(
            "{other:?} does not only read"
        ))),
    }
}

/// The exit code of a command that is not the service, its error told to whoever typed it.
fn finish(result: Result<ExitCode, AppError>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let (code, text) = told(&error);
        complain(&text);
        code
    })
}

/// The exit code of an error, and its text.
fn told(error: &AppError) -> (ExitCode, String) {
    let (code, error) = match error {
        AppError::Configuration(error) => (exit::CONFIGURATION, error),
        AppError::Usage(error) => (exit::USAGE, error),
        AppError::Failed(error) => (exit::FAILED, error),
    };
    (ExitCode::from(code), chain(error.as_ref()))
}

/// Loads the configuration that `need` asks for, all problems listed at once, then starts the log.
async fn with_config<F>(need: Need, work: F) -> ExitCode
where
    F: AsyncFnOnce(Config) -> Result<ExitCode, AppError>,
{
    let config = match Config::load(need, &Environment::of_process()) {
        Ok(config) => config,
        Err(problems) => {
            let _ = writeln!(std::io::stderr(), "{problems}");
            return ExitCode::from(exit::CONFIGURATION);
        }
    };
    if let Err(error) = telemetry::install(config.log) {
        complain(&format!("failed to start the log: {error}"));
        return ExitCode::from(exit::FAILED);
    }
    match need {
        Need::Run => introduce(&config),
        Need::Archive => info!(
            mode = "archive",
            replica = config.replica,
            version = env!("CARGO_PKG_VERSION"),
            "Starting mikrotik-backup"
        ),
        _ => {}
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let result = work(config).await;
    match (need, result) {
        (_, Ok(code)) => code,
        // Read by a log collector.
        (Need::Run | Need::Migrate | Need::Archive, Err(error)) => {
            let (code, text) = told(&error);
            error!("{text}");
            code
        }
        // Read by whoever typed the command.
        (Need::Check | Need::Read | Need::Act | Need::Nats | Need::Nothing, result) => {
            finish(result)
        }
    }
}

/// A line for whoever typed the command; a standard error that is gone is no reason to panic.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "mikrotik-backup: {}", printable(text));
}

/// The first line of the service's log.
fn introduce(config: &Config) {
    info!(
        mode = config.mode.as_str(),
        replica = config.replica,
        interval_s = config.interval.as_secs(),
        max_concurrent = config.max_concurrent,
        command_timeout_s = config.command_timeout.as_secs(),
        version = env!("CARGO_PKG_VERSION"),
        "Starting mikrotik-backup"
    );
}

async fn run(config: Config) -> Result<ExitCode, AppError> {
    match config.mode.clone() {
        Mode::Cluster(cluster) => app::run_cluster(config, &cluster).await?,
        Mode::Embedded { data_dir, key } => app::run_embedded(config, &data_dir, key).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(config: Config) -> Result<ExitCode, AppError> {
    if let Mode::Cluster(cluster) = &config.mode {
        app::migrate(cluster).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn simulate(config: &Config, args: SimulateArgs) -> Result<ExitCode, AppError> {
    let key = match &config.mode {
        Mode::Cluster(cluster) => cluster.key().ok(),
        Mode::Embedded { key, .. } => key.as_ref(),
    };
    let seal = key.map(|key| move |json: &str| key.seal(rand::random(), json.as_bytes()));
    let seal = seal.as_ref().map(|seal| seal as sim::cli::Seal<'_>);
    let stop = CancellationToken::new();
    let run = sim::cli::run(args, seal, stop.clone());
    tokio::pin!(run);
    let mut signals = lifecycle::signals().map_err(|error| AppError::Failed(error.into()))?;
    let result = tokio::select! {
        result = &mut run => result,
        _ = signals.recv() => {
            stop.cancel();
            run.await
        }
    };
    result.map(|()| ExitCode::SUCCESS).map_err(AppError::Failed)
}

async fn healthcheck(config: Config) -> Result<ExitCode, AppError> {
    http::client::healthcheck(config.http_addr)
        .await
        .map_err(|error| AppError::Failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
