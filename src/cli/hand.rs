//! How a command acts on an embedded store: by asking the service that runs on it, or by itself
//! when none does. Two processes never work on one folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::reading::{configuration, only, unreadable};
use crate::adapters::sqlite::{
    DATABASE_FILE, DeviceEntry, ListDevices, LockError, OpenError, SqliteStore,
};
use crate::app::{AppError, Embedded};
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::control::client::{Client, ControlError};
use crate::control::desk::Refusal;
use crate::control::wire::{AddBody, Backup, DeviceBody, EditBody, PruneBody, PrunedBody};
use crate::domain::device::DeviceId;
use crate::domain::host_key::Fingerprint;
use crate::lifecycle;
use crate::ports::{Bucket, Listed, Store as _};

/// How long a folder may be locked by a process that cannot be asked: one that is just starting,
/// or a command that is about to end.
const STARTING: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Requests that a running service is asked at once; it has its own limit of sessions.
const ASKED_AT_ONCE: usize = 64;

/// The way to act.
pub(super) struct Hand {
    way: Way,
}

enum Way {
    /// A service runs: it acts, we read.
    Running(Client, SqliteStore),
    /// Nothing runs: we hold the lock.
    Own(Box<Embedded>),
}

/// Whether a command makes a store where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

impl Hand {
    /// Finds out whether a service runs on the folder of embedded mode, and takes the folder if
    /// not.
    pub(super) async fn open(config: &Config, missing: Missing) -> Result<Self, AppError> {
        let data_dir = data_dir(config)?;
        let key = match &config.mode {
            Mode::Embedded { key, .. } => key.clone(),
            Mode::Cluster(_) => None,
        };
        if missing == Missing::Refuse && !data_dir.join(DATABASE_FILE).exists() {
            let directory = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
            return Err(configuration(OpenError::Missing { directory }));
        }
        let give_up = Instant::now() + STARTING;
        loop {
            if let Some(way) = running(data_dir).await? {
                return Ok(Self { way });
            }
            match Embedded::open(config, data_dir, key.clone()).await {
                Ok(own) => {
                    stop_on_signals(&own)?;
                    let way = Way::Own(Box::new(own));
                    return Ok(Self { way });
                }
                Err(error) if is_held(&error) && Instant::now() < give_up => {
                    sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn store(&self) -> &SqliteStore {
        match &self.way {
            Way::Running(_, store) => store,
            Way::Own(own) => &own.store,
        }
    }

    /// How many backups to ask for at once.
    pub(super) fn width(&self, config: &Config) -> usize {
        match &self.way {
            Way::Running(..) => ASKED_AT_ONCE,
            Way::Own(_) => config.max_concurrent,
        }
    }

    /// The one device that `text` means: its id, name or address.
    pub(super) async fn find(&self, text: &str) -> Result<DeviceEntry, AppError> {
        find(self.store(), text).await
    }

    /// Every device that is backed up, by name.
    pub(super) async fn backed_up(&self) -> Result<Vec<Listed>, AppError> {
        let buckets: Vec<Bucket> = (0..=Bucket::MAX).collect();
        let mut listed = self.store().devices(&buckets).await.map_err(unreadable)?;
        listed.sort_by(|a, b| (&a.device.name, a.device.id).cmp(&(&b.device.name, b.device.id)));
        Ok(listed)
    }

    /// Adds devices: all or none.
    pub(super) async fn add(&self, devices: Vec<DeviceBody>) -> Result<Vec<DeviceId>, Refused> {
        Ok(match &self.way {
            Way::Running(client, _) => client.add(devices).await?,
            Way::Own(own) => own.desk().add(AddBody { devices }).await?,
        })
    }

    /// Changes a device.
    pub(super) async fn edit(&self, device: DeviceId, edit: EditBody) -> Result<(), Refused> {
        match &self.way {
            Way::Running(client, _) => client.edit(device, &edit).await?,
            Way::Own(own) => own.desk().edit(device, edit).await?,
        }
        Ok(())
    }

    /// Removes a device.
    pub(super) async fn remove(&self, device: DeviceId) -> Result<(), Refused> {
        match &self.way {
            Way::Running(client, _) => client.remove(device).await?,
            Way::Own(own) => own.desk().remove(device).await?,
        }
        Ok(())
    }

    /// Trusts `pin` from now on, or with `None` the next key that is seen.
    pub(super) async fn pin(
        &self,
        device: DeviceId,
        pin: Option<&Fingerprint>,
    ) -> Result<(), Refused> {
        match &self.way {
            Way::Running(client, _) => client.pin(device, pin).await?,
            Way::Own(own) => own.desk().pin(device, pin).await?,
        }
        Ok(())
    }

    /// Deletes old versions, and old rows of the journal.
    pub(super) async fn prune(&self, prune: &PruneBody) -> Result<PrunedBody, Refused> {
        Ok(match &self.way {
            Way::Running(client, _) => client.prune(prune).await?,
            Way::Own(own) => own.desk().prune(prune).await?,
        })
    }

    /// Backs a device up now and waits for what comes of it.
    pub(super) async fn back_up(
        &self,
        config: &Config,
        listed: &Listed,
    ) -> Result<Backup, Refused> {
        Ok(match &self.way {
            Way::Running(client, _) => client.backup(listed.device.id).await?,
            Way::Own(own) => own.back_up(config, listed).await,
        })
    }

    /// Writes down what is still to be, and closes the store.
    pub(super) async fn close(self) {
        match self.way {
            Way::Running(_, store) => store.close().await,
            Way::Own(own) => own.close().await,
        }
    }
}

/// The store of embedded mode, for reading only: beside whoever works on it.
pub(super) async fn reading(config: &Config) -> Result<SqliteStore, AppError> {
    let data_dir = data_dir(config)?;
    SqliteStore::open_reading(data_dir, Clock::System)
        .await
        .map_err(configuration)
}

/// The folder of embedded mode.
fn data_dir(config: &Config) -> Result<&Path, AppError> {
    match &config.mode {
        Mode::Embedded { data_dir, .. } => Ok(data_dir),
        Mode::Cluster(_) => Err(AppError::Configuration(anyhow::anyhow!(
            "DATABASE_URL is set, and this command works on the store in DATA_DIR; in a cluster, \
             edit the tables of the database in SQL and the service follows, or unset DATABASE_URL"
        ))),
    }
}

/// The one device of `store` that `text` means: its id, name or address.
pub(super) async fn find(store: &SqliteStore, text: &str) -> Result<DeviceEntry, AppError> {
    let wanted = ListDevices {
        named: Some(text.to_owned()),
        limit: 10,
        ..ListDevices::default()
    };
    let found = store.list(&wanted).await.map_err(unreadable)?;
    let shown =
        |device: &DeviceEntry| format!("{} ({}, {})", device.id, device.name, device.endpoint);
    only(text, found, shown)?.ok_or_else(|| {
        AppError::Failed(anyhow::anyhow!(
            "no device has the id, name or address {text:?}; `mikrotik-backup devices list` lists \
             them"
        ))
    })
}

async fn running(data_dir: &Path) -> Result<Option<Way>, AppError> {
    let client = Client::find(data_dir).await.map_err(configuration)?;
    let Some(client) = client else {
        return Ok(None);
    };
    let store = SqliteStore::open_reading(data_dir, Clock::System).await;
    Ok(Some(Way::Running(client, store.map_err(configuration)?)))
}

/// The first signal lets running attempts end, the second ends them.
fn stop_on_signals(own: &Embedded) -> Result<(), AppError> {
    let mut signals = lifecycle::signals().map_err(|error| AppError::Failed(error.into()))?;
    let context = Arc::clone(&own.context);
    tokio::spawn(async move {
        if signals.recv().await.is_some() {
            context.shutdown.soft().cancel();
        }
        if signals.recv().await.is_some() {
            context.shutdown.hard().cancel();
        }
    });
    Ok(())
}

fn is_held(error: &AppError) -> bool {
    let AppError::Configuration(error) = error else {
        return false;
    };
    matches!(
        error.downcast_ref::<OpenError>(),
        Some(OpenError::Lock(LockError::Held { .. }))
    )
}

/// What a service or the store refused.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refused {
    pub(super) text: String,
    /// Which of several devices it is about, counted from 0.
    pub(super) index: Option<usize>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            text: refusal.text,
            index: refusal.index,
        }
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused { text, index } => Self { text, index },
            other => Self {
                text: crate::domain::failure::chain(&other),
                index: None,
            },
        }
    }
}

impl From<Refused> for AppError {
    fn from(refused: Refused) -> Self {
        Self::Failed(refused.into())
    }
}
