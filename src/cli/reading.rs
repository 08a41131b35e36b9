//! What commands that only read stand on: the store of a cluster or of a `DATA_DIR`, beside a
//! running service.

use std::collections::BTreeMap;

use anyhow::anyhow;

use crate::adapters::archive::SealedArchive;
use crate::adapters::postgres::{PostgresStore, SchemaState};
use crate::adapters::sqlite::{SqliteStore, is_damage};
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::credentials::Key;
use crate::domain::device::{Device, DeviceId};
use crate::domain::failure::Advice;
use crate::ports::{Archive as _, ArchiveError, DeviceStatus, StatusPage, Store, StoreError};
use crate::routeros::Normalizer;

/// A store that is there and is only read.
pub(super) struct Reading {
    pub(super) inventory: Inventory,
    /// The key of the configuration, if it has one.
    key: Option<Key>,
    /// The normalisation of the configuration.
    pub(super) normalizer: Normalizer,
}

/// Whose tables the devices are in.
pub(super) enum Inventory {
    Shared(Box<PostgresStore>),
    Embedded(SqliteStore),
}

impl Reading {
    /// Opens what the configuration names, and makes nothing.
    ///
    /// # Errors
    /// [`AppError::Configuration`], with the reason, when it is not there, cannot be reached, or
    /// has another schema.
    pub(super) async fn open(config: &Config) -> Result<Self, AppError> {
        match &config.mode {
            Mode::Cluster(cluster) => {
                let store =
                    PostgresStore::connect(&cluster.database_url, Clock::System, &config.replica)
                        .map_err(configuration)?;
                match store.schema_state().await.map_err(configuration)? {
                    SchemaState::Current => {}
                    state => {
                        return Err(configuration(anyhow!(
                            "the database schema is not up to date ({state}); run `mikrotik-backup \
                             migrate` as the schema's owner"
                        )));
                    }
                }
                Ok(Self {
                    inventory: Inventory::Shared(Box::new(store)),
                    key: cluster.key().ok().cloned(),
                    normalizer: config.normalizer.clone(),
                })
            }
            Mode::Embedded { data_dir, key } => {
                let store = SqliteStore::open_reading(data_dir, Clock::System).await;
                Ok(Self {
                    inventory: Inventory::Embedded(store.map_err(configuration)?),
                    key: key.clone(),
                    normalizer: config.normalizer.clone(),
                })
            }
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        match &self.inventory {
            Inventory::Shared(store) => store.as_ref(),
            Inventory::Embedded(store) => store,
        }
    }

    pub(super) fn advice(&self) -> Advice {
        match self.inventory {
            Inventory::Shared(_) => Advice::Sql,
            Inventory::Embedded(_) => Advice::Commands,
        }
    }

    /// The one device whose id, name or address is `text`.
    pub(super) async fn device(&self, text: &str) -> Result<Device, AppError> {
        let found = match &self.inventory {
            Inventory::Shared(store) => store.find(text).await,
            Inventory::Embedded(store) => store.find(text).await,
        };
        let found = found.map_err(unreadable)?;
        only(text, found, |device| {
            format!("{} ({})", device.id, device.endpoint)
        })?
        .ok_or_else(|| {
            AppError::Failed(anyhow!(
                "no device has the id, name or address {text:?} (one without credentials, or of \
                 another device_type, is not ours)"
            ))
        })
    }

    /// The names of all devices that are ours to back up.
    pub(super) async fn names(&self) -> Result<BTreeMap<DeviceId, String>, AppError> {
        let mut names = BTreeMap::new();
        let all = |status: &DeviceStatus| {
            names.insert(status.device.id, status.device.name.clone());
        };
        walk(self.store(), false, all).await?;
        Ok(names)
    }

    /// The archive, after its key has proved to be the right one.
    ///
    /// # Errors
    /// [`AppError::Configuration`] when the key is missing or the wrong one.
    pub(super) async fn archive(&self) -> Result<SealedArchive, AppError> {
        let archive = match (&self.inventory, self.key().await?) {
            (Inventory::Shared(store), Some(key)) => {
                SealedArchive::postgres(store.pool().clone(), key, self.normalizer.renormalize())
            }
            (Inventory::Embedded(store), Some(key)) => {
                SealedArchive::sqlite(store.readers().clone(), key, self.normalizer.renormalize())
            }
            (_, None) => {
                return Err(configuration(anyhow!(
                    "CREDENTIAL_ENCRYPTION_KEY is not set, and the archive is sealed with it; \
                     give this command the key of the service"
                )));
            }
        };
        archive.check_key().await.map_err(unreadable_archive)?;
        Ok(archive)
    }

    /// The key of credentials; a shared database may be read without one.
    ///
    /// # Errors
    /// [`AppError::Configuration`] when that of embedded mode is missing or the wrong one.
    pub(super) async fn key(&self) -> Result<Option<Key>, AppError> {
        match &self.inventory {
            Inventory::Shared(_) => Ok(self.key.clone()),
            Inventory::Embedded(store) => {
                let key = store.unlock(self.key.clone()).await;
                Ok(Some(key.map_err(configuration)?))
            }
        }
    }

    pub(super) async fn close(&self) {
        match &self.inventory {
            Inventory::Shared(store) => store.close().await,
            Inventory::Embedded(store) => store.close().await,
        }
    }
}

/// Shows every device to `each`, page by page.
pub(super) async fn walk(
    store: &dyn Store,
    failing: bool,
    mut each: impl FnMut(&DeviceStatus),
) -> Result<(), AppError> {
    let mut page = StatusPage {
        after: None,
        failing,
        limit: StatusPage::MAX,
    };
    loop {
        let read = store.statuses(page).await.map_err(unreadable)?;
        read.devices.iter().for_each(&mut each);
        match read.next {
            Some(_) => page.after = read.next,
            None => return Ok(()),
        }
    }
}

/// What `text` means among what was found: nothing, or the only one.
///
/// # Errors
/// Several match: they are listed as `shown` tells.
pub(super) fn only<T>(
    text: &str,
    mut found: Vec<T>,
    shown: impl Fn(&T) -> String,
) -> Result<Option<T>, AppError> {
    if found.len() <= 1 {
        return Ok(found.pop());
    }
    let list: Vec<String> = found.iter().map(shown).collect();
    Err(AppError::Failed(anyhow!(
        "{} devices match {text:?}: {}; name one by its id",
        list.len(),
        list.join(", ")
    )))
}

pub(super) fn configuration(error: impl Into<anyhow::Error>) -> AppError {
    AppError::Configuration(error.into())
}

/// A database that is away, or damaged, is the operator's to correct; one that refuses is a failure.
pub(super) fn unreadable(error: StoreError) -> AppError {
    match error {
        // Its text says what to do.
        error if is_damage(&error) => AppError::Configuration(error.into()),
        StoreError::Unavailable { .. } => AppError::Configuration(error.into()),
        StoreError::Failed { .. } | StoreError::NotFound { .. } => AppError::Failed(error.into()),
    }
}

/// The same for the archive; a wrong key is the operator's, too.
pub(super) fn unreadable_archive(error: ArchiveError) -> AppError {
    match error {
        error if is_damage(&error) => {
            let remedy = "the database in DATA_DIR is damaged; stop the service, keep a copy of the \
                          file, and restore it from a backup or with sqlite3's .recover";
            AppError::Configuration(anyhow::Error::from(error).context(remedy))
        }
        ArchiveError::Unavailable { .. } | ArchiveError::OtherKey { .. } => {
            AppError::Configuration(error.into())
        }
        _ => AppError::Failed(error.into()),
    }
}
