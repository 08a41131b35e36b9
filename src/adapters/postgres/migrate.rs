//! Brings the schema up to date, and says what is missing when the role may not.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokio::time::timeout;
use tracing::info;

use super::rights::{Owners, Rights};
use super::{PostgresStore, error};
use crate::ports::StoreError;

/// "mikrotik" in ASCII. Replicas that start together take turns by it; the platform's own
/// migrations, which may well use sqlx too, do not wait for it.
const ADVISORY_LOCK: i64 = i64::from_be_bytes(*b"mikrotik");

/// How long to wait for the connection that migrates.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the schema stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemaState {
    /// Nothing to do.
    Current,
    /// Some migrations have not been applied.
    Behind {
        /// The newest one that has been; 0 when none has.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// No migration has ever been applied.
    Missing,
    /// A newer program was here.
    Newer {
        /// The newest one that has been applied.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
}

impl fmt::Display for SchemaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Behind { applied, known } => write!(f, "version {applied} of {known}"),
            Self::Missing => f.write_str("not there yet"),
            Self::Newer { applied, known } => write!(f, "version {applied}, newer than {known}"),
        }
    }
}

/// What [`PostgresStore::migrate`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// How many migrations were applied.
    pub applied: usize,
    /// Why edits are only found by the period, if the triggers could not be installed.
    pub hints_missing: Option<String>,
}

/// The schema could not be read or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database is away.
    #[error("failed to {operation}: the database is away")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// What the driver said.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The role lacks a right.
    #[error("database role {role:?} may not {action}; {remedy}")]
    Privilege {
        /// The role of `DATABASE_URL`.
        role: String,
        /// What it may not do.
        action: String,
        /// Which grant it needs, or what else to do.
        remedy: String,
    },
    /// It is behind, and `MIGRATE_ON_START` is off.
    #[error(
        "the database schema is not up to date ({state}) and MIGRATE_ON_START is false; run \
         `mikrotik-backup migrate` as the schema's owner"
    )]
    Off {
        /// Where it stands.
        state: SchemaState,
    },
    /// A newer program was here.
    #[error(
        "the database schema is at version {applied}, but this program only knows {known}; run the \
         newer program"
    )]
    Newer {
        /// The newest migration that has been applied.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The database refused.
    #[error("failed to {operation}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// What the database said.
        source: Box<dyn StdError + Send + Sync>,
    },
}

pub(super) const READ: &str = "read the version of the database schema";
pub(super) const APPLY: &str = "bring the database schema up to date";

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations/postgres");
    migrator.dangerous_set_table_name("mikrotik_backup._sqlx_migrations");
    migrator.set_locking(false); // Ours is taken before the schema exists.
    migrator
}

impl PostgresStore {
    /// Where the schema stands; reads only.
    ///
    /// # Errors
    /// [`MigrateError::Unavailable`], or [`MigrateError::Privilege`] when the role may not even
    /// look.
    pub async fn schema_state(&self) -> Result<SchemaState, MigrateError> {
        let result = self
            .run(
                || READ.into(),
                async |connection| Ok(state(connection).await),
            )
            .await;
        match result {
            Ok(state) => state,
            Err(StoreError::Unavailable { source, .. }) => Err(MigrateError::Unavailable {
                operation: READ,
                source,
            }),
            Err(other) => Err(MigrateError::Failed {
                operation: READ,
                source: other.into(),
            }),
        }
    }

    /// Brings the schema up to date. Any number of processes may do so at once. Also installs the
    /// triggers that hint at edits, if they are not there and the role may.
    ///
    /// # Errors
    /// [`MigrateError`]; nothing is half done, each migration is one transaction.
    pub async fn migrate(&self) -> Result<Migrated, MigrateError> {
        // A connection of its own: ending it also ends the lock, whatever happens here.
        let mut connection = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|elapsed| MigrateError::Unavailable {
                operation: APPLY,
                source: elapsed.into(),
            })?
            .map_err(|error| failed(APPLY, error))?;
        let migrated = apply(&mut connection).await?;
        let _ = connection.close().await;
        if let Some(reason) = &migrated.hints_missing {
            info!(%reason, "Edits are only found by the period: the role may not install triggers");
        }
        Ok(migrated)
    }
}

async fn apply(connection: &mut PgConnection) -> Result<Migrated, MigrateError> {
    let sql = |error| failed(APPLY, error);
    connection
        .execute("SET lock_timeout = '5min'; SET statement_timeout = 0")
        .await
        .map_err(sql)?;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(ADVISORY_LOCK)
        .execute(&mut *connection)
        .await
        .map_err(sql)?;
    let rights = Rights::read(connection).await?;
    if rights.sees_nothing() {
        let owners = Owners::read(connection).await?;
        return Err(rights.blind(&owners));
    }
    let before = match state(connection).await? {
        SchemaState::Newer { applied, known } => {
            return Err(MigrateError::Newer { applied, known });
        }
        SchemaState::Current => None,
        SchemaState::Missing => Some(0),
        SchemaState::Behind { applied, .. } => Some(applied),
    };
    let mut migrated = Migrated {
        applied: 0,
        hints_missing: None,
    };
    if let Some(before) = before {
        let owners = Owners::read(connection).await?;
        rights.may_change(&owners)?;
        if !rights.schema_exists {
            connection
                .execute("CREATE SCHEMA mikrotik_backup")
                .await
                .map_err(sql)?;
        }
        let migrator = migrator();
        let result = migrator.run_direct(None, &mut *connection, false).await;
        result.map_err(|error| rights.explain(error))?;
        migrated.applied = migrator
            .iter()
            .filter(|migration| migration.version > before)
            .count();
    }
    let rights = Rights::read(connection).await?;
    if rights.use_schema {
        migrated.hints_missing =
            sqlx::query_scalar("SELECT mikrotik_backup.install_change_hints()")
                .fetch_one(&mut *connection)
                .await
                .map_err(sql)?;
    }
    Ok(migrated)
}

/// Reads the state as the role sees it.
async fn state(connection: &mut PgConnection) -> Result<SchemaState, MigrateError> {
    let rights = Rights::read(connection).await?;
    if !rights.schema_exists || !rights.table_exists {
        return Ok(SchemaState::Missing);
    }
    if rights.sees_nothing() {
        return Err(rights.lacks(
            "read mikrotik_backup._sqlx_migrations",
            format!("as its owner: {}", rights.sight()),
        ));
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM mikrotik_backup._sqlx_migrations WHERE success")
            .fetch_all(connection)
            .await
            .map_err(|error| failed(READ, error))?;
    Ok(compare(
        &applied.into_iter().collect(),
        &migrator()
            .iter()
            .map(|migration| migration.version)
            .collect(),
    ))
}

fn compare(applied: &BTreeSet<i64>, known: &BTreeSet<i64>) -> SchemaState {
    let newest = |versions: &BTreeSet<i64>| versions.last().copied().unwrap_or(0);
    let (last_applied, last_known) = (newest(applied), newest(known));
    if last_applied > last_known {
        SchemaState::Newer {
            applied: last_applied,
            known: last_known,
        }
    } else if applied.is_superset(known) {
        SchemaState::Current
    } else {
        SchemaState::Behind {
            applied: last_applied,
            known: last_known,
        }
    }
}

pub(super) fn failed(operation: &'static str, error: sqlx::Error) -> MigrateError {
    let source = Box::new(error);
    if error::is_away(&source) {
        MigrateError::Unavailable { operation, source }
    } else {
        MigrateError::Failed { operation, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(versions: &[i64]) -> BTreeSet<i64> {
        versions.iter().copied().collect()
    }

    #[test]
    fn versions_are_compared() {
        let known = set(&[1, 2, 3]);
        assert_eq!(compare(&set(&[1, 2, 3]), &known), SchemaState::Current);
        assert_eq!(
            compare(&set(&[]), &known),
            SchemaState::Behind {
                applied: 0,
                known: 3
            }
        );
        assert_eq!(
            compare(&set(&[1, 3]), &known),
            SchemaState::Behind {
                applied: 3,
                known: 3
            }
        );
        assert_eq!(
            compare(&set(&[1, 2, 3, 4]), &known),
            SchemaState::Newer {
                applied: 4,
                known: 3
            }
        );
    }
}
