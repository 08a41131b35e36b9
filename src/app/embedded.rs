//! Embedded mode: one process, one folder, no server. SQLite, locks in memory, and the archive as
//! the place where snapshots go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{
    AppError, Ports, configuration, context, failed, policy, serve, with_openbao, with_process,
};
use crate::adapters::archive::SealedArchive;
use crate::adapters::git::GitMirror;
use crate::adapters::in_process::InProcess;
use crate::adapters::sqlite::{ListDevices, SqliteStore};
use crate::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::desk::Desk;
use crate::control::server::Control;
use crate::control::wire::Backup;
use crate::credentials::Key;
use crate::domain::attempt::{AttemptId, Cause};
use crate::domain::failure::Advice;
use crate::domain::failure::chain;
use crate::domain::schedule::{Event, Schedule};
use crate::fleet::attempt::Ask;
use crate::fleet::{Context, backlog, draw};
use crate::http::Readiness;
use crate::lifecycle::{self, Shutdown};
use crate::mirror::{Following, Mirror, Mirrored, Place, Places};
use crate::ports::{Archive as _, Listed, SnapshotSink};

/// How long the end waits for the git mirror; what is missing then follows at the next start.
const MIRROR_LIMIT: Duration = Duration::from_secs(60);

/// What one process keeps in its `DATA_DIR`.
pub struct Embedded {
    /// Devices, state and journal.
    pub store: Arc<SqliteStore>,
    /// Versions of configurations, in the same database.
    pub archive: Arc<SealedArchive>,
    /// What attempts work with.
    pub context: Arc<Context>,
    /// The mirror of the archive in git, if there is to be one.
    mirror: Option<(Mirror, Following)>,
}

impl Embedded {
    /// Opens `data_dir` for writing, makes what is not there, and makes sure that the key is the
    /// right one for all that is.
    ///
    /// # Errors
    /// [`AppError::Configuration`] says what is wrong with the directory, and what to do.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        key: Option<Key>,
    ) -> Result<Self, AppError> {
        let store = SqliteStore::open(data_dir, key, Clock::System)
            .await
            .map_err(configuration)?;
        let parts = store.writer().cloned().zip(store.key().cloned());
        let Some((writer, key)) = parts else {
            return Err(failed(anyhow::anyhow!(
                "{} was opened for reading only",
                store.file().display()
            )));
        };
        let archive = SealedArchive::sqlite(writer, key.clone(), config.normalizer.renormalize());
        archive.check_key().await.map_err(configuration)?;
        let (store, archive) = (Arc::new(store), Arc::new(archive));
        let mirror = config.git_archive_dir.as_ref().map(|folder| {
            let git = GitMirror::new(folder.clone(), &config.replica);
            (Mirror::default(), git)
        });
        let sink: Arc<dyn SnapshotSink> = match &mirror {
            Some((mirror, _)) => Arc::new(Mirrored::new(archive.clone(), mirror.clone())),
            None => archive.clone(),
        };
        let ports = Ports {
            store: store.clone(),
            coordinator: Arc::new(InProcess::new()),
            sink,
            outbox: None,
            key,
        };
        let context = context(config, ports, &Shutdown::new())?;
        let mirror = mirror.map(|(mirror, git)| {
            let places = places(store.clone());
            let metrics = context.metrics.mirror();
            let following = mirror.follow(git, archive.clone(), places, metrics);
            (mirror, following)
        });
        Ok(Self {
            store,
            archive,
            context,
            mirror,
        })
    }

    /// Backs a device up now, in this process, and waits for what comes of it. Only where no
    /// reconciler runs: it would take the device's own worker by surprise.
    pub async fn back_up(&self, config: &Config, listed: &Listed) -> Backup {
        let device = &listed.device;
        let now = self.context.clock.now();
        let last = listed.last.as_ref();
        let mut schedule = Schedule::resume(
            policy(config),
            device.id,
            device.revision(),
            last,
            now,
            draw(),
        );
        schedule.handle(Event::Requested, now, draw());
        schedule.handle(Event::Began, now, draw());
        let ask = Ask {
            id: AttemptId::generate(),
            device: device.id,
            name: device.name.clone(),
            settings: device.settings,
            cause: Cause::Manual,
            known_last: last.map(|last| last.id),
            schedule,
            slot_held: Arc::default(),
        };
        let report = self.context.attempt(ask).await;
        self.desk().told(device.id, report.reply).await
    }

    /// Writes down what could not be yet, and closes the database.
    pub async fn close(&self) {
        backlog::flush(&self.context).await;
        self.end().await;
    }

    async fn end(&self) {
        if let Some((mirror, _)) = &self.mirror {
            mirror.settled(MIRROR_LIMIT).await;
        }
        self.store.close().await;
    }

    /// What can be asked of it.
    pub fn desk(&self) -> Desk {
        Desk {
            store: self.store.clone(),
            archive: self.archive.clone(),
            context: self.context.clone(),
        }
    }
}

/// Runs the poller on `data_dir` alone until it is told to stop.
pub async fn run_embedded(
    config: Config,
    data_dir: &Path,
    key: Option<Key>,
) -> Result<(), AppError> {
    let signals = lifecycle::signals().map_err(failed)?;
    let embedded = Embedded::open(&config, data_dir, key).await?;
    let control = Control::bind(data_dir).map_err(configuration)?;
    let control_stop = CancellationToken::new();
    let desk = embedded.desk();
    let api = Api::new(embedded.context.clone(), config.interval, Advice::Commands);
    let api = desk.tell_changes(api);
    let answering = tokio::spawn(control.serve(desk, api.clone(), control_stop.clone()));
    if let Some((mirror, _)) = &embedded.mirror {
        mirror.catch_up();
    }
    let readiness = readiness(&embedded.context);
    let prepare = std::future::ready(Ok(()));
    let context = embedded.context.clone();
    let result = serve(config, context, signals, readiness, api, prepare).await;
    control_stop.cancel();
    answering.await.map_err(failed)?;
    embedded.end().await;
    result
}

/// Where the git mirror keeps the devices of `store`.
fn places(store: Arc<SqliteStore>) -> Places {
    Arc::new(move |device| {
        let store = store.clone();
        async move {
            let wanted = ListDevices {
                named: Some(device.to_string()),
                ..ListDevices::default()
            };
            let mut found = store.list(&wanted).await?;
            found.retain(|entry| entry.id == device);
            let entry = found.pop();
            Ok(entry.map(|entry| Place::new(entry.name, entry.group, entry.tenant)))
        }
        .boxed()
    })
}

/// There is one dependency: the database, with the archive in it.
fn readiness(context: &Arc<Context>) -> Readiness {
    let database = context.clone();
    let readiness = Readiness::new().with("database", move || {
        let context = database.clone();
        async move {
            context.store.ping().await.map_err(|error| chain(&error))?;
            context.sink.ready().await.map_err(|error| chain(&error))
        }
    });
    with_process(with_openbao(readiness, context), &context.shutdown)
}
