//! `demo`: simulated routers and an embedded service in one process and one folder; changes some
//! routers, breaks some, and shows what an operator would see.

use std::io::{IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::adapters::sqlite::{DATABASE_FILE, DEFAULT_TENANT, NewDevice};
use crate::app::{AppError, Embedded};
use crate::config::{Config, Environment, Need};
use crate::credentials::Login;
use crate::domain::device::DeviceId;
use crate::domain::schedule::{Condition, Policy};
use crate::fleet::reconciler::Reconciler;
use crate::ports::{Archive as _, VersionPage};
use crate::sim::{Fault, Fleet, FleetOptions, Router};
use crate::telemetry;

/// What RouterOS versions are in the field.
const VERSIONS: [&str; 4] = ["7.16.2", "6.49.10", "7.20.1", "6.48.6"];
/// How long each router thinks, so that there is something to watch.
const DELAY: Duration = Duration::from_millis(150);
/// How many routers are edited; those after them are broken.
const EDITED: usize = 2;
const BROKEN: usize = 4;
/// How long either round may take beyond its interval before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

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
    /// The folder, a new or an empty one; it is kept
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
            return Self::new_at(dir);
        }
        let passing = tempfile::Builder::new()
            .prefix("mikrotik-backup-demo-")
            .tempdir()
            .context("failed to make a temporary folder")?;
        Ok(if args.keep {
            Self::Kept(passing.keep())
        } else {
            Self::Passing(passing)
        })
    }

    /// A folder that somebody named: a new one, or an empty one. Nothing is started, nor changed, in
    /// one that holds something.
    fn new_at(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        match std::fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let what = match dir.join(DATABASE_FILE).exists() {
                        true => "holds a store already",
                        false => "is not empty",
                    };
                    anyhow::bail!(
                        "{shown} {what}; the demo begins anew: name a new folder in --dir, or \
                         remove that one. To look further at an earlier demo, set DATA_DIR={shown}"
                    );
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("failed to look at {shown}; name a new folder in --dir")
                });
            }
        }
        Ok(Self::Kept(dir.to_owned()))
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
    let config = configuration(folder.path(), routers)?;
    telemetry::install(config.log).map_err(|error| AppError::Failed(error.into()))?;
    let fleet = start_routers(routers).await.map_err(AppError::Failed)?;
    let embedded = Embedded::open(&config, folder.path(), None).await?;
    let devices = add_devices(&embedded, fleet.routers())
        .await
        .map_err(AppError::Failed)?;
    say(&format!(
        "{routers} simulated routers (RouterOS {}) and one service, its data in {}",
        VERSIONS.join(", "),
        folder.path().display()
    ));

    let working = tokio::spawn(reconciler(&config, &embedded).run());
    let stage = Stage {
        config: &config,
        embedded: &embedded,
        fleet: &fleet,
        devices: &devices,
    };
    let played = stage.play().await;
    embedded.context.shutdown.soft().cancel();
    working
        .await
        .map_err(|error| AppError::Failed(error.into()))?;
    embedded.store.close().await;
    drop(embedded);
    played.map_err(AppError::Failed)?;
    close(&config, fleet.routers(), &folder).await
}

async fn start_routers(routers: usize) -> anyhow::Result<Fleet> {
    let options = FleetOptions {
        routers,
        delay: DELAY,
        versions: VERSIONS.map(str::to_owned).to_vec(),
        base_address: Ipv4Addr::new(127, 77, 0, 1),
        ..FleetOptions::default()
    };
    Fleet::start(options)
        .await
        .context("failed to start the simulated routers")
}

/// Short times, so that a day of backups passes in seconds; a large fleet gets an interval that it
/// fits into.
fn configuration(data_dir: &Path, routers: usize) -> Result<Config, AppError> {
    let interval = (routers / 40).max(8).to_string();
    let pairs = [
        ("DATA_DIR", data_dir.as_os_str().to_owned()),
        ("CONFIG_BACKUP_INTERVAL", interval.into()),
        ("CONFIG_BACKUP_MAX_CONCURRENT", "20".into()),
        ("CONFIG_BACKUP_COMMAND_TIMEOUT", "10".into()),
        ("CONFIG_BACKUP_JITTER_MIN", "0".into()),
        ("CONFIG_BACKUP_JITTER_MAX", "2".into()),
        ("CONFIG_BACKUP_OFFLINE_RECHECK", "2".into()),
        ("DEVICE_REFRESH_SECONDS", "1".into()),
        // These routers count no connections.
        ("CONFIG_BACKUP_CONNECTION_LIMIT", "none".into()),
        // What goes wrong is shown at the end.
        ("LOG_LEVEL", "error".into()),
    ];
    let environment = Environment::from_pairs(pairs);
    let config = Config::load(Need::Run, &environment);
    config.map_err(|error| AppError::Configuration(error.into()))
}

async fn add_devices(embedded: &Embedded, routers: &[Router]) -> anyhow::Result<Vec<DeviceId>> {
    let devices: Vec<NewDevice> = routers
        .iter()
        .map(|router| NewDevice {
            tenant: DEFAULT_TENANT,
            name: router.name().to_owned(),
            address: router.address().ip().to_string(),
            port: Some(router.address().port()),
            group: None,
            tags: Vec::new(),
            settings: Default::default(),
            host_key: None,
            login: Login {
                username: router.username(),
                password: Some(SecretString::from(router.password())),
                private_key: None,
                private_key_passphrase: None,
            },
        })
        .collect();
    embedded
        .store
        .import_devices(&devices)
        .await
        .context("failed to add the routers")
}

fn reconciler(config: &Config, embedded: &Embedded) -> Reconciler {
    let policy = Policy {
        interval: config.interval,
        jitter_min: config.jitter_min,
        jitter_max: config.jitter_max,
        recheck: config.offline_recheck,
    };
    Reconciler::new(Arc::clone(&embedded.context), policy, config.refresh)
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
        say("\nThe first backup of every router:");
        let total = self.devices.len();
        self.watch("backed up", total, async || {
            Ok(self.fleet.stats().exports_whole)
        })
        .await?;
        self.watch("archived", total, async || self.archived(1).await)
            .await?;

        self.meddle();
        say(&format!(
            "\nNow {EDITED} routers are edited, one gets another host key, one another password, one \
             cuts its export short, and one is switched off. The next round:"
        ));
        self.watch("changes archived", EDITED, async || self.changed().await)
            .await?;
        self.watch("failures seen", BROKEN, async || Ok(self.troubled() as u64))
            .await
    }

    /// Shows how far `count` has come until it is `total`.
    async fn watch(
        &self,
        what: &str,
        total: usize,
        count: impl AsyncFn() -> anyhow::Result<u64>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut line = ProgressLine::new();
        loop {
            let done = usize::try_from(count().await?)
                .unwrap_or(usize::MAX)
                .min(total);
            let seconds = began.elapsed().as_secs_f32();
            line.show(
                &format!("  {done:>5} of {total} {what}  {seconds:.1} s"),
                done == total,
            );
            if done == total {
                return Ok(());
            }
            anyhow::ensure!(
                began.elapsed() < PATIENCE + 2 * self.config.interval,
                "only {done} of {total} {what} after {seconds:.0} s"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many devices have a version in the archive.
    async fn archived(&self, least: usize) -> anyhow::Result<u64> {
        let mut count = 0;
        for device in self.devices {
            count += u64::from(self.versions(*device).await? >= least);
        }
        Ok(count)
    }

    /// How many of the edited ones have a second version.
    async fn changed(&self) -> anyhow::Result<u64> {
        let mut count = 0;
        for device in &self.devices[..EDITED] {
            count += u64::from(self.versions(*device).await? >= 2);
        }
        Ok(count)
    }

    async fn versions(&self, device: DeviceId) -> anyhow::Result<usize> {
        let page = VersionPage::first(2);
        let versions = self.embedded.archive.versions(device, page).await;
        Ok(versions.context("failed to read the archive")?.len())
    }

    /// Edits some routers and breaks others.
    fn meddle(&self) {
        let routers = self.fleet.routers();
        for router in &routers[..EDITED] {
            router.change(|configuration| configuration.add_firewall_rule("demo: no telnet"));
        }
        routers[EDITED].rotate_host_key();
        routers[EDITED + 1].set_password("changed by somebody else");
        routers[EDITED + 2].set_fault(Fault::CutMidLine);
        routers[EDITED + 3].set_fault(Fault::Refuse);
    }

    /// How many devices are blocked or failing.
    fn troubled(&self) -> usize {
        let counts = self.embedded.context.view.counts();
        let of = |condition| counts.get(&condition).copied().unwrap_or_default();
        of(Condition::Blocked) + of(Condition::Failing)
    }
}

/// What an operator would look at, shown by the commands that an operator would type.
async fn close(config: &Config, routers: &[Router], folder: &Folder) -> Result<ExitCode, AppError> {
    let edited = routers[0].name();
    for words in [
        vec!["status"],
        vec!["snapshots", "diff", edited],
        vec!["failed"],
    ] {
        say(&format!("\n$ mikrotik-backup {}", words.join(" ")));
        super::read(config, &words).await?;
    }
    let data_dir = folder.path().display();
    match folder {
        Folder::Kept(_) => say(&format!(
            "\nTo look further:\n  export DATA_DIR={data_dir}\n  \
             mikrotik-backup snapshots list {edited}\n  \
             mikrotik-backup snapshots search 'telnet'\n  \
             mikrotik-backup devices show {edited}"
        )),
        Folder::Passing(_) => say(
            "\nTo look further, keep the folder: mikrotik-backup demo --dir ./demo; then\n  \
             export DATA_DIR=./demo\n  \
             mikrotik-backup status\n  \
             mikrotik-backup snapshots list sim-0001\n  \
             mikrotik-backup snapshots search telnet",
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// A line that is written over on a terminal; elsewhere only its last state is printed.
struct ProgressLine {
    terminal: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
        }
    }

    fn show(&mut self, text: &str, last: bool) {
        let mut out = std::io::stdout();
        // A reader that went away ends the output, not the demo's clean-up.
        let _ = match (self.terminal, last) {
            (true, true) => writeln!(out, "\r{text}\x1b[K"),
            (true, false) => write!(out, "\r{text}\x1b[K").and_then(|()| out.flush()),
            (false, true) => writeln!(out, "{text}"),
            (false, false) => Ok(()),
        };
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
