//! Tells a database that cannot be used just now from one that refused a statement.

use std::error::Error as StdError;
use std::path::Path;

use crate::ports::StoreError;

/// Primary result codes of SQLite. <https://www.sqlite.org/rescode.html>
pub(super) mod code {
    pub(in super::super) const BUSY: i32 = 5;
    pub(in super::super) const LOCKED: i32 = 6;
    pub(in super::super) const NOMEM: i32 = 7;
    pub(in super::super) const READONLY: i32 = 8;
    pub(in super::super) const IOERR: i32 = 10;
    pub(in super::super) const CORRUPT: i32 = 11;
    pub(in super::super) const FULL: i32 = 13;
    pub(in super::super) const CANTOPEN: i32 = 14;
    pub(in super::super) const NOTADB: i32 = 26;
}

/// The result code of the shared memory file that could not grow.
const IOERR_SHMSIZE: i32 = code::IOERR | (19 << 8);

/// Whether `error`, or what it comes from, is SQLite's word that its file is damaged.
pub fn is_damage(error: &(dyn StdError + 'static)) -> bool {
    let damage = error.downcast_ref::<sqlx::Error>().is_some_and(|error| {
        let code = primary_code(error);
        matches!(code, Some(code::CORRUPT | code::NOTADB))
    });
    damage || error.source().is_some_and(is_damage)
}

/// The extended result code of `error`, if it comes from SQLite.
fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// The primary result code of `error`, if it comes from SQLite: the low byte of the extended one.
/// A shared memory file that cannot grow is a full disk, too.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|extended| match extended {
        IOERR_SHMSIZE => code::FULL,
        _ => extended & 0xff,
    })
}

/// What an operator can do about `error`, where the code tells.
fn remedy(error: &sqlx::Error, file: &Path) -> Option<String> {
    let file = file.display();
    Some(match primary_code(error)? {
        code::FULL => format!("the disk of {file} is full; free some space on it"),
        code::BUSY | code::LOCKED => format!(
            "another process holds {file} for longer than we wait; end its transaction (an open \
             sqlite3 shell?)"
        ),
        code::READONLY => format!("{file} cannot be written; check its permissions and mount"),
        code::IOERR => format!("the disk of {file} reports an error, or is full; look at it"),
        code::CANTOPEN => format!("{file} cannot be opened; check its permissions and mount"),
        code::CORRUPT | code::NOTADB => format!(
            "{file} is damaged; stop the service, keep a copy of the file, and restore it from a \
             backup or with sqlite3's .recover"
        ),
        _ => return None,
    })
}

/// Turns a driver error into a port error.
pub(super) fn classify(operation: String, file: &Path, error: sqlx::Error) -> StoreError {
    let away = match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => matches!(
            primary_code(&error),
            Some(
                code::BUSY
                    | code::LOCKED
                    | code::NOMEM
                    | code::READONLY
                    | code::IOERR
                    | code::FULL
                    | code::CANTOPEN
            )
        ),
    };
    let source = explained(error, file);
    if away {
        StoreError::Unavailable { operation, source }
    } else {
        StoreError::Failed { operation, source }
    }
}

/// `error`, behind what an operator can do about it.
pub(super) fn explained(error: sqlx::Error, file: &Path) -> Box<dyn StdError + Send + Sync> {
    match remedy(&error, file) {
        Some(remedy) => Box::new(Explained {
            remedy,
            source: error,
        }),
        None => error.into(),
    }
}

/// A write was asked of a store that was opened for reading only.
pub(super) fn reading_only(operation: String, file: &Path) -> StoreError {
    StoreError::Failed {
        operation,
        source: format!("{} was opened for reading only", file.display()).into(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{remedy}")]
struct Explained {
    remedy: String,
    source: sqlx::Error,
}
