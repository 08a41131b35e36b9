//! The archive's tables in PostgreSQL.

mod statements;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::types::Json;
use sqlx::{Connection, PgPool, Postgres, Row};
use tokio::time::timeout;
use uuid::Uuid;

use super::seal::Sealed;
use super::tables::{self, Change, Seen, Tables, bind_version, read_version};
use crate::domain::Timestamp;
use crate::domain::archive::{
    Around, Content, Edit, Lines, Moment, Normalization, Position, Sighting, Version, VersionId,
};
use crate::domain::attempt::AttemptId;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::digest::Digest;
use crate::ports::Collected;

use statements::*;

/// How long one operation may take before its connection is given up: more than the server's own
/// limit per statement, so that a live server gets to say so itself.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// The archive's tables, over a pool.
pub(super) struct PostgresTables {
    pool: PgPool,
    place: String,
}

impl PostgresTables {
    pub(super) fn new(pool: PgPool) -> Self {
        let place = place(&pool);
        Self { pool, place }
    }

    async fn run<T, F>(&self, operation: F) -> sqlx::Result<T>
    where
        F: AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    {
        run(&self.pool, operation).await
    }
}

/// Where the database of `pool` is, for messages.
pub(super) fn place(pool: &PgPool) -> String {
    let options = pool.connect_options();
    match options.get_socket() {
        Some(directory) => format!("PostgreSQL at {}", directory.display()),
        None => format!(
            "PostgreSQL at {}:{}",
            options.get_host(),
            options.get_port()
        ),
    }
}

/// Runs `operation` on a connection of the pool, bounded in time.
pub(super) async fn run<T, F>(pool: &PgPool, operation: F) -> sqlx::Result<T>
where
    F: AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
{
    let mut lent = Lent(Some(pool.acquire().await?));
    let connection = lent.0.as_mut().expect("it was filled one line above");
    match timeout(OPERATION_TIMEOUT, operation(connection)).await {
        Ok(result) => {
            drop(lent.0.take());
            result
        }
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", OPERATION_TIMEOUT.as_secs()),
        ))),
    }
}

/// A connection that is closed, and not given back, unless its operation came to an end: the pool
/// would wait without limit for the rest of an answer that a dead server never sends.
struct Lent(Option<PoolConnection<Postgres>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

async fn one(
    connection: &mut PgConnection,
    sql: &'static str,
    device: DeviceId,
    position: Position,
) -> sqlx::Result<Option<Version>> {
    let row = sqlx::query(sql)
        .bind(device.0)
        .bind(position.at)
        .bind(position.attempt.0)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(version).transpose()
}

#[async_trait]
impl Tables for PostgresTables {
    fn place(&self) -> &str {
        &self.place
    }

    async fn around(&self, device: DeviceId, position: Position) -> sqlx::Result<Seen> {
        self.run(async |connection| {
            // First the generation: whatever changes after it is noticed by the change.
            let generation = sqlx::query_scalar(GENERATION)
                .bind(device.0)
                .fetch_optional(&mut *connection)
                .await?;
            let holder: Option<Uuid> = sqlx::query_scalar(HOLDER)
                .bind(position.attempt.0)
                .fetch_optional(&mut *connection)
                .await?;
            Ok(Seen {
                generation,
                holder: holder.map(DeviceId),
                around: Around {
                    known: holder.is_some(),
                    before: one(connection, BEFORE, device, position).await?,
                    after: one(connection, AFTER, device, position).await?,
                },
            })
        })
        .await
    }

    async fn change(&self, change: Change<'_>) -> sqlx::Result<bool> {
        self.run(async |connection| {
            let mut transaction = connection.begin().await?;
            let moved = match change.generation {
                None => sqlx::query(BEGIN_DEVICE).bind(change.device.0),
                Some(generation) => sqlx::query(NEXT_GENERATION)
                    .bind(change.device.0)
                    .bind(generation),
            };
            if moved.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
            for edit in change.edits {
                apply(&mut transaction, edit, change.sealed).await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn sealed(&self, id: VersionId) -> sqlx::Result<Option<(Version, Sealed)>> {
        self.run(async |connection| {
            let row = sqlx::query(SEALED)
                .bind(id.0)
                .fetch_optional(connection)
                .await?;
            let read = |row: PgRow| {
                let sealed = Sealed {
                    key_id: row.try_get("key_id")?,
                    bytes: row.try_get("sealed")?,
                };
                Ok((version(&row)?, sealed))
            };
            row.map(read).transpose()
        })
        .await
    }

    async fn page(
        &self,
        device: DeviceId,
        before: Position,
        limit: u32,
    ) -> sqlx::Result<Vec<Version>> {
        self.run(async |connection| {
            let rows = sqlx::query(PAGE)
                .bind(device.0)
                .bind(before.at)
                .bind(before.attempt.0)
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(version).collect()
        })
        .await
    }

    async fn at(&self, device: DeviceId, at: Timestamp) -> sqlx::Result<Option<Version>> {
        let position = Position {
            at,
            ..Position::END
        };
        self.run(async |connection| one(connection, BEFORE, device, position).await)
            .await
    }

    async fn newest(&self, after: Option<DeviceId>, limit: u32) -> sqlx::Result<Vec<Version>> {
        self.run(async |connection| {
            let query = match after {
                None => sqlx::query(NEWEST).bind(i64::from(limit)),
                Some(after) => sqlx::query(NEWEST_AFTER)
                    .bind(i64::from(limit))
                    .bind(after.0),
            };
            let rows = query.fetch_all(connection).await?;
            rows.iter().map(version).collect()
        })
        .await
    }

    async fn moments(&self, device: DeviceId) -> sqlx::Result<Vec<Moment>> {
        self.run(async |connection| {
            let rows: Vec<(Uuid, Timestamp)> = sqlx::query_as(MOMENTS)
                .bind(device.0)
                .fetch_all(connection)
                .await?;
            let moment = |(id, collected_at)| Moment {
                id: VersionId(id),
                collected_at,
            };
            Ok(rows.into_iter().map(moment).collect())
        })
        .await
    }

    async fn delete(&self, device: DeviceId, versions: &[VersionId]) -> sqlx::Result<u64> {
        let ids: Vec<Uuid> = versions.iter().map(|version| version.0).collect();
        self.run(async |connection| {
            let mut transaction = connection.begin().await?;
            sqlx::query(TOUCH)
                .bind(device.0)
                .execute(&mut *transaction)
                .await?;
            let contents: Vec<i64> = sqlx::query_scalar(DELETE)
                .bind(device.0)
                .bind(&ids)
                .fetch_all(&mut *transaction)
                .await?;
            sqlx::query(SUSPECT)
                .bind(&contents)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(contents.len() as u64)
        })
        .await
    }

    async fn collect(&self, batch: u32) -> sqlx::Result<Collected> {
        self.run(async |connection| {
            let mut transaction = connection.begin().await?;
            let suspects: Vec<i64> = sqlx::query_scalar(TAKE_SUSPECTS)
                .bind(i64::from(batch))
                .fetch_all(&mut *transaction)
                .await?;
            sqlx::query(LOCK_CONTENTS)
                .bind(&suspects)
                .execute(&mut *transaction)
                .await?;
            let deleted = sqlx::query(DELETE_CONTENTS)
                .bind(&suspects)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(Collected {
                examined: suspects.len() as u64,
                deleted: deleted.rows_affected(),
            })
        })
        .await
    }

    async fn last_key(&self) -> sqlx::Result<Option<(VersionId, DeviceId, String)>> {
        self.run(async |connection| {
            let row: Option<(Uuid, Uuid, String)> =
                sqlx::query_as(LAST_KEY).fetch_optional(connection).await?;
            Ok(row.map(|(version, device, key)| (VersionId(version), DeviceId(device), key)))
        })
        .await
    }
}

async fn apply(
    connection: &mut PgConnection,
    edit: &Edit,
    sealed: Option<&Sealed>,
) -> sqlx::Result<()> {
    let query = match edit {
        Edit::Insert { version, content } => {
            let content: i64 = match content {
                Content::Of(of) => {
                    sqlx::query_scalar(CONTENT_OF)
                        .bind(of.0)
                        .fetch_one(&mut *connection)
                        .await?
                }
                Content::Arrived => {
                    let sealed = sealed.ok_or_else(tables::no_text)?;
                    sqlx::query_scalar(KEEP_CONTENT)
                        .bind(version.first.hash.to_string())
                        .bind(&sealed.key_id)
                        .bind(&sealed.bytes)
                        .fetch_one(&mut *connection)
                        .await?
                }
            };
            bind_version!(sqlx::query(INSERT), version, |id: Uuid| id, |at| at).bind(content)
        }
        Edit::FirstSeen { version, position } => sqlx::query(FIRST_SEEN)
            .bind(version.0)
            .bind(position.at)
            .bind(position.attempt.0),
        Edit::LastSeen { version, seen } => sqlx::query(LAST_SEEN)
            .bind(version.0)
            .bind(seen.position.at)
            .bind(seen.position.attempt.0)
            .bind(seen.hash.to_string())
            .bind(i64::from(seen.normalization.version))
            .bind(&seen.normalization.rules)
            .bind(&seen.routeros_version)
            .bind(seen.ledger.as_ref().map(Json)),
        Edit::Recount { version, lines } => sqlx::query(RECOUNT)
            .bind(version.0)
            .bind(lines.map(|lines| i64::from(lines.added)))
            .bind(lines.map(|lines| i64::from(lines.removed))),
    };
    query.execute(connection).await.map(drop)
}

fn version(row: &PgRow) -> sqlx::Result<Version> {
    let id = |row: &PgRow, column: &str| row.try_get::<Uuid, _>(column);
    let time = |row: &PgRow, column: &str| row.try_get::<Timestamp, _>(column);
    Ok(read_version!(row, id, time))
}
