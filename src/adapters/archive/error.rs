//! Tells a database that is away, full or busy from one that refused a statement.

use crate::ports::ArchiveError;

/// PostgreSQL's SQLSTATE classes and codes under which nothing is wrong with the statement.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const POSTGRES_AWAY: &[&str] = &[
    "08",    // connection exception
    "25006", // read-only transaction: we talk to a standby during a failover
    "40",    // serialization failure, deadlock: the transaction was rolled back
    "53",    // insufficient resources: connections, memory, disk
    "55P03", // lock not available in time
    "57014", // statement timeout
    "57P",   // shutdown, crash, starting up
    "58",    // system error
];

/// SQLite's primary result codes of the same kind.
/// <https://www.sqlite.org/rescode.html>
const SQLITE_AWAY: &[u32] = &[
    5,  // SQLITE_BUSY: another process writes
    6,  // SQLITE_LOCKED
    7,  // SQLITE_NOMEM
    8,  // SQLITE_READONLY
    10, // SQLITE_IOERR
    13, // SQLITE_FULL
    14, // SQLITE_CANTOPEN
];

fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if database
                .try_downcast_ref::<sqlx::sqlite::SqliteError>()
                .is_some()
            {
                // The extended code has the primary one in its low byte.
                let code: Option<u32> = code.parse().ok();
                code.is_some_and(|code| SQLITE_AWAY.contains(&(code & 0xff)))
            } else {
                POSTGRES_AWAY.iter().any(|prefix| code.starts_with(prefix))
            }
        }
        _ => false,
    }
}

/// Turns a driver error into a port error; `place` says where the database is.
pub(super) fn classify(operation: String, place: &str, error: sqlx::Error) -> ArchiveError {
    if let sqlx::Error::PoolTimedOut = error {
        // The driver's own text does not say that refused connections end like this, too.
        return ArchiveError::Unavailable {
            operation,
            source: format!("no connection to {place} in time").into(),
        };
    }
    let source = Box::new(error);
    if is_away(&source) {
        ArchiveError::Unavailable { operation, source }
    } else {
        ArchiveError::Failed { operation, source }
    }
}
