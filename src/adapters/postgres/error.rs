//! Tells a database that is away from one that refused a statement.

use crate::ports::StoreError;

/// SQLSTATE classes and codes under which nothing is wrong with the statement itself.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const AWAY: &[&str] = &[
    "08",    // connection exception
    "25006", // read-only transaction: we talk to a standby during a failover
    "40",    // serialization failure, deadlock: the statement was rolled back
    "53",    // insufficient resources, too many connections
    "55P03", // lock not available in time
    "57014", // statement timeout
    "57P",   // shutdown, crash, starting up
    "58",    // system error
];

/// Whether `error` says that the database is away, or too busy to answer.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database
            .code()
            .is_some_and(|code| AWAY.iter().any(|prefix| code.starts_with(prefix))),
        _ => false,
    }
}

/// Whether `error` says that the role lacks a right (SQLSTATE 42501).
pub(super) fn is_privilege(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(|database| database.code());
    code.as_deref() == Some("42501")
}

/// Turns a driver error into a port error.
pub(super) fn classify(operation: String, server: &str, error: sqlx::Error) -> StoreError {
    if let sqlx::Error::PoolTimedOut = error {
        // The driver's own text does not say that refused connections end like this, too.
        let text = format!(
            "no connection to PostgreSQL at {server} within {} s",
            super::ACQUIRE_TIMEOUT.as_secs()
        );
        return StoreError::Unavailable {
            operation,
            source: text.into(),
        };
    }
    if is_away(&error) {
        StoreError::Unavailable {
            operation,
            source: error.into(),
        }
    } else {
        StoreError::Failed {
            operation,
            source: error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_errors_are_sorted() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(is_away(&sqlx::Error::Io(io)));
        assert!(is_away(&sqlx::Error::PoolClosed));
        assert!(!is_away(&sqlx::Error::RowNotFound));
    }

    #[test]
    fn pool_timeout_names_the_server() {
        let error = classify(
            "load devices".into(),
            "192.0.2.5:5432",
            sqlx::Error::PoolTimedOut,
        );
        let chain = crate::domain::failure::chain(&error);
        assert!(
            chain.contains("load devices") && chain.contains("192.0.2.5:5432"),
            "{chain}"
        );
    }
}
