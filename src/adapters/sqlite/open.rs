//! Opens the database of a `DATA_DIR`: looks at what is there before anything is written.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tracing::info;

use super::error::{self, code};
use super::inventory::latest_change;
use super::lock::{DataDirLock, LockError};
use super::{KEY_FILE, KeyFileError, SqliteStore, Writer, key_file};
use crate::clock::Clock;
use crate::credentials::Key;

/// The database file in `DATA_DIR`.
pub const DATABASE_FILE: &str = "mikrotik-backup.db";

/// "MKBP", as the first migration stores it in the header of the file.
const APPLICATION_ID: i64 = 0x4d4b_4250;

/// What is sealed to tell later whether a key is the right one.
const KEY_CHECK: &[u8] = b"mikrotik-backup: this is the key of this database";

/// The first bytes of every SQLite database. <https://www.sqlite.org/fileformat2.html>
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How long a statement waits for another process, such as a shell, to end its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement waits for its turn.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that read. Statements are short, and a backup waits for its router, not for us.
const READERS: u32 = 4;

/// Up to this size a database is looked through as a whole before it is written to, in bytes: less
/// than a second's work. In a larger one damage is found where it is read.
const CHECK_UP_TO: u64 = 64 << 20;

/// The write-ahead log is cut to this size after a large transaction, in bytes.
const LOG_LIMIT: u32 = 64 << 20;

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations/sqlite");
    migrator.set_locking(false); // The directory's lock is held.
    migrator
}

fn newest_known() -> i64 {
    let versions = migrator().iter().map(|migration| migration.version).max();
    versions.unwrap_or(0)
}

/// What was found in a file.
struct Found {
    /// The newest migration that has been applied; 0 when none has.
    applied: i64,
    key_check: Option<Vec<u8>>,
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
            (None, Some(check)) => read_key(&directory, check, &file)?,
            (None, None) => match key_file::read(&directory)? {
                Some(key) => key,
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
                read_key(directory, check.as_deref().unwrap_or(&[]), &self.file)
            }
        }
    }
}

impl Found {
    fn not_newer(&self, file: &Path, known: i64) -> Result<(), OpenError> {
        if self.applied > known {
            return Err(OpenError::Newer {
                file: file.to_owned(),
                applied: self.applied,
                known,
            });
        }
        Ok(())
    }
}

/// Looks at what is there, writing nothing; `None` when there is no database, or one in which no
/// migration has come to its end. `wholly` also reads a small database from end to end.
async fn look(file: &Path, wholly: bool) -> Result<Option<Found>, OpenError> {
    let Some(size) = recognised(file)? else {
        return Ok(None);
    };
    let failed = |error| OpenError::of(error, file);
    let options = reading(file).await.map_err(failed)?;
    let mut connection = options.connect().await.map_err(failed)?;
    let found = inspect(&mut connection, wholly && size <= CHECK_UP_TO).await;
    let _ = connection.close().await;
    match found.map_err(failed)? {
        Inspected::Ours(found) => Ok(Some(found)),
        Inspected::Empty => Ok(None),
        Inspected::Foreign => Err(OpenError::Foreign {
            file: file.to_owned(),
        }),
        Inspected::Damaged(what) => Err(OpenError::Damaged {
            file: file.to_owned(),
            source: what.into(),
        }),
    }
}

enum Inspected {
    Ours(Found),
    Empty,
    Foreign,
    Damaged(String),
}

async fn inspect(connection: &mut SqliteConnection, wholly: bool) -> sqlx::Result<Inspected> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await?;
    if application != APPLICATION_ID {
        // A process that died between the first two steps of making it leaves these.
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'",
        )
        .fetch_one(&mut *connection)
        .await?;
        return Ok(if application == 0 && others == 0 {
            Inspected::Empty
        } else {
            Inspected::Foreign
        });
    }
    if wholly {
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await?;
        if verdict != "ok" {
            return Ok(Inspected::Damaged(verdict));
        }
    }
    let applied: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(&mut *connection)
            .await?;
    Ok(Inspected::Ours(Found {
        applied: applied.unwrap_or(0),
        key_check: key_check(connection).await?,
    }))
}

async fn key_check(connection: &mut SqliteConnection) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar("SELECT key_check FROM meta")
        .fetch_one(connection)
        .await
}

/// The size of the database; `None` when there is no file, or an empty one.
fn recognised(file: &Path) -> Result<Option<u64>, OpenError> {
    let unreadable = |source| OpenError::Unreadable {
        file: file.to_owned(),
        source,
    };
    let mut opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let size = opened.metadata().map_err(unreadable)?.len();
    if size == 0 {
        return Ok(None);
    }
    let mut start = [0; MAGIC.len()];
    match opened.read_exact(&mut start) {
        Ok(()) if &start == MAGIC => Ok(Some(size)),
        Ok(()) => Err(OpenError::NoDatabase {
            file: file.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(OpenError::NoDatabase {
            file: file.to_owned(),
        }),
        Err(error) => Err(unreadable(error)),
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

fn read_only(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// How to read `file`. Also a reader needs the files beside it, and in a directory that cannot be
/// written it cannot make them: a database that was closed properly has no log and can then be read
/// as one that nobody changes.
async fn reading(file: &Path) -> sqlx::Result<SqliteConnectOptions> {
    let options = read_only(file);
    let mut connection = options.clone().connect().await?;
    let read = sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1")
        .execute(&mut connection)
        .await;
    let _ = connection.close().await;
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    match read {
        Err(error)
            if matches!(
                error::primary_code(&error),
                Some(code::CANTOPEN | code::READONLY)
            ) && !Path::new(&log).exists() =>
        {
            Ok(options.immutable(true))
        }
        Err(error) => Err(error),
        Ok(_) => Ok(options),
    }
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

/// Where a key came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyOrigin {
    /// `CREDENTIAL_ENCRYPTION_KEY` or its file.
    Given,
    /// The file in `DATA_DIR`.
    File(PathBuf),
}

impl std::fmt::Display for KeyOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given => f.write_str("CREDENTIAL_ENCRYPTION_KEY"),
            Self::File(file) => file.display().fmt(f),
        }
    }
}

fn verified(
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
fn read_key(directory: &Path, check: &[u8], file: &Path) -> Result<Key, OpenError> {
    let key_path = directory.join(KEY_FILE);
    match key_file::read(directory)? {
        Some(key) => verified(key, Some(check), file, KeyOrigin::File(key_path)),
        None => Err(OpenError::KeyMissing {
            file: file.to_owned(),
            key_file: key_path,
        }),
    }
}

/// The store of a `DATA_DIR` could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and reading makes none.
    #[error(
        "there is no store in {}; set DATA_DIR to the directory of the running service, or \
         DATABASE_URL to its database",
        directory.display()
    )]
    Missing {
        /// The directory that was looked in.
        directory: PathBuf,
    },
    /// The directory cannot be made, written, or another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key file cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The database was sealed with a key that is not there.
    #[error(
        "{file} is sealed with a key, and {key_file} is not there; restore the key file from a \
         backup, or set CREDENTIAL_ENCRYPTION_KEY (nothing was changed)",
        file = file.display(), key_file = key_file.display()
    )]
    KeyMissing {
        /// The database.
        file: PathBuf,
        /// Where the key should be.
        key_file: PathBuf,
    },
    /// The database was sealed with another key.
    #[error(
        "{origin} is not the key that {file} is sealed with; give it the key that it was made with \
         (nothing was changed)",
        file = file.display()
    )]
    WrongKey {
        /// The database.
        file: PathBuf,
        /// Where the wrong key came from.
        origin: KeyOrigin,
    },
    /// The file could not be opened or read.
    #[error("failed to read {}; it must be a file that this user may read", file.display())]
    Unreadable {
        /// The database.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be made or written.
    #[error("failed to open {} for writing; it must be a file that this user may write", file.display())]
    NotWritable {
        /// The database.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no SQLite database.
    #[error(
        "{} is no SQLite database, or its beginning is damaged; move it away, or restore it from a \
         backup (nothing was changed)",
        file.display()
    )]
    NoDatabase {
        /// The file.
        file: PathBuf,
    },
    /// The database belongs to another program.
    #[error(
        "{} is the database of another program; move it away, or set another DATA_DIR (nothing was \
         changed)",
        file.display()
    )]
    Foreign {
        /// The database.
        file: PathBuf,
    },
    /// The database is damaged.
    #[error(
        "{} is damaged; keep a copy of it, and restore it from a backup or with sqlite3's .recover \
         (nothing was changed)",
        file.display()
    )]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What was found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer program was here.
    #[error(
        "the schema of {} is at version {applied}, but this program only knows {known}; run the \
         newer program (nothing was changed)",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// The newest migration that has been applied.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// Only reading was asked for, and the schema is an older one.
    #[error(
        "the schema of {} is at version {applied} of {known}; start `mikrotik-backup run`, or run \
         `mikrotik-backup migrate`, which bring it up to date",
        file.display()
    )]
    Behind {
        /// The database.
        file: PathBuf,
        /// The newest migration that has been applied.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The file system does not do what a write-ahead log needs.
    #[error(
        "the file system of {} has no shared memory, as SQLite's write-ahead log needs it (a network \
         file system?); set DATA_DIR to a directory on a local disk",
        file.display()
    )]
    NoSharedMemory {
        /// The database.
        file: PathBuf,
    },
    /// The disk is full.
    #[error("no space is left for {}; free some on its disk and start again", file.display())]
    Full {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else.
    #[error("failed to open {}", file.display())]
    Failed {
        /// The database.
        file: PathBuf,
        /// What SQLite said, and what to do about it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    fn of(error: sqlx::Error, file: &Path) -> Self {
        let at = file.to_owned();
        match error::primary_code(&error) {
            Some(code::FULL) => Self::Full {
                file: at,
                source: error.into(),
            },
            Some(code::CORRUPT | code::NOTADB) => Self::Damaged {
                file: at,
                source: error.into(),
            },
            _ => Self::Failed {
                source: error::explained(error, file),
                file: at,
            },
        }
    }

    fn of_migration(error: sqlx::migrate::MigrateError, file: &Path) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Self::of(error, file)
            }
            other => Self::Failed {
                file: file.to_owned(),
                source: other.into(),
            },
        }
    }
}
