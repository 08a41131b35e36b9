//! What can be asked of embedded mode besides reading: done in the process that holds the store.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::wire::{AddBody, Backup, Change, EditBody, PruneBody, PrunedBody, StatusBody};
use crate::adapters::archive::SealedArchive;
use crate::adapters::sqlite::{DeviceEdit, EditError, ImportError, NewDevice, SqliteStore};
use crate::api::{Api, ChangeOf};
use crate::archive::prune;
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::domain::host_key::Fingerprint;
use crate::domain::request::{Reply, ReplyStatus};
use crate::fleet::Context;
use crate::ports::{Archive as _, ArchiveError, Store as _, StoreError, VersionPage};

/// How many journal rows one statement deletes.
const JOURNAL_BATCH: u32 = 500;

/// Edits the inventory, and tells what a backup changed.
#[derive(Clone)]
pub struct Desk {
    /// The inventory.
    pub store: Arc<SqliteStore>,
    /// Where snapshots go.
    pub archive: Arc<SealedArchive>,
    /// What attempts work with.
    pub context: Arc<Context>,
}

/// A request that was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Whose fault it is.
    pub kind: RefusalKind,
    /// What is wrong and what to do.
    pub text: String,
    /// Which of several devices it is about, counted from 0.
    pub index: Option<usize>,
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// There is no such device.
    NotFound,
    /// It cannot be as the request wants it.
    Invalid,
    /// It is there already.
    Conflict,
    /// It may work later.
    Unavailable,
    /// Ours.
    Failed,
}

impl Refusal {
    /// A refusal about no particular one of several devices.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            index: None,
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let kind = match &error {
            EditError::Duplicate { .. } => RefusalKind::Conflict,
            EditError::NotFound { .. } => RefusalKind::NotFound,
            EditError::Name { .. }
            | EditError::Address(_)
            | EditError::Timeout { .. }
            | EditError::Tag { .. }
            | EditError::Login(_) => RefusalKind::Invalid,
            EditError::Store(_) => RefusalKind::Failed,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        Self {
            index: Some(error.index),
            ..error.source.into()
        }
    }
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        let kind = match error {
            ArchiveError::Unavailable { .. } => RefusalKind::Unavailable,
            _ => RefusalKind::Failed,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Unavailable { .. } => RefusalKind::Unavailable,
            StoreError::Failed { .. } | StoreError::NotFound { .. } => RefusalKind::Failed,
        };
        Self::new(kind, chain(&error))
    }
}

impl Desk {
    /// Adds devices: all or none.
    ///
    /// # Errors
    /// [`Refusal`] names the first that cannot be added.
    pub async fn add(&self, body: AddBody) -> Result<Vec<DeviceId>, Refusal> {
        let devices: Vec<NewDevice> = body.devices.into_iter().map(NewDevice::from).collect();
        let ids = self.store.import_devices(&devices).await?;
        info!(devices = ids.len(), "Added devices");
        Ok(ids)
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has been changed then.
    pub async fn edit(&self, device: DeviceId, body: EditBody) -> Result<(), Refusal> {
        let edit = DeviceEdit::from(body);
        self.store.edit_device(device, &edit).await?;
        info!(device.id = %device, "Edited a device");
        Ok(())
    }

    /// Removes a device; its history stays until it is pruned.
    ///
    /// # Errors
    /// [`Refusal`] when there is none.
    pub async fn remove(&self, device: DeviceId) -> Result<(), Refusal> {
        self.store.remove_device(device).await?;
        info!(device.id = %device, "Removed a device");
        Ok(())
    }

    /// Trusts `pin` from now on, or with `None` the next key that is seen.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such device.
    pub async fn pin(&self, device: DeviceId, pin: Option<&Fingerprint>) -> Result<(), Refusal> {
        self.store.set_pin(device, pin).await?;
        match pin {
            Some(pin) => {
                info!(device.id = %device, host_key = %pin, "An operator accepted a host key")
            }
            None => info!(device.id = %device, "An operator reset a host key"),
        }
        Ok(())
    }

    /// Deletes what a retention does not keep, and old rows of the journal, in small transactions
    /// beside whatever else goes on.
    ///
    /// # Errors
    /// [`Refusal`]; what was deleted by then stays deleted.
    pub async fn prune(&self, body: &PruneBody) -> Result<PrunedBody, Refusal> {
        let versions = match &body.retention {
            None => None,
            Some(retention) => {
                let now = self.context.clock.now();
                let archive = self.archive.as_ref();
                let pruned = prune(archive, retention, now).await?;
                let (versions, texts) = (pruned.versions, pruned.texts);
                info!(versions, texts, "Pruned the archive on request");
                Some(pruned)
            }
        };
        let age = Duration::from_secs(body.journal_days.saturating_mul(86_400));
        let mut attempts = 0;
        loop {
            match self.store.prune(age, JOURNAL_BATCH).await? {
                0 => break,
                pruned => attempts += pruned,
            }
        }
        Ok(PrunedBody { versions, attempts })
    }

    /// What is going on.
    pub fn status(&self) -> StatusBody {
        let counts = self.context.view.counts();
        StatusBody {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            devices: counts
                .into_iter()
                .map(|(state, count)| (state.as_str().to_owned(), count))
                .collect(),
        }
    }

    /// `api`, which tells what a backup changed in this archive.
    pub fn tell_changes(&self, api: Api) -> Api {
        let desk = self.clone();
        let change: ChangeOf = Arc::new(move |device, reply| {
            let desk = desk.clone();
            Box::pin(async move { desk.change(device, &reply).await })
        });
        api.telling_changes(change)
    }

    /// `reply` with what the backup changed in the archive.
    pub async fn told(&self, device: DeviceId, reply: Reply) -> Backup {
        let change = self.change(device, &reply).await;
        Backup::of(reply, change)
    }

    /// What a backup that was answered with `reply` changed in the archive. Best effort: it has
    /// succeeded, whatever can be said of it.
    pub async fn change(&self, device: DeviceId, reply: &Reply) -> Option<Change> {
        if reply.status != ReplyStatus::Success {
            return None;
        }
        let newest = self.archive.versions(device, VersionPage::first(1)).await;
        let newest = newest.ok()?.into_iter().next()?;
        if Some(newest.first.position.attempt) != reply.attempt {
            return Some(Change::Unchanged);
        }
        Some(match newest.lines {
            Some(lines) => Change::Changed {
                added: lines.added,
                removed: lines.removed,
            },
            None => Change::First,
        })
    }
}
