//! Embedded mode: one process, one folder, no server. SQLite, locks in memory, and the archive as
//! the place where snapshots go.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{AppError, Ports, configuration, context, failed, policy, serve, with_process};
use crate::adapters::archive::SealedArchive;
use crate::adapters::in_process::InProcess;
use crate::adapters::sqlite::SqliteStore;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::desk::Desk;
use crate::control::server::Control;
use crate::control::wire::Backup;
use crate::credentials::Key;
use crate::domain::attempt::Cause;
use crate::domain::failure::chain;
use crate::domain::schedule::{Event, Schedule};
use crate::fleet::attempt::Ask;
use crate::fleet::{Context, backlog, draw};
use crate::http::Readiness;
use crate::lifecycle::{self, Shutdown};
use crate::ports::{Archive as _, Listed};
use crate::routeros;

/// What one process keeps in its `DATA_DIR`.
pub struct Embedded {
    /// Devices, state and journal.
    pub store: Arc<SqliteStore>,
    /// Versions of configurations, in the same database.
    pub archive: Arc<SealedArchive>,
    /// What attempts work with.
    pub context: Arc<Context>,
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
        let archive = SealedArchive::sqlite(writer, key.clone(), routeros::renormalize());
        archive.check_key().await.map_err(configuration)?;
        let (store, archive) = (Arc::new(store), Arc::new(archive));
        let ports = Ports {
            store: store.clone(),
            coordinator: Arc::new(InProcess::new()),
            sink: archive.clone(),
            key,
        };
        let context = context(config, ports, &Shutdown::new())?;
        Ok(Self {
            store,
            archive,
            context,
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
    let answering = tokio::spawn(control.serve(embedded.desk(), control_stop.clone()));
    let readiness = readiness(&embedded.context);
    let prepare = std::future::ready(Ok(()));
    let context = embedded.context.clone();
    let result = serve(config, context, signals, readiness, prepare).await;
    control_stop.cancel();
    answering.await.map_err(failed)?;
    embedded.store.close().await;
    result
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
    with_process(readiness, &context.shutdown)
}
