//! Devices, state and journal in one SQLite file: the store of embedded mode.

mod attempts;
mod device;
mod edit;
mod error;
mod inspect;
mod inventory;
mod journal;
mod key_file;
mod lock;
mod look;
mod open;
mod open_error;
mod rows;
mod statuses;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, SqlitePool};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::credentials::Key;
use crate::domain::attempt::{AttemptId, AttemptRecord, StepTime};
use crate::domain::device::DeviceId;
use crate::domain::host_key::{Fingerprint, Pin};
use crate::ports::{
    Bucket, Claim, Claimed, JournalEntry, JournalPage, Listed, Running, StatusPage, Statuses,
    Store, StoreError, UnreadableRows,
};

pub use device::{
    DEFAULT_TENANT, DeviceEdit, DeviceEntry, EditError, ImportError, ListDevices, NewDevice,
};
pub use error::is_damage;
pub use inspect::{Inspected, Schema};
pub use key_file::{KEY_FILE, KeyFileError};
pub use lock::{DataDirLock, Holder, LOCK_FILE, LockError};
pub use open::DATABASE_FILE;
pub use open_error::{KeyOrigin, OpenError};

/// The store of a single process: one SQLite database in `DATA_DIR`.
///
/// One connection writes, each time in a transaction of its own; a few others read, and in WAL
/// mode neither waits for the other. What a method has returned from is in the file: a process that
/// is killed loses nothing, and neither does a machine that loses power, as far as its disk keeps
/// what it was told to keep.
pub struct SqliteStore {
    /// The database file, for messages.
    file: PathBuf,
    writer: Option<Writer>,
    readers: SqlitePool,
    clock: Clock,
    /// Wakes [`Store::changed`] when an edit was made through this store.
    edited: Notify,
    /// The number of the latest edit that [`Store::changed`] has told of.
    told: Mutex<i64>,
    unreadable: Box<UnreadableRows>,
}

/// What only the one process has that may write.
struct Writer {
    pool: SqlitePool,
    key: Key,
    /// Keeps other processes from writing for as long as this store lives.
    _lock: DataDirLock,
}

impl SqliteStore {
    /// The database file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The key that credentials and archived configurations are sealed with; `None` when the store
    /// was opened for reading only.
    pub fn key(&self) -> Option<&Key> {
        self.writer.as_ref().map(|writer| &writer.key)
    }

    /// The one connection that writes, for what else is kept in this database: take it for one
    /// transaction at a time. `None` when the store was opened for reading only.
    pub fn writer(&self) -> Option<&SqlitePool> {
        self.writer.as_ref().map(|writer| &writer.pool)
    }

    /// The connections that read, for what else is kept in this database.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Closes every connection, after the statements that are running; the last one moves what is
    /// in the write-ahead log into the database file.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.pool.close().await;
        }
    }

    /// Runs `statements` on a connection that only reads. What `operation` names is for the error
    /// only.
    async fn read<T, F>(
        &self,
        operation: impl FnOnce() -> String,
        statements: F,
    ) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    {
        let result = async {
            let mut connection = self.readers.acquire().await?;
            statements(&mut connection).await
        };
        result
            .await
            .map_err(|source| error::classify(operation(), &self.file, source))
    }

    /// Runs `statements` in one transaction of the writing connection. Dropped before its end, it
    /// is rolled back.
    async fn write<T, F>(
        &self,
        operation: impl FnOnce() -> String,
        statements: F,
    ) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    {
        let done = self
            .write_unless(operation, async |connection| {
                Ok(Ok::<T, Infallible>(statements(connection).await?))
            })
            .await?;
        match done {
            Ok(value) => Ok(value),
        }
    }

    /// Like [`SqliteStore::write`], but `statements` may also refuse: then nothing is written.
    async fn write_unless<T, R, F>(
        &self,
        operation: impl FnOnce() -> String,
        statements: F,
    ) -> Result<Result<T, R>, StoreError>
    where
        F: AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<Result<T, R>>,
    {
        let Some(writer) = &self.writer else {
            return Err(error::reading_only(operation(), &self.file));
        };
        let result = async {
            let mut connection = writer.pool.acquire().await?;
            transaction(&mut connection, statements).await
        };
        result
            .await
            .map_err(|source| error::classify(operation(), &self.file, source))
    }
}

async fn transaction<T, R, F>(
    connection: &mut SqliteConnection,
    statements: F,
) -> sqlx::Result<Result<T, R>>
where
    F: AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<Result<T, R>>,
{
    // Immediate: a transaction that begins with a read could find itself unable to write when
    // another process has written since.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let done = statements(&mut transaction).await?;
    match &done {
        Ok(_) => transaction.commit().await?,
        Err(_) => transaction.rollback().await?,
    }
    Ok(done)
}

#[async_trait]
impl Store for SqliteStore {
    async fn inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError> {
        self.read_inventory().await
    }

    async fn devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError> {
        self.read_devices(buckets).await
    }

    fn unreadable(&self) -> usize {
        self.unreadable.count()
    }

    async fn note_seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        self.note_first_seen(devices).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        self.begin_attempt(claim).await
    }

    async fn unclaim(&self, device: DeviceId, attempt: AttemptId) -> Result<(), StoreError> {
        self.take_back_claim(device, attempt).await
    }

    async fn pin_host_key(&self, device: DeviceId, seen: &Fingerprint) -> Result<Pin, StoreError> {
        self.pin_first_key(device, seen).await
    }

    async fn record(&self, record: &AttemptRecord, replica: &str) -> Result<(), StoreError> {
        self.record_attempt(record, replica).await
    }

    async fn attempt(&self, id: AttemptId) -> Result<(JournalEntry, Vec<StepTime>), StoreError> {
        self.read_attempt(id).await
    }

    async fn running(&self, id: AttemptId) -> Result<Option<Running>, StoreError> {
        self.read_running(id).await
    }

    async fn attempts(&self, page: JournalPage) -> Result<Vec<JournalEntry>, StoreError> {
        self.read_attempts(page).await
    }

    async fn statuses(&self, page: StatusPage) -> Result<Statuses, StoreError> {
        self.read_statuses(page).await
    }

    async fn prune(&self, age: Duration, batch: u32) -> Result<u64, StoreError> {
        self.prune_journal(age, batch).await
    }

    async fn changed(&self) {
        self.next_edit().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(
            || format!("read {}", self.file.display()),
            async |connection| {
                sqlx::query("SELECT latest_change FROM meta")
                    .execute(connection)
                    .await
            },
        )
        .await
        .map(drop)
    }
}
