//! Looks at the database of a `DATA_DIR` without writing: is it ours, whole, and of our time?

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::error::{self, code};
use super::open_error::OpenError;

/// "MKBP", as the first migration stores it in the header of the file.
const APPLICATION_ID: i64 = 0x4d4b_4250;

/// The first bytes of every SQLite database. <https://www.sqlite.org/fileformat2.html>
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How long a statement waits for another process, such as a shell, to end its transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Up to this size a database is looked through as a whole before it is written to, in bytes: less
/// than a second's work. In a larger one damage is found where it is read.
const CHECK_UP_TO: u64 = 64 << 20;

/// What was found in a file.
pub(super) struct Found {
    /// The newest migration that has been applied; 0 when none has.
    pub(super) applied: i64,
    pub(super) key_check: Option<Vec<u8>>,
}

impl Found {
    pub(super) fn not_newer(&self, file: &Path, known: i64) -> Result<(), OpenError> {
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
pub(super) async fn look(file: &Path, wholly: bool) -> Result<Option<Found>, OpenError> {
    let Some(size) = recognised(file)? else {
        return Ok(None);
    };
    let options = reading(file).await;
    let options = options.map_err(|error| OpenError::of(error, file))?;
    look_by(options, file, wholly && size <= CHECK_UP_TO).await
}

/// The same of a small database from end to end, without making the files beside it, which a reader
/// otherwise needs: somebody else's service could not use those of another user.
pub(super) async fn look_apart(file: &Path) -> Result<Option<Found>, OpenError> {
    let Some(size) = recognised(file)? else {
        return Ok(None);
    };
    let options = read_only(file).immutable(log_size(file) == 0);
    look_by(options, file, size <= CHECK_UP_TO).await
}

async fn look_by(
    options: SqliteConnectOptions,
    file: &Path,
    wholly: bool,
) -> Result<Option<Found>, OpenError> {
    let failed = |error| OpenError::of(error, file);
    let mut connection = options.connect().await.map_err(failed)?;
    let found = inspect(&mut connection, wholly).await;
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

pub(super) async fn key_check(connection: &mut SqliteConnection) -> sqlx::Result<Option<Vec<u8>>> {
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

pub(super) fn read_only(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// How to read `file`. Also a reader needs the files beside it, and in a directory that cannot be
/// written it cannot make them: a database that was closed properly has no log and can then be read
/// as one that nobody changes.
pub(super) async fn reading(file: &Path) -> sqlx::Result<SqliteConnectOptions> {
    let options = read_only(file);
    let mut connection = options.clone().connect().await?;
    let read = sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1")
        .execute(&mut connection)
        .await;
    let _ = connection.close().await;
    match read {
        Err(error)
            if matches!(
                error::primary_code(&error),
                Some(code::CANTOPEN | code::READONLY)
            ) && log_size(file) == 0 =>
        {
            Ok(options.immutable(true))
        }
        Err(error) => Err(error),
        Ok(_) => Ok(options),
    }
}

/// The size of the write-ahead log of `file`; 0 when there is none.
fn log_size(file: &Path) -> u64 {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(&log).map_or(0, |log| log.len())
}
