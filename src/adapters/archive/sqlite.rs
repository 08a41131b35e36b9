//! The archive's tables in SQLite: the statements of PostgreSQL, without what only several writers
//! at once need.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{Row, Sqlite, SqlitePool, Transaction};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{PrimitiveDateTime, UtcOffset};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::seal::Sealed;
use super::tables::{self, Change, Seen, Tables, bind_version, read_version, version_columns};
use crate::domain::Timestamp;
use crate::domain::archive::{
    Around, Content, Edit, Lines, Moment, Normalization, Position, Sighting, Version, VersionId,
};
use crate::domain::attempt::AttemptId;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::digest::Digest;
use crate::ports::Collected;

/// Times as text that sorts as it reads.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Taking the write lock at once, a writer waits for its turn; taking it later, it might have to
/// give up because another one wrote meanwhile.
const BEGIN: &str = "BEGIN IMMEDIATE";

const GENERATION: &str = "SELECT generation FROM archive_devices WHERE device_id = ?1";

const HOLDER: &str = "SELECT device_id FROM archive_versions WHERE id = ?1";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            version_columns!(),
            " FROM archive_versions ",
            $rest
        )
    };
}

const PAGE: &str = select!(
    "WHERE device_id = ?1 AND (collected_at, attempt_id) < (?2, ?3) \
     ORDER BY collected_at DESC, attempt_id DESC LIMIT ?4"
);

const BEFORE: &str = select!(
    "WHERE device_id = ?1 AND (collected_at, attempt_id) <= (?2, ?3) \
     ORDER BY collected_at DESC, attempt_id DESC LIMIT 1"
);

const AFTER: &str = select!(
    "WHERE device_id = ?1 AND (collected_at, attempt_id) > (?2, ?3) \
     ORDER BY collected_at, attempt_id LIMIT 1"
);

const SEALED: &str = concat!(
    "SELECT ",
    version_columns!(),
    ", key_id, sealed FROM archive_versions AS v \
     JOIN (SELECT id AS content, key_id, sealed FROM archive_contents) AS c \
     ON c.content = v.content_id WHERE v.id = ?1"
);

macro_rules! newest {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            version_columns!(),
            " FROM archive_versions WHERE id IN (SELECT ( \
                 SELECT v.id FROM archive_versions AS v WHERE v.device_id = d.device_id \
                 ORDER BY v.collected_at DESC, v.attempt_id DESC LIMIT 1) \
             FROM archive_devices AS d ",
            $condition,
            " ORDER BY d.device_id LIMIT ?1) ORDER BY device_id"
        )
    };
}

const NEWEST: &str = newest!("");
const NEWEST_AFTER: &str = newest!("WHERE d.device_id > ?2");

const MOMENTS: &str = "SELECT id, collected_at FROM archive_versions \
     WHERE device_id = ?1 ORDER BY collected_at, attempt_id";

const BEGIN_DEVICE: &str = "INSERT INTO archive_devices (device_id, generation) VALUES (?1, 1) \
     ON CONFLICT (device_id) DO NOTHING";

const NEXT_GENERATION: &str = "UPDATE archive_devices SET generation = generation + 1 \
     WHERE device_id = ?1 AND generation = ?2";

const TOUCH: &str = "UPDATE archive_devices SET generation = generation + 1 WHERE device_id = ?1";

const KEEP_CONTENT: &str = "INSERT INTO archive_contents (sha256_hash, key_id, sealed) \
     VALUES (?1, ?2, ?3) ON CONFLICT (sha256_hash, key_id) DO UPDATE SET stored_at = stored_at \
     RETURNING id";

const CONTENT_OF: &str = "SELECT content_id FROM archive_versions WHERE id = ?1";

const INSERT: &str = concat!(
    "INSERT INTO archive_versions (",
    version_columns!(),
    ", content_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
);

const FIRST_SEEN: &str =
    "UPDATE archive_versions SET collected_at = ?2, attempt_id = ?3 WHERE id = ?1";

const LAST_SEEN: &str = "UPDATE archive_versions SET last_seen_at = ?2, last_seen_attempt_id = ?3, \
     last_sha256_hash = ?4, last_normalization_version = ?5, last_normalization_rules = ?6, \
     last_routeros_version = ?7, last_ledger = ?8 WHERE id = ?1";

const RECOUNT: &str =
    "UPDATE archive_versions SET lines_added = ?2, lines_removed = ?3 WHERE id = ?1";

/// The list of ids is one JSON array: there may be more of them than variables in a statement.
const DELETE: &str = "DELETE FROM archive_versions \
     WHERE device_id = ?1 AND id IN (SELECT value FROM json_each(?2)) AND id <> ( \
         SELECT id FROM archive_versions WHERE device_id = ?1 \
         ORDER BY collected_at DESC, attempt_id DESC LIMIT 1) \
     RETURNING content_id";

const SUSPECT: &str = "INSERT INTO archive_unreferenced (content_id) \
     SELECT value FROM json_each(?1) WHERE true ON CONFLICT (content_id) DO NOTHING";

const TAKE_SUSPECTS: &str = "DELETE FROM archive_unreferenced WHERE content_id IN ( \
         SELECT content_id FROM archive_unreferenced ORDER BY content_id LIMIT ?1) \
     RETURNING content_id";

const DELETE_CONTENTS: &str = "DELETE FROM archive_contents \
     WHERE id IN (SELECT value FROM json_each(?1)) AND NOT EXISTS ( \
         SELECT 1 FROM archive_versions AS v WHERE v.content_id = archive_contents.id)";

const LAST_KEY: &str = "SELECT v.id, v.device_id, c.key_id FROM archive_contents AS c \
     JOIN archive_versions AS v ON v.content_id = c.id ORDER BY c.id DESC LIMIT 1";

/// The archive's tables, over a pool.
pub(super) struct SqliteTables {
    pool: SqlitePool,
    place: String,
}

impl SqliteTables {
    pub(super) fn new(pool: SqlitePool) -> Self {
        let file = pool.connect_options().get_filename().display().to_string();
        Self {
            pool,
            place: format!("SQLite file {file}"),
        }
    }

    async fn begin(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with(BEGIN).await
    }

    async fn one(
        &self,
        sql: &'static str,
        device: DeviceId,
        position: Position,
    ) -> sqlx::Result<Option<Version>> {
        let row = sqlx::query(sql)
            .bind(id(device.0))
            .bind(written(position.at)?)
            .bind(id(position.attempt.0))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(version).transpose()
    }
}

#[async_trait]
impl Tables for SqliteTables {
    fn place(&self) -> &str {
        &self.place
    }

    async fn around(&self, device: DeviceId, position: Position) -> sqlx::Result<Seen> {
        // First the generation: whatever changes after it is noticed by the change.
        let generation = sqlx::query_scalar(GENERATION)
            .bind(id(device.0))
            .fetch_optional(&self.pool)
            .await?;
        let holder: Option<Hyphenated> = sqlx::query_scalar(HOLDER)
            .bind(id(position.attempt.0))
            .fetch_optional(&self.pool)
            .await?;
        Ok(Seen {
            generation,
            holder: holder.map(|id| DeviceId(id.into_uuid())),
            around: Around {
                known: holder.is_some(),
                before: self.one(BEFORE, device, position).await?,
                after: self.one(AFTER, device, position).await?,
            },
        })
    }

    async fn change(&self, change: Change<'_>) -> sqlx::Result<bool> {
        let mut transaction = self.begin().await?;
        let moved = match change.generation {
            None => sqlx::query(BEGIN_DEVICE).bind(id(change.device.0)),
            Some(generation) => sqlx::query(NEXT_GENERATION)
                .bind(id(change.device.0))
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
    }

    async fn sealed(&self, version_id: VersionId) -> sqlx::Result<Option<(Version, Sealed)>> {
        let row = sqlx::query(SEALED)
            .bind(id(version_id.0))
            .fetch_optional(&self.pool)
            .await?;
        let read = |row: SqliteRow| {
            let sealed = Sealed {
                key_id: row.try_get("key_id")?,
                bytes: row.try_get("sealed")?,
            };
            Ok((version(&row)?, sealed))
        };
        row.map(read).transpose()
    }

    async fn page(
        &self,
        device: DeviceId,
        before: Position,
        limit: u32,
    ) -> sqlx::Result<Vec<Version>> {
        let rows = sqlx::query(PAGE)
            .bind(id(device.0))
            .bind(written(before.at)?)
            .bind(id(before.attempt.0))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(version).collect()
    }

    async fn at(&self, device: DeviceId, at: Timestamp) -> sqlx::Result<Option<Version>> {
        let position = Position {
            at,
            ..Position::END
        };
        self.one(BEFORE, device, position).await
    }

    async fn newest(&self, after: Option<DeviceId>, limit: u32) -> sqlx::Result<Vec<Version>> {
        let query = match after {
            None => sqlx::query(NEWEST).bind(i64::from(limit)),
            Some(after) => sqlx::query(NEWEST_AFTER)
                .bind(i64::from(limit))
                .bind(id(after.0)),
        };
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(version).collect()
    }

    async fn moments(&self, device: DeviceId) -> sqlx::Result<Vec<Moment>> {
        let rows = sqlx::query(MOMENTS)
            .bind(id(device.0))
            .fetch_all(&self.pool)
            .await?;
        let moment = |row: &SqliteRow| {
            Ok(Moment {
                id: VersionId(read_id(row, "id")?),
                collected_at: read_time(row, "collected_at")?,
            })
        };
        rows.iter().map(moment).collect()
    }

    async fn delete(&self, device: DeviceId, versions: &[VersionId]) -> sqlx::Result<u64> {
        let ids: Vec<String> = versions.iter().map(|version| id(version.0)).collect();
        let mut transaction = self.begin().await?;
        sqlx::query(TOUCH)
            .bind(id(device.0))
            .execute(&mut *transaction)
            .await?;
        let contents: Vec<i64> = sqlx::query_scalar(DELETE)
            .bind(id(device.0))
            .bind(Json(ids))
            .fetch_all(&mut *transaction)
            .await?;
        sqlx::query(SUSPECT)
            .bind(Json(&contents))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(contents.len() as u64)
    }

    async fn collect(&self, batch: u32) -> sqlx::Result<Collected> {
        let mut transaction = self.begin().await?;
        let suspects: Vec<i64> = sqlx::query_scalar(TAKE_SUSPECTS)
            .bind(i64::from(batch))
            .fetch_all(&mut *transaction)
            .await?;
        let deleted = sqlx::query(DELETE_CONTENTS)
            .bind(Json(&suspects))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Collected {
            examined: suspects.len() as u64,
            deleted: deleted.rows_affected(),
        })
    }

    async fn last_key(&self) -> sqlx::Result<Option<(VersionId, DeviceId, String)>> {
        let row = sqlx::query(LAST_KEY).fetch_optional(&self.pool).await?;
        let read = |row: SqliteRow| {
            Ok((
                VersionId(read_id(&row, "id")?),
                DeviceId(read_id(&row, "device_id")?),
                row.try_get("key_id")?,
            ))
        };
        row.map(read).transpose()
    }
}

async fn apply(
    connection: &mut SqliteConnection,
    edit: &Edit,
    sealed: Option<&Sealed>,
) -> sqlx::Result<()> {
    let query = match edit {
        Edit::Insert { version, content } => {
            let content: i64 = match content {
                Content::Of(of) => {
                    sqlx::query_scalar(CONTENT_OF)
                        .bind(id(of.0))
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
            let times = [version.first.position.at, version.last.position.at];
            let [first, last] = times.map(written);
            let (first, last) = (first?, last?);
            let time = |at| if at == times[0] { &first } else { &last };
            bind_version!(sqlx::query(INSERT), version, id, time).bind(content)
        }
        Edit::FirstSeen { version, position } => sqlx::query(FIRST_SEEN)
            .bind(id(version.0))
            .bind(written(position.at)?)
            .bind(id(position.attempt.0)),
        Edit::LastSeen { version, seen } => sqlx::query(LAST_SEEN)
            .bind(id(version.0))
            .bind(written(seen.position.at)?)
            .bind(id(seen.position.attempt.0))
            .bind(seen.hash.to_string())
            .bind(i64::from(seen.normalization.version))
            .bind(&seen.normalization.rules)
            .bind(&seen.routeros_version)
            .bind(seen.ledger.as_ref().map(Json)),
        Edit::Recount { version, lines } => sqlx::query(RECOUNT)
            .bind(id(version.0))
            .bind(lines.map(|lines| i64::from(lines.added)))
            .bind(lines.map(|lines| i64::from(lines.removed))),
    };
    query.execute(connection).await.map(drop)
}

fn version(row: &SqliteRow) -> sqlx::Result<Version> {
    Ok(read_version!(row, read_id, read_time))
}

fn id(id: Uuid) -> String {
    id.hyphenated().to_string()
}

fn read_id(row: &SqliteRow, column: &'static str) -> sqlx::Result<Uuid> {
    Ok(row.try_get::<Hyphenated, _>(column)?.into_uuid())
}

fn written(at: Timestamp) -> sqlx::Result<String> {
    let text = at.to_offset(UtcOffset::UTC).format(TIME);
    text.map_err(|error| sqlx::Error::Encode(error.into()))
}

fn read_time(row: &SqliteRow, column: &'static str) -> sqlx::Result<Timestamp> {
    let parsed = PrimitiveDateTime::parse(row.try_get(column)?, TIME);
    Ok(parsed.map_err(|_| tables::unreadable(column))?.assume_utc())
}
