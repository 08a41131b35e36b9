//! Opens the database of a `DATA_DIR`: looks at what is there before anything is written.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::inventory::latest_change;
use super::lock::DataDirLock;
use super::look::{BUSY_TIMEOUT, key_check, look, read_only, reading};
use super::open_error::{KeyOrigin, OpenError};
use super::{KEY_FILE, SqliteStore, Writer, key_file};
use crate::clock::Clock;
use crate::credentials::Key;

/// The database file in `DATA_DIR`.
pub const DATABASE_FILE: &str = "mikrotik-backup.db";

/// What is sealed to tell later whether a key is the right one.
const KEY_CHECK: &[u8] = b"mikrotik-backup: this is the key of this database";

/// How long a statement waits for its turn.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that read. Statements are short, and a backup waits for its router, not for us.
const READERS: u32 = 4;

/// The write-ahead log is cut to this size after a large transaction, in bytes.
const LOG_LIMIT: u32 = 64 << 20;

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations/sqlite");
    migrator.set_locking(false); // The directory's lock is held.
    migrator
}

pub(super) fn newest_known() -> i64 {
    let versions = migrator().iter().map(|migration| migration.version).max();
    versions.unwrap_or(0)
}

impl SqliteStore {
    /// Opens the store of `data_dir` for reading and writing, making directory, database and key
    /// where there are none, and brings its schema up to date. `given` is the key of the
    /// configuration, if there is one; without it, the one in the directory counts. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what to do. Nothing that was there has been changed, unless
    /// it is [`OpenError::Failed`] or [`OpenError::Full`], and then each migration is whole or not
    /// there.
    pub async fn open(
        data_dir: &Path,
        given: Option<Key>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let lock = DataDirLock::acquire(data_dir)?;
        let directory = lock.directory().to_owned();
        let file = directory.join(DATABASE_FILE);
        let found = look(&file, true).await?;
        let known = newest_known();
        if let Some(found) = &found {
            found.not_newer(&file, known)?;
        }
        let check = found.and_then(|found| found.key_check);
        let key = match (given, &check) {
            (Some(key), _) => verified(key, check.as_deref(), &file, KeyOrigin::Given)?,
            (None, Some(check)) => read_key(&directory, Some(check), &file)?,
            (None, None) => match key_file::read(&directory)? {
                // A first start that was killed leaves this behind; so does a file that was cut.
                Some(key) => {
                    warn!(file = %file.display(), "There is a key but nothing in the database: it begins anew. If it held something before, stop the service and restore the file");
                    key
                }
                None => {
                    info!(file = %directory.join(KEY_FILE).display(), "Making the encryption key; keep a copy of it elsewhere: without it, nothing that is stored can be read");
                    key_file::create(&directory)?
                }
            },
        };

        private(&file)?;
        let failed = |error| OpenError::of(error, &file);
        let options = writing(&file);
        let mut connection = options.clone().connect().await.map_err(failed)?;
        prepare(&mut connection, &key, check.is_none(), &file).await?;
        let latest = latest_change(&mut connection).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;

        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None)
            .before_acquire(|connection, _| {
                let usable = is_between_transactions(connection);
                Box::pin(async move { Ok(usable) })
            })
            .connect_with(options)
            .await
            .map_err(failed)?;
        Ok(Self {
            readers: readers(read_only(&file)).await.map_err(failed)?,
            file,
            writer: Some(Writer {
                pool,
                key,
                _lock: lock,
            }),
            clock,
            edited: Notify::new(),
            told: Mutex::new(latest),
            unreadable: Box::default(),
        })
    }

    /// Opens the store of `data_dir` for reading only, beside a running service or without one. It
    /// makes no directory and no database, and needs no key.
    ///
    /// # Errors
    /// [`OpenError::Missing`] when there is no store, [`OpenError::Behind`] when the schema is one
    /// that an older version left.
    pub async fn open_reading(data_dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let directory = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let file = directory.join(DATABASE_FILE);
        let found = look(&file, false).await?;
        let found = found.ok_or_else(|| OpenError::Missing { directory })?;
        let known = newest_known();
        found.not_newer(&file, known)?;
        if found.applied < known {
            return Err(OpenError::Behind {
                file,
                applied: found.applied,
                known,
            });
        }
        let failed = |error| OpenError::of(error, &file);
        let options = reading(&file).await.map_err(failed)?;
        let readers = readers(options).await.map_err(failed)?;
        let mut connection = readers.acquire().await.map_err(failed)?;
        let latest = latest_change(&mut connection).await.map_err(failed)?;
        drop(connection);
        Ok(Self {
            readers,
            file,
            writer: None,
            clock,
            edited: Notify::new(),
            told: Mutex::new(latest),
            unreadable: Box::default(),
        })
    }

    /// The key of this store, also when it was opened for reading only: `given`, or what is in the
    /// directory, once it has proved to be the right one.
    ///
    /// # Errors
    /// [`OpenError::WrongKey`], [`OpenError::KeyMissing`], [`OpenError::Key`].
    pub async fn unlock(&self, given: Option<Key>) -> Result<Key, OpenError> {
        let check: Option<Vec<u8>> = {
            let failed = |error| OpenError::of(error, &self.file);
            let mut connection = self.readers.acquire().await.map_err(failed)?;
            key_check(&mut connection).await.map_err(failed)?
        };
        match (given, check) {
            (Some(key), check) => verified(key, check.as_deref(), &self.file, KeyOrigin::Given),
            (None, check) => {
                let directory = self.file.parent().unwrap_or(Path::new("/"));
                read_key(directory, check.as_deref(), &self.file)
            }
        }
    }
}

/// Makes the database file where there is none, and closes it to others: SQLite gives the files
/// beside it (`-wal`, `-shm`) the same permissions.
fn private(file: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::NotWritable {
        file: file.to_owned(),
        source,
    };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)
        .map_err(failed)?;
    if opened.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        info!(file = %file.display(), "Closing the database to other users");
        opened
            .set_permissions(Permissions::from_mode(0o600))
            .map_err(failed)?;
    }
    Ok(())
}

/// `synchronous = FULL`: a commit is on the disk before it is answered. With NORMAL a process may
/// be killed just as well, but a machine that loses power could forget the last seconds: a host key
/// that was pinned, a version that an attempt calls stored. A backup commits three or four times,
/// each a matter of milliseconds, so there is nothing to gain.
fn writing(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("journal_size_limit", LOG_LIMIT.to_string())
}

/// Whether the driver knows that no transaction is open. After a full disk or a failing one SQLite
/// rolls back by itself, which the driver does not notice; it can then begin no other, and the
/// connection must be replaced.
fn is_between_transactions(connection: &SqliteConnection) -> bool {
    !connection.is_in_transaction()
}

async fn readers(options: SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
}

/// Brings the schema up to date, and remembers the key.
async fn prepare(
    connection: &mut SqliteConnection,
    key: &Key,
    new_key: bool,
    file: &Path,
) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(error, file);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoSharedMemory {
            file: file.to_owned(),
        });
    }
    let migrated = migrator().run_direct(None, &mut *connection, false).await;
    migrated.map_err(|error| OpenError::of_migration(error, file))?;
    if new_key {
        sqlx::query("UPDATE meta SET key_check = ?1 WHERE key_check IS NULL")
            .bind(key.seal(rand::random(), KEY_CHECK))
            .execute(connection)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

pub(super) fn verified(
    key: Key,
    check: Option<&[u8]>,
    file: &Path,
    origin: KeyOrigin,
) -> Result<Key, OpenError> {
    match check {
        Some(check) if key.open(check).is_err() => Err(OpenError::WrongKey {
            file: file.to_owned(),
            origin,
        }),
        _ => Ok(key),
    }
}

/// The key in `directory`, which must be the one that `check` was sealed with.
pub(super) fn read_key(
    directory: &Path,
    check: Option<&[u8]>,
    file: &Path,
) -> Result<Key, OpenError> {
    let key_path = directory.join(KEY_FILE);
    match key_file::read(directory)? {
        Some(key) => verified(key, check, file, KeyOrigin::File(key_path)),
        None => Err(OpenError::KeyMissing {
            file: file.to_owned(),
            key_file: key_path,
        }),
    }
}
