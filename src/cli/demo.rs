//! `demo`: simulated routers and an embedded service in one process and one folder; changes some
//! routers, breaks some, and shows what an operator would see.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;
use tokio::time::Instant;

use super::{devices_read, snapshots, status};
use crate::adapters::sqlite::{DEFAULT_TENANT, NewDevice};
use crate::app::{AppError, Embedded};
use crate::config::{Config, Environment, Need};
use crate::credentials::Login;
use crate::domain::device::DeviceId;
use crate::domain::schedule::{Condition, Policy};
use crate::fleet::reconciler::Reconciler;
use crate::ports::{Archive as _, Presence, VersionPage};
use crate::sim::{Fault, Fleet, FleetOptions, Router};

/// What RouterOS versions are in the field.
const VERSIONS: [&str; 4] = ["7.16.2", "6.49.10", "7.20.1", "6.48.6"];
/// How long each router thinks, so that there is something to watch.
const DELAY: Duration = Duration::from_millis(150);
/// How many routers are changed and then broken; the demo needs that many.
const CHANGED: usize = 2;
const BROKEN: usize = 4;
/// How long either round may take beyond its interval before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup demo                      25 routers, gone without a trace afterwards
  mikrotik-backup demo --dir ./demo         … and keep the folder, to look further
  mikrotik-backup demo --routers 2000       a larger fleet

Everything happens on loopback addresses (127.77.0.0/16) and in one folder.")]
pub(super) struct DemoArgs {
    /// How many simulated routers
    #[arg(long, value_name = "N", default_value_t = 25,
          value_parser = clap::value_parser!(u16).range(8..=20_000))]
    routers: u16,
    /// Keep the folder with the database and the archive
    #[arg(long)]
    keep: bool,
    /// The folder, made if it is not there; it is kept
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Where the demo keeps its data.
enum Folder {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

impl Folder {
    fn choose(args: &DemoArgs) -> anyhow::Result<Self> {
        if let Some(dir) = &args.dir {
            return Ok(Self::Kept(dir.clone()));
        }
        let passing = tempfile::Builder::new()
            .prefix("mikrotik-backup-demo-")
            .tempdir()
            .context("failed to make a temporary folder")?;
        Ok(if args.keep { Self::Kept(passing.keep()) } else { Self::Passing(passing) })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(directory) => directory.path(),
        }
    }
}

/// Runs the demo.
pub(super) async fn demo(args: &DemoArgs) -> Result<ExitCode, AppError> {
    let folder = Folder::choose(args).map_err(AppError::Failed)?;
    let routers = usize::from(args.routers);
    let fleet = start_routers(routers).await.map_err(AppError::Failed)?;
    let config = configuration(folder.path(), routers)?;
    let embedded = Embedded::open(&config, folder.path(), None).await?;
    let devices = add_devices(&embedded, fleet.routers()).await.map_err(AppError::Failed)?;
    say(&format!(
        "{routers} simulated routers (RouterOS {}), one embedded service, data in {}",
        VERSIONS.join(", "),
        folder.path().display()
    ));

    let working = tokio::spawn(reconciler(&config, &embedded).run());
    let stage = Stage { config: &config, embedded: &embedded, fleet: &fleet, devices: &devices };
    let shown = stage.play().await;
    embedded.context.shutdown.soft().cancel();
    working.await.map_err(|error| AppError::Failed(error.into()))?;
    embedded.store.close().await;
    shown.map_err(AppError::Failed)?;

    close(&config, &fleet, &folder).await
}

/// What is on stage while the service works.
struct Stage<'a> {
    config: &'a Config,
    embedded: &'a Embedded,
    fleet: &'a Fleet,
    devices: &'a [DeviceId],
}

impl Stage<'_> {
    async fn play(&self) -> anyhow::Result<()> {
        let total = self.devices.len();
        say("\nThe first backup of every router:");
        self.watch(total, "backed up", || self.count(Condition::Ok)).await?;
        self.meddle();
        say(&format!(
            "\n{CHANGED} routers are edited; one gets another host key, one another password, one \
             cuts its export, one goes offline. The next round:"
        ));
        self.watch(CHANGED, "changes archived", || 0).await.ok();
        Ok(())
    }

    fn count(&self, condition: Condition) -> usize {
        let counts = self.embedded.context.view.counts();
        counts.get(&condition).copied().unwrap_or_default()
    }
}
